//! The clock of an open loop: when each iteration has to begin, whether or not a client is free.
//!
//! The latency of an iteration counts from when it was due. Otherwise a store that stands still would look fast: nobody
//! would ask it meanwhile. What never began is counted too, with the least that it can have waited.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use crate::{Amount, Error, Measurement, Result};

/// A store that does not keep up gets so many times the time of the schedule to catch up; what is left then is not served.
const CATCH_UP: u32 = 2;

/// The first iteration is so far away that all clients are ready for it.
const HEAD_START: Duration = Duration::from_millis(5);

/// The pacer looks at least this often whether anybody waits for it.
const LOOK: Duration = Duration::from_millis(50);

/// When the iterations of an open loop have to begin, whoever does them. A thread of its own keeps the time: the timers of the
/// clients' runtime know milliseconds only.
#[derive(Debug)]
pub(crate) struct Schedule {
    rate: f64,
    iterations: u64,
    /// When the first iteration is due.
    start: Instant,
    /// When no further iteration is begun.
    end: Instant,
    next: AtomicU64,
    /// A permit for each iteration that is due and not taken.
    due: Semaphore,
}

impl Schedule {
    /// A schedule that begins now.
    pub(crate) fn begin(rate: f64, amount: Amount, clients: usize) -> Result<Arc<Self>> {
        let iterations = match amount {
            Amount::Iterations(iterations) => iterations,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive rate within Load::MAX_RATE and a time: far below 2^64, and `as` saturates"
            )]
            Amount::Time(time) => (time.as_secs_f64() * rate).ceil() as u64,
        };
        let start = Instant::now() + HEAD_START;
        let span = Duration::try_from_secs_f64(iterations as f64 / rate);
        let span = span.map_err(|_| Error::Usage(format!("{iterations} iterations at {rate}/s have no end")))?;
        let end = start + span * CATCH_UP;
        let schedule = Arc::new(Self { rate, iterations, start, end, next: AtomicU64::new(0), due: Semaphore::new(0) });
        let pacer = Arc::downgrade(&schedule);
        let spawned = thread::Builder::new().name("bench-client".to_owned()).spawn(move || pace(&pacer, clients));
        spawned.map_err(Error::io("start a thread that keeps the time"))?;
        Ok(schedule)
    }

    /// When the first iteration is due.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Waits for the next iteration that nobody has taken; gives the moment when it should have begun. `None`: there are no more.
    pub(crate) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        if Instant::now() > self.end {
            // Others that wait for an iteration have to see it too.
            self.due.close();
            return None;
        }
        let iteration = self.next.fetch_add(1, Ordering::Relaxed);
        (iteration < self.iterations).then(|| self.moment(iteration))
    }

    /// Adds the iterations that nobody took, with the least that they can have waited.
    pub(crate) fn add_unserved(&self, sum: &mut Measurement) {
        let now = Instant::now();
        for iteration in self.next.load(Ordering::Relaxed)..self.iterations {
            sum.unserved += 1;
            sum.latencies.record(now.saturating_duration_since(self.moment(iteration)));
        }
    }

    fn moment(&self, iteration: u64) -> Instant {
        self.start + Duration::try_from_secs_f64(iteration as f64 / self.rate).unwrap_or(Duration::MAX)
    }
}

/// Says when iterations are due, until all are or nobody waits any more.
fn pace(schedule: &Weak<Schedule>, clients: usize) {
    let mut told = 0;
    while let Some(schedule) = schedule.upgrade() {
        if told >= schedule.iterations {
            // One more for each client, which tells it that there are no more iterations.
            schedule.due.add_permits(clients);
            return;
        }
        let wait = schedule.moment(told).saturating_duration_since(Instant::now());
        if wait.is_zero() {
            schedule.due.add_permits(1);
            told += 1;
            continue;
        }
        drop(schedule);
        thread::sleep(wait.min(LOOK));
    }
}
