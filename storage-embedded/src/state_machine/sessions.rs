//! Sessions: they make a proposal that gets into the log twice take effect once (Ongaro's thesis, section 6.3).

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;

use super::{
    Applied, Refusal,
    digest::{self, Digest},
};
use crate::command::Request;

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
    pub(crate) answers: Arc<BTreeMap<u64, Applied>>,
}

impl Session {
    fn digest(&self, id: u64) -> u64 {
        digest::session(id, self.nonce, self.last_used, self.acknowledged_below)
    }
}

/// The sessions by their ids: the indexes of the entries that opened them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions(pub(super) OrdMap<u64, Session>);

impl Sessions {
    /// How many sessions there may be; a replica opens one when it starts. One more takes the place of the one
    /// that was not used for longest, in the order of the log.
    pub(super) const MAX: usize = 1024;
    /// How many unacknowledged requests a session may have. One more is refused: to forget an answer instead could apply its request twice.
    pub(super) const REQUESTS: usize = 16_384;

    /// Opens a session, or finds the one with this nonce.
    pub(super) fn open(&mut self, index: u64, nonce: u64, digest: &mut Digest) -> u64 {
        if let Some((id, _)) = self.0.iter().find(|(_, session)| session.nonce == nonce) {
            return *id;
        }
        if self.0.len() >= Self::MAX
            && let Some(unused) = self.0.iter().min_by_key(|(_, session)| session.last_used).map(|(id, _)| *id)
        {
            self.close(unused, digest);
        }
        let session = Session { nonce, last_used: index, acknowledged_below: 0, answers: Arc::default() };
        self.restore(index, session, digest);
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

    fn close(&mut self, id: u64, digest: &mut Digest) {
        let Some(session) = self.0.remove(&id) else { return };
        digest.remove(session.digest(id));
        for (sequence, answer) in session.answers.iter() {
            digest.remove(digest::answer(id, *sequence, answer));
        }
    }

    /// Whether a request is to be applied now; otherwise the answer that it gets instead.
    pub(super) fn begin(&mut self, index: u64, request: &Request, digest: &mut Digest) -> Result<(), Applied> {
        let Some(session) = self.0.get_mut(&request.session) else { return Err(Applied::UnknownSession) };
        digest.remove(session.digest(request.session));
        session.last_used = index;
        if request.acknowledged_below > session.acknowledged_below {
            session.acknowledged_below = request.acknowledged_below;
            let answers = Arc::make_mut(&mut session.answers);
            while let Some(oldest) = answers.first_entry().filter(|oldest| *oldest.key() < request.acknowledged_below) {
                let (sequence, answer) = oldest.remove_entry();
                digest.remove(digest::answer(request.session, sequence, &answer));
            }
        }
        digest.add(session.digest(request.session));
        if request.sequence < session.acknowledged_below {
            Err(Applied::Refused(Refusal::Acknowledged))
        } else if let Some(answer) = session.answers.get(&request.sequence) {
            Err(answer.clone())
        } else if session.answers.len() >= Self::REQUESTS {
            Err(Applied::Refused(Refusal::TooManyRequests))
        } else {
            Ok(())
        }
    }

    /// Keeps the answer of a request that [`Sessions::begin`] let pass.
    pub(super) fn remember(&mut self, session: u64, sequence: u64, answer: Applied, digest: &mut Digest) {
        if let Some(open) = self.0.get_mut(&session) {
            digest.add(digest::answer(session, sequence, &answer));
            Arc::make_mut(&mut open.answers).insert(sequence, answer);
        }
    }
}
