//! What etcd answers to plain HTTP on the port of its clients: `/health`, `/version` and `/debug/vars`, and where the rest is.

use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use storage_embedded::Role;
use tonic::{Status, service::Routes};

use crate::{
    context::Context,
    error, gateway,
    health::trouble,
    limits::{CLUSTER_VERSION, ETCD_VERSION},
    metrics::{self, Shown},
    probes,
    requests::{self, Requests},
};

/// The routes of gRPC with those of plain HTTP beside them. What comes by the gateway is counted as the call that it stands for.
pub(crate) fn with_plain_http(grpc: Routes, context: Context, requests: Requests) -> Router {
    let plain = Router::new()
        .route("/health", routing::get(health))
        .route("/version", routing::get(version))
        .route("/debug/vars", routing::get(variables))
        .with_state(context.clone())
        .merge(probes::routes(context.clone()));
    let shown = Shown { context: context.clone(), requests: requests.clone() };
    let plain = plain.merge(Router::new().route("/metrics", routing::get(metrics::page)).with_state(shown));
    let with_leader = middleware::from_fn_with_state(context, refuse_without_leader);
    let counted = middleware::from_fn_with_state(requests, requests::count);
    let grpc = grpc.into_axum_router().layer(with_leader).merge(plain).fallback(elsewhere).layer(counted);
    gateway::routes(grpc.clone()).fallback_service(grpc)
}

/// A client may say that it wants nothing of a node that knows no leader.
async fn refuse_without_leader(State(context): State<Context>, request: Request, next: Next) -> Response {
    let wants_leader = request.headers().get("hasleader").is_some_and(|value| value == "true");
    if wants_leader && context.node().leader().is_none() {
        return Status::from(error::NO_LEADER).into_http();
    }
    next.run(request).await
}

/// 200 if no alarm stands and this node reaches the leader, and with `?serializable=true` if it is there at all; 503 with the reason otherwise.
async fn health(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes());
    let is_serializable = query.clone().any(|(name, value)| name == "serializable" && value == "true");
    let trouble = match alarm(&context, query) {
        None if !is_serializable => trouble(&context).await,
        alarm => alarm,
    };
    let status = if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = match trouble {
        None => r#"{"health":"true","reason":""}"#.to_owned(),
        // The reasons are etcd's and ours: none has what JSON would escape.
        Some(reason) => format!(r#"{{"health":"false","reason":"{reason}"}}"#),
    };
    // As text, as etcd sends it.
    (status, body).into_response()
}

/// An alarm that stands, in etcd's words, unless `?exclude=NOSPACE` says that it does not matter.
fn alarm(context: &Context, mut query: url::form_urlencoded::Parse<'_>) -> Option<String> {
    let stands = !context.node().status().alarms.is_empty();
    let is_excluded = query.any(|(name, value)| name == "exclude" && value == "NOSPACE");
    (stands && !is_excluded).then(|| "ALARM NOSPACE".to_owned())
}

/// What etcd tells of its raft, for those who ask there. Not the command line, which may have a secret in it.
async fn variables(State(context): State<Context>) -> Response {
    let (node, hex) = (context.node(), |id: u64| format!("{id:x}"));
    let status = node.status();
    let state = match status.role {
        Role::Leader => "StateLeader",
        Role::Candidate => "StateCandidate",
        _ => "StateFollower",
    };
    let raft = serde_json::json!({
        "id": hex(node.id()), "term": status.term, "commit": status.committed, "applied": status.last_applied,
        "lead": hex(status.leader.unwrap_or_default()), "raftState": state,
    });
    (
        [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
        serde_json::json!({ "raft.status": raft }).to_string(),
    )
        .into_response()
}

async fn version() -> Response {
    let body = format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}"}}"#);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// To gRPC, a service that is not served; to all others, a page that is not there.
async fn elsewhere(uri: Uri, headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/grpc") {
        // In the words of servers in Go.
        let service = uri.path().trim_start_matches('/').rsplit_once('/').map_or("", |(service, _)| service);
        Status::unimplemented(format!("unknown service {service}")).into_http()
    } else {
        (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
    }
}
