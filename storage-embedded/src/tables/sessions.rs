//! Sessions: they make a proposal that gets into the log twice take effect once (Ongaro's thesis, section 6.3).

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;

use super::digest;
use crate::{
    command::{Applied, Rejection, Request},
    keys::Digest,
};

/// One numbering of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) nonce: u64,
    /// The index of the last entry that used the session.
    pub(crate) last_used: u64,
    /// The session waits for no request below this.
    pub(crate) acknowledged_below: u64,
    /// The answers that may still be asked for, by their requests' numbers. A conflict is kept too: if it were evaluated
    /// again, a late copy of a proposal could be applied after its caller was told that it was not.
    /// Copied when it is changed after a snapshot was begun; it holds little more than what is in flight.
    pub(crate) answers: Arc<Answers>,
}

/// Answers by the numbers of their requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    by_sequence: BTreeMap<u64, Applied>,
    /// How many bytes they have.
    bytes: usize,
}

impl Answers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&u64, &Applied)> {
        self.by_sequence.iter()
    }

    /// # Panics
    /// If there is one.
    fn insert(&mut self, sequence: u64, answer: Applied) {
        self.bytes += answer.bytes();
        let before = self.by_sequence.insert(sequence, answer);
        assert!(before.is_none(), "a request of a session is applied twice");
    }

    /// Takes out the first, if its number is below one.
    fn pop_below(&mut self, sequence: u64) -> Option<(u64, Applied)> {
        let first = self.by_sequence.first_entry().filter(|first| *first.key() < sequence)?;
        let (sequence, answer) = first.remove_entry();
        self.bytes -= answer.bytes();
        Some((sequence, answer))
    }
}

impl Session {
    fn digest(&self, id: u64) -> u64 {
        digest::session(id, self.nonce, self.last_used, self.acknowledged_below)
    }
}

/// The sessions by their ids: the indexes of the entries that opened them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(pub(super) OrdMap<u64, Session>);

impl Sessions {
    /// How many sessions there may be; a replica opens one when it starts. One more takes the place of the one
    /// that was not used for longest, in the order of the log.
    pub(crate) const MAX: usize = 1024;
    /// How many unacknowledged requests a session may have. One more is refused: to forget an answer instead could apply its request twice.
    pub(crate) const REQUESTS: usize = 16_384;

    /// Opens a session, or finds the one with this nonce.
    pub(crate) fn open(&mut self, index: u64, nonce: u64, digest: &mut Digest) -> u64 {
        // The opening itself may stand in the log twice.
        if let Some((id, _)) = self.0.iter().find(|(_, session)| session.nonce == nonce) {
            return *id;
        }
        if self.0.len() >= Self::MAX
            && let Some(unused) = self.0.iter().min_by_key(|(_, session)| session.last_used).map(|(id, _)| *id)
        {
            self.close(unused, digest);
        }
        assert!(!self.0.contains_key(&index), "two sessions are opened by one entry");
        let session = Session { nonce, last_used: index, acknowledged_below: 0, answers: Arc::default() };
        self.restore(index, session, digest);
        assert!(self.0.len() <= Self::MAX, "one session makes room for another");
        index
    }

    /// Puts in a session as it is.
    pub(super) fn restore(&mut self, id: u64, session: Session, digest: &mut Digest) {
        digest.add(session.digest(id));
        for (sequence, answer) in session.answers.iter() {
            digest.add(digest::answer(id, *sequence, answer));
        }
        self.0.insert(id, session);
    }

    #[expect(clippy::expect_used, reason = "its id was found just now")]
    fn close(&mut self, id: u64, digest: &mut Digest) {
        let session = self.0.remove(&id).expect("the session that makes room is open");
        digest.remove(session.digest(id));
        for (sequence, answer) in session.answers.iter() {
            digest.remove(digest::answer(id, *sequence, answer));
        }
    }

    /// Whether a request is to be applied now; otherwise the answer that it gets instead.
    pub(crate) fn begin(&mut self, index: u64, request: &Request, digest: &mut Digest) -> Result<(), Applied> {
        let Some(session) = self.0.get_mut(&request.session) else { return Err(Applied::UnknownSession) };
        assert!(session.last_used <= index, "a session was used by a later entry");
        // Out of the hash as it was, back in as it will be.
        digest.remove(session.digest(request.session));
        session.last_used = index;
        if request.acknowledged_below > session.acknowledged_below {
            session.acknowledged_below = request.acknowledged_below;
            let answers = Arc::make_mut(&mut session.answers);
            while let Some((sequence, answer)) = answers.pop_below(request.acknowledged_below) {
                digest.remove(digest::answer(request.session, sequence, &answer));
            }
        }
        digest.add(session.digest(request.session));
        // A late copy of a request whose answer was forgotten must not be applied again, so this comes first. Then the answer of one that was
        // applied; only what is neither is new.
        if request.sequence < session.acknowledged_below {
            Err(Applied::Rejected(Rejection::Acknowledged))
        } else if let Some(answer) = session.answers.by_sequence.get(&request.sequence) {
            Err(answer.clone())
        } else if session.answers.by_sequence.len() >= Self::REQUESTS {
            Err(Applied::Rejected(Rejection::TooManyRequests))
        } else {
            Ok(())
        }
    }

    /// Keeps the answer of a request that [`Sessions::begin`] let pass.
    ///
    /// # Panics
    /// If it was applied before.
    #[expect(clippy::expect_used, reason = "nothing closes a session while its request is applied")]
    pub(crate) fn remember(&mut self, session: u64, sequence: u64, answer: Applied, digest: &mut Digest) {
        let open = self.0.get_mut(&session).expect("the session of a request that is applied is open");
        assert!(sequence >= open.acknowledged_below, "a request is applied that was acknowledged");
        digest.add(digest::answer(session, sequence, &answer));
        Arc::make_mut(&mut open.answers).insert(sequence, answer);
    }

    /// How many bytes the answers of a session have that it has not acknowledged.
    pub(super) fn unacknowledged_bytes(&self, session: u64) -> usize {
        self.0.get(&session).map_or(0, |open| open.answers.bytes)
    }

    /// Whether [`Sessions::remember`] takes such an answer.
    pub(super) fn awaits(&self, session: u64, sequence: u64) -> bool {
        let open = self.0.get(&session);
        open.is_some_and(|open| {
            sequence >= open.acknowledged_below && !open.answers.by_sequence.contains_key(&sequence)
        })
    }
}
