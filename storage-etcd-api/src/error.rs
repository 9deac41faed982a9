//! Why a request failed, with the codes and words of etcd 3.5. Its list is `api/v3rpc/rpctypes/error.go`.

use storage_core::Error;
use storage_embedded::{
    UNHEALTHY,
    mvcc::{Denied, MvccError, Refused},
};
use tonic::{Code, Status};

/// An answer that says why not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal(Code, &'static str);

#[cfg(test)]
impl Refusal {
    pub(crate) fn words(self) -> &'static str {
        self.1
    }
}

impl From<Refusal> for Status {
    fn from(Refusal(code, words): Refusal) -> Self {
        Self::new(code, words)
    }
}

macro_rules! refusals {
    ($($name:ident = $code:ident $words:literal;)*) => {
        $(pub(crate) const $name: Refusal = Refusal(Code::$code, $words);)*
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
    TOO_MANY_LEARNERS = FailedPrecondition "etcdserver: too many learner members in cluster";
    PEER_URL_EXISTS = FailedPrecondition "etcdserver: Peer URLs already exists";
    TOO_FEW_MEMBERS = FailedPrecondition "etcdserver: re-configuration failed due to not enough started members";
    NOT_LEADER = FailedPrecondition "etcdserver: not leader";
    BAD_TRANSFEREE = FailedPrecondition "etcdserver: bad leader transferee";
    TOO_MANY_REQUESTS = ResourceExhausted "etcdserver: too many requests";
    NO_SPACE = ResourceExhausted "etcdserver: mvcc: database space exceeded";
    NO_LEADER = Unavailable "etcdserver: no leader";
    // Not of etcd, whose nodes do not stop by themselves.
    NO_CORRUPT_ALARM = InvalidArgument "etcdserver: there is no alarm CORRUPT: a node whose state is not a majority's stops";
    TIMED_OUT = Unavailable "etcdserver: request timed out";
    STOPPED = Unavailable "etcdserver: server stopped";
    CORRUPT = DataLoss "etcdserver: corrupt cluster";
    NO_ROOT_USER = FailedPrecondition "etcdserver: root user does not exist";
    NO_ROOT_ROLE = FailedPrecondition "etcdserver: root user does not have root role";
    USER_EXISTS = FailedPrecondition "etcdserver: user name already exists";
    USER_EMPTY = InvalidArgument "etcdserver: user name is empty";
    USER_NOT_FOUND = FailedPrecondition "etcdserver: user name not found";
    ROLE_EXISTS = FailedPrecondition "etcdserver: role name already exists";
    ROLE_EMPTY = InvalidArgument "etcdserver: role name is empty";
    ROLE_NOT_FOUND = FailedPrecondition "etcdserver: role name not found";
    AUTH_FAILED = InvalidArgument "etcdserver: authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN = InvalidArgument "etcdserver: permission not given";
    PERMISSION_DENIED = PermissionDenied "etcdserver: permission denied";
    ROLE_NOT_GRANTED = FailedPrecondition "etcdserver: role is not granted to the user";
    PERMISSION_NOT_GRANTED = FailedPrecondition "etcdserver: permission is not granted to the role";
    AUTH_NOT_ENABLED = FailedPrecondition "etcdserver: authentication is not enabled";
    INVALID_TOKEN = Unauthenticated "etcdserver: invalid auth token";
    INVALID_MANAGEMENT = InvalidArgument "etcdserver: invalid auth management";
    OLD_REVISION = InvalidArgument "etcdserver: revision of auth store is old";
    // Of these etcd has no code.
    SESSION_EXPIRED = Unknown "mutex: session is expired";
    NOT_ELECTED = Unknown "election: not leader";
    NONE_ELECTED = Unknown "election: no leader";
    NO_LEADER_KEY = Unknown "\"leader\" field must be provided";
    NO_PASSWORD_USER = Unknown "auth: authentication failed, password was given for no password user";
    PASSWORD_TOO_LONG = Unknown "bcrypt: password length exceeds 72 bytes";
    // Not of etcd, which knows no such limit.
    TOO_MANY_USERS = ResourceExhausted "etcdserver: too many users, roles or permissions";
}

/// What a failed call of the engine means to a client.
pub(crate) fn status(error: MvccError) -> Status {
    match error {
        MvccError::Refused(refused) => match refused {
            Refused::Compacted => COMPACTED,
            Refused::FutureRevision => FUTURE_REVISION,
            Refused::KeyNotFound => KEY_NOT_FOUND,
            Refused::LeaseNotFound => LEASE_NOT_FOUND,
            Refused::LeaseExists => LEASE_EXISTS,
            Refused::TooManyLeases | Refused::LeaseFull | Refused::NoSpace => NO_SPACE,
            Refused::TooCostly => TOO_MANY_OPS,
            _ => ANSWER_TOO_LARGE,
        }
        .into(),
        MvccError::Denied(denied) => self::denied(denied).into(),
        MvccError::Store(error) => store_status(error),
    }
}

/// Why one may not, or why users and roles are not to be changed like this.
pub(crate) fn denied(denied: Denied) -> Refusal {
    match denied {
        Denied::NoRootUser => NO_ROOT_USER,
        Denied::NoRootRole => NO_ROOT_ROLE,
        Denied::UserExists => USER_EXISTS,
        Denied::UserEmpty => USER_EMPTY,
        Denied::UserNotFound => USER_NOT_FOUND,
        Denied::RoleExists => ROLE_EXISTS,
        Denied::RoleEmpty => ROLE_EMPTY,
        Denied::RoleNotFound => ROLE_NOT_FOUND,
        Denied::RoleNotGranted => ROLE_NOT_GRANTED,
        Denied::PermissionNotGranted => PERMISSION_NOT_GRANTED,
        Denied::InvalidManagement => INVALID_MANAGEMENT,
        Denied::OldRevision => OLD_REVISION,
        Denied::NoPassword => NO_PASSWORD_USER,
        Denied::TooMany => TOO_MANY_USERS,
        Denied::TooCostly => TOO_MANY_OPS,
        _ => PERMISSION_DENIED,
    }
}

/// A refusal in the text of an answer, as programs in Go write it.
pub(crate) fn in_words(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// Clients take "no leader" for a promise that nothing was or will be written, and "timed out" for none at all.
pub(crate) fn store_status(error: Error) -> Status {
    let refusal = match error {
        Error::Unavailable { .. } => NO_LEADER,
        Error::Throttled { .. } => TOO_MANY_REQUESTS,
        Error::Closed => STOPPED,
        Error::Corrupt { .. } => {
            tracing::error!(%error, "the engine failed");
            CORRUPT
        }
        // etcd's words and code, and then who is alive and what to do.
        Error::InvalidArgument { reason } if reason.starts_with(UNHEALTHY) => {
            return Status::unavailable(format!("etcdserver: {reason}"));
        }
        Error::InvalidArgument { reason } => return Status::invalid_argument(format!("etcdserver: {reason}")),
        error => {
            tracing::debug!(%error, "the outcome of a request is not known");
            TIMED_OUT
        }
    };
    refusal.into()
}
