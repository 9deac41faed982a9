//! A store in other processes of this machine, so that a library can be killed like a server.
//!
//! Invariant: a write that was sent and not answered has an unknown outcome; only what reached no process is tried on
//! another.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use storage_core::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::wire::{Reply, Request, garbled};

/// A process on this machine takes a connection within this time, or another one is tried.
const CONNECTS_WITHIN: Duration = Duration::from_millis(300);

/// Connections that are kept for the next call.
const MOST_IDLE: usize = 4;

/// A store in other processes, each behind [`serve`](super::serve). It stays with one of them while that answers.
///
/// A call that reached no process is [`Error::Unavailable`], a write that was sent and not answered [`Error::UnknownOutcome`];
/// it is sent once.
pub struct Remote {
    capabilities: Capabilities,
    servers: Vec<SocketAddr>,
    current: AtomicUsize,
    idle: Mutex<Vec<(usize, BufReader<TcpStream>)>>,
    closed: AtomicBool,
}

/// How a conversation failed.
enum Failure {
    /// The process got nothing.
    Before(io::Error),
    /// The process may have got the request.
    After(io::Error),
}

impl Remote {
    /// A store with these capabilities in the processes at these addresses; the one at the place `first` is called first.
    #[must_use]
    pub fn new(capabilities: Capabilities, servers: Vec<SocketAddr>, first: usize) -> Self {
        let (idle, closed) = (Mutex::default(), AtomicBool::new(false));
        Self { capabilities, servers, current: AtomicUsize::new(first), idle, closed }
    }

    /// Makes a call on one process after the other until one gets it; a read also until one answers it.
    async fn call(&self, request: &Request, timeout: Duration, writes: bool) -> Result<Reply> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let deadline = Instant::now() + timeout;
        let mut line = serde_json::to_vec(request).map_err(|error| garbled(&error.to_string()))?;
        line.push(b'\n');
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..self.servers.len() {
            if Instant::now() >= deadline {
                break;
            }
            let place = self.current.load(Ordering::Relaxed);
            match self.converse(place, &line, deadline).await {
                Ok(answer) => {
                    let answer = answer.checked();
                    // One that does not serve is left for another by the next call.
                    if matches!(answer, Err(Error::Unavailable { .. } | Error::UnknownOutcome { .. })) {
                        self.leave(place);
                    }
                    return answer;
                }
                Err(Failure::After(error)) if writes => {
                    self.leave(place);
                    return Err(Error::unknown_outcome(error));
                }
                Err(Failure::Before(error) | Failure::After(error)) => {
                    self.leave(place);
                    last = error;
                }
            }
        }
        Err(Error::unavailable(last))
    }

    fn leave(&self, place: usize) {
        // Another call may have left it already.
        let _ = self.current.compare_exchange(place, place + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn converse(&self, place: usize, line: &[u8], deadline: Instant) -> std::result::Result<Reply, Failure> {
        let mut connection = self.connection(place, deadline).await.map_err(Failure::Before)?;
        let conversation = async {
            connection.get_mut().write_all(line).await?;
            read(&mut connection).await
        };
        let answer = match timeout_at(deadline, conversation).await {
            Ok(answer) => answer.map_err(Failure::After)?,
            Err(late) => return Err(Failure::After(late.into())),
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push((place, connection));
        }
        Ok(answer)
    }

    async fn connection(&self, place: usize, deadline: Instant) -> io::Result<BufReader<TcpStream>> {
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing was said that was not answered: what can be read is the end of the connection.
            idle.retain(|(of, connection)| {
                *of == place
                    && connection.get_ref().try_read(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            });
            if let Some((_, connection)) = idle.pop() {
                return Ok(connection);
            }
        }
        let address = place.checked_rem(self.servers.len()).and_then(|place| self.servers.get(place));
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let deadline = deadline.min(Instant::now() + CONNECTS_WITHIN);
        let stream = timeout_at(deadline, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

async fn read(connection: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let mut line = Vec::new();
    connection.read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

#[async_trait]
impl Store for Remote {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let answer = self.call(&Request::get(key, options), options.timeout, false).await?;
        Ok(answer.entries()?.into_iter().next().flatten())
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.call(&Request::get_many(keys, options), options.timeout, false).await?.entries()
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.call(&Request::scan(prefix, &options), options.read.timeout, false).await?.page()
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        txn.validate(&self.capabilities)?;
        self.call(&Request::commit(&txn, options), options.timeout, true).await?.outcome()
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let deadline = Instant::now() + options.timeout;
        let mut line =
            serde_json::to_vec(&Request::watch(prefix, options)).map_err(|error| garbled(&error.to_string()))?;
        line.push(b'\n');
        let place = self.current.load(Ordering::Relaxed);
        let begun = async {
            let mut connection = self.connection(place, deadline).await?;
            connection.get_mut().write_all(&line).await?;
            let answer = read(&mut connection).await?;
            Ok::<_, io::Error>((connection, answer))
        };
        let begun = match timeout_at(deadline, begun).await {
            Ok(begun) => begun,
            Err(late) => Err(late.into()),
        };
        let (connection, answer) = begun.map_err(|error| {
            self.leave(place);
            Error::unavailable(error)
        })?;
        answer.checked().inspect_err(|_| self.leave(place))?;
        let events = stream::unfold(Some(connection), |connection| async move {
            let mut connection = connection?;
            let event = match read(&mut connection).await {
                Ok(answer) => answer.checked().and_then(Reply::event),
                Err(error) => Err(Error::unavailable(error)),
            };
            let rest = event.is_ok().then_some(connection);
            Some((event, rest))
        });
        Ok(events.boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.call(&Request::ping(options), options.timeout, false).await.map(drop)
    }

    /// Its watches are its caller's to drop.
    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("servers", &self.servers).finish_non_exhaustive()
    }
}
