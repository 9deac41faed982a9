//! Makes Rust of the protocol files, with a compiler of them that is a crate: no `protoc` has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 6] =
    ["etcd/auth.proto", "etcd/election.proto", "etcd/kv.proto", "etcd/lock.proto", "etcd/rpc.proto", "health.proto"];

/// Messages that have passwords, hashes of them or tokens: `proto.rs` says how they are shown.
const WITH_SECRETS: [&str; 4] = [
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
];

/// A field that is bytes in the files, so that the services read it level by level, and the message that it is to all others.
const READ_LATER: (&str, &str, &str) = ("RequestOp", "request_txn", ".etcdserverpb.TxnRequest");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    let mut shown = files.clone();
    let (message, field, is) = READ_LATER;
    let messages = shown.file.iter_mut().flat_map(|file| &mut file.message_type);
    let fields = messages.filter(|known| known.name() == message).flat_map(|message| &mut message.field);
    for field in fields.filter(|known| known.name() == field) {
        // 11 is a message, in the numbers of descriptor.proto.
        (field.r#type, field.type_name) = (Some(11), Some(is.to_owned()));
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), shown.encode_to_vec())?;
    // As `Bytes`, keys and values are taken out of a request, and put into an answer, without a copy of each.
    let build = tonic_prost_build::configure().build_client(true).bytes(".").skip_debug(WITH_SECRETS);
    build.codec_path("crate::codec::BoundedCodec").compile_fds(files)?;
    Ok(())
}
