//! What build.rs makes of `proto/`.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, reason = "made by a program")]

pub(crate) mod example {
    tonic::include_proto!("example");
}

pub(crate) mod escrow {
    tonic::include_proto!("escrow");
}
