//! The reference store behind a URL: `mem:` and `mem:NAME`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use storage_core::{Error, MemoryStore, Result, Store};
use url::Url;

pub(crate) const SCHEMES: &[&str] = &["mem"];

pub(crate) const PARAMETERS: &[&str] = &[];

/// The stores that have a name. They live as long as the process: an in-memory store that vanished with its last handle
/// would look as if it had lost its data.
static NAMED: Mutex<Option<HashMap<String, MemoryStore>>> = Mutex::new(None);

pub(crate) async fn open(url: &Url) -> Result<Arc<dyn Store>> {
    let name = url.path();
    if url.has_host() || name.starts_with('/') {
        return Err(Error::invalid_argument(format!("a store in memory has a name and no place: mem:NAME, not {url}")));
    }
    if name.is_empty() {
        return Ok(Arc::new(MemoryStore::new()));
    }
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let store = named.get_or_insert_default().entry(name.to_owned()).or_default();
    Ok(Arc::new(store.handle()))
}
