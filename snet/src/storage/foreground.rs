//! A replica that runs until it is told to end.

use std::{io::Write as _, time::Duration};

use anyhow::anyhow;
use storage_replica::{
    Replica,
    config::{Growing, Log, LogFormat, LogOutput, Settings},
};
use tokio::time::Instant;

use crate::exit::{Failure, Outcome};

/// While the cluster does not serve, it is said so often whom it waits for.
const SAID_EVERY: Duration = Duration::from_secs(3);

/// Starts what the settings say, tells on standard output how it goes, and stops it at SIGTERM or SIGINT. `patience` is how long the
/// cluster is waited for; `None`: as long as it takes.
pub(super) async fn run(settings: Settings, patience: Option<Duration>) -> Outcome {
    // First, so that no signal comes too early.
    let mut signals = Signals::new()?;
    let voice = Voice::new(&settings.log);
    let location = location(&settings);
    let replica = Replica::launch(settings).await?;
    voice.say(&location);
    until_told_to_end(replica, patience, voice, &mut signals).await
}

/// The same for a replica of a cluster that grows by itself. It waits for its cluster as long as it takes.
pub(super) async fn grow(growing: Growing) -> Outcome {
    let mut signals = Signals::new()?;
    let voice = Voice::new(&growing.log);
    let location = format!(
        "replica {} takes part in a cluster that grows by itself ({}), with its data in {}",
        growing.membership.replica.id,
        growing.engine,
        growing.membership.data_dir.display()
    );
    let replica = Replica::grow(growing).await?;
    voice.say(&location);
    until_told_to_end(replica, None, voice, &mut signals).await
}

async fn until_told_to_end(
    replica: Replica,
    patience: Option<Duration>,
    voice: Voice,
    signals: &mut Signals,
) -> Outcome {
    if let Some(monitor) = replica.monitor() {
        voice.say(&format!("metrics and health are at http://{}", monitor.address()));
    }
    let ended = tokio::select! {
        served = wait_until_it_serves(&replica, patience, voice) => match served {
            Ok(()) => tokio::select! {
                stopped = replica.stopped() => stopped.map_err(Failure::from),
                () = keep_looking(&replica, voice) => Ok(()),
                () = signals.next() => Ok(()),
            },
            Err(failure) => Err(failure),
        },
        stopped = replica.stopped() => stopped.map_err(Failure::from),
        () = signals.next() => Ok(()),
    };
    voice.say("stopping");
    tokio::select! {
        () = replica.stop() => {}
        // Whoever asks twice wants it to end now: a stop in good order may wait for a disk that hangs.
        () = signals.next() => return Err(Failure::Missing(anyhow!("told to end again before it had stopped in good order"))),
    }
    voice.say("stopped");
    ended
}

/// Where it is told how things go.
#[derive(Clone, Copy)]
struct Voice {
    /// Standard output, for people and for programs that wait for a line. With JSON, nothing else than JSON is written anywhere.
    output: bool,
    /// The log, unless both would end up in the same terminal.
    log: bool,
}

impl Voice {
    fn new(log: &Log) -> Self {
        let json = log.format == LogFormat::Json;
        let file = log.outputs.iter().any(|output| matches!(output, LogOutput::File(_)));
        Self { output: !json, log: json || file }
    }

    /// Something has happened that was to come.
    fn say(self, line: &str) {
        self.print(line);
        if self.log {
            tracing::info!("{line}");
        }
    }

    /// Somebody should look at it, if it lasts.
    fn complain(self, line: &str) {
        self.print(line);
        if self.log {
            tracing::warn!("{line}");
        }
    }

    fn print(self, line: &str) {
        if self.output {
            // If nobody listens, there is nobody to tell.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }
}

/// Where things are.
fn location(settings: &Settings) -> String {
    match &settings.node {
        Some(node) => format!(
            "node {} ({}) listens on {} for clients and on {} for the other nodes, with its data in {}",
            node.name,
            node.engine,
            node.client_url,
            node.peer_url,
            node.data_dir.display()
        ),
        None => {
            let endpoints: Vec<_> = settings.endpoints.iter().map(ToString::to_string).collect();
            format!("no node here: connected to {}", endpoints.join(", "))
        }
    }
}

async fn wait_until_it_serves(replica: &Replica, patience: Option<Duration>, voice: Voice) -> Outcome {
    let began = Instant::now();
    loop {
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
        match replica.ready(left.map_or(SAID_EVERY, |left| left.min(SAID_EVERY))).await {
            Ok(()) => {
                voice.say("ready: the cluster serves");
                return Ok(());
            }
            Err(error) if !error.is_retryable() => return Err(error.into()),
            Err(error) if left.is_some_and(|left| left <= SAID_EVERY) => {
                let waited = waiting(replica, began.elapsed(), &error).await;
                return Err(Failure::Missing(anyhow!("gave up after {waited}")));
            }
            Err(error) => voice.complain(&waiting(replica, began.elapsed(), &error).await),
        }
    }
}

/// Looks now and then whether the cluster still serves, and tells when it does not, whom it waits for, and when it does again.
/// Never ends.
async fn keep_looking(replica: &Replica, voice: Voice) {
    loop {
        tokio::time::sleep(SAID_EVERY).await;
        let began = Instant::now();
        loop {
            match replica.ready(SAID_EVERY).await {
                Ok(()) => break,
                Err(error) if error.is_retryable() => voice.complain(&waiting(replica, began.elapsed(), &error).await),
                // A node that has stopped ends the replica anyway.
                Err(error) => {
                    voice.complain(&format!("the cluster cannot be asked: {error}"));
                    tokio::time::sleep(SAID_EVERY).await;
                }
            }
        }
        if began.elapsed() >= SAID_EVERY {
            voice.say("ready: the cluster serves again");
        }
    }
}

async fn waiting(replica: &Replica, since: Duration, error: &::storage::Error) -> String {
    let seconds = since.as_secs();
    if let Some(doing) = replica.doing() {
        return format!("waiting for {seconds} s: this replica {doing}: {error}");
    }
    if replica.node().is_none() {
        return format!("waiting for {seconds} s: the nodes of the other replicas do not serve yet: {error}");
    }
    let missing = replica.missing().await;
    let missing: Vec<_> = missing.iter().map(|member| format!("{} ({})", member.name, member.peer_url)).collect();
    let (nobody, founds) = (missing.join(", "), replica.node().and_then(|node| node.waits_for()));
    let founding = "the cluster is being founded, which takes an answer of each of its nodes";
    match founds {
        Some(_) if !nobody.is_empty() => format!("waiting for {seconds} s: {founding}: nobody answers at {nobody}"),
        Some(waits) => format!("waiting for {seconds} s: {founding}: {waits}"),
        None if !nobody.is_empty() => format!("waiting for {seconds} s: no quorum yet, nobody answers at {nobody}"),
        None => format!(
            "waiting for {seconds} s: all nodes answer, but none leads yet; if this lasts, see that all have the same token and \
             initial cluster"
        ),
    }
}

/// What tells a program to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        let terminate = {
            use tokio::signal::unix::{SignalKind, signal};
            signal(SignalKind::terminate()).map_err(|error| Failure::Missing(error.into()))?
        };
        Ok(Self {
            #[cfg(unix)]
            terminate,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
