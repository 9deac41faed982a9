//! `snet storage status`: what each node says of itself, with an exit code for those who watch.

use serde::Serialize;

use super::flags::ClusterFlags;
use crate::{
    exit::{Failure, Outcome},
    table::Table,
};

/// Ask each node of a cluster how it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage status --endpoints http://10.0.1.1:2379,http://10.0.1.2:2379,http://10.0.1.3:2379

Nodes of either engine, and of any etcd v3. It ends with code 3 if a node does not answer, and with code 1 if one knows no leader.")]
pub(crate) struct Status {
    #[command(flatten)]
    nodes: ClusterFlags,
}

/// A node, as it is printed.
#[derive(Serialize)]
struct Node {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    info: Option<Info>,
}

#[derive(Serialize)]
struct Info {
    id: String,
    cluster: String,
    version: String,
    role: &'static str,
    term: u64,
    log_index: u64,
    applied_index: u64,
    revision: u64,
    bytes: u64,
    errors: Vec<String>,
}

#[derive(Serialize)]
struct StatusReport {
    nodes: Vec<Node>,
}

pub(super) async fn run(Status { nodes }: &Status) -> Outcome {
    let admin = nodes.admin()?;
    let (mut answer, mut failure) = (StatusReport { nodes: Vec::new() }, None);
    for (url, status) in admin.status().await {
        let endpoint = url.to_string();
        answer.nodes.push(match status {
            Ok(info) => {
                if info.leader.is_none() {
                    failure.get_or_insert(Failure::Wrong(anyhow::anyhow!("{endpoint} knows no leader")));
                }
                let role = match info.leader {
                    Some(leader) if leader == info.id => "leader",
                    _ if info.is_learner => "learner",
                    Some(_) => "follower",
                    None => "no leader",
                };
                let info = Info {
                    id: format!("{:x}", info.id),
                    cluster: format!("{:x}", info.cluster),
                    version: info.version,
                    role,
                    term: info.term,
                    log_index: info.log_index,
                    applied_index: info.applied_index,
                    revision: info.revision,
                    bytes: info.bytes,
                    errors: info.errors,
                };
                Node { endpoint, error: None, info: Some(info) }
            }
            Err(error) => {
                let error_text = error.to_string();
                failure = Some(error.into());
                Node { endpoint, error: Some(error_text), info: None }
            }
        });
    }
    nodes.output.print(&answer, table)?;
    failure.map_or(Ok(()), Err)
}

fn table(answer: &StatusReport) -> String {
    let mut table = Table::default();
    table.row(["endpoint", "node", "role", "term", "log", "applied", "revision", "bytes"].map(str::to_owned));
    for node in &answer.nodes {
        match &node.info {
            Some(info) => {
                let numbers = [info.term, info.log_index, info.applied_index, info.revision, info.bytes];
                let words = [node.endpoint.clone(), info.id.clone(), info.role.to_owned()];
                table.row(words.into_iter().chain(numbers.map(|number| number.to_string())));
            }
            None => table.row([node.endpoint.clone(), "does not answer".to_owned()]),
        }
    }
    table.to_string()
}
