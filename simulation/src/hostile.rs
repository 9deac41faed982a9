//! A client that does harm as far as a client can: it deletes everything but what the others write, writes under every name, begins what it does
//! not wait for, and watches what it does not read.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use storage_core::{Key, Store, StoreExt, Txn, WatchOptions, WatchStream, WriteOptions};
use storage_embedded::{
    Node,
    mvcc::{Delete, KeyRange, Op, OpAnswer, Range, Txn as MvccTxn},
};
use tokio::time::{sleep, timeout};

use crate::{clients::key, shared::Shared};

/// The keys of all others, and the bounds of each kind, in order. What is between them is deleted.
const SPARED: [(&str, &str); 6] = [
    ("counter/0", "counter0"),
    ("leased/", "leased0"),
    ("lock/", "lock0"),
    ("locked/", "locked0"),
    ("pair/", "pair0"),
    ("r/", "r0"),
];

/// Names that may mean something to a cluster, and such as mean nothing to anybody.
const NAMES: [&str; 8] =
    ["\0", "snet/membership/intent", "snet/membership/replicas/1", "members/1", "session/1", "0", "zz", "\u{10ffff}"];

const TIMEOUT: Duration = Duration::from_secs(2);

/// The largest value that is written, in bytes: it has a segment of its own.
const LARGEST: usize = 40 << 10;

/// How many watches are kept that nobody reads.
const WATCHES: usize = 3;

/// Works until the clients are told to end or the host crashes.
pub(crate) async fn work(node: Node, id: u64, shared: Rc<Shared>) {
    let store = node.store();
    let mut watches: Vec<WatchStream> = Vec::new();
    while !shared.ended.get() {
        sleep(Duration::from_millis(fastrand::u64(50..1500))).await;
        match fastrand::u8(..6) {
            0 => delete_all(&node).await,
            1 => own_are_gone(&node, id, &shared).await,
            2 => {
                let txn = NAMES.iter().fold(Txn::new(), |txn, name| txn.put(key((*name).to_owned()), "mine"));
                let _ = store.commit(txn, WriteOptions::default().timeout(TIMEOUT)).await;
            }
            3 => {
                let value = vec![7; fastrand::usize(..LARGEST)];
                let _ = timeout(TIMEOUT, store.put(&own(id), value)).await;
            }
            4 => {
                watches.truncate(fastrand::usize(..WATCHES));
                watches.extend(store.watch(b"", WatchOptions::default()).await);
            }
            _ => {
                let put = Txn::new().put(key(format!("abandoned/{id}")), "begun");
                let write = store.commit(put, WriteOptions::default().timeout(TIMEOUT));
                let _ = timeout(Duration::from_millis(fastrand::u64(..5)), write).await;
            }
        }
    }
}

fn own(id: u64) -> Key {
    key(format!("hostile/{id}/{}", fastrand::u8(..4)))
}

/// Everything that is not another's.
async fn delete_all(node: &Node) {
    let first = Bytes::from_static(b"\0");
    let (mut ranges, last) = SPARED.iter().fold((Vec::new(), first), |(mut ranges, from), (begins, ends)| {
        ranges.push(KeyRange::Between(from, Bytes::from_static(begins.as_bytes())));
        (ranges, Bytes::from_static(ends.as_bytes()))
    });
    ranges.push(KeyRange::From(last));
    for keys in ranges {
        let _ = node.mvcc().txn(MvccTxn::of(Op::Delete(Delete { keys, previous: false })), TIMEOUT).await;
    }
}

/// What only this client writes, and deletes itself: it is gone when the deletion was acknowledged.
async fn own_are_gone(node: &Node, id: u64, shared: &Shared) {
    let keys = KeyRange::Between(format!("hostile/{id}/").into(), format!("hostile/{id}0").into());
    let txn = MvccTxn {
        success: vec![
            Op::Delete(Delete { keys: keys.clone(), previous: false }),
            Op::Range(Range { count_only: true, ..Range::new(keys) }),
        ],
        ..MvccTxn::default()
    };
    let Ok(answer) = node.mvcc().txn(txn, TIMEOUT).await else { return };
    if let Some(OpAnswer::Range(ranged)) = answer.answers.last()
        && ranged.count > 0
    {
        shared.violate(format!("{} keys of n{id} are there in the transaction that has deleted them", ranged.count));
    }
}
