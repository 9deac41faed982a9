//! Invariants of the tables, broken on purpose.

use storage_core::Committed;

use super::*;

fn request(sequence: u64) -> Request {
    Request { session: 1, sequence, acknowledged_below: 0 }
}

fn outcome() -> Outcome {
    Outcome::Committed(Committed { versions: Vec::new(), revision: None })
}

#[test]
#[should_panic(expected = "a request of a session is applied twice")]
fn a_request_is_applied_once() {
    let mut tables = Tables::default();
    tables.open_session(1, 7);
    tables.begin_request(2, &request(5)).unwrap();
    tables.remember_answer(1, 5, Applied::Nothing);
    tables.remember_answer(1, 5, Applied::Nothing);
}

#[test]
#[should_panic(expected = "a request is applied that was acknowledged")]
fn a_late_copy_of_a_request_is_not_applied() {
    let mut tables = Tables::default();
    tables.open_session(1, 7);
    tables.begin_request(2, &Request { acknowledged_below: 6, ..request(6) }).unwrap();
    tables.remember_answer(1, 5, Applied::Nothing);
}

#[test]
#[should_panic(expected = "two sessions are opened by one entry")]
fn a_session_has_an_id_of_its_own() {
    let mut tables = Tables::default();
    tables.open_session(1, 7);
    tables.open_session(1, 8);
}

#[test]
#[should_panic(expected = "an operation of a user is applied twice")]
fn an_operation_is_applied_once() {
    let mut tables = Tables::default();
    tables.remember_operation(OperationId(1), outcome());
    tables.remember_operation(OperationId(1), outcome());
}

/// What damage could put into a snapshot is an error and no panic.
#[test]
fn items_that_contradict_each_other_are_refused() {
    let mut tables = Tables::default();
    let session = || Session { nonce: 1, last_used: 1, acknowledged_below: 4, answers: Default::default() };
    tables.restore_session(1, session()).unwrap();
    tables.restore_answer(1, 5, Applied::Nothing).unwrap();
    tables.restore_operation(OperationId(1), outcome()).unwrap();
    let before = (tables.counts(), tables.digest());
    assert!(tables.restore_session(1, session()).is_err());
    assert!(tables.restore_answer(1, 5, Applied::Nothing).is_err());
    assert!(tables.restore_answer(1, 3, Applied::Nothing).is_err());
    assert!(tables.restore_answer(2, 5, Applied::Nothing).is_err());
    assert!(tables.restore_operation(OperationId(1), outcome()).is_err());
    assert_eq!((tables.counts(), tables.digest()), before);
}
