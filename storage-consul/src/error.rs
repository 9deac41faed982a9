//! What an error of the client or an answer of a server means for the contract: one table.

use storage_core::{Error, servers::Failure};

/// The most bytes of one answer (64 MiB): three times a read of as many of the largest values as fit a transaction. What can
/// come near is a list of a million keys, and the state of a prefix for a watch.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A whole answer that cannot be understood: whatever was asked may be done.
pub(crate) fn garbled(error: &serde_json::Error) -> Failure {
    Failure::Unknown(format!("an answer that is none of Consul: {error}").into())
}

/// A server that passes a call on to the leader puts this before the leader's words, once for each step.
const STEP: &str = "rpc error making call: ";

/// What Consul says, in the body of an answer with an error status. The words are those of `agent/structs/errors.go` and
/// `agent/pool` of Consul and of `hashicorp/raft`. What is not in this table counts as unknown: above all
/// "leadership lost while committing log", and a broken connection between servers.
const WORDS: &[(&str, Meaning)] = &[
    // No server had accepted it, and the one that was asked has given up.
    ("No cluster leader", Meaning::Unavailable),
    ("Raft leader not found in server lookup mapping", Meaning::Unavailable),
    ("No known Consul servers", Meaning::Unavailable),
    // There was no connection to the leader to send it on.
    ("rpc error getting client", Meaning::Unavailable),
    // Answered by a raft that does not lead, before anything is appended.
    ("node is not the leader", Meaning::Unavailable),
    ("leadership transfer in progress", Meaning::Unavailable),
    ("timed out enqueuing operation", Meaning::Unavailable),
    ("Not ready to serve consistent reads", Meaning::Unavailable),
    ("RPC rate limit exceeded", Meaning::Throttled),
    ("rate limit exceeded", Meaning::Throttled),
    ("Permission denied", Meaning::PermissionDenied),
    ("ACL not found", Meaning::Unauthenticated),
];

#[derive(Clone, Copy)]
enum Meaning {
    Unavailable,
    Throttled,
    PermissionDenied,
    Unauthenticated,
    InvalidArgument,
}

/// What the status says by itself.
fn by_status(status: u16) -> Option<Meaning> {
    match status {
        // 404 and 405: there is no such call, so that is no Consul, or one that is too old.
        400 | 404 | 405 | 411 | 413 => Some(Meaning::InvalidArgument),
        401 => Some(Meaning::Unauthenticated),
        403 => Some(Meaning::PermissionDenied),
        429 => Some(Meaning::Throttled),
        _ => None,
    }
}

/// What an answer that is not the one hoped for means.
pub(crate) fn answer(status: u16, body: &[u8]) -> Failure {
    /// More would not fit a line of a log.
    const SHOWN: usize = 300;
    let body: String = String::from_utf8_lossy(body).trim().chars().take(SHOWN).collect();
    let text = format!("{body} (HTTP {status})");
    match words(&body).or_else(|| by_status(status)) {
        Some(Meaning::Unavailable) => Failure::NotApplied(Error::unavailable(text)),
        Some(Meaning::Throttled) => Failure::NotApplied(Error::Throttled { retry_after: None, source: text.into() }),
        Some(Meaning::PermissionDenied) => Failure::Refused(Error::PermissionDenied { source: text.into() }),
        Some(Meaning::Unauthenticated) => Failure::Refused(Error::Unauthenticated { source: text.into() }),
        Some(Meaning::InvalidArgument) => Failure::Refused(Error::invalid_argument(text)),
        None => Failure::Unknown(text.into()),
    }
}

/// What an operation of a transaction failed on, if it was not its guard: permissions are looked at before anything else.
pub(crate) fn operation(what: &str) -> Option<Error> {
    match words(what) {
        Some(Meaning::PermissionDenied) => Some(Error::PermissionDenied { source: what.into() }),
        Some(Meaning::Unauthenticated) => Some(Error::Unauthenticated { source: what.into() }),
        _ => None,
    }
}

fn words(text: &str) -> Option<Meaning> {
    let mut text = text;
    while let Some(rest) = text.strip_prefix(STEP) {
        text = rest;
    }
    WORDS.iter().find(|(words, _)| text.starts_with(words)).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(failure: Failure) -> &'static str {
        match failure {
            Failure::NotApplied(error) | Failure::Refused(error) => error.kind(),
            Failure::Unknown(_) => "unknown_outcome",
        }
    }

    #[test]
    fn what_the_server_says_decides_whether_a_write_may_be_applied() {
        for (status, body, expected) in [
            (500, "No cluster leader", "unavailable"),
            (500, "rpc error making call: No cluster leader", "unavailable"),
            (500, "rpc error getting client: failed to get conn: dial tcp: connection refused", "unavailable"),
            (500, "rpc error making call: rpc error getting client: failed to get conn: EOF", "unavailable"),
            (500, "rpc error making call: EOF", "unknown_outcome"),
            (500, "rpc error making call: node is not the leader", "unavailable"),
            (500, "leadership lost while committing log", "unknown_outcome"),
            (500, "rpc error making call: leadership lost while committing log", "unknown_outcome"),
            (500, "somebody said: No cluster leader", "unknown_outcome"),
            (500, "raft is already shutdown", "unknown_outcome"),
            (500, "anything new", "unknown_outcome"),
            (502, "bad gateway", "unknown_outcome"),
            (504, "", "unknown_outcome"),
            (429, "Your IP is issuing too many concurrent connections", "throttled"),
            (500, "rpc error making call: RPC rate limit exceeded", "throttled"),
            (403, "Permission denied", "permission_denied"),
            (403, "rpc error making call: Permission denied", "permission_denied"),
            (403, "ACL not found", "unauthenticated"),
            (413, "Transaction contains too many operations (65 > 64)", "invalid_argument"),
            (404, "", "invalid_argument"),
        ] {
            assert_eq!(kind(answer(status, body.as_bytes())), expected, "{status} {body}");
        }
    }
}
