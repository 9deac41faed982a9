//! The audit at the end of a rehearsal: everything is claimed, and store and chain are held against what was signed and
//! answered.
//!
//! It trusts nobody's counters but the books that clients kept outside of the store. A store with violations is left
//! for somebody to look at.

use futures::{StreamExt, stream};
use payment_channels::{AfterClaim, ClaimRefusal, Error as PaymentError, Payment, PrepaidUsage};
use serde::{Deserialize, Serialize};
use storage::{ScanOptions, Store, Txn, WriteOptions};

use super::{
    book::{Found, Sums, Violation},
    treasurer,
    world::{Channel, Service, World},
};
use bench::{DEPOSIT, PRICE, Result};

/// So many channels are looked at at a time.
const AT_ONCE: usize = 16;

/// What became of everybody's money, once everything that was authorized has been claimed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// The channels that were looked at.
    pub channels: usize,
    /// Payments that a client was told of that they were taken. Each is in the store exactly once.
    pub acknowledged: u64,
    /// Payments of which the client was never told: the replica died, or the store's answer was lost.
    pub in_doubt: u64,
    /// Those of them that were charged.
    pub charged_in_doubt: u64,
    /// What the contract paid to the service, in units of what one call costs.
    pub claimed: u64,
    /// What must not be. Empty if all is well.
    pub violations: Vec<Violation>,
    /// What the keys of this rehearsal begin with, if they were left for somebody to look at.
    pub evidence: Option<String>,
}

/// Claims everything, and holds the store and the blockchain against what was signed and answered.
///
/// # Errors
/// [`bench::Error::Store`] if the store cannot be opened or read: then nothing is known.
pub(super) async fn audit(world: &World) -> Result<Audit> {
    let service = world.service(0, "auditor".to_owned(), world.patience()).await?;
    let mut audit = Audit { channels: world.channels.len(), ..Audit::default() };
    if let Err(what) = treasurer::settle(world, &service).await {
        audit.violations.push(Violation { channel: "-".to_owned(), what });
    }
    let mut checks =
        stream::iter(&world.channels).map(|channel| check(world, &service, channel)).buffer_unordered(AT_ONCE);
    while let Some((sums, violations)) = checks.next().await {
        audit.acknowledged += sums.acknowledged;
        audit.in_doubt += sums.in_doubt;
        audit.charged_in_doubt += sums.charged_in_doubt;
        audit.claimed += sums.claimed / PRICE;
        audit.violations.extend(violations);
    }
    drop(checks);
    if audit.violations.is_empty() {
        remove(service.store()).await?;
    } else {
        audit.evidence = Some(String::from_utf8_lossy(world.prefix.as_bytes()).into_owned());
    }
    Ok(audit)
}

async fn check(world: &World, service: &Service, channel: &Channel) -> (Sums, Vec<Violation>) {
    let mut violations = Vec::new();
    let mut wrong = |what: String| violations.push(Violation { channel: channel.id().to_string(), what });
    if let Err(what) = check_signature(service, channel).await {
        wrong(what);
    }
    match service.start_claim(channel.id(), AfterClaim::Continue).await {
        Ok(claim) => {
            if let Err(what) = treasurer::finish(world, service, claim).await {
                wrong(what);
            }
        }
        Err(PaymentError::ClaimRefused(ClaimRefusal::NothingToClaim { .. } | ClaimRefusal::UnknownChannel { .. })) => {}
        Err(error) => wrong(format!("what is authorized cannot be claimed: {error}")),
    }
    let usage = PrepaidUsage::new(service.store().clone(), service.ledger()).get(channel.id()).await;
    let usage = usage.unwrap_or_else(|error| {
        wrong(format!("the prepaid usage cannot be read: {error}"));
        Default::default()
    });
    let claims = channel.paid.lock().clone();
    let left = treasurer::left(world, channel.id()).await.unwrap_or_default();
    let found = Found { id: channel.id(), claims, deposited: DEPOSIT, left, usage };
    let (sums, found) = channel.book.lock().check(&found);
    violations.extend(found);
    (sums, violations)
}

/// What is authorized was signed by the client, for this channel and nonce.
async fn check_signature(service: &Service, channel: &Channel) -> Result<(), String> {
    let report = service.operator().report(channel.id()).await.map_err(|error| error.to_string())?;
    let Some(state) = report.channel else { return Ok(()) };
    let (authorized, nonce) = (state.authorized_amount, state.nonce);
    match state.signature {
        None if authorized.is_zero() => Ok(()),
        None => Err(format!("{authorized} are authorized at nonce {nonce} without a signature")),
        Some(signature) => {
            let authorization = channel.wallet.authorization(nonce, authorized);
            let payment = Payment::new(authorization, signature.as_bytes()).ok();
            let signer = payment.and_then(|payment| payment.signer());
            let is_own = signer == Some(channel.wallet.address());
            if is_own { Ok(()) } else { Err(format!("the client did not sign the {authorized} of nonce {nonce}")) }
        }
    }
}

/// Leaves the store as it was.
async fn remove(store: &impl Store) -> Result<()> {
    loop {
        let page = store.scan(b"", ScanOptions::default()).await?;
        for entries in page.entries.chunks(store.capabilities().max_txn_ops.max(1)) {
            let txn = entries.iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key.clone()));
            // Without guards there is no conflict.
            let _ = store.commit(txn, WriteOptions::default()).await?;
        }
        if page.next.is_none() {
            return Ok(());
        }
    }
}
