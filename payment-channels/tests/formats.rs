//! What earlier builds have stored of payments is read to the letter, keys and all, from a snapshot of an embedded node. `formats/README.md` says how
//! it was made. The rules look at single encodings; this at all that a replica needs when it goes on where an earlier build has stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use payment_channels::{
    AfterClaim, Authorization, ChainChannel, Claim, FreeCalls, Hold, MemoryChain, Operation, Operator, Options,
    Payment, PrepaidUsage, ReservationId, ReservationStatus, Settlement, UsageChange, move_unnamed,
};
use storage_core::{
    Key, Lock, LockOptions, OperationId, Store, StoreExt,
    channel::{Amount, BlockNumber, ChannelId, ChannelState, ChannelStatus, Nonce},
};
use storage_embedded::{Member, Node, NodeConfig, restore};
use support::*;

const SOON: Duration = Duration::from_secs(30);
const FULL: u64 = 1000;
const LEASE: Duration = Duration::from_millis(30_000);
const OWNER: &str = "réplica 1";

/// What a build has stored.
struct Stored {
    file: &'static str,
    /// Its records name no ledger, and are moved before they are paid with.
    is_unnamed: bool,
    /// Random when they were stored: the reservations of the first channel.
    reservations: [u128; 3],
    /// And the claims of the other two.
    claims: [u128; 2],
}

const UNNAMED: Stored = Stored {
    file: "payments.snapshot",
    is_unnamed: true,
    reservations: [
        201063410604543258104342541208981959152,
        117928685858608443767500504151697063798,
        73678688929332213334235147237392502864,
    ],
    claims: [55827628146328237620545020511442445795, 261812135966780482401058093184763435173],
};

const OF_A_LEDGER: Stored = Stored {
    file: "payments-2.snapshot",
    is_unnamed: false,
    reservations: [
        141239055530106632797637635699121793587,
        151599623949244195437080409215318907187,
        233005661178838696378300544837324145123,
    ],
    claims: [223166616774951625187589225849467425, 141408579609514372613597822312175634056],
};

impl Stored {
    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(self.file)
    }
}

/// The one with a payment in flight, the one that goes on after its claim, and the one that is closed.
fn channels() -> [ChannelId; 3] {
    [7, 8, 9].map(ChannelId::from)
}

fn chain_of_all() -> Arc<MemoryChain> {
    let chain = chain(FULL);
    for channel_id in channels() {
        chain.open(ChainChannel { channel_id, ..chain_channel(FULL) });
    }
    chain
}

fn payment(channel_id: ChannelId, amount: u64) -> Payment {
    sign("signer", Authorization { channel_id, ..authorization(0, amount) })
}

fn locks() -> [Key; 2] {
    ["lock/held", "lock/released"].map(|name| Key::new(name).unwrap())
}

fn lock_options() -> LockOptions {
    LockOptions::new(OWNER).ttl(LEASE).wait(Duration::ZERO)
}

fn usage_changes() -> [(u128, UsageChange); 3] {
    let (plan, used, refund) = (Amount::from(100), Amount::from(30), Amount::from(20));
    [(1, UsageChange::Plan(plan)), (2, UsageChange::Use(used)), (3, UsageChange::Refund(refund))]
}

fn operation(id: u128) -> Operation {
    Operation::new(OperationId(id))
}

async fn start(dir: &Path, founders: &[u64]) -> Node {
    let node = Node::start(config(dir, founders)).await.unwrap();
    node.wait_for_leader(SOON).await.unwrap();
    node
}

fn config(dir: &Path, founders: &[u64]) -> NodeConfig {
    let mut config = NodeConfig::new(1, 1, dir, "127.0.0.1:0").fast();
    config.founders = founders.iter().map(|id| (*id, Member::default())).collect();
    config
}

async fn write(store: Arc<dyn Store>) {
    let replica = replica_with(Arc::clone(&store), &chain_of_all(), Options::new(OWNER).lease(LEASE));
    let [held, goes_on, closed] = channels();
    let price = Amount::from(10);
    let committed = replica.reserve(&payment(held, 100), price).await.unwrap();
    replica.commit(&committed).await.unwrap();
    let released = replica.reserve(&payment(held, 250), price).await.unwrap();
    replica.release(&released).await.unwrap();
    let in_flight = replica.reserve(&payment(held, 300), price).await.unwrap();
    println!("RESERVATIONS {:?}", [&committed, &released, &in_flight].map(|reservation| reservation.id().0));
    let mut claims = Vec::new();
    for (channel, after) in [(goes_on, AfterClaim::Continue), (closed, AfterClaim::Close)] {
        let reservation = replica.reserve(&payment(channel, 580), price).await.unwrap();
        replica.commit(&reservation).await.unwrap();
        claims.push(replica.start_claim(channel, after).await.unwrap().id);
    }
    println!("CLAIMS {claims:?}");
    let usage = PrepaidUsage::new(Arc::clone(&store), LEDGER);
    for (id, change) in usage_changes() {
        usage.change(held, &mut operation(id), change).await.unwrap();
    }
    let free_calls = FreeCalls::new(Arc::clone(&store), LEDGER);
    for id in [1, 2] {
        free_calls.count(address_of("user"), &mut operation(id), 5).await.unwrap();
    }
    let [held, released] = locks();
    drop(Lock::acquire(Arc::clone(&store), held, lock_options()).await.unwrap());
    for _ in 0..2 {
        Lock::acquire(Arc::clone(&store), released.clone(), lock_options()).await.unwrap().release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_stored_by_an_earlier_build_that_named_no_ledger_are_read_and_moved() {
    read(&UNNAMED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_stored_by_an_earlier_build_are_read() {
    if std::env::var_os("WRITE_FORMATS").is_some() {
        let place = tempfile::tempdir().unwrap();
        let node = start(&place.path().join("written"), &[1]).await;
        write(Arc::new(node.store())).await;
        let pieces = node.open_snapshot(SOON).await.unwrap().map(Result::unwrap);
        fs::write(OF_A_LEDGER.path(), pieces.flatten().collect::<Vec<_>>()).unwrap();
        node.stop().await;
    }
    read(&OF_A_LEDGER).await;
}

async fn read(stored: &Stored) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("node");
    restore(&stored.path(), &config(&dir, &[1]), 0).unwrap();
    let node = start(&dir, &[1]).await;
    let store: Arc<dyn Store> = Arc::new(node.store());
    check(stored, &store).await;
    node.stop().await;
}

async fn states(operator: &Operator<'_, dyn Store>) -> Vec<ChannelState> {
    operator.channels().map_ok(|channel| channel.state).try_collect().await.unwrap()
}

async fn check(stored: &Stored, store: &Arc<dyn Store>) {
    let [held, goes_on, closed] = channels();
    let names: Vec<_> = store.scan_all(b"").map_ok(|entry| entry.key.to_string()).try_collect().await.unwrap();
    let id = |channel: ChannelId| format!("{channel:064x}");
    let mut expected = vec![
        format!("claim/{}/{:064x}", id(goes_on), 0),
        format!("claim/{}/{:064x}", id(closed), 0),
        format!("free-calls/{}", address_of("user")),
        format!("usage/{}", id(held)),
    ];
    expected.extend(channels().map(|channel| format!("channel/{}", id(channel))));
    expected.extend(channels().map(|channel| format!("reservation/{}", id(channel))));
    if !stored.is_unnamed {
        let contract = CONTRACT.to_string();
        let prefix = format!("ledger/{:016x}/{}/", MemoryChain::CHAIN_ID, &contract[2..]);
        expected.iter_mut().for_each(|name| *name = format!("{prefix}{name}"));
    }
    expected.extend(["lock/held", "lock/held/lease", "lock/released"].map(str::to_owned));
    expected.sort();
    assert_eq!(names, expected);

    let opened = |channel_id, amount| ChannelState {
        channel_id,
        nonce: Nonce::ZERO,
        status: ChannelStatus::Open,
        sender: address_of("sender"),
        recipient: RECIPIENT,
        group_id: GROUP,
        full_amount: Amount::from(FULL),
        expiration: BlockNumber::from(BLOCK + THRESHOLD + 1),
        signer: address_of("signer"),
        authorized_amount: Amount::from(amount),
        signature: Some(payment(channel_id, amount).signature()),
    };
    let claimed = |channel_id, status, full_amount: u64| ChannelState {
        nonce: Nonce::from(1),
        status,
        full_amount: Amount::from(full_amount),
        authorized_amount: Amount::ZERO,
        signature: None,
        ..opened(channel_id, 0)
    };
    let expected = [
        opened(held, 100),
        claimed(goes_on, ChannelStatus::Open, FULL - 580),
        claimed(closed, ChannelStatus::Closed, 0),
    ];
    if stored.is_unnamed {
        assert_eq!(states(&Operator::of_unnamed(&**store)).await, expected);
        let moved = move_unnamed(&**store, LEDGER).await.unwrap();
        assert!(moved.records == 10 && moved.left.is_empty(), "{moved:?}");
    }
    let operator = Operator::new(&**store, LEDGER);
    assert_eq!(states(&operator).await, expected);

    let record = operator.report(held).await.unwrap().reservation;
    let hold = Hold {
        id: ReservationId(stored.reservations[2]),
        owner: OWNER.to_owned(),
        lease: LEASE,
        nonce: Nonce::ZERO,
        amount: Amount::from(300),
    };
    assert_eq!((record.token().0, record.hold()), (3, Some(&hold)));
    let statuses = stored.reservations.map(|id| record.status(ReservationId(id)));
    let settled = ReservationStatus::Settled;
    assert_eq!(statuses, [settled(Settlement::Committed), settled(Settlement::Released), ReservationStatus::Held]);

    let claims: Vec<_> = operator.claims().try_collect().await.unwrap();
    let claim = |id, channel, after| Claim { id, payment: payment(channel, 580), after };
    let expected =
        [claim(stored.claims[0], goes_on, AfterClaim::Continue), claim(stored.claims[1], closed, AfterClaim::Close)];
    assert_eq!(claims, expected);

    let usage = PrepaidUsage::new(Arc::clone(store), LEDGER);
    let found = usage.get(held).await.unwrap();
    assert_eq!([found.planned, found.used, found.refunded], [100, 30, 20].map(Amount::from));
    let free_calls = FreeCalls::new(Arc::clone(store), LEDGER);
    assert_eq!(free_calls.get(address_of("user")).await.unwrap().used(), 2);
    // What was counted then is not counted again.
    for (id, change) in usage_changes() {
        assert_eq!(usage.change(held, &mut operation(id), change).await.unwrap(), found);
    }
    assert_eq!(free_calls.count(address_of("user"), &mut operation(2), 5).await.unwrap().used(), 2);

    for (name, (is_held, token)) in locks().into_iter().zip([(true, 1), (false, 2)]) {
        let status = Lock::status(store, &name).await.unwrap().unwrap();
        assert_eq!((status.held, status.token.0, status.owner.as_str(), status.ttl), (is_held, token, OWNER, LEASE));
    }
}
