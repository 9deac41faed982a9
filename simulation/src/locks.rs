//! Locks with fencing tokens: a holder writes once under its guard, and nobody writes after the holder of a greater token.

use std::{rc::Rc, sync::Arc, time::Duration};

use storage_core::{Expected, Lock, LockOptions, ReadOptions, Store, Txn, WriteOptions};
use tokio::time::sleep;

use crate::{clients::key, shared::Shared};

const LOCKS: u64 = 2;
const TTL: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(3);

/// Works until the clients are told to end or the host crashes.
pub(crate) async fn work(store: Arc<dyn Store>, id: u64, shared: Rc<Shared>) {
    while !shared.ended.get() {
        sleep(Duration::from_millis(fastrand::u64(100..1500))).await;
        let place = fastrand::u64(..LOCKS);
        // A token that was acquired before this call began is less than the one that it gives.
        let before = shared.tenures.borrow().acquired.get(&place).copied().unwrap_or(0);
        let options = LockOptions::new(format!("n{id}")).ttl(TTL).wait(WAIT);
        let Ok(lock) = Lock::acquire(Arc::clone(&store), key(format!("lock/{place}")), options).await else { continue };
        let token = lock.token().0;
        shared.event_log.record(format_args!("n{id} holds lock {place} with token {token}"));
        if token <= before {
            shared.violate(format!("lock {place} was given with token {token} after {before}"));
        }
        {
            let mut tenures = shared.tenures.borrow_mut();
            let highest = tenures.acquired.entry(place).or_default();
            *highest = token.max(*highest);
            tenures.count += 1;
        }
        write(&store, place, token, &lock, &shared).await;
        if fastrand::u8(..5) > 0 {
            let _ = lock.release().await;
        }
    }
}

/// One write under the lock, of the token. Some holders are slow, and hold it no more.
async fn write(store: &Arc<dyn Store>, place: u64, token: u64, lock: &Lock<Arc<dyn Store>>, shared: &Shared) {
    let resource = key(format!("locked/{place}"));
    let Ok(entry) = store.get(&resource, ReadOptions::default()).await else { return };
    if fastrand::u8(..4) == 0 {
        sleep(Duration::from_millis(fastrand::u64(..2500))).await;
    }
    let last: u64 = entry.as_ref().and_then(|entry| str::from_utf8(&entry.value).ok()?.parse().ok()).unwrap_or(0);
    let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
    let txn = Txn::new().guard(resource.clone(), expected).put(resource, token.to_string()).fenced(lock);
    let written = store.commit(txn, WriteOptions::default()).await;
    if written.is_ok_and(|outcome| outcome.is_committed()) && last >= token {
        shared.violate(format!("lock {place}: a write under token {token} came after that under {last}"));
    }
}
