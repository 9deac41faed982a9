//! What whoever asks may do.

use std::collections::BTreeSet;

use super::{
    change::{Access, Identity},
    users::{AuthTable, Permitted},
};
use crate::{
    keys::KeySpace,
    mvcc::{Denied, KeyRange, Op, Put, Range, Txn},
};

/// How many keys of leases are looked at for one transaction: whoever attaches a key to a lease has to be one who may write the others, since the
/// lease deletes them all. Two leases that are full, in some 10 ms. It is a limit of what is replicated: it never changes for commands that are
/// logged as they are now.
pub const MAX_LEASE_CHECKS: usize = 32_768;

impl AuthTable {
    /// Whether one may change users, roles and members.
    pub(crate) fn check_root(&self, who: &Identity) -> Result<(), Denied> {
        if !self.is_enabled() {
            return Ok(());
        }
        if who.user.is_empty() {
            return Err(Denied::UserEmpty);
        }
        let user = self.user(&who.user).ok_or(Denied::UserNotFound)?;
        if user.is_root() { Ok(()) } else { Err(Denied::PermissionDenied) }
    }

    /// Whether somebody asks at all.
    pub(crate) fn check_somebody(&self, who: &Identity) -> Result<(), Denied> {
        if self.is_enabled() && *who == Identity::NOBODY { Err(Denied::UserEmpty) } else { Ok(()) }
    }

    /// Whether one may know the roles of a user: `root`, and the user itself.
    pub(crate) fn check_user(&self, who: &Identity, name: &str) -> Result<(), Denied> {
        self.check_root(who).or_else(|denied| if who.user == name { Ok(()) } else { Err(denied) })
    }

    /// Whether one may know the permissions of a role: `root`, and who has it.
    pub(crate) fn check_role(&self, who: &Identity, role: &str) -> Result<(), Denied> {
        let has = || self.user(&who.user).is_some_and(|user| user.roles.contains(role));
        self.check_root(who).or_else(|denied| if has() { Ok(()) } else { Err(denied) })
    }

    /// Whether one may read these keys.
    pub(crate) fn check_read(&self, who: &Identity, keys: &KeyRange) -> Result<(), Denied> {
        Asked::by(self, who).may(keys, Access::Read)
    }

    /// Whether one may do all that a transaction says, whichever branches it takes.
    pub(crate) fn check_txn(&self, space: &KeySpace, who: &Identity, txn: &Txn) -> Result<(), Denied> {
        Asked::by(self, who).txn(space, txn)
    }

    /// How many keys are looked at to find out whether one may have a transaction carried out.
    pub(crate) fn checks(&self, space: &KeySpace, txn: &Txn) -> usize {
        if !self.is_enabled() {
            return 0;
        }
        let of_op = |op: &Op| match op {
            Op::Put(Put { lease: Some(id), .. }) => 2 + space.lease(*id).map_or(0, |lease| lease.keys.len()),
            Op::Txn(txn) => self.checks(space, txn),
            Op::Range(_) | Op::Put(_) | Op::Delete(_) => 2,
        };
        txn.compares.len() + txn.success.iter().chain(&txn.failure).map(of_op).sum::<usize>()
    }

    /// Whether one may end a lease, or keep it alive: who may write all of its keys.
    pub(crate) fn check_lease_write(&self, space: &KeySpace, who: &Identity, id: u64) -> Result<(), Denied> {
        self.check_somebody(who)?;
        Asked::by(self, who).lease(space, id, Access::Write)
    }

    /// Whether one may see the keys of a lease: who may read all of them.
    pub(crate) fn check_lease_read(&self, space: &KeySpace, who: &Identity, id: u64) -> Result<(), Denied> {
        self.check_somebody(who)?;
        Asked::by(self, who).lease(space, id, Access::Read)
    }

    /// Whether one may see all leases: as in etcd, who may read the keys of all of them.
    pub(crate) fn check_leases(&self, space: &KeySpace, who: &Identity) -> Result<(), Denied> {
        self.check_somebody(who)?;
        let mut asked = Asked::by(self, who);
        if matches!(asked.rights, Ok(Rights::All)) {
            return Ok(());
        }
        space.leases.0.keys().try_for_each(|id| asked.lease(space, *id, Access::Read))
    }
}

/// What one who asks may do.
#[derive(Clone, Copy)]
enum Rights<'a> {
    All,
    Some(&'a Permitted),
}

/// A request that is looked at.
struct Asked<'a> {
    /// As in etcd, it is an error of the first operation and not of a request without any.
    rights: Result<Rights<'a>, Denied>,
    /// The leases whose keys were looked at.
    leases: BTreeSet<u64>,
    /// How many keys of leases may still be looked at.
    left: usize,
}

impl<'a> Asked<'a> {
    fn by(table: &'a AuthTable, who: &Identity) -> Self {
        Self { rights: rights(table, who), leases: BTreeSet::new(), left: MAX_LEASE_CHECKS }
    }

    fn may(&self, keys: &KeyRange, access: Access) -> Result<(), Denied> {
        let Rights::Some(permitted) = self.rights? else { return Ok(()) };
        let allowed = if access == Access::Read { &permitted.reads } else { &permitted.writes };
        if allowed.covers(keys) { Ok(()) } else { Err(Denied::PermissionDenied) }
    }

    fn txn(&mut self, space: &KeySpace, txn: &Txn) -> Result<(), Denied> {
        txn.compares.iter().try_for_each(|compare| self.may(&compare.keys, Access::Read))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(Range { keys, .. }) => self.may(keys, Access::Read),
            Op::Put(put) => self.put(space, put),
            Op::Delete(delete) => {
                self.may(&delete.keys, Access::Write)?;
                if delete.previous { self.may(&delete.keys, Access::Read) } else { Ok(()) }
            }
            Op::Txn(txn) => self.txn(space, txn),
        })
    }

    fn put(&mut self, space: &KeySpace, put: &Put) -> Result<(), Denied> {
        let keys = KeyRange::One(put.key.as_bytes().to_vec().into());
        self.may(&keys, Access::Write)?;
        if let Some(lease) = put.lease {
            self.lease(space, lease, Access::Write)?;
        }
        if put.previous { self.may(&keys, Access::Read) } else { Ok(()) }
    }

    /// Whether one may have all keys of a lease, if there is such a lease.
    fn lease(&mut self, space: &KeySpace, id: u64, access: Access) -> Result<(), Denied> {
        let Some(lease) = space.lease(id) else { return Ok(()) };
        if matches!(self.rights, Ok(Rights::All)) || !self.leases.insert(id) {
            return Ok(());
        }
        self.left = self.left.checked_sub(lease.keys.len()).ok_or(Denied::TooCostly)?;
        lease.keys.iter().try_for_each(|key| self.may(&KeyRange::One(key.as_bytes().to_vec().into()), access))
    }
}

fn rights<'a>(table: &'a AuthTable, who: &Identity) -> Result<Rights<'a>, Denied> {
    if !table.is_enabled() {
        return Ok(Rights::All);
    }
    if who.revision == 0 {
        return Err(Denied::UserEmpty);
    }
    if who.revision < table.revision() {
        return Err(Denied::OldRevision);
    }
    let user = table.user(&who.user).ok_or(Denied::PermissionDenied)?;
    Ok(if user.is_root() { Rights::All } else { Rights::Some(&user.permitted) })
}
