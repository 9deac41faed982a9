//! A soak: round after round until the time is over, over all workloads and all classes of faults that the machine
//! permits.
//!
//! A violation leaves its history, its drawing and its report in files at once. What could not be struck is named, and
//! never counted as survived.

use std::{
    fs::{self, File},
    io::BufWriter,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bench::{Error, Result};
use storage_testkit::{
    nemesis::{Class, Needs},
    workload::RunReport,
};

use crate::{
    Round, Summary, Usage, cluster,
    wanted::{Started, Wanted},
    workloads,
};

/// A long run.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The backend: `embedded`, `etcd`, `consul` or `zk`.
    pub backend: String,
    /// How many servers vote.
    pub nodes: usize,
    /// For how long.
    pub time: Duration,
    /// For how long each round.
    pub round: Duration,
    /// So long is nothing struck between two faults, and so long does each last.
    pub pace: Range<Duration>,
    /// Within this time the service is back after a fault that leaves the servers whole.
    pub serves_within: Duration,
    /// Where all choices come from. The timing of tasks and servers is not repeated.
    pub seed: u64,
    /// What strikes; `None`: one class after the other.
    pub class: Option<Class>,
    /// What clients do; `None`: one workload after the other.
    pub workload: Option<String>,
    /// How many clients there are.
    pub clients: usize,
    /// Where the servers have their data.
    pub directory: PathBuf,
    /// Where the history of a violation goes.
    pub out: PathBuf,
    /// The program that is a node of the embedded engine when its first argument is `node`.
    pub program: PathBuf,
}

/// Runs rounds until the time is over, and tells of each as it ends.
///
/// # Errors
/// [`Error::Usage`] for what cannot be run; others if servers or the store could not be brought back, which proves nothing and may be
/// a defect: the text has what was seen.
pub async fn soak(soak: &Soak, mut tell: impl FnMut(&str)) -> Result<Summary> {
    let classes: Vec<Class> = soak.class.map_or_else(|| Class::ALL.to_vec(), |class| vec![class]);
    let known = workloads();
    let chosen: Vec<&'static str> = match &soak.workload {
        None => known,
        Some(name) => known.iter().copied().filter(|known| known == name).collect(),
    };
    if chosen.is_empty() {
        return Err(Error::Usage(format!("the workloads are {}", workloads().join(", "))));
    }
    let needs = classes.iter().map(|class| class.needs()).fold(Needs::default(), |all, needs| Needs {
        network: all.network || needs.network,
        image: all.image || needs.image,
    });
    let changing = classes.iter().any(|class| matches!(class, Class::Membership | Class::Operator | Class::Combined));
    let wanted = Wanted {
        backend: &soak.backend,
        nodes: soak.nodes,
        needs,
        changing,
        directory: &soak.directory,
        program: soak.program.clone(),
    };
    let Started { mut victims, open } = cluster::start(wanted).await?;
    let mut summary = Summary::default();
    let mut possible = Vec::new();
    for class in classes {
        match class.possible(&victims) {
            Ok(()) => possible.push(class),
            Err(reason) => summary.skipped.push(format!("{class}: {reason}")),
        }
    }
    if possible.contains(&Class::Combined) {
        let parts = victims.missing().into_iter().map(|reason| format!("within combined: {reason}"));
        summary.skipped.extend(parts);
    }
    let began = Instant::now();
    let mut number = 0;
    // All workloads meet all classes: the shorter list turns faster, and moves on by one when the longer has turned.
    while began.elapsed() < soak.time && !possible.is_empty() {
        let place = usize::try_from(number).unwrap_or(0);
        let round = place / chosen.len();
        let (Some(workload), Some(class)) =
            (chosen.get(place % chosen.len()), possible.get((place + round) % possible.len()))
        else {
            break;
        };
        let time = soak.round.min(soak.time.saturating_sub(began.elapsed()).max(SHORTEST));
        let seed = soak.seed.wrapping_add(number);
        let (pace, serves_within, clients) = (soak.pace.clone(), soak.serves_within, soak.clients);
        let round = Round { workload, class: *class, time, pace, serves_within, seed, clients, number };
        let report = match round.run(&mut victims, &open).await {
            Ok(report) => report,
            Err(error) => {
                let logs = victims.cluster.logs();
                tell(&format!("round {number} ({workload} under {class}, seed {seed}) could not end: {error}\n{logs}"));
                return Err(error);
            }
        };
        summary.usage.push(Usage::of(&victims));
        let usage = summary.usage.last().map(ToString::to_string).unwrap_or_default();
        tell(&format!(
            "{:>6.0} s  round {number}, {class}, seed {seed}: {report}         {usage}",
            began.elapsed().as_secs_f64()
        ));
        // What an operator was told is told on.
        if matches!(class, Class::Operator | Class::Client) {
            report.history.faults().iter().for_each(|struck| tell(&format!("         {}", struck.target)));
        }
        if report.is_violated() {
            summary.files.extend(keep(&soak.out, &round, &soak.backend, &report)?);
        }
        note(&mut summary, &round, &report);
        number += 1;
    }
    Ok(summary)
}

/// A round is at least so long: a few faults.
const SHORTEST: Duration = Duration::from_secs(5);

fn note(summary: &mut Summary, round: &Round, report: &RunReport) {
    let row = summary.rows.entry((round.class.to_string(), round.workload.to_owned())).or_default();
    row.rounds += 1;
    row.operations += report.operations();
    row.succeeded += report.succeeded;
    row.failed += report.failed;
    row.unknown += report.unknown;
    row.faults += report.faults;
    row.back = row.back.max(report.back);
    row.violations += usize::from(report.is_violated());
    row.invalid += usize::from(!report.is_violated() && !report.is_passed());
    row.seconds += report.seconds;
}

/// Writes the history of a violation, the drawing of what the checker found, and the report.
fn keep(out: &Path, round: &Round, backend: &str, report: &RunReport) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).map_err(Error::at(out))?;
    let name = format!("{backend}-{}-{}-seed-{}", round.class, round.workload, round.seed);
    let path = |ending: &str| out.join(format!("{name}.{ending}"));
    let (history, drawing, text) = (path("jsonl"), path("html"), path("txt"));
    let file = File::create(&history).map_err(Error::at(&history))?;
    report.history.write(BufWriter::new(file)).map_err(Error::at(&history))?;
    fs::write(&drawing, report.linearizability.html()).map_err(Error::at(&drawing))?;
    fs::write(&text, report.to_string()).map_err(Error::at(&text))?;
    Ok(vec![history, drawing, text])
}
