//! The service Watch: each stream has any number of watches, and one task.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use storage_embedded::{
    AuthStatus, Identity,
    mvcc::{Event, EventLimit, Events, KeyRange, MvccError, Refused},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at},
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    connection::Life,
    context::Context,
    error::{self, Refusal},
    places::Place,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType, watch_request::RequestUnion,
        watch_server::Watch,
    },
    translate,
    watch_room::{ANSWER_BYTES, Room, Share, StreamRoom},
    who::Credentials,
};

/// How many answers may wait for a slow client, those with events within their [room](crate::watch_room). Beyond that nothing is kept for it: it is
/// further behind in the history.
const ANSWERS_AHEAD: usize = 16;

/// What is taken from the history at once: the events of one answer, and the rest of the last revision.
const AT_ONCE: EventLimit = EventLimit { events: 1000, bytes: ANSWER_BYTES as usize };

/// How many bytes of events an answer has to a watch that takes large revisions in fragments: as in etcd, what is left of gRPC's usual limit
/// of 4 MiB is more than enough for the rest.
const FRAGMENT_BYTES: usize = 2 << 20;

/// How often a watch that wants to be told is told how far it is when nothing happens: etcd's default.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);

/// How long a new watch waits until this replica is up to date.
const FRESH_WITHIN: Duration = Duration::from_secs(1);

/// How often a stream that wants a leader looks for it, and how often there has to be none before it is ended.
const LEADER_LOOKED_FOR: Duration = Duration::from_secs(2);
const LEADER_MISSED: u32 = 2;

/// The id in answers that stand for no watch, or for all.
const NO_WATCH: i64 = -1;

/// Watches.
#[derive(Clone, Debug)]
pub(crate) struct WatchService {
    context: Context,
    room: Arc<Room>,
}

impl WatchService {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, room: Room::new() }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let wants_leader = request.metadata().get("hasleader").is_some_and(|value| value == "true");
        let _place = self.context.places.watch_streams.take()?;
        let (answers, received) = mpsc::channel(ANSWERS_AHEAD);
        let life = request.extensions().get::<Life>().cloned();
        let room = self.room.stream(life.clone());
        let who = Credentials::of(&request);
        let auth = self.context.node().auth().status();
        let (context, watches, next_id) = (self.context.clone(), BTreeMap::new(), 0);
        let watches = Watches { context, who, auth, room, answers, watches, next_id, life, _place };
        tokio::spawn(watches.run(request.into_inner(), wants_leader));
        let sent = stream::unfold((received, None), |(mut received, sent)| async move {
            // When the next answer is asked for, the one before it is on its way.
            drop::<Option<Share>>(sent);
            let QueuedAnswer { answer, share } = received.recv().await?;
            Some((answer, (received, share)))
        });
        Ok(Response::new(sent.boxed()))
    }
}

/// The watches of one stream. They keep no queues: each is a place in the history, and those at one place are served together.
struct Watches {
    context: Context,
    who: Credentials,
    /// The users and roles by which these watches were allowed.
    auth: AuthStatus,
    room: StreamRoom,
    answers: mpsc::Sender<QueuedAnswer>,
    watches: BTreeMap<i64, OneWatch>,
    next_id: i64,
    life: Option<Life>,
    _place: Place,
}

/// What is on its way to the client, with the room that it takes.
struct QueuedAnswer {
    answer: Result<WatchResponse, Status>,
    share: Option<Share>,
}

struct OneWatch {
    keys: KeyRange,
    /// The revision that it began with. While that is yet to come, it is told nothing of how far it is.
    start: u64,
    /// Who watches.
    user: Identity,
    /// The revision whose events are wanted next.
    next: u64,
    puts: bool,
    deletes: bool,
    previous: bool,
    /// Of its node, and of its connection.
    _places: (Place, Option<Place>),
    fragments: bool,
    /// Whether it wants to be told how far it is, and whether it has been told anything since that was looked at last.
    progress: Option<bool>,
}

/// Why a stream ends.
enum End {
    /// The client has gone, or the node has stopped.
    Gone,
    /// What the client is told.
    Refused(Status),
}

type Sent = Result<(), End>;

impl Watches {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, wants_leader: bool) {
        let mvcc = self.context.mvcc.clone();
        let mut applied = mvcc.applied();
        let mut compared = pin!(mvcc.compared());
        // Before, nobody is shown anything of this replica: requests wait.
        let mut serves = false;
        // A client that has no more to say goes on listening.
        let mut listens_only = false;
        let mut progress = interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        let mut leader = interval_at(Instant::now() + LEADER_LOOKED_FOR, LEADER_LOOKED_FOR);
        let mut missed = 0;
        let answers = self.answers.clone();
        let end = loop {
            let sent = tokio::select! {
                done = &mut compared, if !serves => {
                    serves = true;
                    done.map_err(|_| End::Gone)
                }
                request = requests.next(), if serves && !listens_only => match request {
                    Some(Ok(request)) => self.request(request).await,
                    Some(Err(_)) => Err(End::Gone),
                    None => {
                        listens_only = true;
                        Ok(())
                    }
                },
                changed = applied.changed(), if serves => match changed {
                    Ok(()) => self.deliver().await,
                    Err(_) => Err(End::Gone),
                },
                _ = progress.tick(), if serves => self.tell_progress().await,
                _ = leader.tick(), if wants_leader => {
                    // A follower that is cut off does not know it: it has to ask.
                    missed = if mvcc.barrier(FRESH_WITHIN).await.is_err() { missed + 1 } else { 0 };
                    if missed >= LEADER_MISSED { Err(End::Refused(error::NO_LEADER.into())) } else { Ok(()) }
                }
                () = answers.closed() => Err(End::Gone),
            };
            if let Err(end) = sent {
                break end;
            }
        };
        if let End::Refused(status) = end {
            // Only if there is room: nothing may wait for a client that reads nothing.
            let _ = answers.try_send(QueuedAnswer { answer: Err(status), share: None });
        }
    }

    async fn request(&mut self, request: WatchRequest) -> Sent {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                self.create(request).await?;
                self.deliver().await
            }
            Some(RequestUnion::CancelRequest(request)) => match self.watches.remove(&request.watch_id) {
                Some(_) => self.answer(WatchResponse { canceled: true, ..self.about(request.watch_id) }).await,
                None => Ok(()),
            },
            Some(RequestUnion::ProgressRequest(_)) => {
                let revision = self.context.mvcc.revision();
                self.deliver().await?;
                // Without watches there is nobody who could be told, and of one whose beginning is yet to come nothing.
                if self.watches.is_empty() || self.watches.values().any(|watch| watch.start > revision) {
                    return Ok(());
                }
                self.answer(self.about_at(NO_WATCH, revision)).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Sent {
        // What was acknowledged before is here then, a compaction too. Without a leader the watch begins with what there is.
        if let Err(error) = self.context.mvcc.barrier(FRESH_WITHIN).await {
            tracing::debug!(%error, "a watch begins with what may be an old state");
        }
        let now = self.context.mvcc.revision();
        let keys = keys(request.key, request.range_end);
        let allowed = self.allowed(&keys).await.and_then(|user| Ok((user, self.places()?)));
        let (user, _places) = match allowed {
            Ok(allowed) => allowed,
            Err(status) => {
                let cancel_reason = error::in_words(&status);
                let about = self.about_at(NO_WATCH, now);
                return self.answer(WatchResponse { created: true, canceled: true, cancel_reason, ..about }).await;
            }
        };
        let filtered = |kind| request.filters.iter().any(|filter| FilterType::try_from(*filter) == Ok(kind));
        let start = u64::try_from(request.start_revision);
        let watch = OneWatch {
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            start: start.unwrap_or_default(),
            next: if start == Ok(0) { now + 1 } else { start.unwrap_or(1) },
            previous: request.prev_kv,
            _places,
            fragments: request.fragment,
            progress: request.progress_notify.then_some(false),
            keys,
            user,
        };
        let refused = match &watch.keys {
            KeyRange::Between(first, end) if first >= end => Some("mvcc: watcher range is empty"),
            _ if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) => {
                Some("mvcc: duplicate watch ID provided on the WatchStream")
            }
            _ => None,
        };
        if let Some(reason) = refused {
            let cancel_reason = reason.to_owned();
            let about = self.about_at(NO_WATCH, now);
            return self.answer(WatchResponse { created: true, canceled: true, cancel_reason, ..about }).await;
        }
        let id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
        self.answer(WatchResponse { created: true, ..self.about_at(id, now) }).await?;
        // Before the first revision there was nothing, and it counts as given up.
        if start.is_err() {
            let compact_revision = self.context.mvcc.compacted().map_or(-1, u64::cast_signed);
            return self.answer(WatchResponse { canceled: true, compact_revision, ..self.about_at(id, 0) }).await;
        }
        self.watches.insert(id, watch);
        Ok(())
    }

    /// The places of one more watch.
    fn places(&self) -> Result<(Place, Option<Place>), Refusal> {
        let of_connection = self.life.as_ref().map(|life| life.watches().take()).transpose()?;
        Ok((self.context.places.watches.take()?, of_connection))
    }

    /// Who may watch these keys.
    async fn allowed(&self, keys: &KeyRange) -> Result<Identity, Status> {
        let user = self.context.gate.who(&self.context.mvcc, &self.who).await?;
        self.context.mvcc.by(user.clone()).may_watch(keys).map_err(error::denied)?;
        Ok(user)
    }

    /// Ends the watches of those who may not watch their keys any more, after users or roles have changed. In etcd they go on.
    async fn cancel_denied(&mut self) -> Sent {
        let auth = self.context.node().auth().status();
        if auth == self.auth {
            return Ok(());
        }
        self.auth = auth;
        let mut denied = Vec::new();
        for (id, watch) in &mut self.watches {
            // The same user, by the users and roles as they are: what it had to say of itself it has said.
            if watch.user != Identity::NOBODY {
                watch.user.revision = auth.revision;
            }
            if let Err(reason) = self.context.mvcc.by(watch.user.clone()).may_watch(&watch.keys) {
                denied.push((*id, Status::from(error::denied(reason))));
            }
        }
        for (id, status) in denied {
            self.watches.remove(&id);
            let cancel_reason = error::in_words(&status);
            self.answer(WatchResponse { canceled: true, cancel_reason, ..self.about(id) }).await?;
        }
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Sends what has happened since, to those who are furthest behind first, until all are where the history ends.
    async fn deliver(&mut self) -> Sent {
        let mut wanted_bytes = ANSWER_BYTES;
        self.cancel_denied().await?;
        while let Some(from) = self.watches.values().map(|watch| watch.next).min() {
            if from > self.context.mvcc.revision() {
                return Ok(());
            }
            // First the room, and then the events: what waits for room keeps nothing.
            let share = self.share(wanted_bytes).await?;
            match self.read(from) {
                Ok(events) if events.upto < from => return Ok(()),
                Ok(events) => {
                    // A revision is never cut in two, whatever its size.
                    let bytes = bytes(&events.events);
                    if !share.holds(bytes) {
                        wanted_bytes = bytes;
                        continue;
                    }
                    wanted_bytes = ANSWER_BYTES;
                    self.deliver_events(from, events.upto, &events.events, share).await?;
                }
                Err(MvccError::Refused(Refused::Compacted)) => self.cancel_compacted(from).await?,
                Err(error) => {
                    tracing::error!(%error, "cannot read the history");
                    return Err(End::Refused(error::status(error)));
                }
            }
        }
        Ok(())
    }

    /// The next events for those who are at this revision.
    fn read(&self, from: u64) -> Result<Events, MvccError> {
        let behind = |watch: &&OneWatch| watch.next == from;
        let wanted = |key: &[u8]| self.watches.values().filter(behind).any(|watch| watch.keys.contains(key));
        self.context.mvcc.events(from, wanted, AT_ONCE)
    }

    async fn deliver_events(&mut self, from: u64, upto: u64, events: &[Event], share: Share) -> Sent {
        let mut share = Some(share);
        let behind: Vec<_> = self.watches.iter().filter(|(_, watch)| watch.next == from).map(|(id, _)| *id).collect();
        for id in behind {
            let taken = self.watches.get_mut(&id).map_or_else(Vec::new, |watch| watch.pass(upto, events));
            if taken.is_empty() {
                continue;
            }
            let bytes = bytes(&taken);
            let mut share = match share.take() {
                Some(share) => share,
                None => self.share(bytes).await?,
            };
            share.shrink(bytes);
            let takes_fragments = self.watches.get(&id).is_some_and(|watch| watch.fragments);
            self.send_events(id, upto, taken, takes_fragments, share).await?;
        }
        Ok(())
    }

    /// As one answer, or as fragments, of which the last has the share of all.
    async fn send_events(&self, id: i64, upto: u64, events: Vec<Event>, takes_fragments: bool, share: Share) -> Sent {
        let (mut events, mut share) = (VecDeque::from(events), Some(share));
        loop {
            let fits = if takes_fragments { fitting(&events) } else { events.len() };
            let sent = events.drain(..fits).map(translate::event).collect();
            let fragment = !events.is_empty();
            let answer = Ok(WatchResponse { events: sent, fragment, ..self.about_at(id, upto) });
            let share = if fragment { None } else { share.take() };
            self.send(QueuedAnswer { answer, share }).await?;
            if !fragment {
                return Ok(());
            }
        }
    }

    /// Room for an answer of so many bytes.
    async fn share(&self, bytes: u32) -> Result<Share, End> {
        tokio::select! {
            share = self.room.share(bytes) => Ok(share),
            () = self.answers.closed() => Err(End::Gone),
        }
    }

    async fn cancel_compacted(&mut self, from: u64) -> Sent {
        let compact_revision = self.context.mvcc.compacted().unwrap_or_default().cast_signed();
        let behind: Vec<_> = self.watches.iter().filter(|(_, watch)| watch.next == from).map(|(id, _)| *id).collect();
        for id in behind {
            self.watches.remove(&id);
            self.answer(WatchResponse { canceled: true, compact_revision, ..self.about(id) }).await?;
        }
        Ok(())
    }

    async fn tell_progress(&mut self) -> Sent {
        let revision = self.context.mvcc.revision();
        self.deliver().await?;
        let mut quiet = Vec::new();
        for (id, watch) in &mut self.watches {
            if watch.progress == Some(false) && watch.start <= revision {
                quiet.push(*id);
            }
            watch.progress = watch.progress.map(|_| false);
        }
        for id in quiet {
            self.answer(self.about_at(id, revision)).await?;
        }
        Ok(())
    }

    fn about(&self, watch_id: i64) -> WatchResponse {
        self.about_at(watch_id, self.context.mvcc.revision())
    }

    fn about_at(&self, watch_id: i64, revision: u64) -> WatchResponse {
        WatchResponse { header: self.context.header_at(revision), watch_id, ..WatchResponse::default() }
    }

    /// An answer without events.
    async fn answer(&self, answer: WatchResponse) -> Sent {
        self.send(QueuedAnswer { answer: Ok(answer), share: None }).await
    }

    async fn send(&self, answer: QueuedAnswer) -> Sent {
        self.answers.send(answer).await.map_err(|_| End::Gone)
    }
}

impl OneWatch {
    /// Goes on behind a revision, and gives what this watch wants of the events up to it.
    fn pass(&mut self, upto: u64, events: &[Event]) -> Vec<Event> {
        self.next = upto + 1;
        let taken: Vec<_> = events.iter().filter_map(|event| self.take(event)).collect();
        if !taken.is_empty() {
            self.progress = self.progress.map(|_| true);
        }
        taken
    }

    /// What this watch wants of an event.
    fn take(&self, event: &Event) -> Option<Event> {
        let wanted = if event.deleted { self.deletes } else { self.puts };
        if !wanted || !self.keys.contains(&event.entry.key) {
            return None;
        }
        Some(Event { previous: event.previous.clone().filter(|_| self.previous), ..event.clone() })
    }
}

/// How many of these events fit into a fragment: one, at least.
fn fitting(events: &VecDeque<Event>) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take_while(|event| {
        bytes += event.bytes();
        bytes <= FRAGMENT_BYTES
    });
    fits.count().max(1).min(events.len())
}

/// How many bytes of an answer these events are.
fn bytes(events: &[Event]) -> u32 {
    let bytes = events.iter().map(Event::bytes).fold(0, usize::saturating_add);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// No key stands for the smallest one.
fn keys(key: Bytes, end: Bytes) -> KeyRange {
    let key = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
    translate::keys(key, end)
}
