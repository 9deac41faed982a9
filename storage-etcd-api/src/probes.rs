//! `/livez` and `/readyz`, as Kubernetes asks and etcd answers: whether the node is to be started again, and whether it serves. What is looked at
//! can be asked for one by one, left out with `?exclude=`, and is listed with `?verbose`.

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};

use crate::{
    context::{Context, read_options},
    health,
};

/// Something that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The node reaches the leader.
    LinearizableRead,
    /// Its data are those of a majority.
    DataCorruption,
    /// It reads what it has.
    SerializableRead,
}

const LIVES: &[Check] = &[Check::SerializableRead];
const READY: &[Check] = &[Check::LinearizableRead, Check::DataCorruption, Check::SerializableRead];

impl Check {
    /// As etcd calls it.
    fn name(self) -> &'static str {
        match self {
            Self::LinearizableRead => "linearizable_read",
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
        }
    }

    /// What is wrong.
    async fn trouble(self, context: &Context) -> Option<String> {
        match self {
            Self::LinearizableRead => health::trouble(context).await,
            // A node whose data are not those of a majority shows none, and stops.
            Self::DataCorruption | Self::SerializableRead => {
                context.mvcc.leases(read_options(true)).await.err().map(|error| format!("{error}"))
            }
        }
    }
}

pub(crate) fn routes(context: Context) -> Router {
    let all = |checks: &'static [Check]| {
        routing::get(move |State(context): State<Context>, RawQuery(query): RawQuery| all(context, checks, query))
    };
    let one = |checks: &'static [Check]| {
        routing::get(move |State(context): State<Context>, Path(name): Path<String>| one(context, checks, name))
    };
    Router::new()
        .route("/livez", all(LIVES))
        .route("/livez/{check}", one(LIVES))
        .route("/readyz", all(READY))
        .route("/readyz/{check}", one(READY))
        .with_state(context)
}

async fn all(context: Context, checks: &[Check], query: Option<String>) -> Response {
    let query = query.unwrap_or_default();
    let asked: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let is_excluded = |check: &Check| asked.iter().any(|(name, value)| name == "exclude" && value == check.name());
    let is_verbose = asked.iter().any(|(name, _)| name == "verbose");
    let (mut lines, mut is_well) = (String::new(), true);
    for check in checks.iter().filter(|check| !is_excluded(check)) {
        match check.trouble(&context).await {
            None => lines.push_str(&format!("[+]{} ok\n", check.name())),
            Some(trouble) => {
                is_well = false;
                lines.push_str(&format!("[-]{} failed: {trouble}\n", check.name()));
            }
        }
    }
    match (is_well, is_verbose) {
        (true, false) => text(StatusCode::OK, "ok\n".to_owned()),
        (true, true) => text(StatusCode::OK, lines + "ok\n"),
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, lines),
    }
}

async fn one(context: Context, checks: &[Check], name: String) -> Response {
    let Some(check) = checks.iter().find(|check| check.name() == name) else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    };
    match check.trouble(&context).await {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, format!("[-]{name} failed: {trouble}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
