//! What an error of the client or the server means for the contract: one table.

use std::error::Error as StdError;

use etcd_client::Error as ClientError;
use storage_core::{
    Error,
    servers::{Failure, describe},
};
use tonic::{Code, ConnectError, Status};

/// What is known after a request failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    /// The connection is of no further use: it broke, or the server does not know its token any more.
    pub(crate) broken: bool,
}

/// The words of etcd that say more than their gRPC code: `Unavailable` stands for "was never proposed" as well as for
/// "was proposed, and may be committed yet". The list is `api/v3rpc/rpctypes/error.go` of etcd.
/// Whatever is not in this table and not in [`by_code`] counts as unknown.
const WORDS: &[(&str, Meaning)] = &[
    // Looked at before anything is proposed.
    ("etcdserver: no leader", Meaning::Unavailable),
    ("raft proposal dropped", Meaning::Unavailable),
    ("etcdserver: rpc not supported for learner", Meaning::Unavailable),
    ("etcdserver: too many requests", Meaning::Throttled),
    ("etcdserver: revision of auth store is old", Meaning::StaleToken),
    // Every server has the same users and the same disk quota: asking another one is of no use.
    ("etcdserver: mvcc: database space exceeded", Meaning::NoSpace),
    ("etcdserver: corrupt cluster", Meaning::Corrupt),
    ("etcdserver: user name is empty", Meaning::Unauthenticated),
    ("etcdserver: authentication failed, invalid user ID or password", Meaning::Unauthenticated),
    ("etcdserver: authentication is not enabled", Meaning::Unauthenticated),
    ("grpc: received message larger than max", Meaning::InvalidArgument),
    // This side: the answer is over the limit that was set for it.
    ("Error, decoded message length too large", Meaning::LargeAnswer),
    // The other side, if it is an embedded node: etcd has no such limit.
    ("etcdserver: answer is too large", Meaning::LargeAnswer),
];

#[derive(Clone, Copy)]
enum Meaning {
    Unavailable,
    Throttled,
    StaleToken,
    NoSpace,
    Corrupt,
    Unauthenticated,
    InvalidArgument,
    LargeAnswer,
}

/// What the codes say by themselves, in an answer that the server gave.
fn by_code(code: Code) -> Option<Meaning> {
    match code {
        Code::InvalidArgument => Some(Meaning::InvalidArgument),
        Code::Unauthenticated => Some(Meaning::Unauthenticated),
        _ => None,
    }
}

pub(crate) fn failure(error: ClientError) -> Failed {
    match error {
        ClientError::GRpcStatus(status) => status_failure(status),
        // Made by this side before anything is sent.
        ClientError::InvalidArgs(reason) => refused(Error::InvalidArgument { reason }),
        ClientError::TransportError(error) => {
            Failed { failure: Failure::NotApplied(Error::unavailable(describe(&error))), broken: true }
        }
        other => Failed { failure: Failure::Unknown(other.into()), broken: true },
    }
}

/// What the reason that a server gave for the end of a watch means: it has the words of the table, but no code.
pub(crate) fn watch_failure(reason: &str) -> Failed {
    if reason.contains("permission denied") || reason.contains("PermissionDenied") {
        return refused(Error::PermissionDenied { source: reason.into() });
    }
    match WORDS.iter().find(|(words, _)| reason.contains(words)) {
        Some((_, meaning)) => meant(*meaning, reason.into()),
        None => {
            Failed { failure: Failure::Unknown(format!("the server ended the watch: {reason}").into()), broken: false }
        }
    }
}

fn status_failure(status: Status) -> Failed {
    if never_sent(&status) {
        return Failed { failure: Failure::NotApplied(Error::unavailable(text(&status))), broken: true };
    }
    // tonic gives a status a source only where it made the status itself. One that a server sent has none.
    if status.source().is_some() {
        // The connection ended after the request was given to it.
        return Failed { failure: Failure::Unknown(text(&status).into()), broken: true };
    }
    if status.code() == Code::PermissionDenied {
        return refused(Error::PermissionDenied { source: text(&status).into() });
    }
    // The words come first: etcd gives one code to errors before and after a proposal.
    let words = WORDS.iter().find(|(words, _)| status.message().starts_with(words)).map(|(_, meaning)| *meaning);
    match words.or_else(|| by_code(status.code())) {
        Some(meaning) => meant(meaning, text(&status)),
        None => Failed { failure: Failure::Unknown(text(&status).into()), broken: false },
    }
}

fn meant(meaning: Meaning, text: String) -> Failed {
    match meaning {
        Meaning::Unavailable => Failed { failure: Failure::NotApplied(Error::unavailable(text)), broken: false },
        Meaning::StaleToken => Failed { failure: Failure::NotApplied(Error::unavailable(text)), broken: true },
        Meaning::Throttled => {
            let error = Error::Throttled { retry_after: None, source: text.into() };
            Failed { failure: Failure::NotApplied(error), broken: false }
        }
        // Refused, so that no other server is asked: the quota is of the whole cluster.
        Meaning::NoSpace => refused(Error::unavailable(text)),
        Meaning::Corrupt => refused(Error::corrupt(text)),
        Meaning::Unauthenticated => refused(Error::Unauthenticated { source: text.into() }),
        Meaning::InvalidArgument => refused(Error::invalid_argument(text)),
        Meaning::LargeAnswer => refused(Error::TooLarge {
            what: ANSWER_BYTES,
            actual: crate::range::MAX_PAGE_BYTES + 1,
            limit: crate::range::MAX_PAGE_BYTES,
        }),
    }
}

/// What [`Error::TooLarge`] counts when an answer is over the limit that this side set for it.
pub(crate) const ANSWER_BYTES: &str = "(or more) bytes in one answer";

fn refused(error: Error) -> Failed {
    Failed { failure: Failure::Refused(error), broken: false }
}

/// Whether there was no connection to send the request on.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status in words. Its own `Display` has the metadata too, which is of no use to a reader.
fn text(status: &Status) -> String {
    let local = status.source().map(|source| format!(": {}", describe(source)));
    format!("{} ({:?}){}", status.message(), status.code(), local.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: Status) -> &'static str {
        match failure(ClientError::GRpcStatus(status)).failure {
            Failure::NotApplied(error) | Failure::Refused(error) => error.kind(),
            Failure::Unknown(_) => "unknown_outcome",
        }
    }

    #[test]
    fn what_the_server_says_decides_whether_a_write_may_be_applied() {
        for (code, message, expected) in [
            (Code::Unavailable, "etcdserver: no leader", "unavailable"),
            (Code::Unavailable, "etcdserver: leader changed", "unknown_outcome"),
            (Code::Unavailable, "etcdserver: request timed out", "unknown_outcome"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost", "unknown_outcome"),
            (Code::Unavailable, "etcdserver: server stopped", "unknown_outcome"),
            (Code::Unavailable, "anything new", "unknown_outcome"),
            (Code::DeadlineExceeded, "context deadline exceeded", "unknown_outcome"),
            (Code::Unknown, "transport error", "unknown_outcome"),
            (Code::Unknown, "raft proposal dropped", "unavailable"),
            (Code::ResourceExhausted, "etcdserver: too many requests", "throttled"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "unavailable"),
            (Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 8)", "invalid_argument"),
            (Code::InvalidArgument, "etcdserver: request is too large", "invalid_argument"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", "unavailable"),
            (Code::InvalidArgument, "etcdserver: user name is empty", "unauthenticated"),
            (Code::Unauthenticated, "etcdserver: invalid auth token", "unauthenticated"),
            (Code::PermissionDenied, "etcdserver: permission denied", "permission_denied"),
            (Code::DataLoss, "etcdserver: corrupt cluster", "corrupt"),
        ] {
            assert_eq!(kind(Status::new(code, message)), expected, "{message}");
        }
    }

    #[test]
    fn only_a_failed_connect_is_certainly_not_sent() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let connect = Status::from_error(Box::new(ConnectError(Box::new(refused()))));
        assert_eq!(kind(connect), "unavailable");
        let broken = Status::from_error(Box::new(refused()));
        assert_eq!(kind(broken), "unknown_outcome");
    }

    #[test]
    fn a_watch_that_was_not_permitted_is_not_tried_again() {
        let failure = watch_failure("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
        assert!(matches!(failure.failure, Failure::Refused(Error::PermissionDenied { .. })));
        assert!(matches!(watch_failure("etcdserver: no leader").failure, Failure::NotApplied(_)));
    }
}
