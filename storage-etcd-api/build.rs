//! Makes Rust of the protocol files, with a compiler of them that is a crate: no `protoc` has to be installed.

use std::error::Error;

const FILES: [&str; 4] = ["etcd/auth.proto", "etcd/kv.proto", "etcd/rpc.proto", "health.proto"];

/// Messages that have passwords, hashes of them or tokens: `proto.rs` says how they are shown.
const WITH_SECRETS: [&str; 4] = [
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    // As `Bytes`, keys and values are taken out of a request, and put into an answer, without a copy of each.
    let build = tonic_prost_build::configure().build_client(true).bytes(".").skip_debug(WITH_SECRETS);
    build.codec_path("crate::codec::BoundedCodec").compile_fds(files)?;
    Ok(())
}
