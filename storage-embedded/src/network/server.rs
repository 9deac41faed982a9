//! The peer port: answers the other nodes, and the calls of replicas that do not lead.

use std::{future::Future, io, sync::Arc};

use futures::{FutureExt, StreamExt, stream};
use openraft::{alias::SnapshotOf, async_runtime::watch::WatchReceiver, errors::Fatal};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    frame::{invalid, put_frame},
    handshake::{Channel, Connection, Hello, accept},
    message::{
        Call, ControlRequest, Reply, SnapshotHeader, append_request, call, put_append_result, put_reply,
        put_snapshot_response, put_transfer_response, put_vote_response,
    },
    peer::PeerContext,
    security::{Identity, Refused, host},
};
use crate::{
    Refusal,
    host::{TcpListener, TcpStream, blocking},
    node::Raft,
    raft::TypeConfig,
    snapshot::{SnapshotFile, SnapshotStore},
};

/// How many connections a node serves at the same time. Each peer needs six; the rest is room for connections that are going.
const MAX_CONNECTIONS: usize = 512;

/// How many calls of one connection are worked on at the same time; more wait unread, in the sockets.
const CALLS_IN_FLIGHT: usize = 8192;

/// How many bytes of answers are put into one write to the socket, at the most (and one answer more).
const WRITE_BYTES: usize = 256 << 10;

/// Answers the calls of other replicas' users.
pub(crate) trait AnswerCalls: Clone + Send + Sync + 'static {
    fn answer(&self, call: Call) -> impl Future<Output = Reply> + Send;
}

/// What the peer port needs to know and to reach.
#[derive(Clone, Debug)]
pub(crate) struct Server<A> {
    pub(crate) context: Arc<PeerContext>,
    pub(crate) raft: Raft,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) calls: A,
}

impl<A: AnswerCalls> Server<A> {
    /// Serves until the future is dropped; then every connection ends.
    pub(crate) async fn run(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes, and until then nothing is gained by trying at once.
                    tracing::warn!(%error, "cannot accept a connection on the peer port");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let server = self.clone();
            connections.spawn(async move {
                let peer = stream.peer_addr().ok();
                if let Err(error) = server.context.connected(server.serve(stream)).await {
                    tracing::debug!(?peer, %error, "a connection on the peer port ended");
                }
                drop(place);
            });
            while connections.try_join_next().is_some() {}
        }
    }

    fn check(&self, hello: &Hello, identity: &Identity) -> Result<(), Refused> {
        let PeerContext { cluster, node, .. } = *self.context;
        if hello.cluster != cluster {
            let words = format!("this is cluster {cluster:032x}, not {:032x}: is the token the same?", hello.cluster);
            return Err(Refused::new(Refusal::OtherCluster, words));
        }
        if hello.to != node {
            return Err(Refused::new(Refusal::OtherNode, format!("this is node {node}, not {}", hello.to)));
        }
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        // A member that this node has not heard of yet is known by its certificate and the token alone.
        let member = metrics.membership_config.membership().get_node(&hello.from);
        identity.may_be(member.map(|member| host(&member.peer_address)))
    }

    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let (hello, connection) = accept(stream, &self.context.security, |hello, who| self.check(hello, who)).await?;
        match hello.channel {
            Channel::Append => self.append(connection).await,
            Channel::Control => self.control(connection).await,
            Channel::Snapshot => self.snapshot(connection).await,
            Channel::Calls => self.calls(connection).await,
        }
    }

    async fn append(&self, Connection { reader, mut writer }: Connection) -> io::Result<()> {
        // Raft's stream ends at the first request that does not decode, and with it the connection.
        let requests = stream::unfold(reader, |mut reader| async move {
            let request = append_request(reader.next().await.ok()??).ok()?;
            Some((request, reader))
        });
        let mut answers = Box::pin(self.raft.stream_append(requests).fuse());
        let mut out = Vec::new();
        while let Some(answer) = answers.next().await {
            put_frame_of_append(&mut out, &answer.map_err(fatal)?);
            while let Some(Some(answer)) = answers.next().now_or_never() {
                put_frame_of_append(&mut out, &answer.map_err(fatal)?);
            }
            writer.send(&out).await?;
            out.clear();
        }
        Ok(())
    }

    async fn control(&self, Connection { mut reader, mut writer }: Connection) -> io::Result<()> {
        let mut out = Vec::new();
        while let Some(frame) = reader.next().await? {
            match ControlRequest::decode(frame).map_err(invalid)? {
                ControlRequest::Vote(request) => {
                    let response = self.raft.vote(request).await.map_err(io::Error::other)?;
                    put_frame(&mut out, |out| put_vote_response(out, &response));
                }
                ControlRequest::PreVote(request) => {
                    let response = self.raft.pre_vote(request).await.map_err(io::Error::other)?;
                    put_frame(&mut out, |out| put_vote_response(out, &response));
                }
                ControlRequest::Heartbeat(request) => {
                    let (prev, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
                    let response = self.raft.append_entries(request).await.map_err(io::Error::other)?;
                    put_frame_of_append(&mut out, &response.into_stream_result(prev, last.or(prev)));
                }
                ControlRequest::TransferLeader(request) => {
                    let response = self.raft.handle_transfer_leader(request).await.map_err(fatal)?;
                    put_frame(&mut out, |out| put_transfer_response(out, &response));
                }
            }
            writer.send(&out).await?;
            out.clear();
        }
        Ok(())
    }

    async fn snapshot(&self, Connection { mut reader, mut writer }: Connection) -> io::Result<()> {
        let SnapshotHeader { vote, meta } = SnapshotHeader::decode(reader.expect().await?).map_err(invalid)?;
        let snapshots = self.snapshots.clone();
        let mut incoming = blocking(move || snapshots.receive()).await?;
        loop {
            let chunk = reader.expect().await?;
            if chunk.is_empty() {
                break;
            }
            incoming = blocking(move || incoming.write_chunk(&chunk).map(|()| incoming)).await?;
        }
        let snapshot = blocking(move || incoming.finish()).await?;
        let snapshot = SnapshotOf::<TypeConfig, SnapshotFile> { meta, snapshot };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(fatal)?;
        let mut out = Vec::new();
        put_frame(&mut out, |out| put_snapshot_response(out, &response));
        writer.send(&out).await
    }

    async fn calls(&self, Connection { mut reader, mut writer }: Connection) -> io::Result<()> {
        let (sender, mut replies) = mpsc::unbounded_channel::<(u64, Reply)>();
        let credit = Arc::new(Semaphore::new(CALLS_IN_FLIGHT));
        let read = async {
            let mut tasks = JoinSet::new();
            while let Some(frame) = reader.next().await? {
                let (number, call) = call(frame).map_err(invalid)?;
                let Ok(permit) = credit.clone().acquire_owned().await else { break };
                let (calls, sender) = (self.calls.clone(), sender.clone());
                tasks.spawn(async move {
                    let reply = calls.answer(call).await;
                    // The queue of replies is bounded by the permits.
                    let _ = sender.send((number, reply));
                    drop(permit);
                });
                while tasks.try_join_next().is_some() {}
            }
            Ok::<_, io::Error>(())
        };
        let write = async {
            let mut out = Vec::new();
            while let Some((number, reply)) = replies.recv().await {
                put_frame(&mut out, |out| put_reply(out, number, &reply));
                while out.len() < WRITE_BYTES {
                    let Ok((number, reply)) = replies.try_recv() else { break };
                    put_frame(&mut out, |out| put_reply(out, number, &reply));
                }
                writer.send(&out).await?;
                out.clear();
            }
            Ok::<_, io::Error>(())
        };
        // The caller's end of the connection, or a failure of either direction, ends both and what is still worked on.
        tokio::select! {
            read = read => read,
            written = write => written,
        }
    }
}

fn put_frame_of_append(out: &mut Vec<u8>, answer: &openraft::raft::StreamAppendResult<TypeConfig>) {
    put_frame(out, |out| put_append_result(out, answer));
}

fn fatal(error: Fatal<TypeConfig>) -> io::Error {
    io::Error::other(error)
}
