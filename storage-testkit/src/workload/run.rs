use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::{Error, ReadOptions, Result};
use tokio::task::JoinSet;

use super::{Breach, Client, Handle, Invalid, Open, Report, Workload};
use crate::{
    checker::Checker,
    history::{History, Recorder, Struck},
};

/// How a workload is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How many clients there are. Each waits for one answer before it calls again.
    pub clients: usize,
    /// Where the choices of the clients come from. The timing of tasks and servers is not repeated.
    pub seed: u64,
    /// The deadline of each call: shorter than a fault, so that calls end with an unknown outcome.
    pub timeout: Duration,
    /// How many operations have to succeed, or the run proves nothing.
    pub least: usize,
    /// How many operations may be made, so that the history fits the memory; the clients then wait for the faults to end.
    pub most: usize,
    /// The store serves within this time when everything is healed, or it is an error.
    pub recovers_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clients: 8,
            seed: 0,
            timeout: Duration::from_secs(1),
            least: 100,
            most: 1_000_000,
            recovers_within: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// These settings with another seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// These settings with so many clients.
    #[must_use]
    pub fn clients(self, clients: usize) -> Self {
        Self { clients, ..self }
    }
}

/// What was struck during a run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The faults, with their times.
    pub struck: Vec<Struck>,
    /// Faults that were meant to strike and did not.
    pub did_not_bite: Vec<String>,
    /// Servers that ended although nobody stopped them.
    pub ended: Vec<String>,
}

/// Runs a workload on a store while `faults` happen, which also ends it: everything has to be healed then. `faults` is given
/// the recorder, for its clock.
///
/// # Errors
/// That of the store, if it cannot be prepared, or does not serve again in time when everything is healed.
pub async fn run<F: Future<Output = Faults>>(
    workload: Arc<dyn Workload>,
    open: &Open,
    settings: &Settings,
    faults: impl FnOnce(Recorder) -> F,
) -> Result<Report> {
    let recorder = Recorder::new();
    let opened = again(settings.recovers_within, || open(settings.clients)).await?;
    let auditor = Arc::new(recorder.wrap(opened)) as Handle;
    again(settings.recovers_within, || workload.prepare(&auditor)).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut rng = fastrand::Rng::with_seed(settings.seed);
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let opened = again(settings.recovers_within, || open(number)).await?;
        let store = Arc::new(recorder.wrap(opened)) as Handle;
        let (rng, timeout) = (rng.fork(), settings.timeout);
        let client = Client {
            number,
            store,
            rng,
            timeout,
            steps: 0,
            began,
            refused: AtomicBool::new(false),
            memory: Mutex::default(),
        };
        let most = settings.most / settings.clients.max(1);
        clients.spawn(work(Arc::clone(&workload), client, most, Arc::clone(&stop)));
    }
    let faults = faults(recorder.clone()).await;
    stop.store(true, Ordering::SeqCst);
    let mut lost = 0;
    let mut ended = Vec::new();
    while let Some(joined) = clients.join_next().await {
        match joined {
            Ok(client) => ended.push(client),
            Err(_) => lost += 1,
        }
    }
    let seconds = began.elapsed().as_secs_f64();

    again(settings.recovers_within, || auditor.ping(ReadOptions::default())).await?;
    let mut last_steps = JoinSet::new();
    for mut client in ended {
        let workload = Arc::clone(&workload);
        last_steps.spawn(async move {
            workload.last_step(&mut client).await;
            // What the servers keep for it goes with it, whether or not they are told goodbye.
            let _ = client.store.close().await;
        });
    }
    while let Some(joined) = last_steps.join_next().await {
        lost += usize::from(joined.is_err());
    }
    let mut breaches = again(settings.recovers_within, || workload.verify(&auditor)).await?;
    let _ = auditor.close().await;
    if lost > 0 {
        breaches.push(Breach::new("clients live", format!("{lost} clients ended by a panic")));
    }

    let judged = Judged { workload: workload.name().to_owned(), breaches, faults, least: settings.least, seconds };
    judged.judge(recorder.history()).await
}

/// What is known of a run beside its history.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The workload's name.
    pub workload: String,
    /// Invariants that did not hold.
    pub breaches: Vec<Breach>,
    /// What was struck.
    pub faults: Faults,
    /// How many operations have to succeed.
    pub least: usize,
    /// How long the clients worked, in seconds.
    pub seconds: f64,
}

impl Judged {
    /// Checks the history, and whether the run proves anything.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the checker itself fails.
    pub async fn judge(self, history: History) -> Result<Report> {
        let Self { workload, breaches, faults, least, seconds } = self;
        let (succeeded, failed, unknown) = Report::counts(&history);
        let mut invalid: Vec<Invalid> = faults.did_not_bite.into_iter().map(Invalid::DidNotBite).collect();
        invalid.extend(faults.ended.into_iter().map(Invalid::Ended));
        if succeeded < least {
            invalid.push(Invalid::TooFew { succeeded, least });
        }
        let of = succeeded + failed + unknown;
        if unknown * 100 > of * Report::MOST_UNKNOWN_PERCENT {
            invalid.push(Invalid::TooManyUnknown { unknown, of });
        }
        let history = history.with_faults(faults.struck);
        let check = tokio::task::spawn_blocking(move || (Checker::default().check(&history), history)).await;
        let (linearizability, history) =
            check.map_err(|error| Error::corrupt(format!("the checker ended: {error}")))?;
        let faults = history.faults().len();
        Ok(Report {
            workload,
            succeeded,
            failed,
            unknown,
            faults,
            breaches,
            linearizability,
            invalid,
            seconds,
            history,
        })
    }
}

async fn work(workload: Arc<dyn Workload>, mut client: Client, most: usize, stop: Arc<AtomicBool>) -> Client {
    while !stop.load(Ordering::SeqCst) {
        if client.steps >= most as u64 {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        workload.step(&mut client).await;
        client.steps += 1;
        // A store that refuses at once must not fill the history with refusals; one that answers at once lets others run.
        if client.was_refused() {
            tokio::time::sleep(REFUSED).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    client
}

/// How long a client waits after a call that failed.
const REFUSED: Duration = Duration::from_millis(20);

/// How long to wait before something that may pass is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes a call again while its errors may pass, for so long.
async fn again<T, F: Future<Output = Result<T>>>(within: Duration, mut call: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match call().await {
            Err(error) if (error.is_retryable() || error.may_be_applied()) && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}
