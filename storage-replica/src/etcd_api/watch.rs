//! The service Watch: each stream has any number of watches, and one task.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use storage_embedded::mvcc::{Event, KeyRange, MvccError, Refused};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    context::Context,
    error,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType, watch_request::RequestUnion,
        watch_server::Watch,
    },
    translate,
};

/// How many answers may wait for a slow client. Beyond that nothing is kept for it: it is further behind in the history.
const ANSWERS_AHEAD: usize = 16;

/// How many events are taken from the history at once: those of one answer, and the rest of the last revision.
const EVENTS_AT_ONCE: usize = 1000;

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
pub(super) struct WatchService(pub(super) Context);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let wants_leader = request.metadata().get("hasleader").is_some_and(|value| value == "true");
        if wants_leader && self.0.node().leader().is_none() {
            return Err(error::NO_LEADER.into());
        }
        let (answers, received) = mpsc::channel(ANSWERS_AHEAD);
        let watches = Watches { context: self.0.clone(), answers, watches: BTreeMap::new(), next_id: 0 };
        tokio::spawn(watches.run(request.into_inner(), wants_leader));
        Ok(Response::new(ReceiverStream::new(received).boxed()))
    }
}

/// The watches of one stream. They keep no queues: each is a place in the history, and those at one place are served together.
struct Watches {
    context: Context,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: BTreeMap<i64, OneWatch>,
    next_id: i64,
}

struct OneWatch {
    keys: KeyRange,
    /// The revision whose events are wanted next.
    next: u64,
    puts: bool,
    deletes: bool,
    previous: bool,
    /// Whether it wants to be told how far it is, and whether it has been told anything since that was looked at last.
    progress: Option<bool>,
}

/// The client has gone.
struct Gone;

type Sent = Result<(), Gone>;

impl Watches {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, wants_leader: bool) {
        let mut applied = self.context.mvcc.applied();
        let mut progress = interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        let mut leader = interval_at(Instant::now() + LEADER_LOOKED_FOR, LEADER_LOOKED_FOR);
        let mut missed = 0;
        let answers = self.answers.clone();
        loop {
            let sent = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(request).await,
                    Some(Err(_)) | None => Err(Gone),
                },
                changed = applied.changed() => match changed {
                    Ok(()) => self.deliver().await,
                    Err(_) => Err(Gone),
                },
                _ = progress.tick() => self.tell_progress().await,
                _ = leader.tick(), if wants_leader => {
                    // A follower that is cut off does not know it: it has to ask.
                    missed = if self.context.mvcc.barrier(FRESH_WITHIN).await.is_err() { missed + 1 } else { 0 };
                    if missed >= LEADER_MISSED { Err(Gone) } else { Ok(()) }
                }
                () = answers.closed() => Err(Gone),
            };
            if sent.is_err() {
                break;
            }
        }
        if missed >= LEADER_MISSED {
            // Only if there is room: nothing may wait for a client that reads nothing.
            let _ = answers.try_send(Err(error::NO_LEADER.into()));
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
                // Without watches there is nobody who could be told.
                if self.watches.is_empty() {
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
        let filtered = |kind| request.filters.iter().any(|filter| FilterType::try_from(*filter) == Ok(kind));
        let watch = OneWatch {
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            next: if request.start_revision == 0 {
                now + 1
            } else {
                u64::try_from(request.start_revision).unwrap_or(1)
            },
            previous: request.prev_kv,
            progress: request.progress_notify.then_some(false),
            keys: keys(request.key, request.range_end),
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
        self.watches.insert(id, watch);
        self.answer(WatchResponse { created: true, ..self.about_at(id, now) }).await
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
        while let Some(from) = self.watches.values().map(|watch| watch.next).min() {
            let behind = |watch: &&OneWatch| watch.next == from;
            let wanted = |key: &[u8]| self.watches.values().filter(behind).any(|watch| watch.keys.contains(key));
            match self.context.mvcc.events(from, wanted, EVENTS_AT_ONCE) {
                Ok(events) if events.upto < from => return Ok(()),
                Ok(events) => self.deliver_events(from, events.upto, &events.events).await?,
                Err(MvccError::Refused(Refused::Compacted)) => self.cancel_compacted(from).await?,
                Err(error) => {
                    tracing::error!(%error, "cannot read the history");
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    async fn deliver_events(&mut self, from: u64, upto: u64, events: &[Event]) -> Sent {
        let mut answers = Vec::new();
        for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.next == from) {
            watch.next = upto + 1;
            let events: Vec<_> = events.iter().filter_map(|event| watch.take(event)).map(translate::event).collect();
            if !events.is_empty() {
                watch.progress = watch.progress.map(|_| true);
                answers.push((*id, events));
            }
        }
        for (id, events) in answers {
            self.answer(WatchResponse { events, ..self.about_at(id, upto) }).await?;
        }
        Ok(())
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
            if watch.progress == Some(false) {
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

    async fn answer(&self, answer: WatchResponse) -> Sent {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }
}

impl OneWatch {
    /// What this watch wants of an event.
    fn take(&self, event: &Event) -> Option<Event> {
        let wanted = if event.deleted { self.deletes } else { self.puts };
        if !wanted || !self.keys.contains(&event.entry.key) {
            return None;
        }
        Some(Event { previous: event.previous.clone().filter(|_| self.previous), ..event.clone() })
    }
}

/// No key stands for the smallest one.
fn keys(key: Bytes, end: Bytes) -> KeyRange {
    let key = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
    translate::keys(key, end)
}
