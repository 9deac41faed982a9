//! Locks and elections that the server takes part in for its client, held against a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{ApiCluster, etcd, rpc::Rpc};
use storage_etcd_api::proto::{etcdserverpb as pb, v3electionpb::*, v3lockpb::*};
use tokio::time::timeout;
use tonic::Status;

const DEADLINE: Duration = Duration::from_secs(60);

/// Those who ask, each at a server of its own if there are several.
struct Askers(Vec<Rpc>);

impl Askers {
    async fn of(endpoints: &[String]) -> Self {
        let mut askers = Vec::new();
        for one in 0..3 {
            askers.push(Rpc::connect(&endpoints[one % endpoints.len()]).await);
        }
        Self(askers)
    }

    async fn lock(&self, who: usize, name: &'static str, lease: i64) -> Result<LockResponse, Status> {
        self.0[who].unary("/v3lockpb.Lock/Lock", LockRequest { name: name.into(), lease }).await
    }

    async fn campaign(&self, who: usize, lease: i64, value: &'static str) -> Result<LeaderKey, Status> {
        let request = CampaignRequest { name: "vote".into(), lease, value: value.into() };
        let elected: CampaignResponse = self.0[who].unary("/v3electionpb.Election/Campaign", request).await?;
        Ok(elected.leader.unwrap())
    }

    async fn leader(&self, who: usize) -> Result<Bytes, Status> {
        let request = LeaderRequest { name: "vote".into() };
        let leader: LeaderResponse = self.0[who].unary("/v3electionpb.Election/Leader", request).await?;
        Ok(leader.kv.unwrap().value)
    }

    async fn proclaim(&self, who: usize, leader: LeaderKey, value: &'static str) -> Result<(), Status> {
        let request = ProclaimRequest { leader: Some(leader), value: value.into() };
        self.0[who].unary::<_, ProclaimResponse>("/v3electionpb.Election/Proclaim", request).await.map(drop)
    }

    async fn resign(&self, who: usize, leader: LeaderKey) -> Result<(), Status> {
        let request = ResignRequest { leader: Some(leader) };
        self.0[who].unary::<_, ResignResponse>("/v3electionpb.Election/Resign", request).await.map(drop)
    }

    async fn keys(&self, prefix: &'static str, end: &'static str) -> i64 {
        let range = pb::RangeRequest { key: prefix.into(), range_end: end.into(), ..Default::default() };
        self.0[0].range(range).await.unwrap().count
    }

    async fn until_keys(&self, prefix: &'static str, end: &'static str, wanted: i64) {
        let there = async {
            while self.keys(prefix, end).await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, there).await.unwrap_or_else(|_| panic!("never {wanted} keys under {prefix}"));
    }
}

async fn locks(endpoints: &[String]) {
    let askers = Askers::of(endpoints).await;
    for lease in [1, 2, 3] {
        askers.0[0].grant(lease, 600).await.unwrap();
    }
    let first = askers.lock(0, "lock", 1).await.unwrap();
    assert_eq!(first.key, "lock/1");
    let again = askers.lock(1, "lock", 1).await.unwrap();
    assert_eq!(again.key, first.key, "whoever holds it gets it again");
    let second = askers.lock(1, "lock", 2);
    let mut second = Box::pin(second);
    assert!(timeout(Duration::from_millis(300), &mut second).await.is_err(), "it is held");
    askers.until_keys("lock/", "lock0", 2).await;
    // One that gives up leaves no key behind, and the next does not wait for it.
    drop(second);
    askers.until_keys("lock/", "lock0", 1).await;
    let third = askers.lock(2, "lock", 3);
    let freed = async {
        askers.until_keys("lock/", "lock0", 2).await;
        let unlock = UnlockRequest { key: first.key.clone() };
        askers.0[1].unary::<_, UnlockResponse>("/v3lockpb.Lock/Unlock", unlock).await.unwrap();
    };
    let (third, ()) = timeout(DEADLINE, async { tokio::join!(third, freed) }).await.unwrap();
    assert_eq!(third.unwrap().key, "lock/3");
    // Whose lease ends does not get it.
    let waiting = askers.lock(0, "lock", 2);
    let ended = async {
        askers.until_keys("lock/", "lock0", 2).await;
        askers.0[1].revoke(2).await.unwrap();
        askers.until_keys("lock/", "lock0", 1).await;
        askers.0[1].revoke(3).await.unwrap();
    };
    let (expired, ()) = timeout(DEADLINE, async { tokio::join!(waiting, ended) }).await.unwrap();
    assert_eq!(expired.unwrap_err().message(), "mutex: session is expired");
    let own = askers.lock(0, "own", 0).await.unwrap();
    assert!(own.key.starts_with(b"own/"), "without a lease it gets one");
    let unknown = askers.lock(0, "lock", 999).await.unwrap_err();
    assert_eq!(unknown.message(), "etcdserver: requested lease not found");
}

async fn elections(endpoints: &[String]) {
    let askers = Askers::of(endpoints).await;
    for lease in [11, 12] {
        askers.0[0].grant(lease, 600).await.unwrap();
    }
    assert_eq!(askers.leader(2).await.unwrap_err().message(), "election: no leader");
    let request = futures::stream::iter([LeaderRequest { name: "vote".into() }]);
    let observed = askers.0[2].stream::<_, LeaderResponse>("/v3electionpb.Election/Observe", request);
    let mut observed = Box::pin(observed);
    let one = askers.campaign(0, 11, "one").await.unwrap();
    assert_eq!((one.key.as_ref(), one.lease), (&b"vote/b"[..], 11));
    let mut observed = timeout(DEADLINE, &mut observed).await.unwrap().unwrap();
    let mut seen = async || {
        let seen = timeout(DEADLINE, observed.message()).await.unwrap().unwrap().unwrap();
        String::from_utf8(seen.kv.unwrap().value.to_vec()).unwrap()
    };
    assert_eq!(seen().await, "one");
    assert_eq!(askers.leader(1).await.unwrap(), "one");
    askers.proclaim(1, one.clone(), "uno").await.unwrap();
    assert_eq!(seen().await, "uno");
    let again = askers.campaign(1, 11, "eins").await.unwrap();
    assert_eq!((again.rev, seen().await.as_str()), (one.rev, "eins"), "it leads already, and proclaims");
    let two = askers.campaign(1, 12, "two");
    let left = async {
        askers.until_keys("vote/", "vote0", 2).await;
        askers.resign(2, one.clone()).await.unwrap();
    };
    let (two, ()) = timeout(DEADLINE, async { tokio::join!(two, left) }).await.unwrap();
    assert_eq!((seen().await.as_str(), askers.leader(0).await.unwrap()), ("two", "two".into()));
    assert_eq!(askers.proclaim(0, one, "late").await.unwrap_err().message(), "election: not leader");
    let nobody: Result<ResignResponse, _> =
        askers.0[0].unary("/v3electionpb.Election/Resign", ResignRequest { leader: None }).await;
    assert_eq!(nobody.unwrap_err().message(), "\"leader\" field must be provided");
    askers.resign(0, two.unwrap()).await.unwrap();
    askers.until_keys("vote/", "vote0", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_are_those_of_etcd() {
    let (_etcd, real) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), 3).await;
    for endpoints in [vec![real], cluster.endpoints()] {
        locks(&endpoints).await;
        elections(&endpoints).await;
    }
}
