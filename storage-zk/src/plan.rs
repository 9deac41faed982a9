//! A transaction as the operations of ZooKeeper that do it: one `setData` where one is enough, otherwise one `multi`.

use storage_core::{Expected, Guard, Key, Op, Txn};

use crate::{
    cell::{Cell, TOMBSTONE},
    layout::Layout,
    node::Snapshot,
    path::bucket_of,
};

/// One operation of ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The node has this dataVersion.
    Check { path: String, count: i32 },
    /// Sets the node, which has this dataVersion, or exists (`None`).
    Set { path: String, data: Vec<u8>, count: Option<i32> },
    /// Creates the node, which does not exist.
    Create { path: String, data: Vec<u8> },
    /// Removes the node that the step before created.
    Remove { path: String },
}

/// The operations of a transaction, all or nothing.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In the order of the guards, then of the unguarded operations. ZooKeeper names the first that is refused.
    pub(crate) steps: Vec<Step>,
    /// For each step: the guard that certainly does not hold if the step is refused with another dataVersion.
    pub(crate) guards: Vec<Option<usize>>,
    /// For each operation of the transaction that is a put: its step, and the generation of its node.
    pub(crate) puts: Vec<Option<(usize, u32)>>,
    /// The buckets in which a node becomes a tombstone.
    pub(crate) tombstones: Vec<usize>,
    /// The buckets that a step checks already.
    pub(crate) checked: Vec<usize>,
}

/// Where the node of a key has to be for the transaction to be applied.
enum Location {
    /// Here, with this dataVersion; `None`: any.
    At { generation: u32, count: Option<i32> },
    /// Nowhere. The node would be created in this generation, while the bucket's state has this dataVersion.
    Nowhere { generation: u32, bucket_count: i32 },
}

impl Plan {
    /// Without having read anything: an optimist's plan. Applied, it is as good as any; refused, it may only mean that a node is
    /// elsewhere or a tombstone. `None` if the transaction cannot be done so.
    pub(crate) fn blind(layout: &Layout, txn: &Txn) -> Option<Self> {
        Self::make(layout, txn, |key, expected| {
            let bucket = layout.bucket(bucket_of(key.as_bytes()));
            match expected {
                // The version itself tells where the node is. -1 would mean any version to ZooKeeper.
                Some(Expected::Version(version)) => {
                    let stamp = layout.stamp_of(key, *version).filter(|stamp| stamp.count != -1)?;
                    Some(Location::At { generation: stamp.generation, count: Some(stamp.count) })
                }
                // While a bucket is drained, a key may be in either generation: a guess would be wrong half of the time.
                _ if bucket.draining => None,
                // The dataVersion of the bucket is checked with it, so that no node is created in a generation that was closed meanwhile.
                Some(Expected::Absent) => {
                    Some(Location::Nowhere { generation: bucket.open, bucket_count: bucket.count })
                }
                None | Some(Expected::Any) => Some(Location::At { generation: bucket.open, count: None }),
                Some(_) => None,
            }
        })
    }

    /// With what was read, in which all guards held: applied only if all of it is still so. `None` for a node whose
    /// dataVersion has come around to -1, which ZooKeeper cannot check.
    pub(crate) fn exact(layout: &Layout, txn: &Txn, snapshot: &Snapshot) -> Option<Self> {
        Self::make(layout, txn, |key, expected| {
            let guarded = !matches!(expected, None | Some(Expected::Any));
            Some(match snapshot.node(key) {
                Some(node) if guarded && node.count == -1 => return None,
                Some(node) => Location::At { generation: node.generation, count: guarded.then_some(node.count) },
                None => {
                    let bucket = snapshot.bucket(bucket_of(key.as_bytes()))?;
                    Location::Nowhere { generation: bucket.open, bucket_count: bucket.count }
                }
            })
        })
    }

    fn make(layout: &Layout, txn: &Txn, locate: impl Fn(&Key, Option<&Expected>) -> Option<Location>) -> Option<Self> {
        let mut plan = Self { puts: vec![None; txn.ops.len()], ..Self::default() };
        for (index, guard) in txn.guards.iter().enumerate() {
            let op = txn.ops.iter().enumerate().find(|(_, op)| *op.key() == guard.key);
            plan.add(layout, locate(&guard.key, Some(&guard.expected))?, &guard.key, Some((index, guard)), op);
        }
        for op in txn.ops.iter().enumerate() {
            let key = op.1.key();
            if !txn.guards.iter().any(|guard| guard.key == *key) {
                plan.add(layout, locate(key, None)?, key, None, Some(op));
            }
        }
        Some(plan)
    }

    fn add(
        &mut self,
        layout: &Layout,
        location: Location,
        key: &Key,
        guard: Option<(usize, &Guard)>,
        op: Option<(usize, &Op)>,
    ) {
        let bucket = bucket_of(key.as_bytes());
        let asks = guard.is_some_and(|(_, guard)| guard.expected != Expected::Any);
        let blame = guard.filter(|(_, guard)| matches!(guard.expected, Expected::Version(_))).map(|(index, _)| index);
        if let (Some((_, Op::Delete { .. })), Location::At { .. }) = (op, &location) {
            self.tombstones.push(bucket);
        }
        match (location, op) {
            (Location::At { generation, count }, Some((index, Op::Put { value, .. }))) => {
                self.puts_at(index, generation);
                self.push(
                    blame,
                    Step::Set { path: layout.node_path(key, generation), data: Cell::encode_written(value), count },
                );
            }
            (Location::At { generation, count }, Some((_, Op::Delete { .. }))) => {
                let data = TOMBSTONE.to_vec();
                self.push(blame, Step::Set { path: layout.node_path(key, generation), data, count });
            }
            (Location::At { generation, count: Some(count) }, None) => {
                self.push(blame, Step::Check { path: layout.node_path(key, generation), count });
            }
            (Location::Nowhere { generation, bucket_count }, Some((index, Op::Put { value, .. }))) => {
                self.check_bucket(layout, bucket, bucket_count);
                self.puts_at(index, generation);
                self.push(
                    None,
                    Step::Create { path: layout.node_path(key, generation), data: Cell::encode_written(value) },
                );
            }
            // That there is no node can only be checked by creating it. Nobody can have seen it when it is gone again.
            (Location::Nowhere { generation, bucket_count }, op) if asks || op.is_some() => {
                self.check_bucket(layout, bucket, bucket_count);
                let path = layout.node_path(key, generation);
                self.push(None, Step::Create { path: path.clone(), data: TOMBSTONE.to_vec() });
                self.push(None, Step::Remove { path });
            }
            _ => {}
        }
    }

    #[expect(clippy::expect_used, reason = "they are made with the operations")]
    fn puts_at(&mut self, op: usize, generation: u32) {
        let step = self.steps.len();
        *self.puts.get_mut(op).expect("each operation of the transaction has a place") = Some((step, generation));
    }

    fn check_bucket(&mut self, layout: &Layout, bucket: usize, count: i32) {
        if !self.checked.contains(&bucket) {
            self.checked.push(bucket);
            self.push(None, Step::Check { path: layout.bucket_path(bucket), count });
        }
    }

    fn push(&mut self, guard: Option<usize>, step: Step) {
        self.steps.push(step);
        self.guards.push(guard);
    }
}
