//! One round of a soak: one workload under one class of faults, for some time, and its judgement.
//!
//! Each round has keys of its own, so that it can be judged alone. A fault that could not be made ends the round as an
//! error and not as a pass.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bench::{Amount, Error, Result};
use futures::FutureExt;
use storage::{Key, Prefixed, Store};
use storage_testkit::{
    history::Recorder,
    nemesis::{Class, FaultSchedule, NemesisError, Victims, inject},
    workload::{self, Breach, Faults, Judged, Open, RunReport, Settings, WORKLOADS},
};

use crate::{Rehearsal, Traffic, rehearse};

/// The name of the workload of payments, which are no workload of the kit's since it knows nothing of them.
pub const PAYMENTS: &str = "payments";

/// How long a replica that was killed blocks a channel.
const LEASE: Duration = Duration::from_millis(500);

/// One workload under one class of faults for some time.
#[derive(Clone, Debug)]
pub struct Round {
    /// The workload's name.
    pub workload: &'static str,
    /// What strikes.
    pub class: Class,
    /// For how long.
    pub time: Duration,
    /// So long is nothing struck between two faults, and so long does each last.
    pub pace: Range<Duration>,
    /// Within this time the service is back after a fault that leaves the servers whole.
    pub serves_within: Duration,
    /// Where all choices come from.
    pub seed: u64,
    /// How many clients there are.
    pub clients: usize,
    /// A number that no other round on these servers has.
    pub number: u64,
}

/// The names of all workloads.
#[must_use]
pub fn workloads() -> Vec<&'static str> {
    WORKLOADS.iter().map(|(name, _)| *name).chain([PAYMENTS]).collect()
}

impl Round {
    pub(super) async fn run(&self, victims: &mut Victims, open: &Open) -> Result<RunReport> {
        let prefix = Key::new(format!("round-{}/", self.number))?;
        victims.spared = prefix.as_bytes().to_vec();
        let open: Open = {
            let open = Arc::clone(open);
            Arc::new(move |client| {
                let (opened, prefix) = (open(client), prefix.clone());
                async move { Ok(Arc::new(Prefixed::new(opened.await?, prefix)) as Arc<dyn Store>) }.boxed()
            })
        };
        if self.workload == PAYMENTS {
            return self.pay(victims, &open).await;
        }
        let workload = WORKLOADS.iter().find(|(name, _)| *name == self.workload);
        let (_, workload) =
            workload.ok_or_else(|| Error::Usage(format!("there is no workload `{}`", self.workload)))?;
        let mut failed = None;
        let mut settings = Settings::default().seed(self.seed).clients(self.clients);
        settings.least = self.least();
        let report = workload::run(workload(), &open, &settings, async |recorder: Recorder| {
            let struck = inject(victims, &self.schedule(), &recorder).await;
            struck.unwrap_or_else(|error| {
                failed = Some(error);
                Faults::default()
            })
        })
        .await;
        match failed {
            Some(error) => Err(broken(error)),
            None => Ok(report?),
        }
    }

    fn schedule(&self) -> FaultSchedule {
        FaultSchedule {
            class: self.class,
            seed: self.seed,
            time: self.time,
            pace: self.pace.clone(),
            serves_within: self.serves_within,
        }
    }

    /// Ten a second: a store that is struck half of the time still does many times as much.
    fn least(&self) -> usize {
        usize::try_from(self.time.as_secs()).unwrap_or(usize::MAX).saturating_mul(10)
    }

    /// A service with clients that try to spend twice, whose replicas are killed too; at the end everything is claimed.
    async fn pay(&self, victims: &mut Victims, open: &Open) -> Result<RunReport> {
        let recorder = Recorder::new();
        let rehearsal = Rehearsal {
            replicas: 3,
            clients: self.clients,
            hot_share: 0.25,
            amount: Amount::Time(Duration::MAX),
            traffic: Traffic::Everything,
            kill_replicas: true,
            lease: LEASE,
            seed: self.seed,
        };
        let (opened, recording) = (Arc::clone(open), recorder.clone());
        let open: crate::Open = Arc::new(move |replica| {
            let (opened, recorder) = (opened(replica), recording.clone());
            async move { Ok(Arc::new(recorder.wrap(opened.await?)) as Arc<dyn Store>) }.boxed()
        });
        let began = Instant::now();
        let mut struck = None;
        let interrupt = async { struck = Some(inject(victims, &self.schedule(), &recorder).await) };
        let rehearsed = rehearse(&rehearsal, open, interrupt, |_| {}).await;
        let seconds = began.elapsed().as_secs_f64();
        let faults = struck.unwrap_or_else(|| Ok(Faults::default())).map_err(broken)?;
        let audit = rehearsed?.audit;
        let breaches = audit.violations.iter().map(|violation| Breach::new("money adds up", violation.to_string()));
        let workload = format!("{PAYMENTS} ({} acknowledged, {} claimed)", audit.acknowledged, audit.claimed);
        let judged = Judged { workload, breaches: breaches.collect(), faults, least: self.least(), seconds };
        Ok(judged.judge(recorder.history()).await?)
    }
}

fn broken(error: NemesisError) -> Error {
    match error {
        NemesisError::Server(error) => Error::Servers(error),
        error => Error::Usage(format!("the faults could not be made: {error}")),
    }
}
