//! The calls of the API as JSON over plain HTTP, as etcd's gateway has them: `POST /v3/kv/range`. Each is turned into the call of gRPC that it stands
//! for, by the descriptors of the protocol, and goes the way of all calls: through the same services, limits and users.
//!
//! A call that streams takes any number of objects, one behind the other, and answers with one a line: `{"result":{...}}`. Fields have the
//! names that they have in the protocol files, numbers of 64 bits are strings, and bytes are in base64.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use tonic::{Code, Status, codegen::Service};

use crate::{check::MAX_MESSAGE_BYTES, connection::Life, fields::json_parts};

/// The longest object that is read: a message of [`MAX_MESSAGE_BYTES`] whose bytes are in base64.
const MAX_JSON_BYTES: usize = MAX_MESSAGE_BYTES / 3 * 4;

/// Which path stands for which method: those of `rpc.proto` of etcd 3.6.
const PATHS: [(&str, &str, &str); 51] = [
    ("kv/range", "etcdserverpb.KV", "Range"),
    ("kv/put", "etcdserverpb.KV", "Put"),
    ("kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("kv/txn", "etcdserverpb.KV", "Txn"),
    ("kv/compaction", "etcdserverpb.KV", "Compact"),
    ("watch", "etcdserverpb.Watch", "Watch"),
    ("lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("kv/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster", "MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster", "MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster", "MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance", "Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance", "HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance", "MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth", "UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth", "RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth", "RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock", "Lock"),
    ("lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("election/campaign", "v3electionpb.Election", "Campaign"),
    ("election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("election/leader", "v3electionpb.Election", "Leader"),
    ("election/observe", "v3electionpb.Election", "Observe"),
    ("election/resign", "v3electionpb.Election", "Resign"),
];

/// The files of the protocol, compiled by `build.rs`.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What turns calls in JSON into those of gRPC.
#[derive(Clone, Debug)]
struct Gateway {
    methods: Arc<HashMap<&'static str, MethodDescriptor>>,
    /// The services.
    grpc: Router,
}

/// The routes of the gateway, in front of these services.
#[expect(clippy::expect_used, reason = "the descriptors are part of the program, and a test looks at each path")]
pub(crate) fn routes(grpc: Router) -> Router {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the descriptors are those of the protocol files");
    let methods = PATHS.iter().map(|(path, service, method)| {
        let service = pool.get_service_by_name(service).expect("the service is in the protocol files");
        (*path, service.methods().find(|known| known.name() == *method).expect("the service has the method"))
    });
    let gateway = Gateway { methods: Arc::new(methods.collect()), grpc };
    Router::new().route("/v3/{*path}", routing::any(call)).with_state(gateway)
}

async fn call(State(gateway): State<Gateway>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/v3/").unwrap_or_default();
    let Some(method) = gateway.methods.get(path).cloned() else {
        return refused(&Status::not_found("Not Found"));
    };
    if request.method() != Method::POST {
        return refused(&Status::unimplemented("Method Not Allowed"));
    }
    let (parts, body) = request.into_parts();
    let called = if method.is_client_streaming() {
        stream_requests(gateway, &method, parts, body).await
    } else {
        one_request(gateway, &method, parts, body).await
    };
    match called {
        Ok(response) => response,
        Err(status) => refused(&status),
    }
}

async fn one_request(
    gateway: Gateway,
    method: &MethodDescriptor,
    parts: Parts,
    body: Body,
) -> Result<Response, Status> {
    let body = Limited::new(body, MAX_JSON_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { too_long() } else { Status::cancelled(error.to_string()) }
    })?;
    let json = body.to_bytes();
    let message = if json.trim_ascii().is_empty() { Bytes::new() } else { read(&method.input(), &json)? };
    let life = parts.extensions.get::<Life>().cloned();
    let answers = answers(gateway.grpc, method, parts, Body::from(framed(&message))).await?;
    if method.is_server_streaming() {
        return Ok(lines(method.output(), life, answers));
    }
    let mut answers = std::pin::pin!(answers);
    let answer = answers.next().await.unwrap_or_else(|| Err(Status::internal("there is no answer")))?;
    if let Some(after) = answers.next().await {
        after?;
    }
    let mut json = Vec::new();
    write(&method.output(), answer, &mut json)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Objects come as long as the client sends some. The first has to be right; what is not one later on ends them.
async fn stream_requests(
    gateway: Gateway,
    method: &MethodDescriptor,
    parts: Parts,
    body: Body,
) -> Result<Response, Status> {
    let mut objects = Box::pin(objects(body));
    let input = method.input();
    let first = match objects.next().await {
        Some(json) => Some(framed(&read(&input, &json?)?)),
        None => None,
    };
    let rest = objects.map(move |json| Ok::<_, Status>(framed(&read(&input, &json?)?)));
    let requests = stream::iter(first.map(Ok)).chain(rest.take_while(|request| std::future::ready(request.is_ok())));
    let life = parts.extensions.get::<Life>().cloned();
    let answers = answers(gateway.grpc, method, parts, Body::from_stream(requests)).await?;
    Ok(lines(method.output(), life, answers))
}

/// Makes a call, and gives the messages of its answer.
async fn answers(
    mut grpc: Router,
    method: &MethodDescriptor,
    parts: Parts,
    body: Body,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + 'static, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_| Status::internal("the path is none"))?;
    *request.headers_mut() = metadata(&parts.headers);
    *request.extensions_mut() = parts.extensions;
    let response = match grpc.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if let Some(status) = Status::from_header_map(response.headers()) {
        return if status.code() == Code::Ok { Ok(messages(Body::empty())) } else { Err(status) };
    }
    Ok(messages(response.into_body()))
}

/// What a call says of itself: of the request, what etcd's gateway passes on.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    const PREFIX: &str = "grpc-metadata-";
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let passed = match name.as_str() {
            "authorization" | "grpc-timeout" => Some(name.clone()),
            // What is of HTTP itself is not for others to say.
            other => other
                .strip_prefix(PREFIX)
                .filter(|rest| !rest.starts_with("grpc-") && *rest != "te")
                .and_then(|rest| rest.parse().ok()),
        };
        if let Some(name) = passed {
            metadata.append(name, value.clone());
        }
    }
    metadata.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    // By which the services know a gateway, whose certificate is not that of its client.
    metadata.insert(HeaderName::from_static("grpcgateway-accept"), HeaderValue::from_static("application/json"));
    metadata
}

/// The messages in the body of an answer, and what went wrong behind them.
fn messages(body: Body) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    stream::unfold(Some((body, BytesMut::new())), |state| async move {
        let (mut body, mut buffer) = state?;
        loop {
            if let Some(message) = unframed(&mut buffer) {
                return Some((Ok(message), Some((body, buffer))));
            }
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let status = frame.trailers_ref().and_then(Status::from_header_map);
                        let failed = status.filter(|status| status.code() != Code::Ok)?;
                        return Some((Err(failed), None));
                    }
                },
                Some(Err(error)) => return Some((Err(Status::unavailable(error.to_string())), None)),
                None => return None,
            }
        }
    })
}

/// A message as gRPC sends it: that it is not compressed, its length, and itself.
#[expect(clippy::expect_used, reason = "an object that is read has some MiB")]
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("no object that is read has 4 GiB"));
    frame.extend_from_slice(message);
    frame.freeze()
}

fn unframed(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..5)?.try_into().map(u32::from_be_bytes).ok()? as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}

/// Reads an object. What its message does not know is passed over, as etcd does.
fn read(message: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    // Before it is taken apart: a few bytes of it take many in memory.
    json_parts(json)?;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &options)
        .map(|message| message.encode_to_vec().into())
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

fn write(message: &MessageDescriptor, bytes: Bytes, out: &mut Vec<u8>) -> Result<(), Status> {
    let internal = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let message = DynamicMessage::decode(message.clone(), bytes).map_err(|error| internal(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut writer = serde_json::Serializer::new(out);
    message.serialize_with_options(&mut writer, &options).map_err(|error| internal(&error))
}

/// The objects in the body of a request, one after the other.
fn objects(body: Body) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    let state = Some((body.into_data_stream(), Objects::default()));
    stream::unfold(state, |state| async move {
        let (mut body, mut objects) = state?;
        loop {
            match objects.next() {
                Ok(Some(object)) => return Some((Ok(object), Some((body, objects)))),
                Ok(None) => {}
                Err(status) => return Some((Err(status), None)),
            }
            match body.next().await {
                Some(Ok(data)) => objects.buffer.extend_from_slice(&data),
                Some(Err(error)) => return Some((Err(Status::cancelled(error.to_string())), None)),
                None if objects.buffer.trim_ascii().is_empty() => return None,
                None => return Some((Err(Status::invalid_argument("an object is cut short")), None)),
            }
        }
    })
}

/// Finds where objects end, each byte looked at once.
#[derive(Debug, Default)]
struct Objects {
    buffer: BytesMut,
    looked_at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Objects {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(byte) = self.buffer.get(self.looked_at) {
            let (byte, is_outside) = (*byte, self.depth == 0);
            self.looked_at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if !is_outside => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if !is_outside => self.depth -= 1,
                _ if is_outside && !byte.is_ascii_whitespace() => {
                    return Err(Status::invalid_argument("an object is wanted: {...}"));
                }
                _ => {}
            }
            if self.depth == 0 && matches!(byte, b'}' | b']') {
                return Ok(Some(self.buffer.split_to(std::mem::take(&mut self.looked_at)).freeze()));
            }
        }
        if self.buffer.len() > MAX_JSON_BYTES { Err(too_long()) } else { Ok(None) }
    }
}

fn too_long() -> Status {
    Status::resource_exhausted(format!("a request of more than {MAX_JSON_BYTES} bytes"))
}

/// An answer of one object a line. As long as it goes on its connection may be silent: the client has nothing to say.
fn lines(
    message: MessageDescriptor,
    life: Option<Life>,
    answers: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Response {
    let listens = life.map(|life| life.listens());
    let lines = answers.map(move |answer| {
        let _ = &listens;
        let mut line = br#"{"result":"#.to_vec();
        let line = match answer.and_then(|answer| write(&message, answer, &mut line).map(|()| line)) {
            Ok(mut line) => {
                line.extend_from_slice(b"}\n");
                line
            }
            Err(status) => format!("{}\n", serde_json::json!({ "error": in_stream(&status) })).into_bytes(),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

/// As etcd's gateway says it, and as earlier ones did: clients read either.
fn refused(status: &Status) -> Response {
    let (message, code) = (status.message(), status.code() as i32);
    let body = serde_json::json!({ "error": message, "code": code, "message": message }).to_string();
    (http_status(status.code()), [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn in_stream(status: &Status) -> serde_json::Value {
    let (http, code) = (http_status(status.code()), status.code() as i32);
    serde_json::json!({
        "grpc_code": code, "http_code": http.as_u16(), "message": status.message(),
        "http_status": http.canonical_reason(), "code": code,
    })
}

/// As etcd's gateway has them.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_method() {
        drop(routes(Router::new()));
    }

    #[test]
    fn objects_are_found_in_any_pieces() {
        let text = br#" {"a":"}\"{"} {"b":[{"c":1}]}
            {"d":{}}"#;
        for size in [1, 3, text.len()] {
            let (mut objects, mut found) = (Objects::default(), Vec::new());
            for piece in text.chunks(size) {
                objects.buffer.extend_from_slice(piece);
                while let Some(object) = objects.next().unwrap() {
                    found.push(String::from_utf8(object.trim_ascii().to_vec()).unwrap());
                }
            }
            assert_eq!(found, [r#"{"a":"}\"{"}"#, r#"{"b":[{"c":1}]}"#, r#"{"d":{}}"#], "{size}");
        }
        let mut objects = Objects { buffer: BytesMut::from(&b"null"[..]), ..Objects::default() };
        assert!(objects.next().is_err());
    }

    /// No more of it is kept than one object may have.
    #[tokio::test]
    async fn an_object_that_is_too_long_is_refused() {
        let pieces = std::iter::once("{\"a\":\"").chain(std::iter::repeat("xxxxxxxxxxxxxxxx"));
        let pieces = pieces.map(|piece| Ok::<_, Status>(Bytes::from_static(piece.as_bytes())));
        let mut objects = Box::pin(objects(Body::from_stream(stream::iter(pieces))));
        let refused = objects.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(objects.next().await.is_none());
    }
}
