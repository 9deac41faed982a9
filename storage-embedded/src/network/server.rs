//! The peer port: answers the other nodes, and the calls of replicas that do not lead.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use openraft::{
    alias::SnapshotOf,
    async_runtime::watch::WatchReceiver,
    errors::Fatal,
    raft::{StreamAppendError, StreamAppendResult},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};

use super::{
    admission::Verdict,
    frame::{invalid, put_frame},
    handshake::{Connection, accept},
    hello::{Channel, Hello},
    message::{
        Call, ControlRequest, Reply, SnapshotHeader, append_request, call, put_append_result, put_reply,
        put_snapshot_response, put_state_hash, put_transfer_response, put_vote_response, sender, state_hash_request,
    },
    peer::PeerContext,
    refused::Refused,
    security::{Identity, host},
    strangers::{Stranger, Strangers},
};
use crate::{
    Refusal,
    connections::{AcceptFailures, Budget},
    host::{TcpListener, TcpStream, blocking},
    raft::TypeConfig,
    snapshot::{SnapshotFile, SnapshotStore},
    state_machine::{Raft, SharedState},
};

/// How many calls of one connection are worked on at the same time; more wait unread, in the sockets.
const CALLS_IN_FLIGHT: usize = 8192;

/// How many bytes these calls may have together: as many as may wait to be written at a node.
const CALL_BYTES: u32 = 64 << 20;

/// How many bytes of answers are put into one write to the socket, at the most (and one answer more).
const WRITE_BYTES: usize = 256 << 10;

/// How long a node that is asked for the hash of its state waits until it has applied the entry.
const APPLIED_WITHIN: Duration = Duration::from_secs(2);

/// How long a leader that sends a snapshot may take for the next piece of it.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// Answers the calls of other replicas' users.
pub(crate) trait AnswerCalls: Clone + Send + Sync + 'static {
    fn answer(&self, call: Call) -> impl Future<Output = Reply> + Send;
}

/// What the peer port needs to know and to reach.
#[derive(Clone, Debug)]
pub(crate) struct Server<A> {
    pub(crate) context: Arc<PeerContext>,
    pub(crate) raft: Raft,
    pub(crate) state: SharedState,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) calls: A,
    pub(crate) places: Places,
}

/// Who has opened a connection, as it has proved.
#[derive(Clone, Copy, Debug)]
struct Caller {
    node: u64,
    remote: SocketAddr,
}

/// How many connections there may be, counted apart: however many strangers come, members find a place.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    members: Arc<Semaphore>,
    strangers: Arc<Strangers>,
}

impl Places {
    pub(crate) fn new(budget: &Budget) -> Self {
        let strangers = Arc::new(Strangers::new(budget.strangers));
        Self { members: Arc::new(Semaphore::new(budget.members)), strangers }
    }
}

impl<A: AnswerCalls> Server<A> {
    /// Serves until the future is dropped; then every connection ends.
    ///
    /// # Panics
    /// When a connection does: the node ends then.
    pub(crate) async fn run(self, listener: TcpListener) {
        let mut failures = AcceptFailures::new("peer");
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = connections.join_next() => {
                    hand_on_panic(ended);
                    continue;
                }
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    failures.wait(&error).await;
                    continue;
                }
            };
            let server = self.clone();
            // Before the next is accepted, so that there are never more of them.
            let (address, security) = (remote.ip(), &self.context.security);
            let is_members = security.members.has(address) || self.has_member_at(address);
            let Some(stranger) = self.places.strangers.arrive(address, is_members, Instant::now()) else {
                let too_many: io::Error =
                    Refused::new(Refusal::TooMany, "too many handshakes at addresses that are no member's").into();
                security.note(Some(remote), &too_many);
                continue;
            };
            connections.spawn(async move {
                if let Err(error) = server.context.connected(server.serve(stream, remote, stranger)).await {
                    tracing::debug!(%remote, %error, "a connection on the peer port ended");
                }
            });
        }
    }

    /// Whether a member's address is this one, as the members have it in words. Those with names are known from when they have proved themselves.
    fn has_member_at(&self, address: IpAddr) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let mut members = metrics.membership_config.membership().nodes();
        members.any(|(_, member)| host(&member.peer_address).parse() == Ok(address.to_canonical()))
    }

    fn check(&self, hello: &Hello, identity: &Identity) -> Result<(), Refused> {
        {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            // A member that this node has not heard of yet is known by its certificate and the token alone.
            let member = metrics.membership_config.membership().get_node(&hello.from);
            // First: without a token, the certificate is all that proves who calls.
            identity.may_be(member.map(|member| host(&member.peer_address)))?;
        }
        let PeerContext { cluster, node, .. } = *self.context;
        if hello.cluster != cluster {
            let words = format!("this is cluster {cluster:032x}, not {:032x}: is the token the same?", hello.cluster);
            return Err(Refused::new(Refusal::OtherCluster, words));
        }
        if hello.to != node {
            return Err(Refused::new(Refusal::OtherNode, format!("this is node {node}, not {}", hello.to)));
        }
        // Whoever founds is told how far this node is, and judges for itself.
        if hello.channel != Channel::Founding {
            self.context.admission.check_origin(hello)?;
        }
        Ok(())
    }

    /// What is sent in the name of a candidate or leader comes from that node. With TLS, a member so speaks for nobody but itself.
    fn check_sender(&self, caller: Caller, named: u64) -> io::Result<()> {
        if named == caller.node {
            return Ok(());
        }
        let words = format!("node {} has sent something in the name of node {named}", caller.node);
        let error = Refused::new(Refusal::OtherSender, words).into();
        self.context.security.note(Some(caller.remote), &error);
        Err(error)
    }

    async fn serve(&self, stream: TcpStream, remote: SocketAddr, mut stranger: Stranger) -> io::Result<()> {
        let security = &self.context.security;
        let too_many = |words: &str| {
            let error = Refused::new(Refusal::TooMany, words).into();
            security.note(Some(remote), &error);
            error
        };
        let admission = &self.context.admission;
        let check = |hello: &Hello, who: &Identity| self.check(hello, who);
        let (hello, connection) = tokio::select! {
            biased;
            opened = accept(stream, security, check, |hello| admission.judge(hello)) => opened?,
            () = stranger.pushed_out() => return Err(too_many("too many connections have not proved whose they are")),
        };
        drop(stranger);
        if matches!(admission.condemned(), Some(Verdict::Refounded { .. })) {
            return Err(io::Error::other("this node was founded anew, and stops"));
        }
        let Ok(_place) = Arc::clone(&self.places.members).try_acquire_owned() else {
            return Err(too_many("the members have too many connections"));
        };
        if hello.channel != Channel::Founding {
            admission.admit(&hello).await?;
        }
        let caller = Caller { node: hello.from, remote };
        match hello.channel {
            Channel::Append => self.append(connection, caller).await,
            Channel::Control => self.control(connection, caller).await,
            Channel::Snapshot => self.snapshot(connection, caller).await,
            Channel::Calls => self.calls(connection).await,
            Channel::Founding => self.founding(connection).await,
            Channel::StateHash => self.state_hash(connection).await,
        }
    }

    async fn state_hash(&self, mut connection: Connection) -> io::Result<()> {
        let index = state_hash_request(connection.reader.expect().await?).map_err(invalid)?;
        let applied = timeout(APPLIED_WITHIN, self.state.wait_applied(index)).await;
        let hash = applied.ok().and_then(|_| self.state.hash_after(index));
        let mut out = Vec::new();
        put_frame(&mut out, |out| put_state_hash(out, hash));
        connection.writer.send(&out).await
    }

    async fn founding(&self, mut connection: Connection) -> io::Result<()> {
        let mut out = Vec::new();
        put_frame(&mut out, |out| self.context.admission.standing().encode(out));
        connection.writer.send(&out).await
    }

    async fn append(&self, Connection { reader, mut writer }: Connection, caller: Caller) -> io::Result<()> {
        // Raft's stream ends at the first request that does not decode, or is not the caller's, and with it the connection.
        let server = self.clone();
        let requests = stream::unfold((reader, server), move |(mut reader, server)| async move {
            let request = append_request(reader.next().await.ok()??).ok()?;
            server.check_sender(caller, sender(&request.vote)).ok()?;
            Some((request, (reader, server)))
        });
        let mut answers = Box::pin(self.raft.stream_append(requests).fuse());
        let mut out = Vec::new();
        while let Some(answer) = answers.next().await {
            self.put_append(&mut out, &answer.map_err(fatal)?);
            while let Some(Some(answer)) = answers.next().now_or_never() {
                self.put_append(&mut out, &answer.map_err(fatal)?);
            }
            writer.send(&out).await?;
            out.clear();
        }
        Ok(())
    }

    /// Puts the answer to an append, which is a sign of life of the leader.
    fn put_append(&self, out: &mut Vec<u8>, answer: &StreamAppendResult<TypeConfig>) {
        // A higher vote is the answer to a leader that is none any more.
        if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
            self.context.hear_leader();
        }
        put_frame(out, |out| put_append_result(out, answer));
    }

    async fn control(&self, Connection { mut reader, mut writer }: Connection, caller: Caller) -> io::Result<()> {
        let mut out = Vec::new();
        while let Some(frame) = reader.next().await? {
            let request = ControlRequest::decode(frame).map_err(invalid)?;
            self.check_sender(caller, request.sender())?;
            match request {
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
                    let result = response.into_stream_result(prev, last.or(prev));
                    self.put_append(&mut out, &result);
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

    async fn snapshot(&self, Connection { mut reader, mut writer }: Connection, caller: Caller) -> io::Result<()> {
        let SnapshotHeader { vote, meta } = SnapshotHeader::decode(reader.expect().await?).map_err(invalid)?;
        self.check_sender(caller, sender(&vote))?;
        let snapshots = self.snapshots.clone();
        let mut incoming = blocking(move || snapshots.receive()).await?;
        loop {
            let chunk = timeout(PIECE_WITHIN, reader.expect()).await??;
            if chunk.is_empty() {
                break;
            }
            incoming = blocking(move || incoming.write_chunk(&chunk).map(|()| incoming)).await?;
        }
        // Checked whole before raft hears of it: half a snapshot, or a damaged one, never takes the place of a good state.
        let snapshot = blocking(move || incoming.finish()).await?;
        let snapshot = SnapshotOf::<TypeConfig, SnapshotFile> { meta, snapshot };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(fatal)?;
        let mut out = Vec::new();
        put_frame(&mut out, |out| put_snapshot_response(out, &response));
        writer.send(&out).await
    }

    async fn calls(&self, Connection { mut reader, mut writer }: Connection) -> io::Result<()> {
        let (sender, mut replies) = mpsc::unbounded_channel::<(u64, std::thread::Result<Reply>)>();
        // Calls are answered in any order. Whoever sends more than may be worked on is not read from, and so is held back by TCP.
        let credit = Arc::new(Semaphore::new(CALLS_IN_FLIGHT));
        let room = Arc::new(Semaphore::new(CALL_BYTES as usize));
        let read = async {
            let mut tasks = JoinSet::new();
            while let Some(frame) = reader.next().await? {
                let bytes = u32::try_from(frame.len()).map_or(CALL_BYTES, |bytes| bytes.min(CALL_BYTES));
                let (number, call) = call(frame).map_err(invalid)?;
                let permit = credit.clone().acquire_owned().await.map_err(io::Error::other)?;
                let place = room.clone().acquire_many_owned(bytes).await.map_err(io::Error::other)?;
                let (calls, sender) = (self.calls.clone(), sender.clone());
                tasks.spawn(async move {
                    let reply = AssertUnwindSafe(calls.answer(call)).catch_unwind().await;
                    // The queue of replies is bounded by the permits.
                    let _ = sender.send((number, reply));
                    drop((permit, place));
                });
                while tasks.try_join_next().is_some() {}
            }
            Ok::<_, io::Error>(())
        };
        let write = async {
            let mut out = Vec::new();
            let put = |out: &mut Vec<u8>, (number, reply): (u64, std::thread::Result<Reply>)| {
                let reply = reply.unwrap_or_else(|panic| resume_unwind(panic));
                put_frame(out, |out| put_reply(out, number, &reply));
            };
            while let Some(reply) = replies.recv().await {
                put(&mut out, reply);
                while out.len() < WRITE_BYTES {
                    let Ok(reply) = replies.try_recv() else { break };
                    put(&mut out, reply);
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

/// Panics as a task has that has ended, if it has.
fn hand_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

fn fatal(error: Fatal<TypeConfig>) -> io::Error {
    io::Error::other(error)
}
