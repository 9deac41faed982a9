//! An accept that fails waits, and goes on.

use std::{io, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// How long a port waits after an accept that failed. Mostly the process has no descriptor left: that passes, and until then nothing is gained by
/// trying at once.
const WAITS: Duration = Duration::from_millis(100);

/// It is said again after so long that accepts fail, however often they do meanwhile.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What to do about accepts of one port that fail.
#[derive(Debug)]
pub struct AcceptFailures {
    /// Of which port, for the log.
    port: &'static str,
    said: Option<Instant>,
}

impl AcceptFailures {
    /// None yet. `port` is a word for the port, as messages have it.
    pub fn new(port: &'static str) -> Self {
        Self { port, said: None }
    }

    /// Says that an accept has failed, if it was not said within the last minute, and waits until it is time to try again: at once if the
    /// connection alone was to blame.
    pub async fn wait(&mut self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if self.is_news() {
            tracing::warn!(port = self.port, %error, "cannot accept connections; tried again until it passes");
        }
        tokio::time::sleep(WAITS).await;
    }

    fn is_news(&mut self) -> bool {
        let is_news = self.said.is_none_or(|said| said.elapsed() >= SAID_AGAIN);
        if is_news {
            self.said = Some(Instant::now());
        }
        is_news
    }
}

/// The next connection of a port, after as many failures as there are.
///
/// # Cancel safety
/// Dropped, no connection is lost.
pub async fn accept_from(listener: &TcpListener, failures: &mut AcceptFailures) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => failures.wait(&error).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_full_table_of_files_is_waited_for_and_said_once() {
        let mut failures = AcceptFailures::new("client");
        let began = Instant::now();
        for _ in 0..3 {
            failures.wait(&io::Error::from_raw_os_error(24)).await;
        }
        assert!(began.elapsed() >= 3 * WAITS);
        assert!(!failures.is_news());
    }

    #[tokio::test]
    async fn a_connection_that_its_client_has_given_up_holds_up_nobody() {
        let mut failures = AcceptFailures::new("client");
        assert!(failures.wait(&io::ErrorKind::ConnectionAborted.into()).now_or_never().is_some());
        assert!(failures.is_news(), "nothing was said");
    }
}
