//! Numbers for the writes of one process, so that a write which is sent twice, because the leader died meanwhile, is applied once.
//! Raft thesis, section 6.3.
//!
//! # Invariants
//! - A number is in use from when its write is first sent until its answer is there, or its deadline has passed, whatever its caller does: a
//!   caller that keeps the future of its write and does not look holds back nobody else.
//! - A write is not sent after its number has ended. One that is on its way then is not applied any more.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, time::Instant};

use crate::{
    command::Request,
    network::{calls::Awaits, message::Reply},
};

/// The session in which this process writes; opened at the first write, and again if the cluster has forgotten it.
#[derive(Debug, Default)]
pub(crate) struct RequestNumbers {
    current: RwLock<Option<Arc<Session>>>,
    /// Whether somebody opens a session: of many first writers one does.
    opening: watch::Sender<bool>,
}

impl RequestNumbers {
    /// The session; `None` if one has to be opened first.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.current.read().clone()
    }

    /// The right to open a session, unless somebody has it.
    pub(crate) fn begin_to_open(numbers: &Arc<Self>) -> Option<Opening> {
        let is_first = numbers.opening.send_if_modified(|opening| !std::mem::replace(opening, true));
        is_first.then(|| Opening(Arc::clone(numbers)))
    }

    /// Returns when nobody opens a session.
    #[expect(clippy::expect_used, reason = "the sender is here")]
    pub(crate) async fn opened_or_failed(&self) {
        self.opening.subscribe().wait_for(|opening| !opening).await.expect("the sender is here");
    }

    /// Forgets the session with this id, if it is still the current one.
    pub(crate) fn forget(&self, id: u64) {
        let mut current = self.current.write();
        if current.as_ref().is_some_and(|session| session.id == id) {
            *current = None;
        }
    }
}

/// The right to open a session. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Opening(Arc<RequestNumbers>);

impl Opening {
    /// Continues with a session that has just been opened.
    pub(crate) fn opened(self, id: u64) {
        *self.0.current.write() = Some(Arc::new(Session { id, window: Mutex::default() }));
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.send_replace(false);
    }
}

/// A numbering of the writes of this process.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    window: Mutex<Window>,
}

/// Which numbers are in use: those from `first` on, of which some have ended.
#[derive(Debug, Default)]
struct Window {
    first: u64,
    writes: VecDeque<Write>,
    /// Those below `first` that their deadlines have ended, and that somebody still holds.
    late: BTreeSet<u64>,
}

#[derive(Debug)]
struct Write {
    ended: bool,
    deadline: Instant,
}

impl Session {
    /// Takes the next number, for a write that is about to be sent, and is not sent after its deadline.
    pub(crate) fn begin(self: &Arc<Self>, deadline: Instant) -> Numbered {
        let mut window = self.window.lock();
        window.advance(Instant::now());
        let sequence = window.first + window.writes.len() as u64;
        window.writes.push_back(Write { ended: false, deadline });
        // Everything below the oldest write under way has an answer or was given up, so the state machine may forget its answers.
        let acknowledged_below = window.first;
        #[cfg(simulated)]
        let acknowledged_below = match crate::simulated::is_planted(crate::simulated::Flaw::EarlyNumbers) {
            true => sequence,
            false => acknowledged_below,
        };
        let request = Request { session: self.id, sequence, acknowledged_below };
        Numbered { session: self.clone(), request, ended: AtomicBool::new(false), outcome: OnceLock::new() }
    }

    fn end(&self, sequence: u64) {
        let mut window = self.window.lock();
        if window.late.remove(&sequence) {
            return;
        }
        let place = sequence.checked_sub(window.first).and_then(|place| usize::try_from(place).ok());
        let ended = place.and_then(|place| window.writes.get_mut(place)).map(|write| &mut write.ended);
        // Otherwise the cluster would be told that a write is acknowledged which is under way, and apply a copy of it.
        assert!(ended == Some(&mut false), "a write's number is given up twice, or was never in use");
        ended.into_iter().for_each(|ended| *ended = true);
        window.advance_over_ended();
    }
}

impl Window {
    /// Writes end in any order, and the window begins at the oldest that has not.
    fn advance_over_ended(&mut self) {
        while self.writes.front().is_some_and(|write| write.ended) {
            self.writes.pop_front();
            self.first += 1;
        }
    }

    /// The same, and ends those at its beginning whose deadline has passed: they may belong to callers that do not look.
    fn advance(&mut self, now: Instant) {
        self.advance_over_ended();
        while self.writes.front().is_some_and(|write| write.deadline < now) {
            self.late.insert(self.first);
            self.writes.pop_front();
            self.first += 1;
            self.advance_over_ended();
        }
    }
}

/// The number of a write. It ends when the write is answered, and at the latest when this is dropped.
#[derive(Debug)]
pub(crate) struct Numbered {
    session: Arc<Session>,
    pub(crate) request: Request,
    ended: AtomicBool,
    /// Its outcome, as the first attempt has it that was answered. A later one may be told only that the number has ended.
    outcome: OnceLock<Reply>,
}

impl Numbered {
    /// What an attempt was answered, whichever it was, and whether its caller still waited for that one.
    pub(crate) fn outcome(&self) -> Option<&Reply> {
        self.outcome.get()
    }

    fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.session.end(self.request.sequence);
        }
    }
}

impl Awaits for Numbered {
    /// An outcome is the end of it. After any other answer the write may be sent again.
    fn answered(&self, reply: &Reply) {
        if matches!(reply, Reply::Applied { .. }) {
            // The first: whatever is told after the number has ended is no outcome.
            let _ = self.outcome.set(reply.clone());
            self.end();
        }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{Applied, Rejection};

    fn opened(id: u64) -> (Arc<RequestNumbers>, Arc<Session>) {
        let numbers = Arc::new(RequestNumbers::default());
        assert!(numbers.session().is_none());
        RequestNumbers::begin_to_open(&numbers).unwrap().opened(id);
        let session = numbers.session().unwrap();
        (numbers, session)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn the_oldest_write_under_way_holds_the_acknowledgement_back() {
        let (_numbers, session) = opened(7);
        let (first, second) = (session.begin(later()), session.begin(later()));
        assert_eq!((first.request.sequence, second.request.sequence), (0, 1));
        drop(second);
        let third = session.begin(later());
        assert_eq!((third.request.sequence, third.request.acknowledged_below), (2, 0));
        drop(first);
        assert_eq!(session.begin(later()).request.acknowledged_below, 2);
    }

    #[test]
    fn a_number_ends_with_its_outcome_although_its_caller_keeps_it() {
        let (_numbers, session) = opened(7);
        let kept = session.begin(later());
        for reply in [Reply::NotLeader, Reply::Undecided, Reply::Refused("why".to_owned())] {
            kept.answered(&reply);
            assert_eq!(session.begin(later()).request.acknowledged_below, 0, "it may be sent again after {reply:?}");
        }
        assert_eq!(kept.outcome(), None);
        let outcome = Reply::Applied { index: 1, applied: Applied::Nothing };
        kept.answered(&outcome);
        assert_eq!(session.begin(later()).request.acknowledged_below, 4);
        // Another attempt is answered later, when the cluster has forgotten the outcome.
        kept.answered(&Reply::Applied { index: 9, applied: Applied::Rejected(Rejection::Acknowledged) });
        assert_eq!(kept.outcome(), Some(&outcome));
        // Of no meaning any more.
        drop(kept);
    }

    #[test]
    fn a_number_ends_with_its_deadline_although_its_caller_keeps_it() {
        let (_numbers, session) = opened(7);
        let passed = Instant::now() - Duration::from_millis(1);
        let (kept, other) = (session.begin(passed), session.begin(later()));
        let next = session.begin(later());
        assert_eq!((next.request.sequence, next.request.acknowledged_below), (2, 1));
        drop((kept, other));
        assert_eq!(session.begin(later()).request.acknowledged_below, 2);
        assert!(session.window.lock().late.is_empty(), "nobody holds it");
    }

    #[test]
    #[should_panic(expected = "a write's number is given up twice, or was never in use")]
    fn a_number_is_given_up_once() {
        let (_numbers, session) = opened(7);
        drop(session.begin(later()));
        session.end(0);
    }

    #[test]
    fn a_forgotten_session_is_not_used_again() {
        let (numbers, session) = opened(7);
        let old = session.begin(later());
        numbers.forget(6);
        assert!(numbers.session().is_some());
        numbers.forget(7);
        assert!(numbers.session().is_none());
        RequestNumbers::begin_to_open(&numbers).unwrap().opened(8);
        drop(old);
        let request = numbers.session().unwrap().begin(later()).request;
        assert_eq!((request.session, request.sequence, request.acknowledged_below), (8, 0, 0));
    }

    #[tokio::test]
    async fn one_opens_a_session_and_the_next_one_may_when_it_has_failed() {
        let numbers = Arc::new(RequestNumbers::default());
        let opening = RequestNumbers::begin_to_open(&numbers).unwrap();
        assert!(RequestNumbers::begin_to_open(&numbers).is_none());
        drop(opening);
        numbers.opened_or_failed().await;
        assert!(numbers.session().is_none());
        assert!(RequestNumbers::begin_to_open(&numbers).is_some());
    }
}
