//! Makes Rust of the protocol file, with a compiler of it that is a crate: no `protoc` has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["founding.proto", "own_table.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(true).bytes(".").compile_fds(files)?;
    Ok(())
}
