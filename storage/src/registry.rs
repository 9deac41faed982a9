//! Which backends there are: one line for each.

use std::sync::Arc;

use futures::future::BoxFuture;
use storage_core::{Result, Store};
use url::Url;

use crate::memory;

/// Every backend, in the order in which people are told of them.
///
/// A line has the cargo feature, the crate and its URL schemes, which have to be here for builds without the crate.
/// The crate exports `SCHEMES` and `PARAMETERS` (the names that may stand in the query) and
/// `async fn open(&Url) -> Result<Arc<dyn Store>>`.
pub(crate) const BACKENDS: &[Backend] = &[
    Backend { feature: "", schemes: memory::SCHEMES, opener: Some(opener!(memory)) },
    backend!("embedded", storage_embedded, ["embedded"]),
    backend!("etcd", storage_etcd, ["etcd", "etcds"]),
    backend!("consul", storage_consul, ["consul", "consuls"]),
    backend!("zk", storage_zk, ["zk", "zks"]),
];

/// A backend as `open` sees it.
pub(crate) struct Backend {
    /// The cargo feature that brings it; empty for what is always there.
    pub(crate) feature: &'static str,
    /// The URL schemes that it answers to.
    pub(crate) schemes: &'static [&'static str],
    /// `None` when its feature is off.
    pub(crate) opener: Option<Opener>,
}

/// How a backend that was built in is opened.
pub(crate) struct Opener {
    /// The schemes that the crate itself names: the same as in the registry.
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the registry by a test"))]
    pub(crate) schemes: &'static [&'static str],
    /// The names that may stand in the query of its URL.
    pub(crate) parameters: &'static [&'static str],
    /// Opens it.
    pub(crate) open: fn(&Url) -> Opening<'_>,
}

/// A store that is being opened.
pub(crate) type Opening<'a> = BoxFuture<'a, Result<Arc<dyn Store>>>;

macro_rules! opener {
    ($backend:ident) => {
        Opener {
            schemes: $backend::SCHEMES,
            parameters: $backend::PARAMETERS,
            open: |url| Box::pin($backend::open(url)),
        }
    };
}
use opener;

macro_rules! backend {
    ($feature:literal, $backend:ident, $schemes:expr) => {
        Backend {
            feature: $feature,
            schemes: &$schemes,
            opener: {
                #[cfg(feature = $feature)]
                {
                    Some(opener!($backend))
                }
                #[cfg(not(feature = $feature))]
                {
                    None
                }
            },
        }
    };
}
use backend;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_and_the_crates_name_the_same_schemes() {
        for backend in BACKENDS {
            if let Some(opener) = &backend.opener {
                assert_eq!(backend.schemes, opener.schemes, "of {}", backend.feature);
            }
        }
    }

    #[test]
    fn no_two_backends_have_a_scheme_in_common() {
        let mut schemes: Vec<_> = BACKENDS.iter().flat_map(|backend| backend.schemes).collect();
        schemes.sort_unstable();
        assert!(schemes.windows(2).all(|pair| pair[0] != pair[1]), "{schemes:?}");
    }
}
