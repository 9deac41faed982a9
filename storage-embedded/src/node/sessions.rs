//! Numbers for the writes of one process, so that a write which is sent twice, because the leader died meanwhile, is applied once.
//! Raft thesis, section 6.3.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, RwLock};

use crate::command::Request;

/// The session in which this process writes; opened at the first write, and again if the cluster has forgotten it.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    current: RwLock<Option<Arc<Session>>>,
    /// Held while a session is opened, so that many first writers open one.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl Sessions {
    /// Begins a write; `None` if a session has to be opened first.
    pub(crate) fn begin(&self) -> Option<Numbered> {
        Some(Session::begin(self.current.read().as_ref()?))
    }

    /// Continues with a session that has just been opened.
    pub(crate) fn opened(&self, id: u64) {
        *self.current.write() = Some(Arc::new(Session { id, window: Mutex::new(Window::default()) }));
    }

    /// Forgets the session with this id, if it is still the current one.
    pub(crate) fn forget(&self, id: u64) {
        let mut current = self.current.write();
        if current.as_ref().is_some_and(|session| session.id == id) {
            *current = None;
        }
    }
}

#[derive(Debug)]
struct Session {
    id: u64,
    window: Mutex<Window>,
}

/// Which numbers are in use: those from `first` on, of which some have ended.
#[derive(Debug, Default)]
struct Window {
    first: u64,
    ended: VecDeque<bool>,
}

impl Session {
    fn begin(self: &Arc<Self>) -> Numbered {
        let mut window = self.window.lock();
        let sequence = window.first + window.ended.len() as u64;
        window.ended.push_back(false);
        let request = Request { session: self.id, sequence, acknowledged_below: window.first };
        Numbered { session: self.clone(), request }
    }

    fn end(&self, sequence: u64) {
        let mut window = self.window.lock();
        let Ok(place) = usize::try_from(sequence - window.first) else { return };
        if let Some(ended) = window.ended.get_mut(place) {
            *ended = true;
        }
        while window.ended.front() == Some(&true) {
            window.ended.pop_front();
            window.first += 1;
        }
    }
}

/// A write that is under way. Its number is given up when this is dropped: it will not be sent again.
#[derive(Debug)]
pub(crate) struct Numbered {
    session: Arc<Session>,
    pub(crate) request: Request,
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.session.end(self.request.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_write_under_way_holds_the_acknowledgement_back() {
        let sessions = Sessions::default();
        assert!(sessions.begin().is_none());
        sessions.opened(7);
        let first = sessions.begin().unwrap();
        let second = sessions.begin().unwrap();
        assert_eq!((first.request.sequence, second.request.sequence), (0, 1));
        drop(second);
        let third = sessions.begin().unwrap();
        assert_eq!((third.request.sequence, third.request.acknowledged_below), (2, 0));
        drop(first);
        assert_eq!(sessions.begin().unwrap().request.acknowledged_below, 2);
    }

    #[test]
    fn a_forgotten_session_is_not_used_again() {
        let sessions = Sessions::default();
        sessions.opened(7);
        let old = sessions.begin().unwrap();
        sessions.forget(6);
        assert!(sessions.begin().is_some());
        sessions.forget(7);
        assert!(sessions.begin().is_none());
        sessions.opened(8);
        drop(old);
        let request = sessions.begin().unwrap().request;
        assert_eq!((request.session, request.sequence, request.acknowledged_below), (8, 0, 0));
    }
}
