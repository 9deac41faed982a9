use std::{
    fmt,
    future::{Future, pending},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio_rustls::rustls;

use super::Reloading;

/// Tells a connection that what the other side has shown is trusted no more: its certificate was revoked, or its authority withdrawn.
pub struct Withdrawal(Option<Pin<Box<dyn Future<Output = rustls::Error> + Send + Sync>>>);

impl Withdrawal {
    /// Looks again, whenever the files have changed, whether the other side would still be let in. `verify` says why not.
    pub fn new<T: Send + Sync + 'static>(
        files: &Reloading<T>,
        verify: impl Fn(&T) -> Result<(), rustls::Error> + Send + Sync + 'static,
    ) -> Self {
        let mut made = files.changes();
        Self(Some(Box::pin(async move {
            while made.changed().await.is_ok() {
                let now = Arc::clone(&made.borrow_and_update());
                if let Err(error) = verify(&now) {
                    return error;
                }
            }
            // Nobody reads the files any more.
            pending().await
        })))
    }

    /// An error, once trust is withdrawn.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(withdrawn) = &mut self.0 {
            let Poll::Ready(error) = withdrawn.as_mut().poll(cx) else { return Poll::Pending };
            self.0 = None;
            return Poll::Ready(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        Poll::Ready(io::ErrorKind::PermissionDenied.into())
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").field("is_withdrawn", &self.0.is_none()).finish()
    }
}
