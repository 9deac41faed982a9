//! What the machine itself can do.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Percentiles, Result, Workload, measure::Latencies, millis};

/// How long each of the measurements takes: some thousand samples on any machine worth measuring.
const DURATION: Duration = Duration::from_millis(400);

/// How often several nodes sync at once: enough for a median, in about as much time on most disks.
const SHARED_SYNCS: usize = 500;

/// The size of the file that is overwritten: too large for a disk's smallest cache line, small enough to be written at once.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The size of one overwrite: a record of the log with a value of 128 bytes and a key.
const RECORD_BYTES: usize = 256;

/// The size of a message: a request with a value of 128 bytes.
const MESSAGE_BYTES: usize = 160;

/// What one durable write and one message cost on this machine, and so what no store can beat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Physics {
    /// `fdatasync` after an overwrite of 256 bytes in blocks that are allocated already.
    pub fdatasync: Percentiles,
    /// The same by several nodes at once, each in a file of its own on the one disk that they share, until a majority of them is done;
    /// by the number of nodes.
    pub shared_fdatasync: BTreeMap<usize, Percentiles>,
    /// A message of 160 bytes over TCP on the loopback interface, and back.
    pub round_trip: Percentiles,
}

/// Measurements at several times, since machines drift.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    fdatasync: Latencies,
    shared_fdatasync: BTreeMap<usize, Latencies>,
    round_trip: Latencies,
}

impl Probes {
    /// Measures once more, for clusters of these sizes.
    pub(crate) fn measure(&mut self, directory: &Path, sizes: impl IntoIterator<Item = usize>) -> Result<()> {
        self.fdatasync.add(&fdatasync(directory)?);
        for nodes in sizes.into_iter().filter(|nodes| *nodes > 1) {
            self.shared_fdatasync.entry(nodes).or_default().add(&shared_fdatasync(directory, nodes)?);
        }
        self.round_trip.add(&round_trip()?);
        Ok(())
    }

    /// What all of them gave together.
    pub(crate) fn physics(&self) -> Physics {
        Physics {
            fdatasync: self.fdatasync.percentiles(),
            shared_fdatasync: self.shared_fdatasync.iter().map(|(nodes, all)| (*nodes, all.percentiles())).collect(),
            round_trip: self.round_trip.percentiles(),
        }
    }
}

/// For people: ..., by a majority of 3 nodes at once 0.30 ms, ...
impl fmt::Display for Physics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |time: &Percentiles| format!("p50 {}, p99 {}", millis(time.p50_us), millis(time.p99_us));
        write!(f, "fdatasync of an overwrite: {}", told(&self.fdatasync))?;
        for (nodes, time) in &self.shared_fdatasync {
            write!(f, ", by a majority of {nodes} nodes at once {}", millis(time.p50_us))?;
        }
        write!(f, "; loopback round trip: {}", told(&self.round_trip))
    }
}

impl Physics {
    /// Measures one node's sync and the round trip; the file is made in this directory and removed.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be written or the loopback interface cannot be used.
    pub fn measure(directory: &Path) -> Result<Self> {
        let mut probes = Probes::default();
        probes.measure(directory, [])?;
        Ok(probes.physics())
    }

    /// The requests per second that `clients` in a closed loop can reach at the very most: `clients * requests / time`, where
    /// an iteration of the workload takes the time of its durable writes (one `fdatasync` each, by a majority of the nodes on the disk that
    /// they share) and of its messages: one round trip each to the store, and one more from the leader to a follower if there are both. A call within the process counts as a round trip
    /// if there is no other: it is handed to the storage's thread and back. Writes of several clients may share a sync, so this is
    /// no limit of the disk but of waiting. `None` if nothing has to be waited for: a read in the process of the only node.
    pub fn limit(&self, workload: Workload, clients: usize, nodes: usize, in_process: bool) -> Option<f64> {
        let trips = u32::from(!in_process) + u32::from(nodes > 1);
        let shape = workload.shape();
        let trips = if shape.writes > 0 { trips.max(1) } else { trips };
        let sync = self.shared_fdatasync.get(&nodes).unwrap_or(&self.fdatasync);
        let micros = sync.p50_us * f64::from(shape.writes)
            + self.round_trip.p50_us * f64::from(trips) * f64::from(shape.requests);
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        (micros > 0.0).then(|| f64::from(clients) * f64::from(shape.requests) * 1e6 / micros)
    }
}

fn fdatasync(directory: &Path) -> Result<Latencies> {
    let mut file = Overwritten::create(directory).map_err(Error::at(directory))?;
    sample(|round| file.overwrite(round)).map_err(Error::at(directory))
}

/// Lets as many threads as there are nodes sync at the same moment, again and again, and takes the time until a majority was done.
fn shared_fdatasync(directory: &Path, nodes: usize) -> Result<Latencies> {
    let failed = || Error::at(directory);
    let files: std::io::Result<Vec<_>> = (0..nodes).map(|_| Overwritten::create(directory)).collect();
    let mut files = files.map_err(failed())?;
    let together = Barrier::new(nodes);
    let each: std::io::Result<Vec<_>> = thread::scope(|scope| {
        let together = &together;
        let threads: Vec<_> = files.iter_mut().map(|file| scope.spawn(move || file.overwrite_with(together))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())))
            .collect()
    });
    let each = each.map_err(failed())?;
    let mut latencies = Latencies::default();
    for round in 0..SHARED_SYNCS {
        let mut times: Vec<_> = each.iter().filter_map(|times| times.get(round).copied()).collect();
        times.sort_unstable();
        times.get(nodes / 2).into_iter().for_each(|time| latencies.record(*time));
    }
    Ok(latencies)
}

/// A file whose blocks are allocated and written, as a log has them before it is appended to.
struct Overwritten {
    file: File,
    place: u64,
}

impl Overwritten {
    fn create(directory: &Path) -> std::io::Result<Self> {
        let mut file = tempfile::tempfile_in(directory)?;
        let zeros = vec![0; 64 * 1024];
        let mut written = 0;
        while written < FILE_BYTES {
            file.write_all(&zeros)?;
            written += 64 * 1024;
        }
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, place: 0 })
    }

    /// Makes a record durable.
    fn overwrite(&mut self, round: u8) -> std::io::Result<()> {
        if self.place + RECORD_BYTES as u64 > FILE_BYTES {
            self.place = self.file.seek(SeekFrom::Start(0))?;
        }
        // Different bytes each time, so that no layer below may leave the write out.
        self.file.write_all(&[round; RECORD_BYTES])?;
        self.place += RECORD_BYTES as u64;
        self.file.sync_data()
    }

    /// Makes records durable, each when all others are about to as well, and says how long each took.
    fn overwrite_with(&mut self, others: &Barrier) -> std::io::Result<Vec<Duration>> {
        let times = (0..=u8::MAX).cycle().take(SHARED_SYNCS).map(|round| {
            others.wait();
            let before = Instant::now();
            self.overwrite(round).map(|()| before.elapsed())
        });
        // All of them, whatever fails: the others wait for this thread at each.
        let times: Vec<_> = times.collect();
        times.into_iter().collect()
    }
}

fn round_trip() -> Result<Latencies> {
    let failed = || Error::io("a connection over the loopback interface");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    // Ends when the other side does: at the end of this function.
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE_BYTES];
        while stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address).map_err(failed())?;
    stream.set_nodelay(true).map_err(failed())?;
    let mut message = [0; MESSAGE_BYTES];
    let latencies = sample(|round| {
        stream.write_all(&[round; MESSAGE_BYTES])?;
        stream.read_exact(&mut message)
    })
    .map_err(failed())?;
    drop(stream);
    let _ = echo.join();
    Ok(latencies)
}

fn sample(mut step: impl FnMut(u8) -> std::io::Result<()>) -> std::io::Result<Latencies> {
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for round in (0..=u8::MAX).cycle() {
        let before = Instant::now();
        step(round)?;
        latencies.record(before.elapsed());
        if started.elapsed() >= DURATION {
            break;
        }
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always(micros: f64) -> Percentiles {
        Percentiles { p50_us: micros, p90_us: micros, p99_us: micros, p999_us: micros, max_us: micros }
    }

    #[test]
    fn the_limit_is_the_time_that_nobody_can_save() {
        let physics = Physics {
            fdatasync: always(100.0),
            shared_fdatasync: BTreeMap::from([(5, always(150.0))]),
            round_trip: always(50.0),
        };
        let cases = [
            (Workload::Put, 5, true, Some(50_000.0)),
            (Workload::Put, 1, true, Some(66_666.0)),
            (Workload::Put, 3, true, Some(66_666.0)),
            (Workload::Put, 3, false, Some(50_000.0)),
            (Workload::Get, 1, true, None),
            (Workload::Get, 3, true, Some(200_000.0)),
            (Workload::Cas, 3, true, Some(100_000.0)),
        ];
        for (workload, nodes, in_process, expected) in cases {
            let limit = physics.limit(workload, 10, nodes, in_process);
            assert_eq!(limit.map(f64::floor), expected, "{workload} on {nodes}, in process: {in_process}");
        }
    }

    #[test]
    fn the_machine_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let mut probes = Probes::default();
        probes.measure(directory.path(), [1, 3]).unwrap();
        let physics = probes.physics();
        assert!(physics.fdatasync.p50_us > 0.0 && physics.round_trip.p50_us > 0.0, "{physics:?}");
        assert_eq!(Vec::from_iter(physics.shared_fdatasync.keys()), [&3], "one node shares its disk with nobody");
        assert!(physics.shared_fdatasync.values().all(|time| time.p50_us > 0.0), "{physics:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }
}
