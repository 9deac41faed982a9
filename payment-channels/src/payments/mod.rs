//! What carries the decisions out: each operation reads, decides, and commits one transaction.

mod answers;
mod claims;
mod guard;
mod operator;
mod reserve;
mod settle;
mod snapshot;
mod unnamed;
mod wait;
mod watch;

use std::{fmt, time::Duration};

use storage_core::{
    FencingToken, Store, Version,
    channel::{BlockNumber, ChannelId},
};

use self::snapshot::{ChannelSnapshot, SnapshotCache};
pub(crate) use self::snapshot::{channel_of, read_many, refuse_unnamed};
pub use self::{
    answers::{ChannelAnswer, SignedAmount},
    claims::{ClaimsReport, SettledClaim},
    guard::ReservationGuard,
    operator::{ChannelReport, Operator},
    unnamed::{MoveReport, move_unnamed},
};
use crate::{
    ChainChannel, ChannelSource, Error, Hold, Ledger, Payment, Price, Refusal, ReservationId, Result, Terms,
    ledger::Records,
};

/// The payments of one replica of a service. All replicas share one store; each has its own `Payments`.
///
/// ```
/// # use payment_channels::{Authorization, ChainChannel, MemoryChain, Options, Payment, Payments, Refusal, Terms, Error};
/// # use storage_core::{MemoryStore, channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (contract, recipient, group_id) = (Address::new([1; 20]), Address::new([2; 20]), GroupId::new([3; 32]));
/// # let terms = Terms { contract, recipient, group_id, expiration_threshold: 100 };
/// let payments = Payments::new(MemoryStore::new(), MemoryChain::new(), terms, Options::new("replica 1"))?;
/// # let authorization = Authorization { contract, channel_id: ChannelId::from(7), nonce: Nonce::ZERO, amount: Amount::from(10) };
/// # let payment = Payment::new(authorization, &[&[1; 64][..], &[27]].concat())?;
/// match payments.reserve(&payment, Amount::from(10)).await {
///     Ok(reservation) => {
///         // The call is made here; if it fails, `release` instead of `commit`.
///         payments.commit(&reservation).await?;
///     }
///     Err(Error::Refused(refusal)) => println!("the client has to pay otherwise: {refusal}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Payments<S, C> {
    store: S,
    chain: C,
    terms: Terms,
    options: Options,
    records: Records,
    snapshots: SnapshotCache,
}

/// How a replica takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What the replica calls itself, for people who look: at most [`Hold::MAX_OWNER_BYTES`] bytes.
    pub owner: String,
    /// How long a call may take without a [renewal](Payments::renew): so long may a crashed replica block a channel, from when
    /// another one begins to wait. [`Options::MIN_LEASE`] to [`Options::MAX_LEASE`], in whole milliseconds (rounded down).
    pub lease: Duration,
    /// How long to wait for a channel at which another payment is in flight. Zero: not at all.
    pub wait: Duration,
}

/// A payment that has the channel to itself until it is committed or released.
///
/// It does not expire by a clock of its own: it lasts until another replica has seen it unchanged for its lease and takes
/// over, or an operator unlocks the channel.
#[derive(Clone, Debug)]
#[must_use = "a reservation blocks its channel until it is committed or released, or its lease ends"]
pub struct Reservation {
    id: ReservationId,
    token: FencingToken,
    payment: Payment,
    price: Price,
    chain: ChainChannel,
    snapshot: ChannelSnapshot,
}

impl Options {
    /// The shortest lease (20 ms): a few round trips to a majority.
    pub const MIN_LEASE: Duration = Duration::from_millis(20);
    /// The longest lease (one day): a typing error must not block a channel for ever.
    pub const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

    /// A lease of thirty seconds and no wait, for this owner.
    pub fn new(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), lease: Duration::from_secs(30), wait: Duration::ZERO }
    }

    /// These options with this lease.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// These options with this wait.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    fn validate(&self) -> Result<()> {
        let reason = if !(Self::MIN_LEASE..=Self::MAX_LEASE).contains(&self.lease) {
            format!("a lease is {:?} to {:?}, not {:?}", Self::MIN_LEASE, Self::MAX_LEASE, self.lease)
        } else if self.owner.len() > Hold::MAX_OWNER_BYTES {
            format!("an owner has at most {} bytes, not {}", Hold::MAX_OWNER_BYTES, self.owner.len())
        } else {
            return Ok(());
        };
        Err(Error::InvalidArgument { reason })
    }
}

impl Reservation {
    /// Names the reservation in its record.
    pub fn id(&self) -> ReservationId {
        self.id
    }

    /// Larger for each later reservation of the channel: for resources outside of the store that can refuse a token
    /// smaller than one that they have seen.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// The payment.
    pub fn payment(&self) -> &Payment {
        &self.payment
    }
}

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// The payments of a replica in `store`, with the blockchain as `chain` sees it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for options out of range.
    pub fn new(store: S, chain: C, terms: Terms, options: Options) -> Result<Self> {
        options.validate()?;
        let records = Records::of(Ledger { chain_id: chain.chain_id(), contract: terms.contract });
        Ok(Self { store, chain, terms, options, records, snapshots: SnapshotCache::default() })
    }

    /// The store underneath.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The blockchain.
    pub fn chain(&self) -> &C {
        &self.chain
    }

    /// Whose payments they are: those of the terms' contract, on the chain of the source.
    pub fn ledger(&self) -> Ledger {
        Ledger { chain_id: self.chain.chain_id(), contract: self.terms.contract }
    }

    /// What an operator can do with the same ledger in the same store.
    pub fn operator(&self) -> Operator<'_, S> {
        Operator::new(&self.store, self.ledger())
    }

    async fn chain_view(&self, id: ChannelId) -> Result<(ChainChannel, BlockNumber)> {
        let (channel, block) = futures::try_join!(self.chain.channel(id), self.chain.current_block())?;
        // What no deposit stands behind could never be claimed.
        Ok((channel.ok_or(Refusal::UnknownChannel { channel_id: id })?, block))
    }
}

/// The version of a put of a transaction, by its place.
fn version_at(versions: &[Option<Version>], place: usize) -> Result<Version> {
    let version = versions.get(place).copied().flatten();
    version.ok_or_else(|| storage_core::Error::corrupt("the store gave a committed put no version").into())
}

/// What holds a channel, for an error.
fn busy(hold: &Hold) -> Error {
    Error::Busy { owner: hold.owner.clone(), lease: hold.lease }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reservation {} of channel {}", self.token, self.payment.channel_id())
    }
}
