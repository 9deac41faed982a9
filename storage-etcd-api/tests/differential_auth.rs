//! The same random requests about users and roles, and as users, to a real etcd and to embedded nodes have the same answers.
//!
//! `DIFFERENTIAL_SEED` and `DIFFERENTIAL_REQUESTS` in the environment choose the requests and how many; without, they are the same each time: of
//! few thousand at random, some seeds ask for too little to cover each kind. What etcd 3.5.16 lets through and later
//! releases of it refuse is not asked here, but in `auth.rs`: transactions within transactions, leases in transactions, a watch without end,
//! leases of nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "differential/answers.rs"]
#[allow(dead_code, reason = "the other program uses the rest")]
mod answers;
mod common;
#[path = "differential/requests.rs"]
#[allow(dead_code, reason = "the other program uses the rest")]
mod requests;
#[path = "differential/users.rs"]
mod users;

use std::collections::BTreeMap;

use answers::Answer;
use common::{ApiCluster, etcd, rpc::Rpc};
use users::{Asked, Both, Users};

#[tokio::test]
async fn one_node_has_etcds_users_and_roles() {
    same_answers(1, 2_000).await;
}

#[tokio::test]
async fn a_follower_has_etcds_users_and_roles() {
    same_answers(3, 500).await;
}

async fn same_answers(nodes: u64, count: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("DIFFERENTIAL_SEED").unwrap_or(1);
    let count = number("DIFFERENTIAL_REQUESTS").map_or(count, |count| usize::try_from(count).unwrap());
    println!("DIFFERENTIAL_SEED={seed}");
    let (_etcd, endpoint) = etcd::start_with(&["--bcrypt-cost", "4"]).await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), nodes).await;
    let place = (cluster.leader().unwrap() + 1) % cluster.endpoints().len();
    let (theirs, ours) = (Rpc::connect(&endpoint).await, Rpc::connect(&cluster.endpoints()[place]).await);

    let mut users = Users::new(fastrand::Rng::with_seed(seed), Both { theirs, ours });
    let (mut kinds, mut refusals) = (BTreeMap::<_, [usize; 2]>::new(), BTreeMap::<_, usize>::new());
    for place in 0..count {
        let Asked { kind, by, request, expected, found } = users.ask().await;
        assert!(
            expected == found,
            "request {place} of seed {seed}, by {by:?}: {request}\n etcd: {expected:?}\n ours: {found:?}",
        );
        let done = matches!(expected, Answer::Done { .. });
        kinds.entry(kind).or_default()[usize::from(!done)] += 1;
        if let Answer::Refused(code, words) = expected {
            *refusals.entry(format!("{code:?}: {words}")).or_default() += 1;
        }
    }
    println!("{count} requests had the same answers\n{kinds:#?}\n{refusals:#?}");
    if count >= 2_000 {
        let missing = Users::KINDS.into_iter().find(|kind| kinds.get(kind).is_none_or(|[done, _]| *done == 0));
        assert!(missing.is_none(), "none was carried out that is a {missing:?}");
        assert!(refusals.len() >= 15, "only these were refused: {refusals:#?}");
    }
}
