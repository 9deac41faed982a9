//! Finding the cluster: every replica that is listed is asked.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use storage_core::{Error, Result, Store};

use crate::{engine::Engine, ids::ClusterId, settings::Settings, table::Table, url::NodeUrl};

/// How long each replica may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// A cluster that was found, and a way to it.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) cluster: ClusterId,
    pub(crate) endpoints: Vec<NodeUrl>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) table: Table,
}

/// What a search has come to.
#[derive(Debug)]
pub(crate) enum Search {
    Found(Located),
    /// Nobody answers who knows one. With why those are not it that did answer.
    Nothing(Vec<String>),
}

/// Looks for the cluster of these replicas: the one that is known, or any that proves to have the token.
///
/// # Errors
/// [`Error::Corrupt`] if there are two: somebody has to decide.
pub(crate) async fn locate(
    settings: &Settings,
    engine: &dyn Engine,
    known: Option<ClusterId>,
    timeout: Duration,
) -> Result<Search> {
    let asked = settings.replicas.iter().map(|replica| async {
        let status = engine.status(&replica.client_url, ANSWERS_WITHIN).await.ok()?;
        Some((replica.client_url.clone(), status.cluster))
    });
    let answers: Vec<(NodeUrl, u64)> = join_all(asked).await.into_iter().flatten().collect();
    let mut clusters: Vec<u64> = answers.iter().map(|(_, cluster)| *cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    let (mut found, mut others): (Vec<Located>, _) = (Vec::new(), Vec::new());
    for api_cluster in clusters {
        let of_it = answers.iter().filter(|(_, cluster)| *cluster == api_cluster).map(|(url, _)| url.clone());
        let endpoints: Vec<_> = of_it.collect();
        let store = engine.connect(&endpoints).await?;
        let rows = engine.rows(&store, &endpoints)?;
        let table = Table::new(rows, api_cluster, settings.token.clone(), timeout);
        match table.cluster().await {
            Ok(Some(cluster)) if known.is_none_or(|known| known == cluster) => {
                found.push(Located { cluster, endpoints, store, table });
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
