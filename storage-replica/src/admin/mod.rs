//! What operators ask of the nodes of a cluster, embedded ones or etcds: over etcd's API, on their client URLs.

mod alarms;
pub(crate) mod tls;
mod token;
mod users;

pub use alarms::Alarm;
pub use users::{Access, KeyPermission, PermittedKeys, UsersStatus};

use std::{io, time::Duration};

use futures::future::join_all;
use storage_core::{Error, Result};
use storage_etcd_api::proto::etcdserverpb::{
    self as pb, cluster_client::ClusterClient, maintenance_client::MaintenanceClient,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use self::token::Known;
use crate::config::{ClientTls, Login, NodeUrl};

/// How long an attempt to connect may take.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// The nodes of a cluster, as far as their client URLs are known.
///
/// A change goes to the first node that answers, once: [`Error::UnknownOutcome`] means that it may have been made.
#[derive(Clone, Debug)]
pub struct Admin {
    nodes: Vec<(NodeUrl, Channel)>,
    timeout: Duration,
    login: Option<Login>,
}

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where the other nodes reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started.
    pub client_urls: Vec<String>,
    /// It receives the log and does not vote.
    pub is_learner: bool,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its id.
    pub id: u64,
    /// The id of its cluster.
    pub cluster: u64,
    /// The release of etcd, or that whose API it serves.
    pub version: String,
    /// The leader, as far as it knows one.
    pub leader: Option<u64>,
    /// It receives the log and does not vote.
    pub is_learner: bool,
    /// The term.
    pub term: u64,
    /// The last entry of its log.
    pub log_index: u64,
    /// The last entry that it has applied.
    pub applied_index: u64,
    /// The store's revision there.
    pub revision: u64,
    /// The size of its data, in bytes: what its quota is about.
    pub bytes: u64,
    /// What is wrong with it.
    pub errors: Vec<String>,
}

/// How the node at a client URL is connected to.
///
/// # Errors
/// [`Error::InvalidArgument`] for a URL, or files of TLS, that cannot be used.
pub(crate) fn endpoint(client_url: &NodeUrl, tls: &ClientTls) -> Result<Endpoint> {
    let wrong = |error: tonic::transport::Error| Error::invalid_argument(format!("{client_url}: {error}"));
    let mut endpoint = Endpoint::from_shared(client_url.to_string()).map_err(wrong)?;
    if client_url.is_tls() {
        endpoint = endpoint.tls_config(tls::config(tls)?).map_err(wrong)?;
    }
    Ok(endpoint.connect_timeout(CONNECTS_WITHIN).tcp_nodelay(true))
}

impl Admin {
    /// The nodes with these client URLs. `timeout` is for each question, and for each piece of a snapshot.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for none, or one that cannot be used.
    pub fn new(client_urls: &[NodeUrl], timeout: Duration) -> Result<Self> {
        Self::with_tls(client_urls, timeout, &ClientTls::default())
    }

    /// The same, for nodes with `https` URLs: whom to trust, and who to be.
    ///
    /// # Errors
    /// Those of [`Admin::new`]; [`Error::InvalidArgument`] for files that cannot be read, and https without an authority to trust.
    pub fn with_tls(client_urls: &[NodeUrl], timeout: Duration, tls: &ClientTls) -> Result<Self> {
        if client_urls.is_empty() {
            return Err(Error::invalid_argument("no client URL of a node is given"));
        }
        let nodes = client_urls.iter().map(|url| Ok((url.clone(), endpoint(url, tls)?.connect_lazy())));
        Ok(Self { nodes: nodes.collect::<Result<_>>()?, timeout, login: tls.login.clone() })
    }

    /// What each node says, in the order of the URLs.
    pub async fn status(&self) -> Vec<(NodeUrl, Result<NodeInfo>)> {
        let answers =
            self.nodes.iter().map(|(url, channel)| async { (url.clone(), self.status_of(url, channel).await) });
        join_all(answers).await
    }

    /// The members of the cluster, as a majority of it knows them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node answers, or there is no leader.
    pub async fn members(&self) -> Result<Vec<MemberInfo>> {
        let (url, channel) = self.first().await?;
        let request = pb::MemberListRequest { linearizable: true };
        let answer = self.ask(async { ClusterClient::new(channel).member_list(request).await }).await;
        let answer = answer.map_err(|status| read_error(&url, &status))?.into_inner();
        Ok(answer.members.into_iter().map(MemberInfo::from).collect())
    }

    /// Takes in a member that does not vote yet, so that one which is not running cannot stop the cluster. See [`Admin::promote`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the cluster refuses it, with its reason; [`Error::Unavailable`]; [`Error::UnknownOutcome`]: look at
    /// [`Admin::members`]. So for the other changes.
    pub async fn add(&self, peer_url: &NodeUrl) -> Result<MemberInfo> {
        let (url, channel) = self.first().await?;
        let request = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.to_string()], is_learner: true };
        let answer = self.ask(async { ClusterClient::new(channel).member_add(request).await }).await;
        let answer = answer.map_err(|status| write_error(&url, &status))?.into_inner();
        answer
            .member
            .map(MemberInfo::from)
            .ok_or_else(|| Error::corrupt(format!("{url} has not said which member it added")))
    }

    /// Makes a voter of a member that has caught up.
    ///
    /// # Errors
    /// See [`Admin::add`].
    pub async fn promote(&self, id: u64) -> Result<()> {
        let (url, channel) = self.first().await?;
        let request = pb::MemberPromoteRequest { id };
        let answer = self.ask(async { ClusterClient::new(channel).member_promote(request).await }).await;
        answer.map(|_| ()).map_err(|status| write_error(&url, &status))
    }

    /// Removes a member. Its id is never used again.
    ///
    /// # Errors
    /// See [`Admin::add`].
    pub async fn remove(&self, id: u64) -> Result<()> {
        let (url, channel) = self.first().await?;
        let request = pb::MemberRemoveRequest { id };
        let answer = self.ask(async { ClusterClient::new(channel).member_remove(request).await }).await;
        answer.map(|_| ()).map_err(|status| write_error(&url, &status))
    }

    /// Makes another voter lead. Only the leader of an etcd does this; the client URL given has to be its own.
    ///
    /// # Errors
    /// See [`Admin::add`].
    pub async fn move_leader(&self, to: u64) -> Result<()> {
        let (url, channel) = self.first().await?;
        let request = pb::MoveLeaderRequest { target_id: to };
        let answer = self.ask(async { MaintenanceClient::new(channel).move_leader(request).await }).await;
        answer.map(|_| ()).map_err(|status| write_error(&url, &status))
    }

    /// Reads a snapshot of the first node that answers, piece by piece, and returns how many bytes it has. The last 32 are the SHA-256 of all before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it breaks off, or `write` fails.
    pub async fn snapshot(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> Result<u64> {
        let (url, channel) = self.first().await?;
        // A piece of an etcd can have more than gRPC's clients take by default.
        let mut client = MaintenanceClient::new(channel).max_decoding_message_size(MAX_PIECE_BYTES);
        let failed = |status: Status| read_error(&url, &status);
        let mut pieces = self.ask(client.snapshot(pb::SnapshotRequest {})).await.map_err(failed)?.into_inner();
        let mut bytes = 0;
        let mut left = None;
        while let Some(piece) = self.ask(pieces.message()).await.map_err(failed)? {
            write(&piece.blob).map_err(Error::unavailable)?;
            bytes += piece.blob.len() as u64;
            left = Some(piece.remaining_bytes);
        }
        // An etcd counts the data alone, so that nothing is left before the hash comes.
        if left.is_none_or(|left| left > 0) {
            return Err(Error::unavailable(format!("{url} has ended the snapshot after {bytes} bytes")));
        }
        Ok(bytes)
    }

    async fn status_of(&self, url: &NodeUrl, channel: &Channel) -> Result<NodeInfo> {
        let mut answer = self.ask(status(self.logged_in(url, channel).await?)).await;
        // One that is not taken any more: it was given long ago, or the password has changed.
        if answer.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated)
            && let Some(login) = &self.login
        {
            login.set_token(None);
            answer = self.ask(status(self.logged_in(url, channel).await?)).await;
        }
        answer.map_err(|status| read_error(url, &status))
    }

    /// The first node that answers.
    async fn first(&self) -> Result<(NodeUrl, Known)> {
        let mut last = Error::unavailable("no node answers");
        for (url, channel) in &self.nodes {
            match self.status_of(url, channel).await {
                Ok(_) => return Ok((url.clone(), self.known(channel))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let answer = tokio::time::timeout(self.timeout, question).await;
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {:?}", self.timeout))))
    }
}

/// The longest piece of a snapshot that is taken.
const MAX_PIECE_BYTES: usize = 64 << 20;

async fn status(channel: Known) -> Result<NodeInfo, Status> {
    let answer = MaintenanceClient::new(channel).status(pb::StatusRequest {}).await?.into_inner();
    let header = answer.header.unwrap_or_default();
    Ok(NodeInfo {
        id: header.member_id,
        cluster: header.cluster_id,
        version: answer.version,
        leader: (answer.leader != 0).then_some(answer.leader),
        is_learner: answer.is_learner,
        term: answer.raft_term,
        log_index: answer.raft_index,
        applied_index: answer.raft_applied_index,
        revision: u64::try_from(header.revision).unwrap_or_default(),
        bytes: u64::try_from(answer.db_size).unwrap_or_default(),
        errors: answer.errors,
    })
}

impl From<pb::Member> for MemberInfo {
    fn from(member: pb::Member) -> Self {
        let pb::Member { id, name, peer_ur_ls, client_ur_ls, is_learner } = member;
        Self { id, name, peer_urls: peer_ur_ls, client_urls: client_ur_ls, is_learner }
    }
}

/// Why a question has no answer.
fn read_error(url: &NodeUrl, status: &Status) -> Error {
    let reason = format!("{url}: {}", words(status));
    match status.code() {
        Code::Unimplemented => Error::Unsupported { feature: reason },
        Code::PermissionDenied => Error::PermissionDenied { source: reason.into() },
        Code::Unauthenticated => Error::Unauthenticated { source: reason.into() },
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => {
            Error::invalid_argument(reason)
        }
        _ => Error::unavailable(reason),
    }
}

/// What an etcd answers with the code of a lost connection, although it has refused.
const REFUSAL: &str = "etcdserver: unhealthy cluster";

/// The same for a change: one that was sent and not answered may have been made.
fn write_error(url: &NodeUrl, status: &Status) -> Error {
    match read_error(url, status) {
        error if status.message().starts_with(REFUSAL) => error,
        Error::Unavailable { source } => Error::UnknownOutcome { source },
        error => error,
    }
}

/// What the node said, and what the transport saw.
fn words(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = error.source();
    }
    words
}
