use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use storage_core::Result;

use super::{Loaded, TlsFiles};

/// The files are looked at so often at the most.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// What is made of certificates, and made anew when their files change. Files that cannot be used leave what there was.
#[derive(Debug)]
pub struct Reloading<T> {
    files: TlsFiles,
    make: fn(&Loaded) -> Result<T>,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    current: Arc<T>,
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
}

/// What changes when a file does: when it was written, and its length.
type Stamp = (SystemTime, u64);

impl<T> Reloading<T> {
    /// Reads the files, and makes of them what `make` does.
    ///
    /// # Errors
    /// Those of [`Loaded::read`] and `make`.
    pub fn new(files: TlsFiles, make: fn(&Loaded) -> Result<T>) -> Result<Self> {
        // Before they are read: what changes meanwhile is read again.
        let stamps = stamps(&files);
        let current = Arc::new(make(&Loaded::read(&files)?)?);
        Ok(Self { state: Mutex::new(State { current, stamps, looked_at: Instant::now() }), files, make })
    }

    /// What the files make now, or made when they could last be used. Looks at the files once a second at the most.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if state.looked_at.elapsed() < LOOKED_AT {
            return Arc::clone(&state.current);
        }
        state.looked_at = Instant::now();
        let stamps = stamps(&self.files);
        if stamps != state.stamps {
            // Also if they cannot be used: once said is enough, until they change again.
            state.stamps = stamps;
            match Loaded::read(&self.files).and_then(|loaded| (self.make)(&loaded)) {
                Ok(made) => {
                    tracing::info!(cert = %self.files.cert.display(), "the certificates have changed and are used from now on");
                    state.current = Arc::new(made);
                }
                Err(error) => {
                    tracing::error!(%error, "the certificates have changed and cannot be used: the former ones stay in use");
                }
            }
        }
        Arc::clone(&state.current)
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let TlsFiles { cert, key, ca } = files;
    [Some(cert), Some(key), ca.as_ref()].into_iter().flatten().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
