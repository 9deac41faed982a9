//! `open`: from a URL to a store of the backend that its scheme names.
//!
//! A URL may hold a password, so it stands in no message.

use std::sync::Arc;

use storage_core::{Error, Result, Store, servers::did_you_mean};
use url::Url;

use crate::{
    hosts,
    registry::{BACKENDS, Backend},
};

/// Opens the store that a URL names. The crate's documentation has the URLs.
///
/// ```
/// # use storage::{Key, ReadOptions, Store, StoreExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> storage::Result<()> {
/// // Two replicas of a service, each with a handle of its own on the same data.
/// let one = storage::open("mem:channels").await?;
/// let other = storage::open("mem:channels").await?;
/// let key = Key::new("channel/7")?;
/// let version = one.put(&key, "open").await?;
/// assert_eq!(other.get(&key, ReadOptions::default()).await?.map(|entry| entry.version), Some(version));
///
/// // What is wrong with a URL is told with what was probably meant.
/// let error = storage::open("embeded:/var/lib/channels").await.expect_err("a typing mistake");
/// assert!(error.to_string().contains("did you mean `embedded`?"));
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] for what is no URL, has an unknown scheme or parameter, or a value that the backend cannot use;
/// [`Error::Unsupported`] for a scheme whose cargo feature is off, which it names; otherwise what the backend says.
/// Nothing was opened then.
pub async fn open(url: &str) -> Result<Arc<dyn Store>> {
    // The text itself is not shown: it may hold a password.
    let url = hosts::parse(url)
        .map_err(|error| Error::invalid_argument(format!("this is no URL: {error}; {}", known_schemes())))?;
    let opener = match backend(url.scheme())? {
        Backend { opener: Some(opener), .. } => opener,
        Backend { feature, .. } => {
            let scheme = url.scheme();
            let feature =
                format!("`{scheme}:` in this build: build it with the cargo feature `{feature}` of `storage`");
            return Err(Error::Unsupported { feature });
        }
    };
    refuse_unknown_parameters(&url, opener.parameters)?;
    (opener.open)(&url).await
}

/// The URL schemes that this build can open.
///
/// ```
/// assert!(storage::schemes().any(|scheme| scheme == "mem"));
/// ```
pub fn schemes() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().filter(|backend| backend.opener.is_some()).flat_map(|backend| backend.schemes).copied()
}

fn backend(scheme: &str) -> Result<&'static Backend> {
    let found = BACKENDS.iter().find(|backend| backend.schemes.contains(&scheme));
    found.ok_or_else(|| {
        let all = BACKENDS.iter().flat_map(|backend| backend.schemes).copied();
        let hint = did_you_mean(scheme, all);
        Error::invalid_argument(format!("no backend has the scheme `{scheme}`{hint}; {}", known_schemes()))
    })
}

fn refuse_unknown_parameters(url: &Url, known: &[&'static str]) -> Result<()> {
    let mut names = url.query_pairs().map(|(name, _)| name);
    let Some(unknown) = names.find(|name| !known.contains(&name.as_ref())) else { return Ok(()) };
    let (scheme, hint) = (url.scheme(), did_you_mean(&unknown, known.iter().copied()));
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    Err(Error::invalid_argument(format!("`{scheme}:` has no parameter `{unknown}`{hint}; {known}")))
}

fn known_schemes() -> String {
    let known = BACKENDS.iter().map(|backend| match backend {
        Backend { opener: Some(_), .. } => backend.schemes.join(", "),
        Backend { feature, .. } => format!("{} (needs the feature `{feature}`)", backend.schemes.join(", ")),
    });
    format!("known schemes: {}", known.collect::<Vec<_>>().join(", "))
}
