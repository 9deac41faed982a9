//! The history that watches read.

use super::*;
use crate::keys::{History, Piece};

fn shared(applier: Applier) -> SharedState {
    SharedState::new(Replica { state: applier.state, ..Replica::default() }).0
}

#[test]
fn the_history_is_bounded_in_number() {
    let mut applier = Applier::default();
    for _ in 0..History::CHANGES + 10 {
        applier.put("a", "");
    }
    let shared = shared(applier);
    let compacted = shared.events_after(Revision(9), b"", 1).unwrap_err();
    assert_eq!(compacted.oldest, 10);
    let (events, upto) = shared.events_after(Revision(10), b"", 1).unwrap();
    assert_eq!((events.len(), upto), (1, Revision(11)));
}

#[test]
fn the_history_is_bounded_in_bytes_and_forgets_whole_revisions() {
    let mut applier = Applier::default();
    let value = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..40 {
        let txn = Txn::new().put(key("a"), value.clone()).put(key("b"), value.clone());
        applier.txn(txn).committed().unwrap();
    }
    let shared = shared(applier);
    // 32 revisions of two values, each of which replaced another, are 128 MiB, and their keys are over it.
    let compacted = shared.events_after(Revision(0), b"", 1).unwrap_err();
    assert_eq!(compacted.oldest, 40 - 31);
    // Nor does a reader take more of them at once than a revision that is over the bound of a piece.
    let (mut after, mut found) = (Revision(9), 0);
    while let (events, upto) = shared.events_after(after, b"", 1000).unwrap()
        && !events.is_empty()
    {
        assert_eq!((events.len(), upto), (2, Revision(after.0 + 1)));
        (after, found) = (upto, found + events.len());
    }
    assert_eq!(found, 62);
}

/// A watch that was up to date was told that what it wanted next had been compacted.
#[test]
fn the_latest_revision_is_kept_whatever_it_has_changed() {
    let (mut applier, value) = (Applier::default(), Bytes::from(vec![0; 1 << 20]));
    let all: Vec<_> = (0..130).map(|one| key(&format!("{one:03}"))).collect();
    for key in &all {
        applier.txn(Txn::new().put(key.clone(), value.clone())).committed().unwrap();
    }
    let now = applier.state.tables().keys.revision;
    applier.txn(all.iter().fold(Txn::new(), |txn, key| txn.delete(key.clone()))).committed().unwrap();
    let history = &applier.state.tables().keys.history;
    assert_eq!((history.len(), history.oldest()), (130, now), "nothing else is kept");
    assert!(history.compacted() <= Some(crate::keys::etcd_revision(now + 1)), "the present can be read");
    applier.put("a", "");
    let history = &applier.state.tables().keys.history;
    assert_eq!((history.len(), history.oldest()), (1, now + 1), "it goes when there is a later one");
}

#[test]
fn a_piece_never_ends_within_a_revision() {
    let mut applier = Applier::default();
    applier.txn(Txn::new().put(key("a"), "").put(key("b"), "").put(key("c"), "")).committed().unwrap();
    applier.put("a", "");
    let shared = shared(applier);
    let (events, upto) = shared.events_after(Revision(0), b"", 1).unwrap();
    assert_eq!((events.len(), upto), (3, Revision(1)));
}

#[test]
fn a_rare_prefix_is_found_however_far_it_is() {
    let mut applier = Applier::default();
    for _ in 0..3 * History::SEARCH_AT_ONCE {
        applier.put("a", "");
    }
    applier.put("b", "");
    let revision = applier.state.tables().keys.revision;
    let history = &applier.state.tables().keys.history;
    let piece = history.changes_after(0, |key| key.starts_with(b"b"), Piece { changes: 10, bytes: 1000 }).unwrap();
    assert!(piece.changes.is_empty() && piece.upto == History::SEARCH_AT_ONCE as u64, "one look is bounded");
    let shared = shared(applier);
    let (events, upto) = shared.events_after(Revision(0), b"b", 10).unwrap();
    assert_eq!((events.len(), upto), (1, Revision(revision)));
    assert_eq!(shared.events_after(upto, b"b", 10).unwrap(), (vec![], upto));
    assert_eq!(shared.events_after(Revision(revision + 5), b"", 10).unwrap().0, [], "a revision to come");
}
