//! Finding the cluster: every replica that is listed is asked.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use storage_core::{Error, Result, Store};

use super::{cluster_id::ClusterId, table::Table};
use crate::{
    admin::Admin,
    config::{Growing, NodeUrl},
    node,
};

/// How long each replica may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// A cluster that was found, and a way to it.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) cluster: ClusterId,
    /// Its id, as the etcd API shows it.
    pub(super) shown: u64,
    pub(super) endpoints: Vec<NodeUrl>,
    pub(super) store: Arc<dyn Store>,
}

/// What a search has come to.
#[derive(Debug)]
pub(super) enum Search {
    Found(Located),
    /// Nobody answers who knows one. With why those are not it that did answer.
    Nothing(Vec<String>),
}

/// Looks for the cluster of these replicas: the one that is known, or any that proves to have the token.
///
/// # Errors
/// [`Error::Corrupt`] if there are two: somebody has to decide.
pub(super) async fn locate(growing: &Growing, known: Option<ClusterId>, timeout: Duration) -> Result<Search> {
    let asked = growing.replicas.iter().map(|replica| async {
        let admin =
            Admin::with_tls(std::slice::from_ref(&replica.client_url), ANSWERS_WITHIN, &growing.client_tls).ok()?;
        let (url, answer) = admin.status().await.pop()?;
        Some((url, answer.ok()?.cluster))
    });
    let answers: Vec<(NodeUrl, u64)> = join_all(asked).await.into_iter().flatten().collect();
    let mut shown: Vec<u64> = answers.iter().map(|(_, cluster)| *cluster).collect();
    shown.sort_unstable();
    shown.dedup();
    let (mut found, mut others): (Vec<Located>, _) = (Vec::new(), Vec::new());
    for shown in shown {
        let of_it = answers.iter().filter(|(_, cluster)| *cluster == shown).map(|(url, _)| url.clone());
        let endpoints: Vec<_> = of_it.collect();
        let store = node::connect(&endpoints, &growing.client_tls).await?;
        let table = Table::new(Arc::clone(&store), shown, growing.token.clone(), timeout);
        match table.cluster().await {
            Ok(Some(cluster)) if known.is_none_or(|known| known == cluster) => {
                found.push(Located { cluster, shown, endpoints, store });
                continue;
            }
            Ok(Some(cluster)) => others.push(format!("{} is of another cluster, {cluster}", names(&endpoints))),
            Ok(None) => others.push(format!("{} is of a cluster that does not grow by itself", names(&endpoints))),
            Err(error) => others.push(format!("{}: {error}", names(&endpoints))),
        }
        let _ = store.close().await;
    }
    if found.len() > 1 {
        let found: Vec<_> = found.iter().map(|one| format!("{} at {}", one.cluster, names(&one.endpoints))).collect();
        return Err(Error::corrupt(format!(
            "there are two clusters with this token, {}: stop one of them for good, and keep the other",
            found.join(" and ")
        )));
    }
    Ok(found.pop().map_or(Search::Nothing(others), Search::Found))
}

fn names(urls: &[NodeUrl]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
