//! What many channels cost: memory, time to write a snapshot and to start again, and speed.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use storage::{
    Outcome, ReadOptions, Store, Txn, WriteOptions,
    channel::{
        Address, Amount as Cogs, BlockNumber, ChannelId, ChannelState, ChannelStatus, GroupId, Nonce, Signature, key_of,
    },
    embedded::{EmbeddedStore, LocalCluster},
};
use tokio::task::JoinSet;

use crate::{Amount, Clients, Error, Load, Physics, Result, Session, Spread, Workload, on_tmpfs};

/// How many transactions are under way while the channels are stored: enough to share each sync among many.
const WRITERS: usize = 16;

/// How long a snapshot of many channels may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long the node may take to serve after a restart: it reads all that it has.
const RESTART_TIMEOUT: Duration = Duration::from_secs(600);

/// One read of the restarted node is tried for so long, then the next.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// After the restart, so many channels are read again, spread over all of them, and compared.
const SAMPLES: u64 = 1000;

/// How many channels, and how the speed of the node that has them is compared with that of an empty one.
#[derive(Clone, Debug)]
pub struct Preload {
    /// How many channels are stored.
    pub channels: u64,
    /// How many clients put in the comparison.
    pub clients: usize,
    /// The size of the values that they put, in bytes.
    pub value_bytes: usize,
    /// How much each round does.
    pub amount: Amount,
    /// How many rounds each of the two nodes gets, in turns.
    pub rounds: usize,
    /// Where the nodes keep their data.
    pub directory: PathBuf,
}

/// What the channels cost. Its JSON has the field names as they are here; a change of their meaning changes [`PreloadReport::SCHEMA`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PreloadReport {
    /// [`PreloadReport::SCHEMA`].
    pub schema: String,
    /// The version of the program that made it.
    pub version: String,
    /// How many channels are stored.
    pub channels: u64,
    /// The size of one channel's key and value, in bytes.
    pub record_bytes: usize,
    /// How long it took to store them, in transactions of as many as the store allows.
    pub load_seconds: f64,
    /// By how much the memory of the process grew, divided by the number of channels; with everything that the engine
    /// keeps beside them, such as the index and cache of its log. None where the system does not tell.
    pub memory_bytes_per_channel: Option<f64>,
    /// How long it took to write a snapshot of them to the disk.
    pub snapshot_seconds: f64,
    /// How long it took to stop the node in good order.
    pub stop_seconds: f64,
    /// From the start of the node to its first linearizable read, of the last channel.
    pub restart_seconds: f64,
    /// Puts per second on an empty node.
    pub empty: Spread,
    /// Puts per second on the node with the channels, in the same run.
    pub full: Spread,
    /// The median of the latter, divided by that of the former.
    pub full_to_empty: f64,
    /// The data was in memory, where a sync costs nothing.
    pub on_tmpfs: bool,
    /// What the machine can do.
    pub physics: Physics,
}

impl PreloadReport {
    /// The name and version of this format.
    pub const SCHEMA: &str = "snet-bench-preload/1";
}

/// Stores the channels on a node of the embedded engine and measures what that costs. `step` is told what goes on.
///
/// # Errors
/// [`Error::Verification`] if a channel is not there any more after the restart, or if the counters of the clients do not
/// add up; otherwise what keeps the nodes from running.
pub fn preload(preload: &Preload, clients: &Clients, mut step: impl FnMut(&str)) -> Result<PreloadReport> {
    if preload.channels == 0 || preload.rounds == 0 {
        return Err(Error::Usage("at least one channel and one round are needed".to_owned()));
    }
    let physics = Physics::measure(&preload.directory)?;
    let folder = tempfile::Builder::new()
        .prefix("preload-")
        .tempdir_in(&preload.directory)
        .map_err(Error::at(&preload.directory))?;
    let start = |name: &str| LocalCluster::start(folder.path().join(name), 1, |config| config);
    let mut empty = clients.block_on(start("empty"))?;
    let mut full = clients.block_on(start("full"))?;

    step(&format!("storing {} channels", preload.channels));
    // Both nodes run by now, so that what grows from here on is the channels and nothing else.
    let before = resident_bytes();
    let began = Instant::now();
    clients.block_on(store_channels(full.store()?, preload.channels))?;
    let load_seconds = began.elapsed().as_secs_f64();
    let grown = resident_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));

    let (empty_puts, full_puts) = compare(preload, clients, &empty, &full, &mut step)?;

    step("writing a snapshot");
    let began = Instant::now();
    if let Some(node) = full.node(0) {
        clients.block_on(node.snapshot(SNAPSHOT_TIMEOUT))?;
    }
    let snapshot_seconds = began.elapsed().as_secs_f64();

    step("stopping and starting again");
    let began = Instant::now();
    clients.block_on(full.stop(0));
    let stop_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    clients.block_on(async {
        full.restart(0).await?;
        first_read(&full, channel(preload.channels - 1)).await
    })?;
    let restart_seconds = began.elapsed().as_secs_f64();
    clients.block_on(check_channels(&full, preload.channels))?;
    clients.block_on(async {
        full.stop_all().await;
        empty.stop_all().await;
    });

    let (sample, key) = (channel(0), key_of(ChannelId::ZERO));
    Ok(PreloadReport {
        schema: PreloadReport::SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        channels: preload.channels,
        record_bytes: key.as_bytes().len() + sample.encode().len(),
        load_seconds,
        memory_bytes_per_channel: grown.map(|bytes| bytes as f64 / preload.channels as f64),
        snapshot_seconds,
        stop_seconds,
        restart_seconds,
        empty: empty_puts,
        full: full_puts,
        full_to_empty: full_puts.median / empty_puts.median,
        on_tmpfs: on_tmpfs(&preload.directory)?,
        physics,
    })
}

/// Puts on both nodes in turns; in every other round the other one begins.
fn compare(
    preload: &Preload,
    clients: &Clients,
    empty: &LocalCluster,
    full: &LocalCluster,
    step: &mut impl FnMut(&str),
) -> Result<(Spread, Spread)> {
    let load = Load { workload: Workload::Put, clients: preload.clients, value_bytes: preload.value_bytes, rate: None };
    let prepare = |cluster: &LocalCluster| {
        let store: Arc<dyn Store> = Arc::new(cluster.store()?);
        let mut session = clients.prepare(&[store], &load)?;
        session.run(Amount::Time(crate::compare::WARM_UP))?;
        Ok::<_, Error>(session)
    };
    let mut sessions: [(Session<'_>, &str, Vec<f64>); 2] =
        [(prepare(empty)?, "empty", Vec::new()), (prepare(full)?, "full", Vec::new())];
    for round in 1..=preload.rounds {
        for (session, name, figures) in &mut sessions {
            step(&format!("round {round}: put on the {name} node"));
            figures.push(session.run(preload.amount)?.throughput());
        }
        // The order within the slice does not matter: each session carries its name.
        sessions.reverse();
    }
    let mut spreads = (Spread::of([]), Spread::of([]));
    for (session, name, figures) in sessions {
        session.verify()?;
        let spread = if name == "empty" { &mut spreads.0 } else { &mut spreads.1 };
        *spread = Spread::of(figures);
    }
    Ok(spreads)
}

async fn store_channels(store: EmbeddedStore, channels: u64) -> Result<()> {
    let store = Arc::new(store);
    let batch = store.capabilities().max_txn_ops as u64;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, next) = (Arc::clone(&store), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                // Whole batches and in order, from one counter: no writer waits for another that is slow.
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if first >= channels {
                    return Ok::<_, Error>(());
                }
                let numbers = first..(first + batch).min(channels);
                let txn = numbers.map(channel).fold(Txn::new(), |txn, channel| {
                    let key = key_of(channel.channel_id);
                    txn.put(key, channel.encode())
                });
                match store.commit(txn, WriteOptions::default().timeout(READ_TIMEOUT)).await? {
                    Outcome::Committed(_) => {}
                    Outcome::Conflict(_) => {
                        return Err(Error::Verification("a transaction without guards met a conflict".to_owned()));
                    }
                }
            }
        });
    }
    while let Some(joined) = writers.join_next().await {
        joined.map_err(|error| Error::Verification(format!("a writer ended: {error}")))??;
    }
    Ok(())
}

/// Reads a channel until the node serves; it may have to elect itself first.
async fn first_read(cluster: &LocalCluster, expected: ChannelState) -> Result<()> {
    let deadline = Instant::now() + RESTART_TIMEOUT;
    let node = cluster.node(0).ok_or(storage::Error::Closed)?;
    loop {
        match check(&node.store(), &expected).await {
            Err(Error::Store(error)) if error.is_retryable() && Instant::now() < deadline => {}
            answer => return answer,
        }
    }
}

async fn check_channels(cluster: &LocalCluster, channels: u64) -> Result<()> {
    let store = cluster.node(0).ok_or(storage::Error::Closed)?.store();
    let step = (channels / SAMPLES).max(1);
    for number in (0..channels).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        check(&store, &channel(number)).await?;
    }
    Ok(())
}

async fn check(store: &EmbeddedStore, expected: &ChannelState) -> Result<()> {
    let entry = store.get(&key_of(expected.channel_id), ReadOptions::default().timeout(READ_TIMEOUT)).await?;
    match entry {
        Some(entry) if entry.value == expected.encode() => Ok(()),
        _ => Err(Error::Verification(format!("channel {} is not what was stored", expected.channel_id))),
    }
}

/// A channel with all its fields in use. No two have an address or a signature in common, so that nothing can be shared.
fn channel(number: u64) -> ChannelState {
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    ChannelState {
        channel_id: ChannelId::from(number),
        nonce: Nonce::from(number % 7),
        status: ChannelStatus::Open,
        sender: Address::new(repeated(seed, 1)),
        recipient: Address::new(repeated(seed, 2)),
        group_id: GroupId::new(repeated(seed, 3)),
        full_amount: Cogs::from(1_000_000 + number),
        expiration: BlockNumber::from(20_000_000 + number),
        signer: Address::new(repeated(seed, 4)),
        authorized_amount: Cogs::from(number % 1_000_000),
        signature: Some(Signature::new(repeated(seed, 5))),
    }
}

fn repeated<const BYTES: usize>(seed: [u8; 8], field: u8) -> [u8; BYTES] {
    let mut bytes = [field; BYTES];
    bytes.iter_mut().zip(seed.iter().cycle()).for_each(|(byte, seed)| *byte ^= seed);
    bytes
}

/// The memory that the process holds, by proc(5); `None` where there is no such file.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_in_use_is_seen_to_grow() {
        let before = resident_bytes().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let grown = resident_bytes().unwrap() - before;
        assert!(grown > 32 << 20, "{grown} bytes for a block of {}", block.len());
    }

    #[test]
    fn no_two_channels_are_alike() {
        let records: std::collections::BTreeSet<_> = (0..1000).map(|number| channel(number).encode()).collect();
        assert_eq!(records.len(), 1000);
    }

    #[test]
    fn a_few_channels_are_stored_kept_over_a_restart_and_reported() {
        let directory = tempfile::tempdir().unwrap();
        let clients = Clients::new(2).unwrap();
        let asked = Preload {
            channels: 2000,
            clients: 2,
            value_bytes: 128,
            amount: Amount::Iterations(50),
            rounds: 2,
            directory: directory.path().to_owned(),
        };
        let mut steps = 0;
        let report = preload(&asked, &clients, |_| steps += 1).unwrap();
        assert_eq!((report.channels, steps), (2000, 3 + 2 * asked.rounds));
        assert!(report.record_bytes > 200 && report.full_to_empty > 0.0, "{report:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }
}
