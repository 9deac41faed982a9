//! What a server counts of its requests and connections.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tonic::{Code, transport::server::Connected};

use crate::monitor::{Kind, Page};

/// The methods that are counted by name. Whoever asks for others cannot make the page longer.
const METHODS: [(&str, &str); 25] = [
    ("/etcdserverpb.KV/Range", "KV/Range"),
    ("/etcdserverpb.KV/Put", "KV/Put"),
    ("/etcdserverpb.KV/DeleteRange", "KV/DeleteRange"),
    ("/etcdserverpb.KV/Txn", "KV/Txn"),
    ("/etcdserverpb.KV/Compact", "KV/Compact"),
    ("/etcdserverpb.Watch/Watch", "Watch/Watch"),
    ("/etcdserverpb.Lease/LeaseGrant", "Lease/LeaseGrant"),
    ("/etcdserverpb.Lease/LeaseRevoke", "Lease/LeaseRevoke"),
    ("/etcdserverpb.Lease/LeaseKeepAlive", "Lease/LeaseKeepAlive"),
    ("/etcdserverpb.Lease/LeaseTimeToLive", "Lease/LeaseTimeToLive"),
    ("/etcdserverpb.Lease/LeaseLeases", "Lease/LeaseLeases"),
    ("/etcdserverpb.Cluster/MemberAdd", "Cluster/MemberAdd"),
    ("/etcdserverpb.Cluster/MemberRemove", "Cluster/MemberRemove"),
    ("/etcdserverpb.Cluster/MemberUpdate", "Cluster/MemberUpdate"),
    ("/etcdserverpb.Cluster/MemberList", "Cluster/MemberList"),
    ("/etcdserverpb.Cluster/MemberPromote", "Cluster/MemberPromote"),
    ("/etcdserverpb.Maintenance/Status", "Maintenance/Status"),
    ("/etcdserverpb.Maintenance/Snapshot", "Maintenance/Snapshot"),
    ("/etcdserverpb.Maintenance/Hash", "Maintenance/Hash"),
    ("/etcdserverpb.Maintenance/HashKV", "Maintenance/HashKV"),
    ("/etcdserverpb.Maintenance/MoveLeader", "Maintenance/MoveLeader"),
    ("/grpc.health.v1.Health/Check", "Health/Check"),
    ("/grpc.health.v1.Health/Watch", "Health/Watch"),
    ("/health", "GET /health"),
    ("", "other"),
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

/// The upper ends of the buckets, in microseconds: from a request that this node answers alone to the longest that it may take.
const BUCKETS: [u32; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000];

/// The requests and connections of a server since it was started.
#[derive(Debug, Default)]
pub struct Requests {
    methods: [Series; METHODS.len()],
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Series {
    codes: [AtomicU64; CODES.len()],
    /// The last is for what took longer than all.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Requests {
    fn record(&self, method: usize, code: usize, took: Duration) {
        let Some(series) = self.methods.get(method) else { return };
        let bucket = BUCKETS.iter().take_while(|end| took > Duration::from_micros(u64::from(**end))).count();
        for counter in [series.codes.get(code), series.buckets.get(bucket)].into_iter().flatten() {
            counter.fetch_add(1, Relaxed);
        }
        series.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Writes what was counted. What was never asked for is left out.
    pub(crate) fn write(&self, page: &mut Page) {
        let called = || METHODS.iter().zip(&self.methods).filter(|(_, series)| sum(&series.buckets) > 0);
        page.metric("storage_etcd_api_requests_total", Kind::Counter, "Requests of clients by how they ended.");
        for ((_, method), series) in called() {
            for (code, count) in CODES.iter().zip(&series.codes).filter(|(_, count)| count.load(Relaxed) > 0) {
                page.sample(&[("method", method), ("code", code)], count.load(Relaxed));
            }
        }
        let name = "storage_etcd_api_request_duration_seconds";
        page.metric(name, Kind::Histogram, "How long requests took until the answer began.");
        for ((_, method), Series { buckets, micros, .. }) in called() {
            let ends = BUCKETS.iter().map(|micros| f64::from(*micros) / 1e6);
            let counts = buckets.iter().map(|bucket| bucket.load(Relaxed));
            let above = buckets.last().map_or(0, |bucket| bucket.load(Relaxed));
            let sum = Duration::from_micros(micros.load(Relaxed));
            page.buckets(&[("method", method)], ends.zip(counts), above, sum);
        }
        let connections = self.connections.load(Relaxed);
        page.single("storage_etcd_api_connections", Kind::Gauge, "Connections of clients.", connections);
    }
}

fn sum(counters: &[AtomicU64]) -> u64 {
    counters.iter().map(|counter| counter.load(Relaxed)).sum()
}

/// Counts a request when its answer begins, or when its client gives up.
pub(super) async fn count(State(requests): State<Arc<Requests>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let method = METHODS.iter().position(|(known, _)| *known == path).unwrap_or(METHODS.len() - 1);
    let mut counted = Counted { requests, method, code: Code::Cancelled, began: Instant::now() };
    let response = next.run(request).await;
    // An answer that is only an error has its code in front. One that has more than that has begun well; a stream may end otherwise.
    let code = response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    counted.code = code.unwrap_or(if response.status().is_success() { Code::Ok } else { Code::Unavailable });
    response
}

/// A request under way.
struct Counted {
    requests: Arc<Requests>,
    method: usize,
    code: Code,
    began: Instant,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.requests.record(self.method, self.code as usize, self.began.elapsed());
    }
}

/// A connection that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    requests: Arc<Requests>,
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: S, requests: Arc<Requests>) -> Self {
        requests.connections.fetch_add(1, Relaxed);
        Self { stream, requests }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.requests.connections.fetch_sub(1, Relaxed);
    }
}

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
