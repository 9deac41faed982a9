//! The pure model: what a channel, its record and its claims may become, one commit after the other. It is written down apart
//! from the code that it judges, and sees nothing but the records.

use std::collections::{BTreeMap, BTreeSet};

use payment_channels::{Claim, Hold, ReservationId, ReservationRecord, ReservationStatus, Settlement, Usage};
use storage_core::{
    WatchEvent,
    channel::{Amount, ChannelState, Nonce},
};

use super::support::{LEDGER, channel, claim_key, key_of, reservation_key, usage_key};

#[derive(Debug, Default)]
pub(crate) struct Model {
    state: Option<ChannelState>,
    record: ReservationRecord,
    claims: BTreeMap<Nonce, Claim>,
    planned: u64,
    /// Every payment that was ever authorized: each once.
    authorized: BTreeSet<(Nonce, Amount)>,
    /// Every reservation that was ever committed.
    pub(crate) committed: BTreeSet<ReservationId>,
    pub(crate) fenced: usize,
    pub(crate) prepaid: usize,
}

/// The writes of one commit.
#[derive(Debug, Default)]
struct Written {
    state: Option<ChannelState>,
    record: Option<ReservationRecord>,
    claims: Vec<Claim>,
    usage: Option<Usage>,
}

macro_rules! legal {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}

impl Model {
    /// Follows one commit.
    pub(crate) fn follow(&mut self, commit: &[WatchEvent]) -> Result<(), String> {
        let written = Written::of(commit)?;
        let ended = match &written.record {
            Some(record) => self.follow_reservation(record)?,
            None => None,
        };
        let before = self.state.clone();
        match &written.state {
            None => legal!(ended.is_none_or(|(_, end)| end != Settlement::Committed), "a commit without its payment"),
            Some(after) => {
                let nonce = before.as_ref().map_or(Nonce::ZERO, |before| before.nonce);
                let authorized = before.as_ref().map_or(Amount::ZERO, |before| before.authorized_amount);
                legal!(after.authorized_amount <= after.full_amount, "more is authorized than there is: {after:?}");
                if after.nonce == nonce {
                    let amount = after.authorized_amount;
                    legal!(amount > authorized, "what is authorized went from {authorized} to {amount}");
                    legal!(self.authorized.insert((nonce, amount)), "{amount} was accepted twice at nonce {nonce}");
                    let Some((hold, Settlement::Committed)) = &ended else {
                        return Err(format!("{amount} was authorized without a reservation"));
                    };
                    legal!((hold.nonce, hold.amount) == (nonce, amount), "{amount} was authorized under {hold:?}");
                    self.committed.insert(hold.id);
                    legal!(written.claims.is_empty(), "a claim together with a payment");
                } else {
                    legal!(Some(after.nonce) == nonce.checked_next(), "the nonce went from {nonce} to {}", after.nonce);
                    let [claim] = &written.claims[..] else { return Err("a nonce went up without a claim".to_owned()) };
                    legal!((claim.payment.nonce(), claim.payment.amount()) == (nonce, authorized), "claimed {claim:?}");
                    legal!(after.authorized_amount.is_zero() && after.signature.is_none(), "left behind: {after:?}");
                    legal!(ended.is_none_or(|(_, end)| end == Settlement::Fenced), "a claim ended a reservation");
                    legal!(self.claims.insert(nonce, *claim).is_none(), "nonce {nonce} was claimed twice");
                }
            }
        }
        if let Some(usage) = &written.usage {
            // What is paid and what can be used change together, by the same.
            let amount =
                |state: Option<&ChannelState>| state.and_then(|state| state.authorized_amount.to_u64()).unwrap_or(0);
            let (paid, planned) = (amount(written.state.as_ref()), usage.planned.to_u64().unwrap_or(0));
            legal!(planned - self.planned == paid - amount(before.as_ref()), "{planned} are planned with {written:?}");
            self.planned = planned;
            self.prepaid += 1;
        }
        legal!(written.claims.is_empty() || written.state.is_some(), "a claim without its channel");
        self.state = written.state.or(before);
        Ok(())
    }

    /// Follows the record, and tells whose reservation ended how.
    fn follow_reservation(&mut self, after: &ReservationRecord) -> Result<Option<(Hold, Settlement)>, String> {
        let before = std::mem::replace(&mut self.record, after.clone());
        let steps = after.token().0.checked_sub(before.token().0);
        let steps = steps.ok_or_else(|| format!("the token went from {} to {}", before.token(), after.token()))?;
        if let (Some(old), Some(new)) = (before.hold(), after.hold())
            && old.id == new.id
        {
            legal!(*after == before, "a renewal changed {before:?} to {after:?}");
            return Ok(None);
        }
        let ended = match before.hold() {
            None => None,
            Some(hold) => match after.status(hold.id) {
                ReservationStatus::Settled(end) => Some((hold.clone(), end)),
                status => return Err(format!("{hold:?} is gone and {status:?}")),
            },
        };
        let fenced = ended.as_ref().is_some_and(|(_, end)| *end == Settlement::Fenced);
        self.fenced += usize::from(fenced);
        match after.hold() {
            Some(_) => legal!(steps == 1 && (before.hold().is_none() || fenced), "{before:?} was taken: {after:?}"),
            None => legal!(before.hold().is_some() && steps == u64::from(fenced), "{before:?} was freed: {after:?}"),
        }
        Ok(ended)
    }
}

impl Written {
    fn of(commit: &[WatchEvent]) -> Result<Self, String> {
        let mut written = Self::default();
        for event in commit {
            let WatchEvent::Put { entry, .. } = event else { continue };
            let record = LEDGER.open(entry).map_err(|error| error.to_string())?;
            let failed = |error| format!("{}: {error}", entry.key);
            if entry.key == key_of(channel()) {
                written.state = Some(ChannelState::decode(record).map_err(failed)?);
            } else if entry.key == reservation_key(channel()) {
                written.record = Some(ReservationRecord::decode(record).map_err(failed)?);
            } else if entry.key == usage_key(channel()) {
                written.usage = Some(Usage::decode(record).map_err(failed)?);
            } else {
                let claim = Claim::decode(record).map_err(failed)?;
                legal!(entry.key == claim_key(channel(), claim.payment.nonce()), "{} holds {claim:?}", entry.key);
                written.claims.push(claim);
            }
        }
        Ok(written)
    }
}
