//! The clients of one load, on threads of their own: prepared, run together, and verified at the end.
//!
//! All clients begin at one moment, and the time runs until the last of them has its last answer. A failed call is
//! counted and never thrown away. They must not run on the threads of the nodes: a busy client would slow what it
//! measures.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use storage::Store;
use tokio::{runtime::Runtime, sync::Barrier, task::JoinSet};

use crate::{
    Amount, Error, Load, Measurement, Result,
    client::{AT_ONCE, Client},
    schedule::Schedule,
};

/// A client gives up after so many errors in a row: the store is gone, and calling on would only count how fast it says so.
const ERRORS_IN_A_ROW: u32 = 100;

/// Threads on which clients run, apart from those of the nodes: as in a service, whose work and whose store share a
/// machine but not a thread.
#[derive(Debug)]
pub struct Clients {
    runtime: Runtime,
}

impl Clients {
    /// The default number of threads: two keep up with any store on a small machine, and leave it the rest.
    pub const THREADS: usize = 2;

    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::Io`] if the system gives none.
    pub fn new(threads: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("bench-client")
            .enable_all()
            .build()
            .map_err(Error::io("start the clients' threads"))?;
        Ok(Self { runtime })
    }

    /// Runs a future on these threads until it is done. Must not be called from within a runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Sets up the clients of a load, spread evenly over these handles, with their keys present and their counters at zero.
    ///
    /// # Errors
    /// [`Error::Usage`] for a load without clients or without handles; [`Error::Store`].
    pub fn prepare(&self, stores: &[Arc<dyn Store>], load: &Load) -> Result<Session<'_>> {
        load.validate()?;
        if stores.is_empty() {
            return Err(Error::Usage("there is no handle for the clients".to_owned()));
        }
        let clients: Result<Vec<_>> = self.block_on(async {
            let places = (0..load.clients).zip(stores.iter().cycle());
            let clients = places.map(|(place, store)| Client::prepare(place, Arc::clone(store), load));
            stream::iter(clients).buffered(AT_ONCE).try_collect().await
        });
        Ok(Session { threads: self, clients: clients?, rate: load.rate })
    }
}

/// The clients of one load on one store. They may run several times; the verification is over all runs.
#[derive(Debug)]
pub struct Session<'a> {
    threads: &'a Clients,
    clients: Vec<Client>,
    rate: Option<f64>,
}

impl Session<'_> {
    /// Lets all clients work at once.
    ///
    /// # Errors
    /// [`Error::Verification`] when a client gets an answer that cannot be; [`Error::Store`] when the store fails
    /// again and again. Single failures are counted, not returned.
    pub fn run(&mut self, amount: Amount) -> Result<Measurement> {
        let clients = std::mem::take(&mut self.clients);
        let (clients, measurement) = self.threads.block_on(run(clients, amount, self.rate))?;
        self.clients = clients;
        Ok(measurement)
    }

    /// Checks that the counters in the store add up to the writes that were acknowledged.
    ///
    /// # Errors
    /// [`Error::Verification`] if they do not, [`Error::Store`] if they cannot be read.
    pub fn verify(&self) -> Result<()> {
        self.threads.block_on(Client::verify(&self.clients))
    }
}

async fn run(clients: Vec<Client>, amount: Amount, rate: Option<f64>) -> Result<(Vec<Client>, Measurement)> {
    let count = clients.len();
    let schedule = rate.map(|rate| Schedule::begin(rate, amount, count)).transpose()?;
    // All set off together: the first would otherwise work on an idle store.
    let start = Arc::new(Barrier::new(count));
    let mut tasks = JoinSet::new();
    for (place, client) in clients.into_iter().enumerate() {
        let (start, share, schedule) = (Arc::clone(&start), share(amount, place, count), schedule.clone());
        tasks.spawn(async move {
            start.wait().await;
            let began = schedule.as_ref().map_or_else(Instant::now, |schedule| schedule.start());
            let done = match schedule {
                None => work(client, share).await,
                Some(schedule) => work_on_time(client, &schedule).await,
            };
            done.map(|(client, counted)| (place, client, counted, began, Instant::now()))
        });
    }
    let (mut clients, mut sum) = (Vec::with_capacity(count), Measurement::new());
    let mut span: Option<(Instant, Instant)> = None;
    while let Some(joined) = tasks.join_next().await {
        let joined = joined.map_err(|error| Error::Verification(format!("a client ended: {error}")))?;
        let (place, client, counted, began, ended) = joined?;
        clients.push((place, client));
        sum.add(&counted);
        span = Some(span.map_or((began, ended), |(first, last)| (first.min(began), last.max(ended))));
    }
    // Tasks end in any order. The next run shares the work out by place again.
    clients.sort_by_key(|(place, _)| *place);
    sum.elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
    if let Some(schedule) = schedule {
        schedule.add_unserved(&mut sum);
    }
    Ok((clients.into_iter().map(|(_, client)| client).collect(), sum))
}

/// What falls to one client.
fn share(amount: Amount, place: usize, count: usize) -> Amount {
    match amount {
        Amount::Iterations(all) => {
            let (place, count) = (place as u64, count as u64);
            Amount::Iterations(all / count + u64::from(place < all % count))
        }
        time @ Amount::Time(_) => time,
    }
}

async fn work(mut client: Client, amount: Amount) -> Result<(Client, Measurement)> {
    let mut counted = Measurement::new();
    let began = Instant::now();
    let (mut done, mut errors) = (0, 0);
    loop {
        let enough = match amount {
            Amount::Iterations(iterations) => done >= iterations,
            Amount::Time(time) => began.elapsed() >= time,
        };
        if enough {
            return Ok((client, counted));
        }
        iterate(&mut client, &mut counted, Instant::now(), &mut errors).await?;
        done += 1;
    }
}

/// Works in an open loop: each iteration as soon as it is due and a client is free.
async fn work_on_time(mut client: Client, schedule: &Schedule) -> Result<(Client, Measurement)> {
    let (mut counted, mut errors) = (Measurement::new(), 0);
    while let Some(intended) = schedule.next().await {
        iterate(&mut client, &mut counted, intended, &mut errors).await?;
    }
    Ok((client, counted))
}

/// One iteration, whose latency counts from `since`.
async fn iterate(client: &mut Client, counted: &mut Measurement, since: Instant, errors: &mut u32) -> Result<()> {
    match client.iterate(counted).await? {
        Ok(()) => {
            // Those that fail have no latency: they end at once or at their deadline, neither of which is a figure of
            // the store.
            counted.latencies.record(since.elapsed());
            *errors = 0;
            Ok(())
        }
        Err(error) => {
            *errors += 1;
            if *errors < ERRORS_IN_A_ROW { Ok(()) } else { Err(error.into()) }
        }
    }
}
