//! The same random requests to a real etcd and to embedded nodes have the same answers: entries, revisions, events, codes and words.
//!
//! `DIFFERENTIAL_SEED` and `DIFFERENTIAL_REQUESTS` in the environment choose the requests and how many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "differential/answers.rs"]
mod answers;
mod common;
#[path = "differential/requests.rs"]
mod requests;

use std::collections::BTreeMap;

use answers::{Answer, ask};
use common::{ApiCluster, etcd, rpc::Rpc};
use requests::{Request, Requests};

#[tokio::test]
async fn one_node_answers_as_etcd_does() {
    same_answers(1, 10_000).await;
}

#[tokio::test]
async fn a_follower_answers_as_etcd_does() {
    same_answers(3, 2_000).await;
}

async fn same_answers(nodes: u64, count: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("DIFFERENTIAL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number("DIFFERENTIAL_REQUESTS").map_or(count, |count| usize::try_from(count).unwrap());
    println!("DIFFERENTIAL_SEED={seed}");
    let (_etcd, endpoint) = etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = ApiCluster::start_calm(dir.path(), nodes).await;
    let place = (cluster.leader().unwrap() + 1) % cluster.endpoints().len();
    let (theirs, ours) = (Rpc::connect(&endpoint).await, Rpc::connect(&cluster.endpoints()[place]).await);

    let random = fastrand::Rng::with_seed(seed);
    let mut requests = Requests { random, revision: 1, compacted: 0 };
    let mut kinds = BTreeMap::<_, Seen>::new();
    let mut refusals = BTreeMap::<_, usize>::new();
    for place in 0..count {
        let request = requests.next();
        let (expected, found) = tokio::join!(ask(&theirs, request.clone()), ask(&ours, request.clone()));
        assert!(
            expected == found,
            "request {place} of seed {seed}, compacted at {}: {request:?}\n etcd: {expected:?}\n ours: {found:?}",
            requests.compacted,
        );
        let done = matches!(expected, Answer::Done { .. });
        for kind in request.kinds() {
            let seen: &mut Seen = kinds.entry(kind).or_default();
            *if done { &mut seen.done } else { &mut seen.refused } += 1;
        }
        match expected {
            Answer::Done { revision, .. } => {
                requests.revision = requests.revision.max(revision);
                if let Request::Compact(revision) = request {
                    requests.compacted = revision;
                }
            }
            Answer::Refused(code, words) => *refusals.entry(format!("{code:?}: {words}")).or_default() += 1,
        }
    }
    println!("{count} requests had the same answers\n{kinds:#?}\n{refusals:#?}");
    // A change of what is asked for cannot leave a kind out unseen.
    let missing = Request::KINDS.into_iter().find(|kind| !kinds.contains_key(kind));
    assert!(count < 1_000 || missing.is_none(), "none was a {missing:?}");
}

/// How often requests of a kind were carried out, and refused.
#[derive(Debug, Default)]
struct Seen {
    done: usize,
    refused: usize,
}
