//! How raft reaches another node.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    io,
    sync::Arc,
    time::Duration,
};

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
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    admission::Admission,
    frame::{invalid, put_frame},
    handshake::{Connection, connect},
    hello::{Channel, Hello},
    message::{
        self, ControlRequest, SnapshotHeader, Standing, append_result, put_append_request, put_state_hash_request,
        snapshot_response, transfer_response, vote_response,
    },
    security::{Security, is_loopback},
    stream::WriteHalf,
    token::HOW_TO_HAVE_A_TOKEN,
};
use crate::{
    codec::Decoded,
    raft::{Member, TypeConfig, Vote},
    snapshot::SnapshotFile,
};

/// How long a message that only says what is committed is held back, in the hope that a message with entries, which
/// says it too, makes it needless. Neither callers on followers nor the watches that a lone write concerns wait for it: see
/// [`PeerContext::await_commit`].
const HOLD_COMMIT: Duration = Duration::from_millis(5);

/// How many appends may be unanswered on one connection. With one, raft puts all that has come up meanwhile into
/// the next, so a slow follower gets few large appends rather than a queue of small ones. One that only says what is committed is not
/// counted, unless another is unanswered: nothing is synced for it, and entries behind it need not wait for its answer.
const APPENDS_IN_FLIGHT: usize = 1;

/// How long a node may take to answer a heartbeat or to take in a piece of a snapshot before it is connected to anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node may take to answer an append, which it has to write and sync, before it is connected to anew. While an append is under way, raft
/// gives up none of the log that it carries: a process that hangs, with its connections open, would make the log grow for ever.
const APPENDED_WITHIN: Duration = Duration::from_secs(5);

/// How long a node may take to check and load a snapshot that it has been sent whole, and the bytes of it for each of which a second is added.
const INSTALLED_WITHIN: Duration = Duration::from_secs(30);
const INSTALLED_A_SECOND: u64 = 4 << 20;

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Which members a node can have, as it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// None but itself: it listens for none.
    Alone,
    /// Those on this machine: their token keeps nobody out.
    Loopback,
    /// All.
    Anywhere,
}

impl Reach {
    /// Why no member can be at this address, if none can.
    pub(crate) fn excludes(self, address: &str) -> Option<String> {
        match self {
            Self::Anywhere => None,
            Self::Alone => {
                Some("this node was started alone and listens for no other: start it with an address".to_owned())
            }
            Self::Loopback if is_loopback(address) => None,
            Self::Loopback => Some(format!(
                "{address} is not a loopback address, and nothing that the nodes of this cluster know keeps others out: {HOW_TO_HAVE_A_TOKEN}"
            )),
        }
    }
}

/// What every connection of a node shares.
#[derive(Debug)]
pub(crate) struct PeerContext {
    pub(crate) cluster: u128,
    pub(crate) node: u64,
    pub(crate) security: Security,
    /// Which members this node can have.
    pub(crate) reach: Reach,
    /// The highest index that a caller on a follower waits for.
    awaited: watch::Sender<u64>,
    /// True while the node is cut off from all others, for tests.
    pub(crate) isolated: watch::Sender<bool>,
    pub(crate) admission: Admission,
    /// Where the others are. Raft names an address only when it makes a peer, and peers outlive a change of it.
    addresses: Mutex<HashMap<u64, String>>,
    /// When a leader has sent something last that this node has taken.
    leader_heard: Mutex<Option<Instant>>,
}

impl PeerContext {
    pub(crate) fn new(cluster: u128, node: u64, security: Security, reach: Reach, admission: Admission) -> Self {
        let (awaited, isolated) = (watch::Sender::new(0), watch::Sender::new(false));
        let (addresses, leader_heard) = Default::default();
        Self { cluster, node, security, reach, awaited, isolated, admission, addresses, leader_heard }
    }

    /// A leader has sent something that this node has taken.
    pub(super) fn hear_leader(&self) {
        *self.leader_heard.lock() = Some(Instant::now());
    }

    /// Whether this node has heard from a leader in the last time, as long as that.
    pub(crate) fn hears_leader(&self, lately: Duration) -> bool {
        self.leader_heard.lock().is_some_and(|heard| heard.elapsed() < lately)
    }

    /// Somebody on a follower waits until that has applied the entry at `index`: followers hear at once that it is committed.
    pub(crate) fn await_commit(&self, index: u64) {
        self.awaited.send_if_modified(|awaited| {
            let is_higher = index > *awaited;
            *awaited = index.max(*awaited);
            is_higher
        });
    }

    /// How this node greets another one.
    fn hello(&self, to: u64, channel: Channel) -> Hello {
        let (has_run, claim) = (self.admission.knows_to_have_run(to), self.admission.membership_claim());
        Hello { cluster: self.cluster, from: self.node, to, channel, origin: self.admission.origin(), has_run, claim }
    }

    /// Opens a connection to another node. Whatever is asked of a member, this node learns so that it was removed.
    pub(crate) async fn open(&self, target: u64, address: &str, channel: Channel) -> io::Result<Connection> {
        let opened = self.connected(connect(address, self.hello(target, channel), &self.security)).await;
        let opened = opened.and_then(|(belonging, connection)| {
            let heard = self.admission.hear(target, belonging);
            heard.inspect_err(|error| self.security.note(None, error)).map(|()| connection)
        });
        opened.inspect_err(|error| tracing::debug!(target, address, ?channel, %error, "cannot connect"))
    }

    /// Makes all peers of this node reach another one here from their next connection on.
    pub(crate) fn readdress(&self, node: u64, address: String) {
        self.addresses.lock().insert(node, address);
    }

    #[expect(clippy::expect_used, reason = "a peer is made with its address")]
    fn address(&self, node: u64) -> String {
        self.addresses.lock().get(&node).cloned().expect("a peer has an address")
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
        // The connection is put back only after a whole exchange. With one that was cut short, the next request would get this one's answer.
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
            let length = snapshot.snapshot.length();
            for chunk in snapshot.snapshot.open_chunks()? {
                let chunk = chunk?;
                put_frame(&mut out, |out| out.extend_from_slice(&chunk));
                timeout(ANSWER_TIMEOUT, writer.send(&out)).await??;
                out.clear();
            }
            put_frame(&mut out, |_| {});
            let answer = async {
                writer.send(&out).await?;
                reader.expect().await
            };
            let within = INSTALLED_WITHIN + Duration::from_secs(length / INSTALLED_A_SECOND);
            snapshot_response(timeout(within, answer).await??).map_err(invalid)
        };
        self.context.connected(sent).await.map_err(|error| network(&error))
    }
}

/// Asks another node how far it is.
pub(crate) async fn standing(context: &PeerContext, target: u64, address: &str) -> io::Result<Standing> {
    let asked = async {
        let mut connection = context.open(target, address, Channel::Founding).await?;
        let answer = context.connected(connection.reader.expect()).await?;
        Standing::decode(answer).map_err(invalid)
    };
    timeout(ANSWER_TIMEOUT, asked).await?
}

/// Asks another node for the hash of its state after an entry. `None`: it does not know it, or not any more.
pub(crate) async fn state_hash(
    context: &PeerContext,
    target: u64,
    address: &str,
    index: u64,
) -> io::Result<Option<u64>> {
    let asked = async {
        let mut connection = context.open(target, address, Channel::StateHash).await?;
        let mut out = Vec::new();
        put_frame(&mut out, |out| put_state_hash_request(out, index));
        let asked = async {
            connection.writer.send(&out).await?;
            connection.reader.expect().await
        };
        message::state_hash(context.connected(asked).await?).map_err(invalid)
    };
    timeout(ANSWER_TIMEOUT, asked).await?
}

/// Opens a connection to another node, where raft has it.
async fn open(context: Arc<PeerContext>, target: u64, channel: Channel) -> io::Result<Connection> {
    context.open(target, &context.address(target), channel).await
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
    let sent = Arc::new(watch::Sender::new(VecDeque::new()));
    let sending = send_appends(writer, input, credit.clone(), sent.clone(), context.clone());
    let state = Some((reader, credit, sent, context, AbortOnDrop(tokio::spawn(sending))));
    stream::unfold(state, |state| async move {
        let (mut reader, credit, sent, context, sender) = state?;
        let answer = async {
            tokio::select! {
                biased;
                answer = reader.next() => answer,
                () = overdue(sent.subscribe()) => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        match context.connected(answer).await {
            Ok(None) => None,
            Err(error) => Some((Err(network(&error)), None)),
            Ok(Some(answer)) => match append_result(answer) {
                Err(error) => Some((Err(network(&error)), None)),
                Ok(answer @ Err(_)) => Some((Ok(answer), None)),
                Ok(answer) => {
                    let mut answered: Option<Sent> = None;
                    sent.send_modify(|sent| answered = sent.pop_front());
                    credit.add_permits(usize::from(answered.is_some_and(|sent| sent.is_counted)));
                    Some((Ok(answer), Some((reader, credit, sent, context, sender))))
                }
            },
        }
    })
    // The caller polls on after the end.
    .fuse()
}

/// An append that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    /// It only says what is committed.
    is_news: bool,
    /// Its answer gives its credit back.
    is_counted: bool,
}

/// Returns when the oldest append that was sent has not been answered in time.
async fn overdue(mut sent: watch::Receiver<VecDeque<Sent>>) {
    loop {
        let at = sent.borrow_and_update().front().map(|sent| sent.at);
        let changed = sent.changed();
        // The sender is held by whoever waits here.
        let _ = match at {
            None => changed.await,
            Some(at) => match timeout_at(at + APPENDED_WITHIN, changed).await {
                Ok(changed) => changed,
                Err(_) => return,
            },
        };
    }
}

/// Writes appends as long as they are answered. Raft's stream is not polled while all credit is used up, so that raft
/// puts everything that comes up meanwhile into the next request.
async fn send_appends<S>(
    mut writer: WriteHalf,
    input: S,
    credit: Arc<Semaphore>,
    sent: Arc<watch::Sender<VecDeque<Sent>>>,
    context: Arc<PeerContext>,
) -> io::Result<()>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let mut input = input.fuse();
    let mut out = Vec::new();
    // The index up to which this follower was told that entries are committed.
    let mut told = 0;
    let mut awaited = context.awaited.subscribe();
    loop {
        // Given back by whoever reads the answer.
        credit.acquire().await.map_err(io::Error::other)?.forget();
        let Some(mut request) = input.next().await else { break };
        if request.entries.is_empty() {
            // Only news of what is committed. The next request with entries says it too, so wait for that a little.
            // Dropping an earlier request unanswered is fine: raft matches answers by what they acknowledge.
            tokio::select! {
                biased;
                next = input.next() => match next {
                    Some(next) => request = next,
                    None => break,
                },
                () = tokio::time::sleep(HOLD_COMMIT) => {}
                _ = awaited.wait_for(|awaited| *awaited > told) => {}
            }
        }
        // What follows was purged while the connection was broken. At the end of this stream raft sees what it has decided meanwhile, to send a
        // snapshot; before, it would say the same again and again.
        if request.entries.is_empty() && context.admission.has_given_up_after(request.prev_log_id) {
            break;
        }
        told = request.leader_commit.map_or(told, |id| id.index);
        out.clear();
        put_frame(&mut out, |out| put_append_request(out, &request));
        let is_news = request.entries.is_empty();
        let is_counted = !is_news || sent.borrow().iter().any(|sent| sent.is_news);
        // Before it is written: one that hangs takes nothing in either.
        sent.send_modify(|sent| sent.push_back(Sent { at: Instant::now(), is_news, is_counted }));
        if !is_counted {
            credit.add_permits(1);
        }
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
