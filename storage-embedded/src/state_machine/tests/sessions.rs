//! Requests of sessions take effect once.

use super::*;
use crate::tables::Sessions;

fn open(applier: &mut Applier, nonce: u64) -> u64 {
    match applier.apply(Command::OpenSession { nonce }) {
        Applied::Session(id) => id,
        other => panic!("{other}"),
    }
}

fn send(applier: &mut Applier, txn: &Txn, session: u64, sequence: u64, acknowledged_below: u64) -> Applied {
    let request = Some(Request { session, sequence, acknowledged_below });
    applier.apply(Command::Txn { txn: txn.clone(), operation: None, request })
}

#[test]
fn a_repeated_request_gets_its_answer_again() {
    let mut applier = Applier::default();
    let session = open(&mut applier, 1);
    let append = Txn::new().put(key("a"), "1");
    let first = send(&mut applier, &append, session, 0, 0);
    let second = send(&mut applier, &append, session, 1, 0);
    assert_ne!(first, second);
    assert_eq!(send(&mut applier, &append, session, 0, 0), first);
    assert_eq!(send(&mut applier, &append, session, 1, 1), second);
    assert_eq!(send(&mut applier, &append, session, 0, 1), Applied::Rejected(Rejection::Acknowledged), "a late copy");
    assert_eq!(send(&mut applier, &append, session, 0, 0), Applied::Rejected(Rejection::Acknowledged));
    assert_eq!(applier.state.tables().keys.revision, 2);
}

#[test]
fn a_conflict_stays_one_when_a_late_copy_comes() {
    let mut applier = Applier::default();
    let session = open(&mut applier, 1);
    let create = Txn::new().guard(key("a"), Expected::Absent).put(key("a"), "2");
    applier.put("a", "1");
    let conflict = send(&mut applier, &create, session, 0, 0);
    assert!(matches!(conflict, Applied::Outcome(Outcome::Conflict(_))));
    applier.txn(Txn::new().delete(key("a"))).committed().unwrap();
    assert_eq!(send(&mut applier, &create, session, 0, 0), conflict);
    assert_eq!(applier.value("a"), None);
}

#[test]
fn opening_twice_opens_once() {
    let mut applier = Applier::default();
    let first = open(&mut applier, 1);
    assert_eq!(open(&mut applier, 1), first);
    assert_ne!(open(&mut applier, 2), first);
}

#[test]
fn the_session_that_was_unused_for_longest_makes_room() {
    let mut applier = Applier::default();
    let touch = Txn::new().guard(key("a"), Expected::Any);
    let sessions: Vec<_> = (0..Sessions::MAX as u64).map(|nonce| open(&mut applier, nonce)).collect();
    send(&mut applier, &touch, sessions[0], 0, 0);
    open(&mut applier, u64::MAX);
    assert_eq!(send(&mut applier, &touch, sessions[1], 0, 0), Applied::UnknownSession);
    assert!(matches!(send(&mut applier, &touch, sessions[0], 1, 0), Applied::Outcome(_)));
    assert_eq!(send(&mut applier, &touch, 0, 0, 0), Applied::UnknownSession, "an id that never was");
    assert_eq!(applier.state.tables().counts().sessions, Sessions::MAX as u64);
}

#[test]
fn unacknowledged_requests_are_bounded() {
    let mut applier = Applier::default();
    let session = open(&mut applier, 1);
    let put = Txn::new().put(key("a"), "1");
    for sequence in 0..Sessions::REQUESTS as u64 {
        assert!(matches!(send(&mut applier, &put, session, sequence, 0), Applied::Outcome(_)));
    }
    let next = Sessions::REQUESTS as u64;
    assert_eq!(send(&mut applier, &put, session, next, 0), Applied::Rejected(Rejection::TooManyRequests));
    assert!(matches!(send(&mut applier, &put, session, 0, 0), Applied::Outcome(_)), "its answer is still known");
    assert!(matches!(send(&mut applier, &put, session, next, 1), Applied::Outcome(_)));
}

proptest! {
    /// Each request of a session changes the state at most once, whatever else happens.
    #[test]
    fn proposals_may_be_repeated_at_will(repeats in vec((0_usize..8, 0_u64..8), 1..100)) {
        let mut applier = Applier::default();
        let session = open(&mut applier, 1);
        let mut applied = std::collections::BTreeMap::new();
        for (sequence, acknowledged_below) in repeats {
            let before = applier.state.tables().keys.revision;
            let put = Txn::new().put(key("a"), sequence.to_string());
            let answer = send(&mut applier, &put, session, sequence as u64, acknowledged_below);
            if applier.state.tables().keys.revision != before {
                prop_assert_eq!(applied.insert(sequence, answer), None, "applied twice");
            } else if let Applied::Outcome(_) = answer {
                prop_assert_eq!(applied.get(&sequence), Some(&answer));
            }
        }
    }
}
