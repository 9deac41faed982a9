//! How raft reaches another node.

use std::{collections::HashMap, future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend, RaftNetworkV2,
    alias::SnapshotOf,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    frame::{invalid, put_frame},
    handshake::{Channel, Connection, Hello, connect},
    message::{
        ControlRequest, SnapshotHeader, append_result, put_append_request, snapshot_response, transfer_response,
        vote_response,
    },
    security::Security,
    stream::WriteHalf,
};
use crate::{
    codec::Decoded,
    raft::{Member, TypeConfig, Vote},
    snapshot::SnapshotFile,
};

/// How long a message that only says what is committed is held back, in the hope that a message with entries, which
/// says it too, makes it needless. A reader on a follower does not wait for it: see [`PeerContext::flush`].
const HOLD_COMMIT: Duration = Duration::from_millis(5);

/// How many appends may be unanswered on one connection. With one, raft puts all that has come up meanwhile into
/// the next, so a slow follower gets few large appends rather than a queue of small ones.
const APPENDS_IN_FLIGHT: usize = 1;

/// How long a node may take to answer a heartbeat or to take in a piece of a snapshot before it is connected to anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// What every connection of a node shares.
#[derive(Debug)]
pub(crate) struct PeerContext {
    pub(crate) cluster: u128,
    pub(crate) node: u64,
    pub(crate) security: Security,
    /// Rung when a follower's reader waits for what is committed.
    pub(crate) flush: Notify,
    /// True while the node is cut off from all others, for tests.
    pub(crate) isolated: watch::Sender<bool>,
    /// Where the others are. Raft names an address only when it makes a peer, and peers outlive a change of it.
    addresses: Mutex<HashMap<u64, String>>,
}

impl PeerContext {
    pub(crate) fn new(cluster: u128, node: u64, security: Security) -> Self {
        let (flush, isolated) = (Notify::new(), watch::Sender::new(false));
        Self { cluster, node, security, flush, isolated, addresses: Mutex::default() }
    }

    /// Makes all peers of this node reach another one here from their next connection on.
    pub(crate) fn readdress(&self, node: u64, address: String) {
        self.addresses.lock().insert(node, address);
    }

    fn address(&self, node: u64) -> String {
        self.addresses.lock().get(&node).cloned().unwrap_or_default()
    }

    /// Does some work on a connection, which fails when the node is cut off.
    pub(crate) async fn connected<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut isolated = self.isolated.subscribe();
        tokio::select! {
            biased;
            _ = isolated.wait_for(|isolated| *isolated) => Err(io::ErrorKind::NetworkUnreachable.into()),
            done = work => done,
        }
    }
}

/// Makes the connections that raft asks for.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Arc<PeerContext>);

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        Peer::new(self, target, member, Appends::Stream)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Peer {
        Peer::new(self, target, member, Appends::Heartbeats)
    }
}

/// How a peer's appends travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Appends {
    /// On a connection of their own, which lives as long as raft's stream.
    Stream,
    /// One at a time on the control connection: raft opens a new stream for each heartbeat, which shall not cost a connection.
    Heartbeats,
}

/// Another node, as raft talks to it.
#[derive(Debug)]
pub(crate) struct Peer {
    context: Arc<PeerContext>,
    target: u64,
    appends: Appends,
    control: Option<Connection>,
    /// The control connection that is being opened. Raft gives up a heartbeat after its interval, in which a handshake of TLS may not be done: the
    /// next one goes on waiting for it.
    connecting: Option<AbortOnDrop<io::Result<Connection>>>,
}

impl Peer {
    /// Sends each request of `input` on the control connection, one after the other.
    fn beat<'s, S>(&'s mut self, input: S) -> impl Stream<Item = RpcResult<StreamAppendResult<TypeConfig>>> + 's
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        stream::unfold((self, input), |(peer, mut input)| async move {
            let request = ControlRequest::Heartbeat(input.next().await?);
            let answer = peer.control(&request, append_result, ANSWER_TIMEOUT).await;
            Some((answer, (peer, input)))
        })
        .fuse()
    }

    fn new(peers: &Peers, target: u64, member: &Member, appends: Appends) -> Self {
        let context = peers.0.clone();
        context.readdress(target, member.peer_address.clone());
        Self { context, target, appends, control: None, connecting: None }
    }

    async fn connect(&self, channel: Channel) -> RpcResult<Connection> {
        open(self.context.clone(), self.target, channel).await.map_err(|error| unreachable(&error))
    }

    /// The control connection, opened if there is none.
    async fn controlled(&mut self) -> RpcResult<Connection> {
        if let Some(connection) = self.control.take() {
            return Ok(connection);
        }
        let (context, target) = (&self.context, self.target);
        let connecting = self
            .connecting
            .get_or_insert_with(|| AbortOnDrop(tokio::spawn(open(context.clone(), target, Channel::Control))));
        let opened = (&mut connecting.0).await;
        self.connecting = None;
        opened.map_err(io::Error::other).flatten().map_err(|error| unreachable(&error))
    }

    /// One request and its answer on the control connection. Anything that goes wrong closes it, so that the next request begins on a fresh one.
    async fn control<T>(
        &mut self,
        request: &ControlRequest,
        decode: fn(Bytes) -> Decoded<T>,
        deadline: Duration,
    ) -> RpcResult<T> {
        let asked = async {
            let mut connection = self.controlled().await?;
            let mut out = Vec::new();
            put_frame(&mut out, |out| request.encode(out));
            let asked = async {
                connection.writer.send(&out).await?;
                connection.reader.expect().await
            };
            let answer = self.context.connected(asked).await.map_err(|error| network(&error))?;
            let answer = decode(answer).map_err(|error| network(&error))?;
            Ok((connection, answer))
        };
        let (connection, answer) = timeout(deadline, asked)
            .await
            .unwrap_or_else(|_| Err(network(&io::Error::from(io::ErrorKind::TimedOut))))?;
        self.control = Some(connection);
        Ok(answer)
    }

    async fn snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
    ) -> RpcResult<SnapshotResponse<TypeConfig>> {
        let Connection { mut reader, mut writer } = self.connect(Channel::Snapshot).await?;
        let sent = async {
            let mut out = Vec::new();
            put_frame(&mut out, |out| SnapshotHeader { vote, meta: snapshot.meta.clone() }.encode(out));
            for chunk in snapshot.snapshot.open_chunks()? {
                let chunk = chunk?;
                put_frame(&mut out, |out| out.extend_from_slice(&chunk));
                timeout(ANSWER_TIMEOUT, writer.send(&out)).await??;
                out.clear();
            }
            put_frame(&mut out, |_| {});
            writer.send(&out).await?;
            let answer = reader.expect().await?;
            snapshot_response(answer).map_err(invalid)
        };
        self.context.connected(sent).await.map_err(|error| network(&error))
    }
}

/// Opens a connection to another node.
async fn open(context: Arc<PeerContext>, target: u64, channel: Channel) -> io::Result<Connection> {
    let hello = Hello { cluster: context.cluster, from: context.node, to: target, channel };
    let address = context.address(target);
    context.connected(connect(&address, hello, &context.security)).await.inspect_err(|error| {
        tracing::debug!(target, address, ?channel, %error, "cannot connect");
    })
}

fn unreachable(error: &io::Error) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn network<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        let request = ControlRequest::Heartbeat(request);
        Ok(self.control(&request, append_result, option.hard_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let answers: BoxStream<'s, _> = match self.appends {
                Appends::Heartbeats => Box::pin(self.beat(input)),
                Appends::Stream => {
                    // After an error raft holds its next request back for a while, and the request alone: connecting without one, a
                    // leader would try a node that is down again and again with no pause.
                    let Some(first) = input.next().await else {
                        return Ok(Box::pin(stream::empty()) as BoxStream<'s, _>);
                    };
                    let connection = self.connect(Channel::Append).await?;
                    Box::pin(append(connection, stream::iter([first]).chain(input), self.context.clone()))
                }
            };
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.control(&ControlRequest::Vote(request), vote_response, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.control(&ControlRequest::PreVote(request), vote_response, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.snapshot(vote, snapshot) => sent.map_err(StreamingError::from),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        self.control(&ControlRequest::TransferLeader(request), transfer_response, option.hard_ttl()).await
    }
}

/// Sends appends on a connection of their own and yields their answers; ends after the first that is not a success.
fn append<S>(
    Connection { reader, writer }: Connection,
    input: S,
    context: Arc<PeerContext>,
) -> impl Stream<Item = RpcResult<StreamAppendResult<TypeConfig>>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let credit = Arc::new(Semaphore::new(APPENDS_IN_FLIGHT));
    let sender = AbortOnDrop(tokio::spawn(send_appends(writer, input, credit.clone(), context.clone())));
    let state = Some((reader, credit, context, sender));
    stream::unfold(state, |state| async move {
        let (mut reader, credit, context, sender) = state?;
        match context.connected(reader.next()).await {
            Ok(None) => None,
            Err(error) => Some((Err(network(&error)), None)),
            Ok(Some(answer)) => match append_result(answer) {
                Err(error) => Some((Err(network(&error)), None)),
                Ok(answer @ Err(_)) => Some((Ok(answer), None)),
                Ok(answer) => {
                    credit.add_permits(1);
                    Some((Ok(answer), Some((reader, credit, context, sender))))
                }
            },
        }
    })
    // The caller polls on after the end.
    .fuse()
}

/// Writes appends as long as they are answered. Raft's stream is not polled while all credit is used up, so that raft
/// puts everything that comes up meanwhile into the next request.
async fn send_appends<S>(
    mut writer: WriteHalf,
    input: S,
    credit: Arc<Semaphore>,
    context: Arc<PeerContext>,
) -> io::Result<()>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let mut input = input.fuse();
    let mut out = Vec::new();
    loop {
        let Ok(permit) = credit.acquire().await else { return Ok(()) };
        permit.forget();
        let Some(mut request) = input.next().await else { break };
        if request.entries.is_empty() {
            // Only news of what is committed. The next request with entries says it too, so wait for that a little.
            // Dropping an earlier request unanswered is fine: raft matches answers by what they acknowledge.
            tokio::select! {
                next = input.next() => match next {
                    Some(next) => request = next,
                    None => break,
                },
                () = tokio::time::sleep(HOLD_COMMIT) => {}
                () = context.flush.notified() => {}
            }
        }
        out.clear();
        put_frame(&mut out, |out| put_append_request(out, &request));
        writer.send(&out).await?;
    }
    writer.shutdown().await
}

#[derive(Debug)]
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
