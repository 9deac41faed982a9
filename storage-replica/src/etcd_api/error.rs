//! Why a request failed, with the codes and words of etcd 3.5. Its list is `api/v3rpc/rpctypes/error.go`.

use storage_core::Error;
use storage_embedded::mvcc::{MvccError, Refused};
use tonic::{Code, Status};

/// An answer that says why not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal(Code, &'static str);

impl From<Refusal> for Status {
    fn from(Refusal(code, words): Refusal) -> Self {
        Self::new(code, words)
    }
}

macro_rules! refusals {
    ($($name:ident = $code:ident $words:literal;)*) => {
        $(pub(super) const $name: Refusal = Refusal(Code::$code, $words);)*
    };
}

refusals! {
    EMPTY_KEY = InvalidArgument "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument "etcdserver: key not found";
    // Not of etcd, which knows no such limit.
    KEY_TOO_LONG = InvalidArgument "etcdserver: key is longer than 512 bytes";
    VALUE_PROVIDED = InvalidArgument "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument "etcdserver: lease is provided";
    TOO_MANY_OPS = InvalidArgument "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument "etcdserver: duplicate key given in txn request";
    INVALID_SORT = InvalidArgument "etcdserver: invalid sort option";
    REQUEST_TOO_LARGE = InvalidArgument "etcdserver: request is too large";
    // Not of etcd, which knows no such limit.
    ANSWER_TOO_LARGE = InvalidArgument "etcdserver: answer is too large";
    UNREADABLE = Internal "grpc: error unmarshalling request";
    COMPACTED = OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange "etcdserver: mvcc: required revision is a future revision";
    LEASE_NOT_FOUND = NotFound "etcdserver: requested lease not found";
    LEASE_EXISTS = FailedPrecondition "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange "etcdserver: too large lease TTL";
    MEMBER_URLS = InvalidArgument "etcdserver: given member URLs are invalid";
    MEMBER_NOT_FOUND = NotFound "etcdserver: member not found";
    MEMBER_NOT_LEARNER = FailedPrecondition "etcdserver: can only promote a learner member";
    NOT_IN_SYNC = FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    PEER_URL_EXISTS = FailedPrecondition "etcdserver: Peer URLs already exists";
    TOO_FEW_MEMBERS = FailedPrecondition "etcdserver: re-configuration failed due to not enough started members";
    NOT_LEADER = FailedPrecondition "etcdserver: not leader";
    BAD_TRANSFEREE = FailedPrecondition "etcdserver: bad leader transferee";
    TOO_MANY_REQUESTS = ResourceExhausted "etcdserver: too many requests";
    NO_SPACE = ResourceExhausted "etcdserver: mvcc: database space exceeded";
    NO_LEADER = Unavailable "etcdserver: no leader";
    TIMED_OUT = Unavailable "etcdserver: request timed out";
    STOPPED = Unavailable "etcdserver: server stopped";
    CORRUPT = DataLoss "etcdserver: corrupt cluster";
}

/// What a failed call of the engine means to a client.
pub(super) fn status(error: MvccError) -> Status {
    match error {
        MvccError::Refused(refused) => match refused {
            Refused::Compacted => COMPACTED,
            Refused::FutureRevision => FUTURE_REVISION,
            Refused::KeyNotFound => KEY_NOT_FOUND,
            Refused::LeaseNotFound => LEASE_NOT_FOUND,
            Refused::LeaseExists => LEASE_EXISTS,
            Refused::TooManyLeases => NO_SPACE,
            _ => ANSWER_TOO_LARGE,
        }
        .into(),
        MvccError::Store(error) => store_status(error),
    }
}

/// Clients take "no leader" for a promise that nothing was or will be written, and "timed out" for none at all.
pub(super) fn store_status(error: Error) -> Status {
    let refusal = match error {
        Error::Unavailable { .. } => NO_LEADER,
        Error::Throttled { .. } => TOO_MANY_REQUESTS,
        Error::Closed => STOPPED,
        Error::Corrupt { .. } => {
            tracing::error!(%error, "the engine failed");
            CORRUPT
        }
        Error::InvalidArgument { reason } => return Status::invalid_argument(format!("etcdserver: {reason}")),
        error => {
            tracing::debug!(%error, "the outcome of a request is not known");
            TIMED_OUT
        }
    };
    refusal.into()
}
