//! Transfers between accounts in transactions of three keys.
//!
//! Invariants that it checks: what is in all accounts is the same in every read. Transfers are those that were
//! acknowledged, or some unknown more.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use storage_core::{Entry, Expected, Key, Store, Txn};

use super::{
    Breach, Client, Workload,
    client::{Ended, Tally, key, number},
    report::Breaches,
};

/// Transfers between accounts by transactions of three keys: both accounts, and the number of transfers. What is in all
/// accounts together never changes, in no read.
#[derive(Debug, Default)]
pub struct Bank {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    transfers: Tally,
    breaches: Breaches,
}

/// So many accounts, which together with the number of transfers fit one read of any store.
const ACCOUNTS: usize = 6;

/// What each account has at first.
const DEPOSIT: u64 = 100;

/// What is in all accounts together is the same in every read.
const TOTAL: &str = "total constant";

/// The number of transfers is that of the acknowledged ones, or more by some of the unknown ones.
const COUNTED: &str = "transfers counted";

impl Bank {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at balances that were all there at one moment.
    fn look(&self, when: &str, entries: &[Option<Entry>]) {
        let balances: Vec<_> = entries.iter().take(ACCOUNTS).map(|entry| number(entry.as_ref()).unwrap_or(0)).collect();
        let (total, expected) = (balances.iter().sum::<u64>(), ACCOUNTS as u64 * DEPOSIT);
        if total != expected && !is_new(entries) {
            self.book().breaches.note(TOTAL, format!("{when}: {balances:?} are {total}, not {expected}"));
        }
    }

    /// Opens all accounts at once, unless somebody has.
    async fn open(&self, client: &Client) {
        let txn = keys().into_iter().take(ACCOUNTS).fold(Txn::new(), |txn, account| {
            txn.guard(account.clone(), Expected::Absent).put(account, DEPOSIT.to_string())
        });
        // Whatever became of it, the next step sees.
        let _ = client.commit(txn).await;
    }

    /// Reads all accounts at one moment: as the store can, or by a transaction that changes nothing.
    async fn audit(&self, client: &Client) {
        let keys = keys();
        let Some(entries) = client.get_many(&keys).await else { return };
        let at_once = client.store.capabilities().atomic_get_many || {
            let unchanged = keys.iter().zip(&entries).fold(Txn::new(), |txn, (key, entry)| {
                txn.guard(key.clone(), entry.as_ref().map_or(Expected::Absent, |e| Expected::Version(e.version)))
            });
            client.commit(unchanged).await.is_ok_and(|outcome| outcome.is_committed())
        };
        if at_once {
            self.look(&format!("client {} after {:?}", client.number, client.now()), &entries);
        }
    }
}

/// Whether no account has been opened yet.
fn is_new(entries: &[Option<Entry>]) -> bool {
    entries.iter().all(Option::is_none)
}

/// The accounts, and last the number of transfers.
fn keys() -> Vec<Key> {
    (0..ACCOUNTS).map(|account| key(format!("bank/{account}"))).chain([key("bank/transfers")]).collect()
}

#[async_trait]
impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    async fn step(&self, client: &mut Client) {
        if client.rng.u32(..3) == 0 {
            return self.audit(client).await;
        }
        let from = client.rng.usize(..ACCOUNTS);
        let to = (from + client.rng.usize(1..ACCOUNTS)) % ACCOUNTS;
        let all = keys();
        let chosen: Vec<Key> = [from, to, ACCOUNTS].iter().filter_map(|place| all.get(*place).cloned()).collect();
        let Some(entries) = client.get_many(&chosen).await else { return };
        if is_new(&entries) {
            return self.open(client).await;
        }
        let numbers: Vec<u64> = entries.iter().map(|entry| number(entry.as_ref()).unwrap_or(0)).collect();
        let &[has, gets, transfers] = numbers.as_slice() else { return };
        let amount = client.rng.u64(1..=10);
        let Some(left) = has.checked_sub(amount) else { return };
        let after = [left, gets + amount, transfers + 1];
        let txn = chosen.iter().zip(&entries).zip(after).fold(Txn::new(), |txn, ((key, entry), after)| {
            let expected = entry.as_ref().map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            txn.guard(key.clone(), expected).put(key.clone(), after.to_string())
        });
        self.book().transfers.sent();
        let ended = Ended::from(&client.commit(txn).await);
        self.book().transfers.ended(ended);
    }

    async fn last_step(&self, client: &mut Client) {
        self.audit(client).await;
    }

    fn keys(&self) -> Vec<Key> {
        keys()
    }

    fn judge(&self, last: &[Option<Entry>]) -> Vec<Breach> {
        self.look("at the end", last);
        let found = number(last.last().and_then(Option::as_ref)).unwrap_or(0);
        let book = self.book();
        let mut breaches = book.breaches.found();
        if !book.transfers.explains(found) {
            breaches.push(Breach::new(COUNTED, format!("{found} after {} transfers", book.transfers)));
        }
        breaches
    }
}
