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
pub struct Torment {
    /// What strikes.
    pub class: Class,
    /// Where the choices come from.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
    /// So long is nothing struck, between two faults.
    pub quiet: Range<Duration>,
    /// So long does a fault last.
    pub hold: Range<Duration>,
}

impl Torment {
    /// Faults of a class for some time, with half a second to two and a half between two and during each: longer than an election.
    #[must_use]
    pub fn new(class: Class, seed: u64, time: Duration) -> Self {
        let range = Duration::from_millis(500)..Duration::from_millis(2500);
        Self { class, seed, time, quiet: range.clone(), hold: range }
    }
}

/// Lets faults strike, then mends everything and waits until all servers are ready.
///
/// # Errors
/// [`NemesisError`] if a fault could not be made or mended: nothing is known then.
pub async fn torment(victims: &mut Victims, torment: &Torment, recorder: &Recorder) -> Result<Faults, NemesisError> {
    let mut rng = fastrand::Rng::with_seed(torment.seed);
    let mut faults = torment.class.faults(victims);
    let (mut told, mut bites) = (Faults::default(), BTreeMap::<&'static str, (usize, String)>::new());
    let until = Instant::now() + torment.time;
    while Instant::now() < until && !faults.is_empty() {
        tokio::time::sleep(between(&torment.quiet, &mut rng)).await;
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
        tokio::time::sleep(between(&torment.hold, &mut rng)).await;
        for fault in faults.iter_mut().take(count) {
            fault.mend(victims).await?;
        }
        let end = recorder.now();
        told.struck.extend(struck.into_iter().map(|struck| Struck { end, ..struck }));
    }
    let healing = recorder.now();
    if let Some(target) = victims.heal().await? {
        let (fault, end) = ("membership", recorder.now());
        bites.entry(fault).or_default().0 += 1;
        told.struck.push(Struck { fault: fault.to_owned(), target, start: healing, end });
    }
    // A single strike may miss; a class that never bites proves nothing.
    let toothless = bites.into_iter().filter(|(_, (bites, _))| *bites == 0);
    told.did_not_bite = toothless.map(|(name, (_, target))| format!("{name} of {target}")).collect();
    Ok(told)
}

fn between(range: &Range<Duration>, rng: &mut fastrand::Rng) -> Duration {
    range.start + range.end.saturating_sub(range.start).mul_f64(rng.f64())
}
