//! Lets faults of a class strike and heal in turn, for some time, by a seed.
//!
//! Invariants: everything is healed at the end; a class whose faults never bit is reported, since such a run proves
//! nothing. The choices repeat with the seed, the timing of processes does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

use super::{Class, NemesisError, Strike, Victims};
use crate::{
    history::{Recorder, Struck},
    workload::Faults,
};

/// How faults follow each other.
#[derive(Clone, Debug)]
pub struct FaultSchedule {
    /// What strikes.
    pub class: Class,
    /// Where the choices come from.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
    /// So long is nothing struck between two faults, and so long does each last.
    pub pace: Range<Duration>,
    /// Within this time the servers serve again when a fault has ended that leaves them whole.
    pub serves_within: Duration,
}

impl FaultSchedule {
    /// Half a second to two and a half: longer than an election.
    pub const PACE: Range<Duration> = Duration::from_millis(500)..Duration::from_millis(2500);

    /// Some elections that fail, each with a pause.
    pub const SERVES_WITHIN: Duration = Duration::from_secs(10);
}

/// Lets faults strike, then mends everything and waits until all servers are ready.
///
/// # Errors
/// [`NemesisError`] if a fault could not be made or mended: nothing is known then.
pub async fn inject(
    victims: &mut Victims,
    schedule: &FaultSchedule,
    recorder: &Recorder,
) -> Result<Faults, NemesisError> {
    let mut rng = fastrand::Rng::with_seed(schedule.seed);
    let mut faults = schedule.class.faults(victims);
    let (mut told, mut bites) = (Faults::default(), BTreeMap::<&'static str, (usize, String)>::new());
    let until = Instant::now() + schedule.time;
    while Instant::now() < until && !faults.is_empty() {
        tokio::time::sleep(between(&schedule.pace, &mut rng)).await;
        told.ended.extend(victims.ended_by_themselves(&BTreeSet::new())?);
        rng.shuffle(&mut faults);
        // Of several classes, two at once every third time.
        let count = if faults.len() > 1 && rng.u32(..3) == 0 { 2 } else { 1 };
        let mut struck = Vec::new();
        for (place, fault) in faults.iter_mut().take(count).enumerate() {
            let start = recorder.now();
            let Strike { target, bit } = fault.strike(victims, &mut rng).await?;
            // The second of two may find that the first has left it nothing to strike.
            if bit || place == 0 {
                let counted = bites.entry(fault.name()).or_default();
                counted.0 += usize::from(bit);
                counted.1.clone_from(&target);
            }
            if bit {
                struck.push(Struck { fault: fault.name().to_owned(), target, start, end: start });
            }
        }
        tokio::time::sleep(between(&schedule.pace, &mut rng)).await;
        for fault in faults.iter_mut().take(count) {
            fault.mend(victims).await?;
        }
        if schedule.class.is_survived() {
            match victims.served(schedule.serves_within).await {
                Some(after) => told.back = told.back.max(after),
                None => {
                    let struck: Vec<_> =
                        struck.iter().map(|struck| format!("{} of {}", struck.fault, struck.target)).collect();
                    let what = format!("not {:?} after {}", schedule.serves_within, struck.join(", "));
                    victims.note("the service is back soon", what);
                }
            }
        }
        told.breaches.extend(victims.noted());
        let end = recorder.now();
        told.struck.extend(struck.into_iter().map(|struck| Struck { end, ..struck }));
    }
    let healing = recorder.now();
    if let Some(target) = victims.heal().await? {
        let (fault, end) = ("membership", recorder.now());
        bites.entry(fault).or_default().0 += 1;
        told.struck.push(Struck { fault: fault.to_owned(), target, start: healing, end });
    }
    told.breaches.extend(victims.noted());
    // A single strike may miss; a class that never bites proves nothing.
    let toothless = bites.into_iter().filter(|(_, (bites, _))| *bites == 0);
    told.did_not_bite = toothless.map(|(name, (_, target))| format!("{name} of {target}")).collect();
    Ok(told)
}

fn between(range: &Range<Duration>, rng: &mut fastrand::Rng) -> Duration {
    range.start + range.end.saturating_sub(range.start).mul_f64(rng.f64())
}
