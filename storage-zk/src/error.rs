//! What the client says, as errors of the contract: one table for reads, one for writes.

use storage_core::Error;
use zookeeper_client::{Error as ZkError, MultiWriteError};

/// An answer of the server that says no and leaves everything as it was; the protocol of this crate lives on these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such node.
    NoNode,
    /// There is such a node already.
    NodeExists,
    /// The node's dataVersion is another one.
    BadVersion,
}

impl Refusal {
    fn of(error: &ZkError) -> Option<Self> {
        match error {
            ZkError::NoNode => Some(Self::NoNode),
            ZkError::NodeExists => Some(Self::NodeExists),
            ZkError::BadVersion => Some(Self::BadVersion),
            _ => None,
        }
    }
}

/// The answer to a read: what it read, or the server's refusal.
pub(crate) fn read<T>(result: Result<T, ZkError>) -> Result<Result<T, Refusal>, Error> {
    sort(result, read_error)
}

/// The answer to a write of one node.
pub(crate) fn written<T>(result: Result<T, ZkError>) -> Result<Result<T, Refusal>, Error> {
    sort(result, write_error)
}

/// The answer to a multi: all results, or the first operation that was refused, and how.
pub(crate) fn committed<T>(result: Result<T, MultiWriteError>) -> Result<Result<T, (usize, Refusal)>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(MultiWriteError::RequestFailed { source }) => Err(write_error(source)),
        Err(MultiWriteError::OperationFailed { index, source }) => match Refusal::of(&source) {
            Some(refusal) => Ok(Err((index, refusal))),
            None => Err(write_error(source)),
        },
    }
}

fn sort<T>(result: Result<T, ZkError>, other: fn(ZkError) -> Error) -> Result<Result<T, Refusal>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Refusal::of(&error).map_or_else(|| Err(other(error)), |refusal| Ok(Err(refusal))),
    }
}

/// A read that failed changed nothing, so whatever is not the caller's to mend is worth another try.
pub(crate) fn read_error(error: ZkError) -> Error {
    definite(error).unwrap_or_else(Error::unavailable)
}

/// A write that failed may have been applied, unless the server itself answered that it was not.
///
/// Among the unknown: `ConnectionLoss`; `SessionExpired` and `SessionMoved`, which the client gives to all requests that
/// were under way when it learnt of them; `ClientClosed`; and whatever the client could not read.
pub(crate) fn write_error(error: ZkError) -> Error {
    definite(error).unwrap_or_else(Error::unknown_outcome)
}

/// Answers of the server to this request alone, and refusals of the client to send it: certainly not applied.
fn definite(error: ZkError) -> Result<Error, ZkError> {
    Ok(match error {
        ZkError::NoAuth => Error::PermissionDenied { source: error.into() },
        ZkError::InvalidAcl | ZkError::BadArguments(_) | ZkError::MarshallingError => {
            Error::invalid_argument(error.to_string())
        }
        ZkError::Unimplemented => Error::Unsupported { feature: "this operation, by the server".to_owned() },
        ZkError::QuotaExceeded | ZkError::Throttled => Error::Throttled { retry_after: None, source: error.into() },
        ZkError::NotReadOnly | ZkError::NoHosts => Error::unavailable(error),
        ZkError::NoNode | ZkError::NodeExists | ZkError::BadVersion | ZkError::NotEmpty => {
            Error::unavailable(format!("the layout of the store is being changed: {error}"))
        }
        other => return Err(other),
    })
}

/// Why no session could be opened, or why it ended: nothing was sent.
pub(crate) fn session_error(error: ZkError) -> Error {
    match error {
        ZkError::AuthFailed | ZkError::NoAuth => Error::Unauthenticated { source: error.into() },
        error => Error::unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_refused_is_certainly_not_applied() {
        let unknown = [
            ZkError::ConnectionLoss,
            ZkError::SessionExpired,
            ZkError::SessionMoved,
            ZkError::AuthFailed,
            ZkError::ClientClosed,
            ZkError::Timeout,
            ZkError::RuntimeInconsistent,
            ZkError::UnexpectedError(String::new()),
            ZkError::UnexpectedErrorCode(-4),
        ];
        for error in unknown {
            assert!(write_error(error.clone()).may_be_applied(), "{error:?}");
            assert!(read_error(error.clone()).is_retryable(), "{error:?}");
        }
        let refused =
            [ZkError::NoAuth, ZkError::QuotaExceeded, ZkError::Throttled, ZkError::NotReadOnly, ZkError::InvalidAcl];
        for error in refused {
            assert!(!write_error(error.clone()).may_be_applied(), "{error:?}");
        }
        assert_eq!(written::<()>(Err(ZkError::BadVersion)).unwrap(), Err(Refusal::BadVersion));
        let source = ZkError::NoNode;
        let failed = committed::<()>(Err(MultiWriteError::OperationFailed { index: 2, source }));
        assert_eq!(failed.unwrap(), Err((2, Refusal::NoNode)));
    }
}
