//! Runs clients on a store while faults happen, then makes the final reads and judges.
//!
//! Invariants: each client has one call under way and a handle of its own; everything that was asked and answered is in
//! the history. Choices repeat with the seed, the timing of tasks and servers does not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::{Error, ReadOptions, Result};
use tokio::{sync::watch, task::JoinSet};

use super::{Breach, Client, Handle, Invalid, Open, RunReport, Workload};
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
    /// What must not have come of them and did.
    pub breaches: Vec<Breach>,
    /// How long it took at the most, after those that leave the servers whole, until they served again.
    pub back: Duration,
}

/// Runs a workload on a store while `faults` happen, which also ends it: everything has to be healed then. `faults` is given
/// the recorder, for its clock.
///
/// # Errors
/// As [`Run::start`] and [`Run::finish`].
pub async fn run<F: Future<Output = Faults>>(
    workload: Arc<dyn Workload>,
    open: &Open,
    settings: &Settings,
    faults: impl FnOnce(Recorder) -> F,
) -> Result<RunReport> {
    let run = Run::start(workload, open, settings).await?;
    let faults = faults(run.recorder.clone()).await;
    run.finish(faults).await
}

/// Clients that work, each with a handle of its own, until they are told to end.
pub struct Run {
    workload: Arc<dyn Workload>,
    settings: Settings,
    recorder: Recorder,
    /// The handle of the final reads.
    auditor: Handle,
    clients: JoinSet<Client>,
    progress: Arc<Progress>,
    began: Instant,
}

/// What the clients have done so far, by their numbers.
struct Progress {
    stop: AtomicBool,
    steps: watch::Sender<Vec<Steps>>,
}

/// Steps of one client.
#[derive(Clone, Copy, Default)]
struct Steps {
    /// Those whose calls were all answered.
    answered: u64,
    /// The others.
    refused: u64,
}

impl Run {
    /// Opens a handle for each client, and lets them begin.
    ///
    /// # Errors
    /// That of the store, if it cannot be opened.
    pub async fn start(workload: Arc<dyn Workload>, open: &Open, settings: &Settings) -> Result<Self> {
        let recorder = Recorder::new();
        let opened = again(settings.recovers_within, || open(settings.clients)).await?;
        let auditor = Arc::new(recorder.wrap(opened)) as Handle;
        let steps = watch::Sender::new(vec![Steps::default(); settings.clients]);
        let progress = Arc::new(Progress { stop: AtomicBool::new(false), steps });
        let mut rng = fastrand::Rng::with_seed(settings.seed);
        let most = settings.most / settings.clients.max(1);
        let (mut clients, began) = (JoinSet::new(), Instant::now());
        for number in 0..settings.clients {
            let opened = again(settings.recovers_within, || open(number)).await?;
            // A generator for each: what one client draws must not depend on when the others do.
            let mut client = Client::new(number, opened, &recorder, rng.fork());
            client.timeout = settings.timeout;
            clients.spawn(work(Arc::clone(&workload), client, most, Arc::clone(&progress)));
        }
        Ok(Self { workload, settings: settings.clone(), recorder, auditor, clients, progress, began })
    }

    /// What was done so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.recorder.history()
    }

    /// How many steps were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.progress.steps.borrow().iter().map(|steps| steps.answered).sum()
    }

    /// Waits for so many more steps that are answered.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if they are not there in time.
    pub async fn progress(&self, more: u64, within: Duration) -> Result<()> {
        let goal = self.answered() + more;
        self.wait(within, |steps| steps.iter().map(|steps| steps.answered).sum::<u64>() >= goal).await
    }

    /// Waits until each client has been answered.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if one is not in time.
    pub async fn each_is_answered(&self, within: Duration) -> Result<()> {
        self.each(within, |steps| steps.answered).await
    }

    /// Waits until a step of each client has failed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if one does not in time.
    pub async fn each_is_refused(&self, within: Duration) -> Result<()> {
        self.each(within, |steps| steps.refused).await
    }

    async fn each(&self, within: Duration, count: fn(&Steps) -> u64) -> Result<()> {
        let before: Vec<u64> = self.progress.steps.borrow().iter().map(count).collect();
        self.wait(within, |steps| steps.iter().map(count).zip(&before).all(|(now, before)| now > *before)).await
    }

    /// Waits in its sleep: the servers need the processors.
    async fn wait(&self, within: Duration, until: impl Fn(&[Steps]) -> bool) -> Result<()> {
        let mut steps = self.progress.steps.subscribe();
        let waited = tokio::time::timeout(within, steps.wait_for(|steps| until(steps))).await;
        waited
            .map_err(|_| Error::unavailable(format!("the clients stand still for {within:?}")))?
            .map(drop)
            .map_err(Error::unavailable)
    }

    /// Ends the clients, waits until the store serves again, makes the final reads, and judges. `faults` are those that struck.
    ///
    /// # Errors
    /// That of the store, if it does not serve in time.
    pub async fn finish(mut self, faults: Faults) -> Result<RunReport> {
        self.progress.stop.store(true, Ordering::SeqCst);
        let mut lost = 0;
        let mut ended = Vec::new();
        while let Some(joined) = self.clients.join_next().await {
            match joined {
                Ok(client) => ended.push(client),
                Err(_) => lost += 1,
            }
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let Self { workload, settings, recorder, auditor, .. } = self;
        // Before the final reads: a store that still elects would be judged by its refusals.
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
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("workload", &self.workload.name()).finish_non_exhaustive()
    }
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
    pub async fn judge(self, history: History) -> Result<RunReport> {
        let Self { workload, mut breaches, faults, least, seconds } = self;
        breaches.extend(faults.breaches);
        let (succeeded, failed, unknown) = history.counts();
        let mut invalid: Vec<Invalid> = faults.did_not_bite.into_iter().map(Invalid::DidNotBite).collect();
        invalid.extend(faults.ended.into_iter().map(Invalid::Ended));
        if succeeded < least {
            invalid.push(Invalid::TooFew { succeeded, least });
        }
        let of = succeeded + failed + unknown;
        if unknown * 100 > of * RunReport::MOST_UNKNOWN_PERCENT {
            invalid.push(Invalid::TooManyUnknown { unknown, of });
        }
        let (history, back) = (history.with_faults(faults.struck), faults.back);
        let check = tokio::task::spawn_blocking(move || (Checker::default().check(&history), history)).await;
        let (linearizability, history) =
            check.map_err(|error| Error::corrupt(format!("the checker ended: {error}")))?;
        let faults = history.faults().len();
        Ok(RunReport {
            workload,
            succeeded,
            failed,
            unknown,
            faults,
            back,
            breaches,
            linearizability,
            invalid,
            seconds,
            history,
        })
    }
}

async fn work(workload: Arc<dyn Workload>, mut client: Client, most: usize, progress: Arc<Progress>) -> Client {
    while !progress.stop.load(Ordering::SeqCst) {
        if client.steps >= most as u64 {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        workload.step(&mut client).await;
        client.steps += 1;
        let is_refused = client.was_refused();
        progress.steps.send_modify(|steps| {
            if let Some(steps) = steps.get_mut(client.number) {
                *(if is_refused { &mut steps.refused } else { &mut steps.answered }) += 1;
            }
        });
        // A store that refuses at once must not fill the history with refusals; one that answers at once lets others run.
        if is_refused {
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
