//! The service Maintenance.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use storage_embedded::{Mvcc, NodeStatus, Role, SnapshotFooter, SnapshotReader};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    context::{Context, read_options},
    error::{self, store_status},
    limits::{ETCD_VERSION, REQUEST_TIMEOUT, SNAPSHOT_BYTES_A_SECOND, SNAPSHOT_WITHIN},
    proto::etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeRequest,
        DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
        MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
        alarm_request::AlarmAction, maintenance_server::Maintenance,
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
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let (who, request) = (Credentials::of(&request), request.into_inner());
        let (member, kind) = (request.member_id, request.alarm());
        let members = match request.action() {
            AlarmAction::Get => {
                self.0.check_somebody(&who).await?;
                let alarms = self.0.mvcc.alarms(read_options(false)).await.map_err(error::status)?;
                if kind == AlarmType::Corrupt { Vec::new() } else { alarms }
            }
            AlarmAction::Activate => {
                self.0.check_root(&who).await?;
                match kind {
                    AlarmType::None => Vec::new(),
                    AlarmType::Corrupt => return Err(error::NO_CORRUPT_ALARM.into()),
                    AlarmType::Nospace if !self.0.node().status().members.contains_key(&member) => {
                        return Err(error::MEMBER_NOT_FOUND.into());
                    }
                    AlarmType::Nospace => {
                        let raise = |mvcc: Mvcc| async move { mvcc.raise_alarm(member, REQUEST_TIMEOUT).await };
                        self.0.ask(&who, raise).await?.map_err(error::status)?;
                        vec![member]
                    }
                }
            }
            AlarmAction::Deactivate => {
                self.0.check_root(&who).await?;
                let disarm = |mvcc: Mvcc| async move { mvcc.disarm(member, REQUEST_TIMEOUT).await };
                let was_raised =
                    kind == AlarmType::Nospace && self.0.ask(&who, disarm).await?.map_err(error::status)?;
                was_raised.then_some(member).into_iter().collect()
            }
        };
        Ok(Response::new(AlarmResponse { header: self.0.header(), alarms: no_space(members).collect() }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.0.check_somebody(&Credentials::of(&request)).await?;
        let NodeStatus { role, leader, term, last_log_index, last_applied, state_bytes, quota_bytes, alarms, .. } =
            self.0.node().status();
        let no_leader = leader.is_none().then(|| "etcdserver: no leader".to_owned());
        // As etcd writes a message of its protocol.
        let alarms = alarms.into_iter().map(|member| format!("memberID:{member} alarm:NOSPACE "));
        Ok(Response::new(StatusResponse {
            header: self.0.header(),
            version: ETCD_VERSION.to_owned(),
            // What the quota is about. Nothing of it waits to be defragmented.
            db_size: state_bytes.cast_signed(),
            leader: leader.unwrap_or_default(),
            raft_index: last_log_index.unwrap_or_default(),
            raft_term: term,
            raft_applied_index: last_applied.unwrap_or_default(),
            errors: no_leader.into_iter().chain(alarms).collect(),
            db_size_in_use: state_bytes.cast_signed(),
            db_size_quota: quota_bytes.cast_signed(),
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
        let place = self.0.places.snapshots.take()?;
        let snapshot = self.0.node().open_snapshot(REQUEST_TIMEOUT).await.map_err(store_status)?;
        let (pieces, received) = mpsc::channel(PIECES_AHEAD);
        let deadline = Instant::now() + download_time(snapshot.length());
        tokio::task::spawn_blocking(move || {
            send(snapshot, &pieces, deadline);
            drop(place);
        });
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

fn no_space(members: Vec<u64>) -> impl Iterator<Item = AlarmMember> {
    members.into_iter().map(|member_id| AlarmMember { member_id, alarm: AlarmType::Nospace.into() })
}

/// How long a download of so many bytes may take.
fn download_time(bytes: u64) -> Duration {
    SNAPSHOT_WITHIN + Duration::from_secs(bytes / SNAPSHOT_BYTES_A_SECOND)
}

/// Sends a snapshot and its footer, by whose length clients tell that there is one. Ends early when nobody listens, or nobody reads in time.
fn send(snapshot: SnapshotReader, pieces: &mpsc::Sender<Result<SnapshotResponse, Status>>, deadline: Instant) {
    let runtime = Handle::current();
    let mut left = SnapshotFooter::length_with_footer(snapshot.length());
    let mut footer = SnapshotFooter::default();
    let mut send = |piece: std::io::Result<Bytes>| {
        let answer = piece.map_err(|error| Status::data_loss(error.to_string())).map(|blob| {
            left -= blob.len() as u64;
            SnapshotResponse { header: None, remaining_bytes: left, blob, version: ETCD_VERSION.to_owned() }
        });
        let failed = answer.is_err();
        // Whoever reads too slowly finds that the stream has ended early.
        let sent = runtime.block_on(timeout_at(deadline, pieces.send(answer)));
        matches!(sent, Ok(Ok(()))) && !failed
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
