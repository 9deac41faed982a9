//! The metrics of an embedded node: what it tells of itself whenever somebody looks.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use storage_embedded::{LogMetrics, Node, NodeStatus, Refusals, Role, SYNC_BUCKETS};
use storage_etcd_api::ETCD_VERSION;

use crate::exposition::{labelled, single};

const ROLES: [(&str, Role); 4] = [
    ("leader", Role::Leader),
    ("follower", Role::Follower),
    ("candidate", Role::Candidate),
    ("learner", Role::Learner),
];

/// A node, and how many connections its ports have refused.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    pub(super) node: Node,
    pub(super) name: String,
    pub(super) refusals: Vec<(&'static str, Arc<Refusals>)>,
}

impl Collector for NodeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let status = self.node.status();
        let (id, cluster) = (format!("{:x}", self.node.id()), format!("{:032x}", self.node.cluster()));
        let labels = [
            ("name", self.name.as_str()),
            ("node_id", &id),
            ("cluster_id", &cluster),
            ("version", env!("CARGO_PKG_VERSION")),
            ("etcd_api_version", ETCD_VERSION),
        ];
        labelled(encoder, "storage_node_info", "Who this node is; always 1.", [(labels, ConstGauge::new(1_u64))])?;
        raft(&status, encoder)?;
        log(&status.log, encoder)?;
        let snapshots = &status.snapshots;
        let help = "Snapshots received from another node.";
        single(encoder, "storage_snapshots_received", help, ConstCounter::new(snapshots.received))?;
        let help = "The size of the newest snapshot.";
        single(encoder, "storage_snapshot_bytes", help, ConstGauge::new(snapshots.newest_bytes))?;
        let refused = self.refusals.iter().flat_map(|(port, refusals)| {
            let counts = refusals.iter().map(|(refusal, count)| (refusal.name(), count));
            counts.map(|(reason, count)| ([("port", *port), ("reason", reason)], ConstCounter::new(count)))
        });
        labelled(encoder, "storage_refused_connections", "Connections refused, by port and reason.", refused)
    }
}

fn raft(status: &NodeStatus, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    single(encoder, "storage_raft_term", "The term.", ConstGauge::new(status.term))?;
    let roles = ROLES.map(|(name, role)| ([("role", name)], ConstGauge::new(u64::from(status.role == role))));
    labelled(encoder, "storage_raft_role", "1 for what this node is now, 0 for what it is not.", roles)?;
    let known = ConstGauge::new(u64::from(status.leader.is_some()));
    single(encoder, "storage_raft_has_leader", "Whether this node knows a leader.", known)?;
    for (name, help, index) in [
        ("storage_raft_last_log_index", "The last entry of the log.", status.last_log_index),
        ("storage_raft_committed_index", "The last entry known to be on a majority.", status.committed),
        ("storage_raft_applied_index", "The last entry applied to the state.", status.last_applied),
        (
            "storage_raft_compared_index",
            "The last entry after which the state was that of a majority.",
            status.compared,
        ),
        ("storage_raft_snapshot_index", "The last entry that the newest snapshot covers.", status.snapshot),
    ] {
        single(encoder, name, help, ConstGauge::new(index.unwrap_or_default()))?;
    }
    let count = |kind: &'static str, count: usize| ([("kind", kind)], ConstGauge::new(count as u64));
    let voters = status.voters.len();
    let members = [count("voter", voters), count("learner", status.members.len().saturating_sub(voters))];
    labelled(encoder, "storage_raft_members", "The members of the cluster.", members)?;
    let matched = status.matched.iter().map(|(id, matched)| {
        let name = status.members.get(id).map_or("", |member| &member.name);
        let labels = [("member_id", format!("{id:x}")), ("member", name.to_owned())];
        (labels, ConstGauge::new(matched.unwrap_or_default()))
    });
    let help = "On the leader, the last entry that another member is known to have.";
    labelled(encoder, "storage_raft_matched_index", help, matched)?;
    let queued = [count("write", status.queued_writes), count("read", status.queued_reads)];
    labelled(encoder, "storage_raft_queued_calls", "Calls that wait for this node as the leader.", queued)?;
    let help = "How large the state is, and at which size this node, when it leads, raises an alarm.";
    let sizes = [("used", status.state_bytes), ("quota", status.quota_bytes)];
    let sizes = sizes.map(|(kind, bytes)| ([("kind", kind)], ConstGauge::new(bytes)));
    labelled(encoder, "storage_state_bytes", help, sizes)?;
    let help = "Members that have raised the alarm that there is no space. While there are any, what grows is refused.";
    single(encoder, "storage_alarms", help, ConstGauge::new(status.alarms.len() as u64))?;
    let help = "Space on the disk of this node: what is free, what it holds in reserve, and what it wants to hold.";
    let disk = status.disk;
    let space = [("free", disk.free), ("reserve", disk.reserve), ("wanted", disk.wanted)];
    let space = space.map(|(kind, bytes)| ([("kind", kind)], ConstGauge::new(bytes)));
    labelled(encoder, "storage_disk_bytes", help, space)?;
    single(encoder, "storage_leases", "Leases.", ConstGauge::new(status.leases))?;
    let help = "The revision of the last write, as the etcd API shows it.";
    single(encoder, "storage_revision", help, ConstGauge::new(status.revision + 1))
}

fn log(log: &LogMetrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let LogMetrics {
        entries, bytes, segments, segment_waits, waits_for_segment, queued_bytes, sync_time, syncs, ..
    } = log;
    single(encoder, "storage_log_entries", "Entries written to the log.", ConstCounter::new(*entries))?;
    single(encoder, "storage_log_written_bytes", "Bytes written to the log.", ConstCounter::new(*bytes))?;
    single(encoder, "storage_log_segments", "Segments of the log begun.", ConstCounter::new(*segments))?;
    let help = "How often the log had to wait for a file for its next segment.";
    single(encoder, "storage_log_segment_waits", help, ConstCounter::new(*segment_waits))?;
    let help = "Whether the log waits for a file for its next segment, and takes no writes meanwhile.";
    let waits = ConstGauge::new(u64::from(*waits_for_segment));
    single(encoder, "storage_log_waits_for_segment", help, waits)?;
    let help = "Bytes that wait to be written to the log.";
    single(encoder, "storage_log_queued_bytes", help, ConstGauge::new(*queued_bytes))?;
    // Bucket n has what took less than 2^n microseconds; the last one, the rest.
    let ends = std::iter::successors(Some(1e-6), |end| Some(end * 2.0)).take(SYNC_BUCKETS - 1);
    let buckets: Vec<(f64, u64)> = ends.zip(syncs.iter().copied()).collect();
    let (name, help) = ("storage_log_fsync_duration_seconds", "How long syncs of the log took.");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(sync_time.as_secs_f64(), syncs.iter().sum(), &buckets, None)
}

/// A summary, which the library does not know: how many snapshots were written, and how long that took.
pub(super) fn snapshots_written(status: &NodeStatus) -> String {
    let name = "storage_snapshot_write_duration_seconds";
    let (sum, count) = (status.snapshots.write_time.as_secs_f64(), status.snapshots.written);
    format!(
        "# HELP {name} Snapshots written, and how long that took.\n# TYPE {name} summary\n{name}_sum {sum}\n{name}_count {count}\n"
    )
}
