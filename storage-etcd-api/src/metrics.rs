//! `GET /metrics` on the port of clients, with etcd's names for what its dashboards and alerts show. All there is to know of a node, under
//! names of our own, is on the page for operators.

use std::fmt::{Display, Write};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use storage_core::Result;
use storage_embedded::{LogMetrics, NodeStatus, Role, SYNC_BUCKETS};

use crate::{
    context::Context,
    limits::{CLUSTER_VERSION, ETCD_VERSION},
    requests::Requests,
};

/// What a page of metrics is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) context: Context,
    pub(crate) requests: Requests,
}

/// As Prometheus reads it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn page(State(Shown { context, requests }): State<Shown>) -> Response {
    let size = size(&context).await.unwrap_or_default();
    let mut page = Page(String::new());
    node(&mut page, &context, size);
    process(&mut page);
    let text = page.0 + &requests.as_grpc();
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// The size of the newest snapshot, as `Maintenance/Status` tells it.
async fn size(context: &Context) -> Result<u64> {
    Ok(context.node().newest_snapshot().await?.map_or(0, |newest| newest.length()))
}

/// The text of a page.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// Something that is told by a label.
    fn told(&mut self, name: &str, help: &str, label: &str, value: impl Display) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "{name}{{{label}=\"{value}\"}} 1");
    }
}

fn node(page: &mut Page, context: &Context, size: u64) {
    let status = context.node().status();
    let NodeStatus { role, leader, committed, last_applied, queued_writes, log, .. } = &status;
    let is = |role_asked: Role| u8::from(*role == role_asked);
    let release = CLUSTER_VERSION.rsplit_once('.').map_or(CLUSTER_VERSION, |(release, _)| release);
    page.told(
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        "server_version",
        ETCD_VERSION,
    );
    page.told(
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
        "cluster_version",
        release,
    );
    page.told(
        "etcd_server_id",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
        "server_id",
        format_args!("{:x}", context.node().id()),
    );
    page.gauge(
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        u8::from(leader.is_some()),
    );
    page.gauge(
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        is(Role::Leader),
    );
    page.gauge(
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        is(Role::Learner),
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        committed.unwrap_or_default(),
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        last_applied.unwrap_or_default(),
    );
    page.gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit.", queued_writes);
    page.gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        size,
    );
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        size,
    );
    page.gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", context.mvcc.revision());
    let compacted = context.mvcc.compacted().map_or(-1, u64::cast_signed);
    page.gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", compacted);
    syncs(page, log);
}

fn syncs(page: &mut Page, log: &LogMetrics) {
    const NAME: &str = "etcd_disk_wal_fsync_duration_seconds";
    page.family(NAME, "histogram", "The latency distributions of fsync called by WAL.");
    // Bucket n has what took less than 2^n microseconds; the last one, the rest.
    let ends = std::iter::successors(Some(1e-6), |end| Some(end * 2.0)).take(SYNC_BUCKETS - 1);
    let mut sum = 0;
    for (end, count) in ends.zip(log.syncs.iter()) {
        sum += count;
        let _ = writeln!(page.0, "{NAME}_bucket{{le=\"{end}\"}} {sum}");
    }
    let all: u64 = log.syncs.iter().sum();
    let took = log.sync_time.as_secs_f64();
    let _ = writeln!(page.0, "{NAME}_bucket{{le=\"+Inf\"}} {all}\n{NAME}_sum {took}\n{NAME}_count {all}");
    page.gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", log.bytes);
}

/// What the system tells of the process, where it does.
fn process(page: &mut Page) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    let line = |text: &str, name: &str, place: usize| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(place)?.parse().ok()
    };
    if let Some(kib) = read("status").and_then(|status| line(&status, "VmRSS:", 0)) {
        page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", kib << 10);
    }
    if let Some(most) = read("limits").and_then(|limits| line(&limits, "Max open files", 0)) {
        page.gauge("process_max_fds", "Maximum number of open file descriptors.", most);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Number of open file descriptors.", open.count());
    }
}
