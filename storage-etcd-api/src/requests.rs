//! What a server counts of its requests and connections.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tonic::Code;

/// The methods that are counted by name. Whoever asks for others cannot make the page longer.
const METHODS: [&str; 40] = [
    "KV/Range",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Watch/Watch",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseKeepAlive",
    "Lease/LeaseTimeToLive",
    "Lease/LeaseLeases",
    "Cluster/MemberAdd",
    "Cluster/MemberRemove",
    "Cluster/MemberUpdate",
    "Cluster/MemberList",
    "Cluster/MemberPromote",
    "Maintenance/Status",
    "Maintenance/Snapshot",
    "Maintenance/Hash",
    "Maintenance/HashKV",
    "Maintenance/MoveLeader",
    "Auth/AuthEnable",
    "Auth/AuthDisable",
    "Auth/AuthStatus",
    "Auth/Authenticate",
    "Auth/UserAdd",
    "Auth/UserGet",
    "Auth/UserList",
    "Auth/UserDelete",
    "Auth/UserChangePassword",
    "Auth/UserGrantRole",
    "Auth/UserRevokeRole",
    "Auth/RoleAdd",
    "Auth/RoleGet",
    "Auth/RoleList",
    "Auth/RoleDelete",
    "Auth/RoleGrantPermission",
    "Auth/RoleRevokePermission",
    "Health/Check",
    "Health/Watch",
];

/// The packages that these are of.
const PACKAGES: [&str; 2] = ["/etcdserverpb.", "/grpc.health.v1."];

/// The names of gRPC's codes, in their order.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The upper ends of the buckets, in seconds: from a request that this node answers alone to the longest that it may take.
const BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

type Label = (&'static str, &'static str);

/// The requests and connections of a server since it was started. A clone counts on the same.
#[derive(Clone, Debug)]
pub struct Requests {
    ended: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    pub(crate) connections: Gauge,
    pub(crate) watch_streams: Gauge,
    pub(crate) watches: Gauge,
    pub(crate) snapshots: Gauge,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            ended: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            connections: Gauge::default(),
            watch_streams: Gauge::default(),
            watches: Gauge::default(),
            snapshots: Gauge::default(),
        }
    }
}

impl Requests {
    /// Shows what is counted to operators. What was never asked for is left out.
    pub fn register(&self, registry: &mut Registry) {
        let Self { ended, durations, connections, watch_streams, watches, snapshots } = self.clone();
        registry.register("storage_etcd_api_requests", "Requests of clients by how they ended", ended);
        let name = "storage_etcd_api_request_duration_seconds";
        registry.register(name, "How long requests took until the answer began", durations);
        registry.register("storage_etcd_api_connections", "Connections of clients", connections);
        registry.register("storage_etcd_api_watch_streams", "Streams of watches", watch_streams);
        registry.register("storage_etcd_api_watches", "Watches", watches);
        registry.register("storage_etcd_api_snapshot_downloads", "Snapshots on their way to clients", snapshots);
    }
}

fn method(path: &str) -> &'static str {
    let name = PACKAGES.iter().find_map(|package| path.strip_prefix(package));
    match METHODS.iter().find(|known| Some(**known) == name) {
        Some(known) => known,
        None if path == "/health" => "GET /health",
        None => "other",
    }
}

/// Counts a request when its answer begins, or when its client gives up.
pub(crate) async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let method = method(request.uri().path());
    let mut counted = Counted { requests, method, code: Code::Cancelled, began: Instant::now() };
    let response = next.run(request).await;
    // An answer that is only an error has its code in front. One that has more than that has begun well; a stream may end otherwise.
    let code = response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    counted.code = code.unwrap_or(if response.status().is_success() { Code::Ok } else { Code::Unavailable });
    response
}

/// A request under way.
struct Counted {
    requests: Requests,
    method: &'static str,
    code: Code,
    began: Instant,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let code = CODES.get(self.code as usize).copied().unwrap_or("UNKNOWN");
        self.requests.ended.get_or_create(&[("method", self.method), ("code", code)]).inc();
        let took = self.began.elapsed().as_secs_f64();
        self.requests.durations.get_or_create(&[("method", self.method)]).observe(took);
    }
}
