//! A client sends one signed payment to three replicas of a service at once, a thousand times, and hopes for three calls each time.
//!
//! `cargo run --release --example double_spend -p payment-channels`

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::keccak256;
use futures::future::join_all;
use payment_channels::{
    Authorization, ChainChannel, Error, MemoryChain, Options, Payment, Payments, Refusal, Signer, Terms,
};
use storage_core::{
    MemoryStore, Store,
    channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce},
};
use storage_embedded::LocalCluster;

/// How often the client tries.
const ATTEMPTS: u64 = 1000;
/// What a call costs.
const PRICE: u64 = 10;
/// How many replicas the service has.
const REPLICAS: usize = 3;

type Replica = Payments<Arc<dyn Store>, Arc<MemoryChain>>;
type Failure = Box<dyn StdError>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    println!(
        "A service has {REPLICAS} replicas and takes {PRICE} for a call. A client has a channel with a deposit for {ATTEMPTS} calls."
    );
    println!("It signs each payment once, and sends it to all {REPLICAS} replicas at the same moment.\n");
    let client = Client::new()?;

    println!("1. Each replica keeps books of its own (three stores in memory that know nothing of each other).");
    let separate: [Arc<dyn Store>; REPLICAS] = std::array::from_fn(|_| Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    let tally = attack(&client, separate).await?;
    tally.print();
    println!("   The attack succeeds: each replica sees a good payment, and the service can claim it once.\n");

    println!("2. The replicas share one store: an embedded cluster of {REPLICAS} nodes, each replica on its own node.");
    let dir = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(dir.path(), REPLICAS as u64, |config| config).await?;
    let shared = cluster.running().map(|node| Arc::new(node.store()) as Arc<dyn Store>).collect::<Vec<_>>();
    let shared = shared.try_into().map_err(|_| "a node of the cluster does not run")?;
    let tally = attack(&client, shared).await?;
    cluster.stop_all().await;
    tally.print();
    println!(
        "   Whichever replica swaps the channel's record first has the payment; the others see a conflict, look again, and refuse."
    );
    if tally.once != ATTEMPTS {
        return Err(format!("only {} of {ATTEMPTS} payments were accepted exactly once", tally.once).into());
    }
    println!("\n{ATTEMPTS} payments, {ATTEMPTS} accepted exactly once.");
    Ok(())
}

/// Sends each payment to all replicas at once.
async fn attack(client: &Client, stores: [Arc<dyn Store>; REPLICAS]) -> Result<Tally, Failure> {
    let chain = Arc::new(client.chain());
    let mut replicas = Vec::with_capacity(REPLICAS);
    for (number, store) in (1..).zip(stores) {
        let options = Options::new(format!("replica {number}"));
        replicas.push(Arc::new(Payments::new(store, Arc::clone(&chain), client.terms, options)?));
    }
    let (mut tally, began) = (Tally::default(), Instant::now());
    for call in 1..=ATTEMPTS {
        let payment = client.pay(call * PRICE)?;
        let calls =
            replicas.iter().cloned().map(|replica| tokio::spawn(async move { serve(&replica, &payment).await }));
        let mut accepted = 0;
        for answer in join_all(calls).await {
            let answer = answer?;
            accepted += u64::from(answer == ServiceAnswer::Served);
            *tally.answers.entry(answer).or_default() += 1;
        }
        tally.once += u64::from(accepted == 1);
        tally.calls += accepted;
    }
    tally.took = began.elapsed();
    Ok(tally)
}

/// What a replica does with a call: it takes the payment, does the work, and stores the authorization.
async fn serve(replica: &Replica, payment: &Payment) -> ServiceAnswer {
    let reservation = match replica.reserve(payment, Amount::from(PRICE)).await {
        Ok(reservation) => reservation,
        Err(Error::Refused(Refusal::StaleAmount { .. })) => return ServiceAnswer::AlreadySpent,
        Err(Error::Busy { .. }) => return ServiceAnswer::InFlight,
        Err(error) => return ServiceAnswer::Failed(error.to_string()),
    };
    match replica.commit(&reservation).await {
        Ok(()) => ServiceAnswer::Served,
        Err(error) => ServiceAnswer::Failed(error.to_string()),
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum ServiceAnswer {
    Served,
    AlreadySpent,
    InFlight,
    Failed(String),
}

#[derive(Default)]
struct Tally {
    answers: BTreeMap<ServiceAnswer, u64>,
    once: u64,
    calls: u64,
    took: Duration,
}

impl Tally {
    fn print(&self) {
        for (answer, count) in &self.answers {
            let what = match answer {
                ServiceAnswer::Served => "served: the payment was taken and the call made",
                ServiceAnswer::AlreadySpent => "refused: another replica has this payment already",
                ServiceAnswer::InFlight => "refused: the payment is in flight at another replica",
                ServiceAnswer::Failed(why) => why,
            };
            println!("   {count:>6} {what}");
        }
        let paid = ATTEMPTS;
        println!(
            "   {:>6} calls for {paid} payments, in {:.1} s; {} payments bought exactly one",
            self.calls,
            self.took.as_secs_f64(),
            self.once
        );
    }
}

/// The client, and what it agreed on with the service.
struct Client {
    signer: Signer,
    terms: Terms,
}

impl Client {
    fn new() -> Result<Self, Failure> {
        let (contract, recipient, group_id) = (Address::new([1; 20]), Address::new([2; 20]), GroupId::new([3; 32]));
        let terms = Terms { contract, recipient, group_id, expiration_threshold: 100 };
        Ok(Self { signer: Signer::new(&keccak256("a client"))?, terms })
    }

    /// The blockchain, on which the client has opened a channel.
    fn chain(&self) -> MemoryChain {
        let address = self.signer.address();
        let chain = MemoryChain::new();
        chain.open(ChainChannel {
            channel_id: ChannelId::from(7),
            nonce: Nonce::ZERO,
            sender: address,
            signer: address,
            recipient: self.terms.recipient,
            group_id: self.terms.group_id,
            full_amount: Amount::from(ATTEMPTS * PRICE),
            expiration: BlockNumber::from(1_000_000),
        });
        chain
    }

    /// Authorizes the service to take so much in total.
    fn pay(&self, amount: u64) -> Result<Payment, Failure> {
        let (channel_id, amount) = (ChannelId::from(7), Amount::from(amount));
        let authorization = Authorization { contract: self.terms.contract, channel_id, nonce: Nonce::ZERO, amount };
        Ok(self.signer.sign(authorization)?)
    }
}
