//! The metrics of an embedded node.

use std::sync::Arc;

use storage_embedded::{LogMetrics, Node, NodeStatus, Refusals, Role, SYNC_BUCKETS};

use crate::{
    etcd_api::ETCD_VERSION,
    monitor::{Kind, Page},
};

const ROLES: [(&str, Role); 4] = [
    ("leader", Role::Leader),
    ("follower", Role::Follower),
    ("candidate", Role::Candidate),
    ("learner", Role::Learner),
];

pub(super) fn write(node: &Node, name: &str, page: &mut Page) {
    let status = node.status();
    let (id, cluster) = (format!("{:x}", node.id()), format!("{:032x}", node.cluster()));
    page.metric("storage_node_info", Kind::Gauge, "Who this node is; always 1.");
    let version = env!("CARGO_PKG_VERSION");
    let labels = [
        ("name", name),
        ("node_id", &id),
        ("cluster_id", &cluster),
        ("version", version),
        ("etcd_api_version", ETCD_VERSION),
    ];
    page.sample(&labels, 1);
    raft(&status, page);
    log(&status.log, page);
    snapshots(&status, page);
}

pub(super) fn write_refusals(refusals: &[(&'static str, Arc<Refusals>)], page: &mut Page) {
    page.metric("storage_refused_connections_total", Kind::Counter, "Connections refused, by port and reason.");
    for (port, refusals) in refusals {
        for (refusal, count) in refusals.iter() {
            page.sample(&[("port", port), ("reason", refusal.name())], count);
        }
    }
}

fn raft(status: &NodeStatus, page: &mut Page) {
    use Kind::Gauge;
    page.single("storage_raft_term", Gauge, "The term.", status.term);
    page.metric("storage_raft_role", Gauge, "1 for what this node is now, 0 for what it is not.");
    for (name, role) in ROLES {
        page.sample(&[("role", name)], u8::from(status.role == role));
    }
    let known = u8::from(status.leader.is_some());
    page.single("storage_raft_has_leader", Gauge, "Whether this node knows a leader.", known);
    for (name, help, index) in [
        ("storage_raft_last_log_index", "The last entry of the log.", status.last_log_index),
        ("storage_raft_committed_index", "The last entry known to be on a majority.", status.committed),
        ("storage_raft_applied_index", "The last entry applied to the state.", status.last_applied),
        ("storage_raft_snapshot_index", "The last entry that the newest snapshot covers.", status.snapshot),
    ] {
        page.single(name, Gauge, help, index.unwrap_or_default());
    }
    page.metric("storage_raft_members", Gauge, "The members of the cluster.");
    let voters = status.voters.len();
    page.sample(&[("kind", "voter")], voters);
    page.sample(&[("kind", "learner")], status.members.len().saturating_sub(voters));
    page.metric(
        "storage_raft_matched_index",
        Gauge,
        "On the leader, the last entry that another member is known to have.",
    );
    for (id, matched) in &status.matched {
        let name = status.members.get(id).map_or("", |member| &member.name);
        page.sample(&[("member_id", &format!("{id:x}")), ("member", name)], matched.unwrap_or_default());
    }
    page.metric("storage_raft_queued_calls", Gauge, "Calls that wait for this node as the leader.");
    page.sample(&[("kind", "write")], status.queued_writes);
    page.sample(&[("kind", "read")], status.queued_reads);
    page.single(
        "storage_revision",
        Gauge,
        "The revision of the last write, as the etcd API shows it.",
        status.revision + 1,
    );
}

fn log(log: &LogMetrics, page: &mut Page) {
    let LogMetrics { entries, bytes, segments, queued_bytes, sync_time, syncs, .. } = log;
    page.single("storage_log_entries_total", Kind::Counter, "Entries written to the log.", entries);
    page.single("storage_log_written_bytes_total", Kind::Counter, "Bytes written to the log.", bytes);
    page.single("storage_log_segments_total", Kind::Counter, "Segments of the log begun.", segments);
    page.single("storage_log_queued_bytes", Kind::Gauge, "Bytes that wait to be written to the log.", queued_bytes);
    page.metric("storage_log_fsync_duration_seconds", Kind::Histogram, "How long syncs of the log took.");
    // Bucket n has what took less than 2^n microseconds; the last one, the rest.
    let ends = std::iter::successors(Some(1e-6), |end| Some(end * 2.0)).take(SYNC_BUCKETS - 1);
    let above = syncs.last().copied().unwrap_or_default();
    page.buckets(&[], ends.zip(syncs.iter().copied()), above, *sync_time);
}

fn snapshots(status: &NodeStatus, page: &mut Page) {
    let snapshots = &status.snapshots;
    let name = "storage_snapshot_write_duration_seconds";
    page.metric(name, Kind::Summary, "Snapshots written, and how long that took.");
    page.total(&[], snapshots.written, snapshots.write_time);
    page.single(
        "storage_snapshots_received_total",
        Kind::Counter,
        "Snapshots received from another node.",
        snapshots.received,
    );
    page.single("storage_snapshot_bytes", Kind::Gauge, "The size of the newest snapshot.", snapshots.newest_bytes);
}
