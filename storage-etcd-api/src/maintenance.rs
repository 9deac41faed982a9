//! The service Maintenance.

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use storage_embedded::{NodeStatus, Role, SnapshotFooter, SnapshotReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    context::Context,
    error::{self, store_status},
    limits::{ETCD_VERSION, REQUEST_TIMEOUT},
    proto::etcdserverpb::{
        AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
        HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
        SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
        maintenance_server::Maintenance,
    },
    who::Credentials,
};

/// How many pieces of a snapshot are read ahead of a slow client.
const PIECES_AHEAD: usize = 4;

/// The state of a node.
#[derive(Clone, Debug)]
pub(crate) struct MaintenanceService(pub(crate) Context);

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    /// There are no alarms: a node that cannot go on stops.
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let who = Credentials::of(&request);
        match request.into_inner().action() {
            AlarmAction::Get => self.0.check_somebody(&who).await?,
            AlarmAction::Activate | AlarmAction::Deactivate => self.0.check_root(&who).await?,
        }
        Ok(Response::new(AlarmResponse { header: self.0.header(), alarms: Vec::new() }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.0.check_somebody(&Credentials::of(&request)).await?;
        let NodeStatus { role, leader, term, last_log_index, last_applied, .. } = self.0.node().status();
        let size = self.0.node().newest_snapshot().await.map_err(store_status)?.map_or(0, |newest| newest.length());
        let errors = if leader.is_none() { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
        Ok(Response::new(StatusResponse {
            header: self.0.header(),
            version: ETCD_VERSION.to_owned(),
            db_size: size.cast_signed(),
            leader: leader.unwrap_or_default(),
            raft_index: last_log_index.unwrap_or_default(),
            raft_term: term,
            raft_applied_index: last_applied.unwrap_or_default(),
            errors,
            db_size_in_use: size.cast_signed(),
            is_learner: role == Role::Learner,
        }))
    }

    /// There is nothing to do: the log's segments are used again, and snapshots have no holes.
    async fn defragment(&self, request: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        self.0.check_root(&Credentials::of(&request)).await?;
        Ok(Response::new(DefragmentResponse { header: self.0.header() }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.0.check_root(&Credentials::of(&request)).await?;
        let (hash, _) = self.hash_at(0).await?;
        Ok(Response::new(HashResponse { header: self.0.header(), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.0.check_root(&Credentials::of(&request)).await?;
        let revision = u64::try_from(request.into_inner().revision).unwrap_or_default();
        let (hash, hash_revision) = self.hash_at(revision).await?;
        let compact_revision = self.0.mvcc.compacted().map_or(-1, u64::cast_signed);
        let hash_revision = hash_revision.cast_signed();
        Ok(Response::new(HashKvResponse { header: self.0.header(), hash, compact_revision, hash_revision }))
    }

    type SnapshotStream = BoxStream<'static, Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        // By what is known now: it has everything.
        self.0.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        self.0.check_root(&Credentials::of(&request)).await?;
        let snapshot = self.0.node().open_snapshot(REQUEST_TIMEOUT).await.map_err(store_status)?;
        let (pieces, received) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || send(snapshot, &pieces));
        Ok(Response::new(ReceiverStream::new(received).boxed()))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        self.0.check_root(&Credentials::of(&request)).await?;
        let to = request.into_inner().target_id;
        let status = self.0.node().status();
        if status.role != Role::Leader {
            return Err(error::NOT_LEADER.into());
        }
        if !status.voters.contains(&to) {
            return Err(error::BAD_TRANSFEREE.into());
        }
        self.0.node().transfer_leadership(to, REQUEST_TIMEOUT).await.map_err(store_status)?;
        Ok(Response::new(MoveLeaderResponse { header: self.0.header() }))
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        self.0.check_root(&Credentials::of(&request)).await?;
        Err(Status::unimplemented("etcdserver: there is no downgrade"))
    }
}

impl MaintenanceService {
    async fn hash_at(&self, revision: u64) -> Result<(u32, u64), Status> {
        self.0.mvcc.hash(revision).await.map_err(error::status)
    }
}

/// Sends a snapshot and its footer, by whose length clients tell that there is one. Ends early when nobody listens.
fn send(snapshot: SnapshotReader, pieces: &mpsc::Sender<Result<SnapshotResponse, Status>>) {
    let mut left = SnapshotFooter::length_with_footer(snapshot.length());
    let mut footer = SnapshotFooter::default();
    let mut send = |piece: std::io::Result<Bytes>| {
        let answer = piece.map_err(|error| Status::data_loss(error.to_string())).map(|blob| {
            left -= blob.len() as u64;
            SnapshotResponse { header: None, remaining_bytes: left, blob, version: ETCD_VERSION.to_owned() }
        });
        let failed = answer.is_err();
        pieces.blocking_send(answer).is_ok() && !failed
    };
    for piece in snapshot {
        if let Ok(piece) = &piece {
            footer.update(piece);
        }
        if !send(piece) {
            return;
        }
    }
    send(Ok(footer.finish()));
}
