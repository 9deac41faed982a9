use bytes::Bytes;
use storage_core::{Expected, Key, Outcome, Store, Txn};

use crate::{Result, attempts::Attempts};

/// What a counter shall become.
pub(crate) enum Step<T> {
    /// As it is: this is the answer.
    Keep(T),
    /// This record; the answer if it is written.
    Put(Bytes, T),
}

/// Reads a record, decides, and swaps it, until no other writer comes in between. `decide` (`None`: absent) has to know an
/// operation that it has decided before by the id in the record: after a lost reply it is asked again.
pub(crate) async fn update<S: Store, T>(
    store: &S,
    key: &Key,
    mut decide: impl FnMut(Option<&[u8]>) -> Result<Step<T>>,
) -> Result<T> {
    let mut attempts = Attempts::begin();
    loop {
        let entry = match store.get(key, attempts.read()).await {
            Ok(entry) => entry,
            Err(error) => {
                attempts.after(error).await?;
                continue;
            }
        };
        let (record, answer) = match decide(entry.as_ref().map(|entry| &*entry.value))? {
            Step::Keep(answer) => return Ok(answer),
            Step::Put(record, answer) => (record, answer),
        };
        let expected = entry.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
        let txn = Txn::new().guard(key.clone(), expected).put(key.clone(), record);
        match store.commit(txn, attempts.write()).await {
            Ok(Outcome::Committed(_)) => return Ok(answer),
            Ok(Outcome::Conflict(_)) => attempts.after_conflict().await?,
            Err(error) => attempts.after(error).await?,
        }
    }
}
