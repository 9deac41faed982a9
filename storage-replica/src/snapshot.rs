//! Snapshot files: what `snapshot save` fetches from a node, and how a cluster is made of one.
//!
//! A file is the engine's own format, padded to a multiple of 512 bytes, and its SHA-256: as etcd's clients save it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use storage_core::{Error, Result};
use storage_embedded::disk;
pub use storage_embedded::{Restored, Salvaged};

use crate::{
    config::{Bounds, ClusterState, Engine, InitialCluster, Log, NodeSettings, Tls, Token, check_token},
    node,
};

/// The bytes of the hash behind the data.
const HASH_BYTES: u64 = 32;

/// How a snapshot of an embedded node begins.
const MAGIC: &[u8] = b"snetsnap";

/// A snapshot file that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The length of the file, in bytes.
    pub bytes: u64,
    /// The SHA-256 of its data.
    pub sha256: [u8; 32],
    /// The engine whose snapshot it is.
    pub engine: Engine,
}

/// Reads a file whole and compares its hash.
///
/// # Errors
/// [`Error::Corrupt`] if it is damaged or cut, [`Error::Unavailable`] if it cannot be read.
pub fn verify(path: &Path) -> Result<Verified> {
    let failed = |error: io::Error| Error::unavailable(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut left = bytes.saturating_sub(HASH_BYTES);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut engine = None;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact(piece).map_err(failed)?;
        hash.update(&*piece);
        engine.get_or_insert(if piece.starts_with(MAGIC) { Engine::Embedded } else { Engine::Etcd });
        left -= wanted as u64;
    }
    let mut expected = Vec::new();
    file.read_to_end(&mut expected).map_err(failed)?;
    let found: [u8; 32] = hash.finalize().into();
    match engine {
        Some(engine) if found.as_slice() == expected => Ok(Verified { bytes, sha256: found, engine }),
        _ => Err(Error::corrupt(format!("{} is damaged or not whole: its hash does not fit", path.display()))),
    }
}

/// Writes a snapshot of all that a stopped embedded node holds into a file, which must not exist: what it has applied, and every entry of its log behind that, also those that
/// it does not know to be committed: see [`storage_embedded::Salvage`]. The directory is that of a node, or of a replica of a cluster that grows by itself; nothing in it is changed. It blocks.
///
/// # Errors
/// Those of [`storage_embedded::salvage`]; [`Error::InvalidArgument`] for an etcd's directory.
pub fn salvage(dir: &Path, file: &Path) -> Result<Salvaged> {
    let within = dir.join("node");
    let is_there = |path: &Path| match disk::is_absent(path) {
        Ok(absent) => Ok(!absent),
        Err(error) => Err(Error::unavailable(format!("cannot read {}: {error}", path.display()))),
    };
    let dir = if !is_there(&dir.join("identity"))? && is_there(&within)? { &within } else { dir };
    let db = dir.join("member/snap/db");
    if is_there(&db)? {
        return Err(Error::invalid_argument(format!(
            "{} has the data of an etcd, of which etcd's own program makes a new cluster: `etcdutl snapshot restore {} --skip-hash-check ...`",
            dir.display(),
            db.display()
        )));
    }
    storage_embedded::salvage(dir, file)
}

/// The node that a data directory is made for.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Its name, one of those of the cluster.
    pub name: String,
    /// The token of the new cluster. With another one than the old cluster's, the two refuse each other.
    pub token: Token,
    /// All nodes of the new cluster.
    pub cluster: InitialCluster,
    /// The directory, which is not there or empty.
    pub data_dir: PathBuf,
    /// How much is added to the revision: see [`storage_embedded::restore`].
    pub bump_revision: u64,
}

/// Makes the data directory of one embedded node of a new cluster, with what a snapshot holds. Every node is given the same file. It blocks.
///
/// # Errors
/// Those of [`verify`] and [`storage_embedded::restore`]; [`Error::InvalidArgument`] for a node that is not in the cluster, or an etcd's
/// snapshot.
pub fn restore(path: &Path, new: NewNode) -> Result<Restored> {
    let NewNode { name, token, cluster, data_dir, bump_revision } = new;
    let Some(peer_url) = cluster.member(&name).map(|member| member.peer_url.clone()) else {
        return Err(Error::invalid_argument(format!(
            "the initial cluster has no node `{name}`, only {}",
            cluster.names()
        )));
    };
    let peer_urls = cluster.members().iter().map(|member| &member.peer_url);
    check_token(&token, peer_urls).map_err(Error::invalid_argument)?;
    if verify(path)?.engine != Engine::Embedded {
        let path = path.display();
        return Err(Error::invalid_argument(format!(
            "{path} is no snapshot of an embedded node; for that of an etcd, say `--engine etcd`"
        )));
    }
    let settings = NodeSettings {
        name,
        token,
        // Not asked for: a directory does not depend on it.
        client_url: peer_url.clone(),
        peer_url,
        cluster,
        state: ClusterState::New,
        tls: Tls::default(),
        data_dir,
        engine: Engine::Embedded,
        bounds: Bounds::default(),
        max_connections: storage_etcd_api::Options::default().max_connections,
        etcd_program: None,
        log: Log::default(),
    };
    node::restore(path, &settings, bump_revision)
}
