//! Leases take their keys with them.

use super::*;

fn grant(applier: &mut Applier, id: u64) -> Applied {
    applier.apply(Command::LeaseGrant { id, ttl_seconds: 10 })
}

fn put(applier: &mut Applier, name: &str, lease: u64) -> Applied {
    applier.apply(leased_put(name, "v", lease))
}

#[test]
fn the_end_of_a_lease_deletes_its_keys_in_one_revision() {
    let mut applier = Applier::default();
    assert_eq!(grant(&mut applier, 7), Applied::Lease { id: 7, ttl_seconds: 10 });
    for name in ["a", "b", "c", "d"] {
        assert!(matches!(put(&mut applier, name, 7), Applied::Mvcc(_)));
    }
    grant(&mut applier, 8);
    put(&mut applier, "b", 8);
    applier.put("c", "a put of the contract detaches");
    applier.txn(Txn::new().delete(key("d"))).committed().unwrap();
    applier.put("d", "back, without a lease");
    let before = applier.state.tables().keys.revision;
    let revoked = outcome(applier.apply(Command::LeaseRevoke { id: 7 })).committed().unwrap();
    assert_eq!(revoked.revision, Some(Revision(before + 1)));
    assert_eq!(applier.value("a"), None);
    assert!(["b", "c", "d"].into_iter().all(|name| applier.value(name).is_some()));
    assert_eq!(applier.apply(Command::LeaseRevoke { id: 7 }), Applied::LeaseNotFound);
    assert_eq!(applier.apply(Command::LeaseRevoke { id: 0 }), Applied::LeaseNotFound);
}

#[test]
fn a_lease_without_keys_ends_without_a_revision() {
    let mut applier = Applier::default();
    grant(&mut applier, 7);
    let revoked = outcome(applier.apply(Command::LeaseRevoke { id: 7 }));
    assert_eq!(revoked, Outcome::Committed(Committed { versions: vec![], revision: None }));
}

#[test]
fn ids_are_chosen_or_given() {
    let mut applier = Applier::default();
    // The next index, so that a choice has to move on.
    grant(&mut applier, 2);
    assert_eq!(grant(&mut applier, 0), Applied::Lease { id: 3, ttl_seconds: 10 });
    assert_eq!(grant(&mut applier, 2), Applied::LeaseExists);
}

#[test]
fn a_put_needs_its_lease() {
    let mut applier = Applier::default();
    assert_eq!(put(&mut applier, "a", 7), Applied::LeaseNotFound);
    assert_eq!((applier.value("a"), applier.state.tables().keys.revision), (None, 0));
}

#[test]
fn a_record_counts_its_writes_since_it_was_created() {
    let mut applier = Applier::default();
    for name in ["a", "a", "b", "a"] {
        applier.put(name, "v");
    }
    let record = applier.state.tables().keys.record(&key("a")).unwrap();
    assert_eq!((record.create_revision, record.mod_revision, record.version), (1, 4, 3));
    applier.txn(Txn::new().delete(key("a"))).committed().unwrap();
    applier.put("a", "v");
    let record = applier.state.tables().keys.record(&key("a")).unwrap();
    assert_eq!((record.create_revision, record.mod_revision, record.version), (6, 6, 1));
}
