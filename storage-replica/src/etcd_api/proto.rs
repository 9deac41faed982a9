//! The messages and services of the protocol, made of the files in `proto/` by `build.rs`.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

/// Keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, answers and services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The health service of gRPC.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// What replicas without a cluster say to each other.
pub mod bootstrap {
    tonic::include_proto!("snet.bootstrap");
}
