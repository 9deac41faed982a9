//! Random requests, of a few keys and leases so that they meet, and some that nobody should send.

use bytes::Bytes;
use fastrand::Rng;
use prost::Message;
use storage_etcd_api::proto::etcdserverpb::{
    self as pb, compare::TargetUnion, request_op::Request as OpRequest, watch_create_request::FilterType,
};

/// Not more than 12: etcd sorts more than that in an order of its own where they are equal in what is sorted by.
const KEYS: [&str; 12] = ["a", "aa", "ab", "b", "b/", "b/1", "b/2", "c", "d", "e", "\u{1}", "z\u{7f}"];

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke(i64),
    TimeToLive(i64),
    KeepAlive(i64),
    Leases,
    /// What no reader of messages can read, sent to this method.
    Unreadable(&'static str, Bytes),
    /// Creates one watch, or two of the same kind and id.
    Watch {
        create: pb::WatchCreateRequest,
        twice: bool,
    },
}

impl Request {
    /// Everything that may be asked for, in words.
    pub(crate) const KINDS: [&str; 15] = [
        "range",
        "put",
        "delete",
        "transaction",
        "nested transaction",
        "transaction that only reads",
        "compaction",
        "lease granted",
        "lease revoked",
        "lease looked at",
        "lease kept",
        "leases listed",
        "unreadable",
        "watch",
        "two watches",
    ];

    /// Which of these it is.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        match self {
            Self::Range(_) => vec!["range"],
            Self::Put(_) => vec!["put"],
            Self::Delete(_) => vec!["delete"],
            Self::Txn(txn) => {
                let ops = || txn.success.iter().chain(&txn.failure).filter_map(|op| op.request.as_ref());
                let nested = ops().any(|op| matches!(op, OpRequest::RequestTxn(_)));
                let reads = ops().all(|op| matches!(op, OpRequest::RequestRange(_)));
                let kinds =
                    [(true, "transaction"), (nested, "nested transaction"), (reads, "transaction that only reads")];
                kinds.into_iter().filter_map(|(is, kind)| is.then_some(kind)).collect()
            }
            Self::Compact(_) => vec!["compaction"],
            Self::Grant { .. } => vec!["lease granted"],
            Self::Revoke(_) => vec!["lease revoked"],
            Self::TimeToLive(_) => vec!["lease looked at"],
            Self::KeepAlive(_) => vec!["lease kept"],
            Self::Leases => vec!["leases listed"],
            Self::Unreadable(..) => vec!["unreadable"],
            Self::Watch { twice: false, .. } => vec!["watch"],
            Self::Watch { twice: true, .. } => vec!["two watches"],
        }
    }
}

/// Makes requests.
pub(crate) struct Requests {
    pub(crate) random: Rng,
    /// The store's revision, as the last answer told it.
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

impl Requests {
    pub(crate) fn next(&mut self) -> Request {
        match self.random.u32(..100) {
            0..24 => Request::Put(self.put()),
            24..48 => Request::Range(self.range()),
            48..58 => Request::Delete(self.delete()),
            58..82 => Request::Txn(self.txn(3)),
            82..84 => Request::Compact(self.compaction()),
            84..88 => Request::Grant { id: self.lease().max(1), ttl: self.ttl() },
            88..91 => Request::Revoke(self.lease()),
            91..93 => Request::TimeToLive(self.lease()),
            93 => Request::KeepAlive(self.lease()),
            94 => Request::Leases,
            95 => self.unreadable(),
            _ => {
                let create = self.watch();
                // One that is to be cancelled at once may be so before or after the other is created.
                let twice = create.start_revision > self.compacted && self.random.bool();
                Request::Watch { create, twice }
            }
        }
    }

    /// A request that is whole, and something behind it that is none of its fields.
    fn unreadable(&mut self) -> Request {
        let (method, mut bytes) = match self.random.u32(..4) {
            0 => ("/etcdserverpb.KV/Put", self.put().encode_to_vec()),
            1 => ("/etcdserverpb.KV/Range", self.range().encode_to_vec()),
            2 => ("/etcdserverpb.KV/DeleteRange", self.delete().encode_to_vec()),
            _ => ("/etcdserverpb.KV/Txn", self.txn(1).encode_to_vec()),
        };
        // A number of no end, a field that has none, a length beyond the end, and the first field, which is never a number of four bytes.
        let ends: [&[u8]; 4] = [&[0xff; 11], &[0], &[0x0a, 100, 1], &[0x0d, 1, 2, 3, 4]];
        bytes.extend(self.random.choice(ends).unwrap());
        Request::Unreadable(method, bytes.into())
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) { Bytes::new() } else { Bytes::from_static(self.random.choice(KEYS).unwrap().as_bytes()) }
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.u32(..8) {
            0..4 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            5 => Bytes::from_static(b"c"),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        let values: [&'static [u8]; 5] = [b"", b"x", b"y", b"\0\xff", &[7; 300]];
        Bytes::from_static(self.random.choice(values).unwrap())
    }

    fn lease(&mut self) -> i64 {
        self.random.i64(0..6)
    }

    fn ttl(&mut self) -> i64 {
        match self.random.u32(..20) {
            0 => 9_000_000_001,
            _ => self.random.i64(10_000..20_000),
        }
    }

    /// A revision near those that there are; of the compacted ones too, and of those to come.
    fn some_revision(&mut self) -> i64 {
        self.random.i64((self.compacted - 2).max(1)..self.revision + 3)
    }

    fn compaction(&mut self) -> i64 {
        // Mostly one that leaves something to look back at.
        let least = self.compacted + 1;
        if self.chance(20) { self.some_revision() } else { self.random.i64(least..=(self.revision - 30).max(least)) }
    }

    fn filter(&mut self) -> i64 {
        if self.chance(8) { self.some_revision() } else { 0 }
    }

    pub(crate) fn range(&mut self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if self.chance(40) { self.random.i64(-1..5) } else { 0 },
            revision: if self.chance(25) { self.some_revision() } else { 0 },
            // An order that there is: etcd 3.5 ends its process on others.
            sort_order: self.random.i32(0..3),
            sort_target: self.random.i32(0..5),
            serializable: self.chance(30),
            keys_only: self.chance(15),
            count_only: self.chance(10),
            min_mod_revision: self.filter(),
            max_mod_revision: self.filter(),
            min_create_revision: self.filter(),
            max_create_revision: self.filter(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(10), self.chance(10));
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value && self.chance(90) { Bytes::new() } else { self.value() },
            lease: if self.chance(70) || (ignore_lease && self.chance(80)) { 0 } else { self.lease() },
            prev_kv: self.random.bool(),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.random.bool() }
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        // Now and then more than there may be.
        let most = if self.chance(2) { 140 } else { 4 };
        let reads = self.chance(15);
        pb::TxnRequest {
            compare: (0..self.random.usize(..4)).map(|_| self.compare()).collect(),
            success: self.ops(most, depth, reads),
            failure: self.ops(4, depth, reads),
        }
    }

    fn ops(&mut self, most: usize, depth: u32, reads: bool) -> Vec<pb::RequestOp> {
        let count = if most > 4 { most } else { self.random.usize(..most) };
        (0..count).map(|_| pb::RequestOp { request: self.op(depth, reads) }).collect()
    }

    fn op(&mut self, depth: u32, reads: bool) -> Option<OpRequest> {
        if self.chance(1) {
            return None;
        }
        Some(match self.random.u32(..if depth > 0 { 10 } else { 8 }) {
            0..4 if !reads => OpRequest::RequestPut(self.put()),
            4..6 if !reads => {
                let mut delete = self.delete();
                // With an end of zero, etcd does not see that a put beside it is of a key that is deleted, and ends its process
                // when the put is to keep something of that key.
                if delete.range_end == b"\0"[..] {
                    delete.range_end = Bytes::new();
                }
                OpRequest::RequestDeleteRange(delete)
            }
            8.. => OpRequest::RequestTxn(self.txn(depth - 1).encode_to_vec().into()),
            _ => OpRequest::RequestRange(self.range()),
        })
    }

    fn compare(&mut self) -> pb::Compare {
        let number = if self.chance(50) { self.random.i64(0..4) } else { self.some_revision() };
        // The last of each there is not.
        let target = if self.chance(97) { self.random.i32(0..5) } else { 5 };
        // Mostly the operand that belongs to the target.
        let operand = if self.chance(95) { target } else { self.random.i32(0..6) };
        pb::Compare {
            result: if self.chance(97) { self.random.i32(0..4) } else { 4 },
            target,
            key: self.key(),
            target_union: match operand {
                0 => Some(TargetUnion::Version(number)),
                1 => Some(TargetUnion::CreateRevision(number)),
                2 => Some(TargetUnion::ModRevision(number)),
                3 => Some(TargetUnion::Value(self.value())),
                4 => Some(TargetUnion::Lease(self.lease())),
                _ => None,
            },
            range_end: self.range_end(),
        }
    }

    fn watch(&mut self) -> pb::WatchCreateRequest {
        let mut filters = Vec::new();
        if self.chance(20) {
            filters.push(FilterType::Noput.into());
        }
        if self.chance(20) {
            filters.push(FilterType::Nodelete.into());
        }
        // Of the compacted revision itself etcd has forgotten the deletes.
        let mut start_revision = self.random.i64((self.compacted - 3).max(1)..self.revision + 1);
        if start_revision == self.compacted {
            start_revision += 1;
        }
        pb::WatchCreateRequest {
            key: self.key(),
            range_end: self.range_end(),
            start_revision,
            progress_notify: self.random.bool(),
            filters,
            prev_kv: self.random.bool(),
            watch_id: self.random.i64(0..3),
            fragment: false,
        }
    }
}
