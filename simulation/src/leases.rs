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

const TTL_SECONDS: u64 = 2;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Works until the clients are told to end or the host crashes.
pub(crate) async fn work(node: Node, shared: Rc<Shared>) {
    let mvcc = node.mvcc();
    while !shared.ended.get() {
        sleep(Duration::from_millis(fastrand::u64(200..3000))).await;
        let id = fastrand::u64(1..=u64::MAX >> 1);
        shared.leases.borrow_mut().ids.push(id);
        let mut promised = Instant::now() + Duration::from_secs(TTL_SECONDS);
        if mvcc.grant_lease(id, TTL_SECONDS, TIMEOUT).await.is_err() {
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
        for _ in 0..fastrand::u8(..6) {
            sleep(Duration::from_millis(fastrand::u64(100..1200))).await;
            if shared.ended.get() {
                break;
            }
            let asked = Instant::now();
            match mvcc.keep_lease(id, TIMEOUT).await {
                Ok(Some(_)) => promised = asked + Duration::from_secs(TTL_SECONDS),
                Ok(None) => break,
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
