//! What was signed at one channel and what people were told, and whether the money agrees with it.
//!
//! Invariants that it checks: a payment is served once at the most; one that was acknowledged is claimed. One that was
//! always refused is not charged. Claims and what is left are the deposit. A payment in doubt may have gone either way.

use std::{collections::BTreeMap, fmt};

use bench::PRICE;
use payment_channels::{Claim, Usage, UsageChange};
use serde::{Deserialize, Serialize};
use storage::channel::{Amount, ChannelId};

/// A payment of one channel: its nonce and its amount.
pub(super) type PaymentName = (u64, u64);

/// What was signed at one channel and what people were told, kept outside of the store.
#[derive(Debug, Default)]
pub(super) struct Book {
    payments: BTreeMap<PaymentName, Fate>,
    /// Planned, used and refunded.
    usage: [Changes; 3],
    /// Answers that no client may get.
    impossible: Vec<String>,
}

/// So many impossible answers are kept of each channel: one is evidence enough.
const MAX_IMPOSSIBLE: usize = 10;

/// What became of one payment. It may be sent more than once, on purpose or after a reply was lost.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// How often a replica gave the call for it.
    served: u32,
    /// How often the client was told so.
    acknowledged: u32,
    /// How often nobody knew.
    doubts: u32,
}

/// Changes of one prepaid amount.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    counted: u64,
    in_doubt: u64,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The channel, in decimal.
    pub channel: String,
    /// What is wrong, with the payment that shows it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {}: {}", self.channel, self.what)
    }
}

/// What the store and the blockchain have of one channel in the end.
pub(super) struct Found {
    pub(super) id: ChannelId,
    /// What the contract has paid, in the order of the nonces.
    pub(super) claims: Vec<Claim>,
    pub(super) deposited: u64,
    /// What the contract has left.
    pub(super) left: Amount,
    pub(super) usage: Usage,
}

/// What a book adds up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) acknowledged: u64,
    pub(super) in_doubt: u64,
    pub(super) charged_in_doubt: u64,
    pub(super) claimed: u64,
}

impl Book {
    pub(super) fn sign(&mut self, payment: PaymentName) {
        self.payments.entry(payment).or_default();
    }

    pub(super) fn serve(&mut self, payment: PaymentName) {
        self.payments.entry(payment).or_default().served += 1;
    }

    pub(super) fn acknowledge(&mut self, payment: PaymentName) {
        self.payments.entry(payment).or_default().acknowledged += 1;
    }

    pub(super) fn doubt(&mut self, payment: PaymentName) {
        self.payments.entry(payment).or_default().doubts += 1;
    }

    /// A prepaid change was counted, or (`known` is false) nobody knows.
    pub(super) fn change(&mut self, change: UsageChange, known: bool) {
        let [planned, used, refunded] = &mut self.usage;
        let (changes, amount) = match change {
            UsageChange::Plan(amount) => (planned, amount),
            UsageChange::Use(amount) => (used, amount),
            UsageChange::Refund(amount) => (refunded, amount),
        };
        let amount = amount.to_u64().unwrap_or(u64::MAX);
        if known { changes.counted += amount } else { changes.in_doubt += amount }
    }

    /// A client got an answer that cannot be.
    pub(super) fn impossible(&mut self, what: String) {
        if self.impossible.len() < MAX_IMPOSSIBLE {
            self.impossible.push(what);
        }
    }

    /// Holds what was found against what was noted.
    pub(super) fn check(&self, found: &Found) -> (Sums, Vec<Violation>) {
        let mut wrong = Wrong { channel: found.id.to_string(), violations: Vec::new() };
        self.impossible.iter().for_each(|what| wrong.add(what.clone()));
        let claimed = self.check_claims(found, &mut wrong);
        let mut sums = self.check_payments(&claimed, &mut wrong);
        self.check_usage(&found.usage, &mut wrong);
        sums.claimed = claimed.iter().sum();
        (sums, wrong.violations)
    }

    /// The amounts claimed, by nonce: one claim for each, of what was signed, and no more than was deposited.
    fn check_claims(&self, found: &Found, wrong: &mut Wrong) -> Vec<u64> {
        let mut claimed = Vec::new();
        for claim in &found.claims {
            let payment = (claim.payment.nonce().to_u64(), claim.payment.amount().to_u64());
            let (Some(nonce), Some(amount)) = payment else {
                wrong.add(format!("nobody signed the claim {claim:?}"));
                continue;
            };
            if nonce != claimed.len() as u64 {
                wrong.add(format!("the claim of nonce {nonce} follows that of {} claims before it", claimed.len()));
            }
            if !self.payments.contains_key(&(nonce, amount)) {
                wrong.add(format!("{amount} were claimed at nonce {nonce}, and nobody ever signed that"));
            }
            claimed.push(amount);
        }
        let sum: u64 = claimed.iter().sum();
        if found.left.to_u64().and_then(|left| left.checked_add(sum)) != Some(found.deposited) {
            let (left, deposited) = (found.left, found.deposited);
            wrong.add(format!("the claims add up to {sum} and {left} are left, but {deposited} were deposited"));
        }
        claimed
    }

    fn check_payments(&self, claimed: &[u64], wrong: &mut Wrong) -> Sums {
        let mut sums = Sums::default();
        for ((nonce, amount), Fate { served, acknowledged, doubts }) in &self.payments {
            let at_nonce = usize::try_from(*nonce).ok().and_then(|nonce| claimed.get(nonce)).copied().unwrap_or(0);
            let payment = format!("the payment of {amount} at nonce {nonce}");
            // A replica that dies after it has served tells nobody: its own note counts as much as what the client
            // heard.
            let known = (*served).max(*acknowledged);
            if known > 1 {
                wrong.add(format!("{payment} was spent {known} times"));
            }
            if known > 0 && *amount > at_nonce {
                wrong.add(format!("{payment} was acknowledged and is lost: only {at_nonce} were claimed"));
            }
            if known == 0 && *doubts == 0 && *amount <= at_nonce {
                wrong.add(format!("{payment} was refused each time, and was charged: {at_nonce} were claimed"));
            }
            sums.acknowledged += u64::from(*acknowledged);
            let in_doubt = known == 0 && *doubts > 0;
            sums.in_doubt += u64::from(in_doubt);
            sums.charged_in_doubt += u64::from(in_doubt && *amount <= at_nonce);
        }
        for (nonce, amount) in (0..).zip(claimed) {
            // Each payment is for one call more than the one before.
            let steps = self.payments.range((nonce, 0)..=(nonce, *amount)).count() as u64;
            if steps * PRICE != *amount {
                wrong.add(format!("{amount} were claimed at nonce {nonce} for {steps} payments of {PRICE}"));
            }
        }
        sums
    }

    fn check_usage(&self, usage: &Usage, wrong: &mut Wrong) {
        let kinds = [("planned", usage.planned), ("used", usage.used), ("refunded", usage.refunded)];
        for ((kind, stored), changes) in kinds.into_iter().zip(self.usage) {
            let Changes { counted, in_doubt } = changes;
            if stored.to_u64().is_none_or(|stored| !(counted..=counted + in_doubt).contains(&stored)) {
                wrong
                    .add(format!("{stored} are {kind}, but {counted} were acknowledged ({in_doubt} more are unknown)"));
            }
        }
        let available = usage.planned.checked_add(usage.refunded);
        if available.is_none_or(|available| usage.used > available) || usage.refunded > usage.used {
            wrong.add(format!("more was used than was paid for, or refunded than used: {usage:?}"));
        }
    }
}

struct Wrong {
    channel: String,
    violations: Vec<Violation>,
}

impl Wrong {
    fn add(&mut self, what: String) {
        self.violations.push(Violation { channel: self.channel.clone(), what });
    }
}
