//! What etcd answers to plain HTTP on the port of its clients: `/health` and `/version`.

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use storage_core::Error;
use storage_embedded::mvcc::MvccError;
use tonic::{Status, service::Routes};

use crate::{context::Context, error, health::ANSWERS_WITHIN, limits::ETCD_VERSION};

/// The routes of gRPC with those of plain HTTP beside them.
pub(crate) fn with_plain_http(grpc: Routes, context: Context) -> Routes {
    let plain = Router::new()
        .route("/health", routing::get(health))
        .route("/version", routing::get(version))
        .with_state(context);
    grpc.into_axum_router().merge(plain).fallback(elsewhere).into()
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

/// In etcd's words, since alerts match on them.
const NO_LEADER: &str = "RAFT NO LEADER";

/// An alarm that stands, in etcd's words, unless `?exclude=NOSPACE` says that it does not matter.
fn alarm(context: &Context, mut query: url::form_urlencoded::Parse<'_>) -> Option<String> {
    let stands = !context.node().status().alarms.is_empty();
    let is_excluded = query.any(|(name, value)| name == "exclude" && value == "NOSPACE");
    (stands && !is_excluded).then(|| "ALARM NOSPACE".to_owned())
}

async fn trouble(context: &Context) -> Option<String> {
    if context.node().status().leader.is_none() {
        return Some(NO_LEADER.to_owned());
    }
    // A follower that is cut off does not know it: it has to ask.
    match context.mvcc.barrier(ANSWERS_WITHIN).await {
        Ok(()) => None,
        Err(MvccError::Store(Error::Unavailable { .. })) => Some(NO_LEADER.to_owned()),
        Err(error) => Some(format!("QGET ERROR:{}", error::status(error).message())),
    }
}

async fn version() -> Response {
    let release = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(release, _)| release);
    let body = format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{release}.0"}}"#);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// To gRPC, a service that is not served; to all others, a page that is not there.
async fn elsewhere(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/grpc") {
        Status::unimplemented("").into_http()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}
