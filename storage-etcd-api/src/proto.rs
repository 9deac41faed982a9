//! The messages and services of the protocol, made of the files in `proto/` by `build.rs`.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

/// What roles may do.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, answers and services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The health service of gRPC.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Passwords and tokens are not shown.
mod shown {
    use std::fmt::{Debug, Formatter, Result};

    use super::etcdserverpb::{
        AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
    };

    macro_rules! by_name {
        ($($message:ident $field:ident;)*) => {$(
            impl Debug for $message {
                fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                    f.debug_struct(stringify!($message)).field(stringify!($field), &self.$field).finish_non_exhaustive()
                }
            }
        )*};
    }
    by_name! {
        AuthenticateRequest name;
        AuthenticateResponse header;
        AuthUserAddRequest name;
        AuthUserChangePasswordRequest name;
    }
}
