//! The pure model: what a channel, its slot and its claims may become, one commit after the other. It is written down apart
//! from the code that it judges, and sees nothing but the records.

use std::collections::{BTreeMap, BTreeSet};

use payment_channels::{Claim, Hold, ReservationId, Settlement, Slot, Standing, claim_key, slot_key};
use storage_core::{
    WatchEvent,
    channel::{Amount, ChannelState, Nonce, key_of},
};

use super::support::channel;

#[derive(Debug, Default)]
pub(crate) struct Model {
    state: Option<ChannelState>,
    slot: Slot,
    claims: BTreeMap<Nonce, Claim>,
    /// Every payment that was ever authorized: each once.
    authorized: BTreeSet<(Nonce, Amount)>,
    /// Every reservation that was ever committed.
    pub(crate) committed: BTreeSet<ReservationId>,
    pub(crate) fenced: usize,
}

/// The writes of one commit.
#[derive(Debug, Default)]
struct Written {
    state: Option<ChannelState>,
    slot: Option<Slot>,
    claims: Vec<Claim>,
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
        let ended = match &written.slot {
            Some(slot) => self.turn(slot)?,
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
        legal!(written.claims.is_empty() || written.state.is_some(), "a claim without its channel");
        self.state = written.state.or(before);
        Ok(())
    }

    /// Follows the slot, and tells whose reservation ended how.
    fn turn(&mut self, after: &Slot) -> Result<Option<(Hold, Settlement)>, String> {
        let before = std::mem::replace(&mut self.slot, after.clone());
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
            Some(hold) => match after.standing(hold.id) {
                Standing::Settled(end) => Some((hold.clone(), end)),
                standing => return Err(format!("{hold:?} is gone and {standing:?}")),
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
            let failed = |error| format!("{}: {error}", entry.key);
            if entry.key == key_of(channel()) {
                written.state = Some(ChannelState::decode(&entry.value).map_err(failed)?);
            } else if entry.key == slot_key(channel()) {
                written.slot = Some(Slot::decode(&entry.value).map_err(failed)?);
            } else {
                let claim = Claim::decode(&entry.value).map_err(failed)?;
                legal!(entry.key == claim_key(channel(), claim.payment.nonce()), "{} holds {claim:?}", entry.key);
                written.claims.push(claim);
            }
        }
        Ok(written)
    }
}
