use std::sync::Arc;

use ::url::Url;
use storage_core::{Error, Result, Store};

use crate::FileStore;

/// The URL schemes of this backend.
pub const SCHEMES: &[&str] = &["file"];

/// The names that may stand in the query of its URL: none.
pub const PARAMETERS: &[&str] = &[];

/// Opens the store that `file:/DIR` names.
///
/// # Errors
/// [`Error::InvalidArgument`] for a URL that names no directory of this machine; those of [`FileStore::open`].
pub async fn open(url: &Url) -> Result<Arc<dyn Store>> {
    let plain = SCHEMES.contains(&url.scheme()) && url.query().is_none() && url.fragment().is_none();
    let path = url.to_file_path().ok().filter(|_| plain);
    let path = path.ok_or_else(|| Error::invalid_argument(format!("a store in a file is file:/DIR, not {url}")))?;
    Ok(Arc::new(FileStore::open(path).await?))
}
