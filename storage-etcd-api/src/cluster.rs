//! The service Cluster, on the membership calls of the node.

use std::{collections::BTreeMap, time::Duration};

use storage_core::Error;
use storage_embedded::{NOT_IN_SYNC, Node, NodeStatus};
use tonic::{Request, Response, Status};

use crate::{
    context::Context,
    error::{self, Refusal, store_status},
    limits::REQUEST_TIMEOUT,
    proto::etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
        MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
        ResponseHeader, cluster_server::Cluster,
    },
    who::Credentials,
};

/// The rows in which members tell where clients reach them: this, and the member's id. One URL a line.
const CLIENT_URLS_ROW: &str = "etcd_api/client_urls/";

/// The rows with the peer URLs of members that were given several: this, and the member's id. One URL a line.
const PEER_URLS_ROW: &str = "etcd_api/peer_urls/";

/// The rows in which members that were taken in later tell their names: this, and the member's id.
const NAME_ROW: &str = "etcd_api/name/";

/// The members.
#[derive(Clone, Debug)]
pub(crate) struct ClusterService(pub(crate) Context);

impl ClusterService {
    fn members(&self) -> Vec<Member> {
        members(self.0.node())
    }

    /// Without a revision, as in etcd: members have none.
    fn header(&self) -> Option<ResponseHeader> {
        self.0.header_at(0)
    }

    /// That one asks who may, by what is known now.
    async fn for_root(&self, who: &Credentials) -> Result<(), Status> {
        self.0.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        self.0.check_root(who).await
    }

    fn learner(&self, id: u64) -> Result<bool, Refusal> {
        let status = self.0.node().status();
        if !status.members.contains_key(&id) {
            return Err(error::MEMBER_NOT_FOUND);
        }
        Ok(!status.voters.contains(&id))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        let who = Credentials::of(&request);
        let MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let peer_address = peer_address(&peer_ur_ls)?;
        self.for_root(&who).await?;
        let status = self.0.node().status();
        if status.members.values().any(|member| member.peer_address == peer_address) {
            return Err(error::PEER_URL_EXISTS.into());
        }
        if is_learner && status.members.len() > status.voters.len() {
            return Err(error::TOO_MANY_LEARNERS.into());
        }
        // An id is never given twice, and among so many numbers none comes twice.
        let id = fastrand::u64(1..i64::MAX.cast_unsigned());
        let member = storage_embedded::Member { name: String::new(), peer_address, client_url: String::new() };
        self.0.node().add_learner(id, member, REQUEST_TIMEOUT).await.map_err(store_status)?;
        let members = self.members();
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(MemberAddResponse { header: self.header(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.for_root(&Credentials::of(&request)).await?;
        let id = request.into_inner().id;
        let is_learner = self.learner(id)?;
        if !is_learner && self.0.node().status().voters.len() == 1 {
            return Err(error::TOO_FEW_MEMBERS.into());
        }
        self.0.node().remove([id], REQUEST_TIMEOUT).await.map_err(store_status)?;
        // A node that was asked for its own removal cannot write any more, and stops soon: its client shall have an answer before.
        if id != self.0.node().id() {
            forget_member(self.0.node(), id, REQUEST_TIMEOUT).await;
        }
        Ok(Response::new(MemberRemoveResponse { header: self.header(), members: self.members() }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.for_root(&Credentials::of(&request)).await?;
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let peer_address = peer_address(&peer_ur_ls)?;
        self.learner(id)?;
        let mut others = self.0.node().status().members.into_iter().filter(|(other, _)| *other != id);
        if others.any(|(_, member)| member.peer_address == peer_address) {
            return Err(error::PEER_URL_EXISTS.into());
        }
        self.0.node().readdress(id, peer_address, REQUEST_TIMEOUT).await.map_err(store_status)?;
        // Members reach it by the first. Of the others they tell whoever asks.
        let (row, timeout) = (peer_urls_row(id), REQUEST_TIMEOUT);
        if peer_ur_ls.len() > 1 {
            self.0.node().put_row(row, peer_ur_ls.join("\n"), timeout).await.map_err(store_status)?;
        } else if self.0.node().row(row.as_bytes()).is_some() {
            self.0.node().delete_row(row, timeout).await.map_err(store_status)?;
        }
        Ok(Response::new(MemberUpdateResponse { header: self.header(), members: self.members() }))
    }

    async fn member_list(&self, request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let who = Credentials::of(&request);
        if request.into_inner().linearizable {
            self.0.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        }
        self.0.check_somebody(&who).await?;
        Ok(Response::new(MemberListResponse { header: self.header(), members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.for_root(&Credentials::of(&request)).await?;
        let id = request.into_inner().id;
        if !self.learner(id)? {
            return Err(error::MEMBER_NOT_LEARNER.into());
        }
        match self.0.node().promote_in_sync(id, REQUEST_TIMEOUT).await {
            Err(Error::InvalidArgument { reason }) if reason == NOT_IN_SYNC => return Err(error::NOT_IN_SYNC.into()),
            promoted => promoted.map_err(store_status)?,
        }
        Ok(Response::new(MemberPromoteResponse { header: self.header(), members: self.members() }))
    }
}

/// Tells the cluster where clients reach this node, and its name if the cluster does not know that.
pub(crate) async fn publish(node: &Node, name: &str, client_urls: &[String]) -> storage_core::Result<()> {
    let id = node.id();
    let known = node.status().members.get(&id).is_some_and(|member| member.name == name);
    if !known && !name.is_empty() {
        node.put_row(name_row(id), name.to_owned(), REQUEST_TIMEOUT).await?;
    }
    node.put_row(client_urls_row(id), client_urls.join("\n"), REQUEST_TIMEOUT).await
}

/// Deletes what a member that was removed has told of itself. Nobody reads it any more, so that a failure is no error.
pub async fn forget_member(node: &Node, id: u64, timeout: Duration) {
    for row in [client_urls_row(id), name_row(id), peer_urls_row(id)] {
        if let Err(error) = node.delete_row(row, timeout).await {
            tracing::info!(%error, id, "what a removed member has told of itself stays in the table");
        }
    }
}

fn name_row(id: u64) -> String {
    format!("{NAME_ROW}{id}")
}

fn peer_urls_row(id: u64) -> String {
    format!("{PEER_URLS_ROW}{id}")
}

fn client_urls_row(id: u64) -> String {
    format!("{CLIENT_URLS_ROW}{id}")
}

fn members(node: &Node) -> Vec<Member> {
    let NodeStatus { members, voters, .. } = node.status();
    let members: BTreeMap<_, _> = members;
    let scheme = if node.is_encrypted() { "https" } else { "http" };
    members
        .into_iter()
        .map(|(id, member)| Member {
            id,
            name: told(node, &name_row(id)).unwrap_or(member.name),
            peer_ur_ls: peer_urls(node, id, format!("{scheme}://{}", member.peer_address)),
            client_ur_ls: client_urls(node, id, member.client_url),
            is_learner: !voters.contains(&id),
        })
        .collect()
}

/// What the member has told, or what was said of it when it was taken in.
fn client_urls(node: &Node, id: u64, founded_with: String) -> Vec<String> {
    told(node, &client_urls_row(id)).unwrap_or(founded_with).lines().map(str::to_owned).collect()
}

/// The URL by which members reach it, and those that it was given with that.
fn peer_urls(node: &Node, id: u64, reached: String) -> Vec<String> {
    let told = told(node, &peer_urls_row(id)).unwrap_or_default();
    let told: Vec<_> = told.lines().map(str::to_owned).collect();
    if told.first() == Some(&reached) { told } else { vec![reached] }
}

fn told(node: &Node, row: &str) -> Option<String> {
    node.row(row.as_bytes()).map(|told| String::from_utf8_lossy(&told).into_owned())
}

/// The `host:port` of the first peer URL, by which the others reach a member.
fn peer_address(urls: &[String]) -> Result<String, Refusal> {
    let addresses = urls.iter().map(|url| address(url)).collect::<Result<Vec<_>, _>>()?;
    addresses.into_iter().next().ok_or(error::MEMBER_URLS)
}

fn address(url: &str) -> Result<String, Refusal> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or(error::MEMBER_URLS)?;
    let (host, port) = rest.rsplit_once(':').ok_or(error::MEMBER_URLS)?;
    if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
        return Err(error::MEMBER_URLS);
    }
    Ok(rest.to_owned())
}
