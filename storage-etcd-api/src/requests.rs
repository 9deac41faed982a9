//! What a server counts of its requests and connections.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tonic::Code;

/// The methods that are counted by name. Whoever asks for others cannot make the page longer.
const METHODS: [&str; 47] = [
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
    "Lock/Lock",
    "Lock/Unlock",
    "Election/Campaign",
    "Election/Proclaim",
    "Election/Leader",
    "Election/Observe",
    "Election/Resign",
    "Health/Check",
    "Health/Watch",
];

/// The services that these are of, as paths have them.
const SERVICES: [(&str, &str); 9] = [
    ("KV", "etcdserverpb.KV"),
    ("Watch", "etcdserverpb.Watch"),
    ("Lease", "etcdserverpb.Lease"),
    ("Cluster", "etcdserverpb.Cluster"),
    ("Maintenance", "etcdserverpb.Maintenance"),
    ("Auth", "etcdserverpb.Auth"),
    ("Lock", "v3lockpb.Lock"),
    ("Election", "v3electionpb.Election"),
    ("Health", "grpc.health.v1.Health"),
];

/// The methods that stream, and how.
const STREAMS: [(&str, &str); 5] = [
    ("Watch/Watch", "bidi_stream"),
    ("Lease/LeaseKeepAlive", "bidi_stream"),
    ("Maintenance/Snapshot", "server_stream"),
    ("Election/Observe", "server_stream"),
    ("Health/Watch", "server_stream"),
];

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

/// The same, as Go has them.
const GO_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The upper ends of the buckets, in seconds: from a request that this node answers alone to the longest that it may take.
const BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

type Label = (&'static str, &'static str);

/// What all servers of gRPC in Go call a method.
type GrpcLabels = [Label; 3];

/// The requests and connections of a server since it was started. A clone counts on the same.
#[derive(Clone, Debug)]
pub struct Requests {
    ended: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    /// For the page with etcd's names: a stream ends there when it ends.
    started: Family<GrpcLabels, Counter>,
    handled: Family<[Label; 4], Counter>,
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
            started: Family::default(),
            handled: Family::default(),
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
        let Self { ended, durations, connections, watch_streams, watches, snapshots, .. } = self.clone();
        registry.register("storage_etcd_api_requests", "Requests of clients by how they ended", ended);
        let name = "storage_etcd_api_request_duration_seconds";
        registry.register(name, "How long requests took until the answer began", durations);
        registry.register("storage_etcd_api_connections", "Connections of clients", connections);
        registry.register("storage_etcd_api_watch_streams", "Streams of watches", watch_streams);
        registry.register("storage_etcd_api_watches", "Watches", watches);
        registry.register("storage_etcd_api_snapshot_downloads", "Snapshots on their way to clients", snapshots);
    }

    /// The same with the names that servers of gRPC in Go have for it, as text.
    pub(crate) fn as_grpc(&self) -> String {
        let mut registry = Registry::default();
        let help = "Total number of RPCs started on the server";
        registry.register("grpc_server_started", help, self.started.clone());
        let help = "Total number of RPCs completed on the server, regardless of success or failure";
        registry.register("grpc_server_handled", help, self.handled.clone());
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        // The library writes the later format, which ends and in whose families a counter has another name.
        let text = text.replace("# EOF\n", "");
        ["grpc_server_started", "grpc_server_handled"].into_iter().fold(text, |text, name| {
            let text = text.replace(&format!("# HELP {name} "), &format!("# HELP {name}_total "));
            text.replace(&format!("# TYPE {name} "), &format!("# TYPE {name}_total "))
        })
    }
}

fn method(path: &str) -> &'static str {
    let asked = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let service = asked.and_then(|(service, _)| SERVICES.iter().find(|(_, known)| *known == service));
    let is_asked = |known: &&&str| {
        let (short, name) = known.split_once('/').unwrap_or_default();
        service.is_some_and(|(service, _)| *service == short) && asked.is_some_and(|(_, asked)| asked == name)
    };
    match METHODS.iter().find(is_asked) {
        Some(known) => known,
        None if path == "/health" => "GET /health",
        None => "other",
    }
}

/// `None` for what is no call of gRPC.
fn grpc_labels(method: &'static str) -> Option<GrpcLabels> {
    let (short, name) = METHODS.iter().find(|known| **known == method)?.split_once('/')?;
    let (_, service) = SERVICES.iter().find(|(known, _)| *known == short)?;
    let kind = STREAMS.iter().find(|(known, _)| *known == method).map_or("unary", |(_, kind)| kind);
    Some([("grpc_method", name), ("grpc_service", service), ("grpc_type", kind)])
}

/// Counts a request when its answer begins, or when its client gives up.
pub(crate) async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let method = method(request.uri().path());
    let mut handled =
        grpc_labels(method).map(|labels| Handled::new(requests.handled.clone(), &requests.started, labels));
    let mut counted = Counted { requests, method, code: Code::Cancelled, began: Instant::now() };
    let response = next.run(request).await;
    // An answer that is only an error has its code in front. One that has more than that has begun well; a stream may end otherwise.
    let code = response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    counted.code = code.unwrap_or(if response.status().is_success() { Code::Ok } else { Code::Unavailable });
    let Some(handled) = handled.take() else { return response };
    if code.is_some() {
        handled.end(counted.code);
        return response;
    }
    let mut handled = Some(handled);
    // With the body it ends at the latest, as one that its client has given up.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let code = frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status"));
            if let Some(code) = code
                && let Some(handled) = handled.take()
            {
                handled.end(Code::from_bytes(code.as_bytes()));
            }
            frame
        }))
    })
}

/// A call of gRPC under way.
struct Handled {
    handled: Family<[Label; 4], Counter>,
    labels: GrpcLabels,
    code: Code,
}

impl Handled {
    fn new(handled: Family<[Label; 4], Counter>, started: &Family<GrpcLabels, Counter>, labels: GrpcLabels) -> Self {
        started.get_or_create(&labels).inc();
        Self { handled, labels, code: Code::Cancelled }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        let [method, service, kind] = self.labels;
        let code = ("grpc_code", GO_CODES.get(self.code as usize).copied().unwrap_or("Unknown"));
        self.handled.get_or_create(&[code, method, service, kind]).inc();
    }
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
