//! Certificates that are read again when their files change.
//!
//! Invariant: files that cannot be used leave in use what there was, so that a mistake in a renewal ends no connection.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use storage_core::Result;
use tokio::sync::watch;

use super::{Loaded, TlsFiles};

/// The files are looked at so often at the most.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// What is made of certificates, and made anew when their files change. Files that cannot be used leave what there was.
#[derive(Debug)]
pub struct Reloading<T> {
    files: TlsFiles,
    make: fn(&Loaded) -> Result<T>,
    made: watch::Sender<Arc<T>>,
    last: Mutex<LastRead>,
}

#[derive(Debug)]
struct LastRead {
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
}

/// What changes when a file does: when it was written, its length, and which file it is.
type Stamp = (SystemTime, u64, u64);

impl<T> Reloading<T> {
    /// Reads the files, and makes of them what `make` does.
    ///
    /// # Errors
    /// Those of [`Loaded::read`] and `make`.
    pub fn new(files: TlsFiles, make: fn(&Loaded) -> Result<T>) -> Result<Self> {
        // Before they are read: what changes meanwhile is read again.
        let stamps = stamps(&files);
        let made = Arc::new(make(&Loaded::read(&files)?)?);
        let last = Mutex::new(LastRead { stamps, looked_at: Instant::now() });
        Ok(Self { files, make, made: watch::Sender::new(made), last })
    }

    /// What the files make now, or made when they could last be used. Looks at the files once a second at the most.
    pub fn current(&self) -> Arc<T> {
        let mut last = self.last.lock();
        if last.looked_at.elapsed() < LOOKED_AT {
            return Arc::clone(&self.made.borrow());
        }
        last.looked_at = Instant::now();
        let stamps = stamps(&self.files);
        if stamps != last.stamps {
            // Also if they cannot be used: once said is enough, until they change again.
            last.stamps = stamps;
            match Loaded::read(&self.files).and_then(|loaded| (self.make)(&loaded)) {
                Ok(made) => {
                    tracing::info!(cert = %self.files.cert.display(), "the certificates have changed and are used from now on");
                    self.made.send_replace(Arc::new(made));
                }
                Err(error) => {
                    tracing::error!(%error, "the certificates have changed and cannot be used: the former ones stay in use");
                }
            }
        }
        Arc::clone(&self.made.borrow())
    }

    /// What the files make, each time that it is made anew.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.made.subscribe()
    }

    /// Looks at the files once a second for ever, so that connections hear of what has changed although nobody opens one.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOKED_AT).await;
            self.current();
        }
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let TlsFiles { cert, key, ca, crl } = files;
    [Some(cert), Some(key), ca.as_ref(), crl.as_ref()].into_iter().flatten().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
