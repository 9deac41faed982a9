//! Leases: a key lives at least as long as its lease was promised to, and not for ever.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use storage_core::{ReadOptions, Store};
use storage_embedded::{
    Node,
    mvcc::{Op, Put, Txn},
};
use tokio::time::{Instant, sleep};

use crate::{clients::key, shared::Shared};

/// The longest time of a lease. The shortest, a second, is as long as a leader may hear from nobody and go on counting.
const LONGEST_SECONDS: u64 = 2;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Works until the clients are told to end or the host crashes.
pub(crate) async fn work(node: Node, shared: Rc<Shared>) {
    let mvcc = node.mvcc();
    while !shared.ended.get() {
        sleep(Duration::from_millis(fastrand::u64(100..1500))).await;
        let id = fastrand::u64(1..=u64::MAX >> 1);
        shared.leases.borrow_mut().ids.push(id);
        let seconds = fastrand::u64(1..=LONGEST_SECONDS);
        let mut promised = Instant::now() + Duration::from_secs(seconds);
        if mvcc.grant_lease(id, seconds, TIMEOUT).await.is_err() {
            continue;
        }
        if shared.ended.get() {
            break;
        }
        let leased = key(format!("leased/{id:x}"));
        let put =
            Put { key: leased.clone(), value: Some(Bytes::from_static(b"here")), lease: Some(id), previous: false };
        // The lease may have ended meanwhile: then it is refused.
        if mvcc.txn(Txn::of(Op::Put(put)), TIMEOUT).await.is_err() {
            continue;
        }
        for _ in 0..fastrand::u8(..12) {
            sleep(Duration::from_millis(fastrand::u64(50..900))).await;
            if shared.ended.get() {
                break;
            }
            let asked = Instant::now();
            match mvcc.keep_lease(id, TIMEOUT).await {
                Ok(Some(_)) => promised = asked + Duration::from_secs(seconds),
                Ok(None) => {
                    if Instant::now() < promised {
                        shared.violate(format!("lease {id:x} was told to have ended before its time"));
                    }
                    break;
                }
                Err(_) => {}
            }
            let seen = node.store().get(&leased, ReadOptions::default().timeout(TIMEOUT)).await;
            if let Ok(None) = seen
                && Instant::now() < promised
            {
                shared.violate(format!("the key of lease {id:x} was gone before its time"));
            }
        }
    }
}
