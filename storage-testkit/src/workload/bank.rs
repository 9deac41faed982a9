use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use storage_core::{Entry, Expected, Key, ReadOptions, Result, Store, StoreExt, Txn};

use super::{
    Breach, Client, Handle, Invariant, Workload,
    client::{Ended, key, number},
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
    acknowledged: i64,
    unknown: i64,
    breaches: Breaches,
}

/// So many accounts, which together with the number of transfers fit one read of any store.
const ACCOUNTS: usize = 6;

/// What each account has at first.
const DEPOSIT: i64 = 100;

const TOTAL: &str = "total constant";
const POSITIVE: &str = "no debt";
const COUNTED: &str = "transfers counted";

impl Bank {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at balances that were all there at one moment.
    fn look(&self, when: &str, entries: &[Option<Entry>]) {
        let balances: Vec<i64> =
            entries.iter().take(ACCOUNTS).map(|entry| number(entry.as_ref()).unwrap_or(0)).collect();
        let expected = i64::try_from(ACCOUNTS).unwrap_or(i64::MAX).saturating_mul(DEPOSIT);
        let total: i64 = balances.iter().sum();
        let mut book = self.book();
        if total != expected {
            book.breaches.note(TOTAL, format!("{when}: {balances:?} are {total}, not {expected}"));
        }
        if balances.iter().any(|balance| *balance < 0) {
            book.breaches.note(POSITIVE, format!("{when}: {balances:?}"));
        }
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
            self.look(&format!("client {} after {:?}", client.number, client.began.elapsed()), &entries);
        }
    }
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

    fn invariants(&self) -> &'static [Invariant] {
        &[
            Invariant { name: TOTAL, says: "what is in all accounts together is the same in every read" },
            Invariant { name: POSITIVE, says: "no account is below zero, in any read" },
            Invariant {
                name: COUNTED,
                says: "the number of transfers is that of the acknowledged ones, or more by some of the unknown ones",
            },
        ]
    }

    async fn prepare(&self, store: &Handle) -> Result<()> {
        for account in keys().iter().take(ACCOUNTS) {
            store.put(account, DEPOSIT.to_string()).await?;
        }
        Ok(())
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
        let numbers: Vec<i64> = entries.iter().map(|entry| number(entry.as_ref()).unwrap_or(0)).collect();
        let &[has, gets, transfers] = numbers.as_slice() else { return };
        let amount = client.rng.i64(1..=10);
        if has < amount {
            return;
        }
        let after = [has - amount, gets + amount, transfers + 1];
        let txn = chosen.iter().zip(&entries).zip(after).fold(Txn::new(), |txn, ((key, entry), after)| {
            let expected = entry.as_ref().map_or(Expected::Absent, |entry| Expected::Version(entry.version));
            txn.guard(key.clone(), expected).put(key.clone(), after.to_string())
        });
        match Ended::from(&client.commit(txn).await) {
            Ended::Applied => self.book().acknowledged += 1,
            Ended::Unknown => self.book().unknown += 1,
            Ended::NotApplied => {}
        }
    }

    async fn last_step(&self, client: &mut Client) {
        self.audit(client).await;
    }

    async fn verify(&self, store: &Handle) -> Result<Vec<Breach>> {
        let entries = store.get_many(&keys(), ReadOptions::default()).await?;
        self.look("at the end", &entries);
        let transfers = number(entries.last().and_then(Option::as_ref)).unwrap_or(0);
        let book = self.book();
        let mut breaches = book.breaches.found();
        if !(book.acknowledged..=book.acknowledged + book.unknown).contains(&transfers) {
            let what = format!("{transfers} after {} acknowledged and {} unknown", book.acknowledged, book.unknown);
            breaches.push(Breach::new(COUNTED, what));
        }
        Ok(breaches)
    }
}
