//! Clients that are no replicas: they call one over the network, as a service's users do.
//!
//! What travels is a ticket for a request or an answer, which themselves lie in a table; so that it is lost, delayed and cut
//! off like any other message, and nothing has to be encoded.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use storage_core::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};
use storage_embedded::simulated::{TcpListener, TcpStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_local,
    time::timeout,
};

use crate::{
    shared::{Shared, name},
    tickets::{Request, StoreAnswer, Tickets},
};

pub(crate) const PORT: u16 = 8000;

/// Answers the calls of those outside, while the host lives.
pub(crate) async fn serve(listener: TcpListener, store: Arc<dyn Store>, tickets: Tickets) {
    while let Ok((stream, _)) = listener.accept().await {
        spawn_local(converse(stream, Arc::clone(&store), tickets.clone()));
    }
}

async fn converse(stream: TcpStream, store: Arc<dyn Store>, tickets: Tickets) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let ticket = reader.read_u64().await?;
    let Some(request) = tickets.0.lock().await.requests.remove(&ticket) else { return Ok(()) };
    let answer = match request {
        Request::Get(key, options) => StoreAnswer::Entry(store.get(&key, options).await),
        Request::GetMany(keys, options) => StoreAnswer::Entries(store.get_many(&keys, options).await),
        Request::Commit(txn, options) => StoreAnswer::Outcome(store.commit(txn, options).await),
    };
    tickets.0.lock().await.answers.insert(ticket, answer);
    writer.write_u64(ticket).await
}

/// The store as those outside see it: each call goes to one replica, and to the next one when that fails.
#[derive(Debug)]
struct Outside {
    capabilities: Capabilities,
    replicas: u64,
    current: AtomicU64,
    tickets: Tickets,
}

impl Outside {
    async fn call(&self, request: Request, within: Duration, writes: bool) -> Result<StoreAnswer> {
        let replica = self.current.load(Relaxed) % self.replicas + 1;
        let answer = self.converse(replica, request, within, writes).await;
        if answer.is_err() {
            self.current.fetch_add(1, Relaxed);
        }
        answer
    }

    async fn converse(&self, replica: u64, request: Request, within: Duration, writes: bool) -> Result<StoreAnswer> {
        let connected = timeout(within / 2, TcpStream::connect((name(replica), PORT))).await;
        let stream = connected.map_err(Error::unavailable)?.map_err(Error::unavailable)?;
        let ticket = {
            let mut table = self.tickets.0.lock().await;
            table.next += 1;
            let ticket = table.next;
            table.requests.insert(ticket, request);
            ticket
        };
        let (mut reader, mut writer) = stream.into_split();
        let exchange = async {
            writer.write_u64(ticket).await?;
            reader.read_u64().await
        };
        let lost = |error: io::Error| if writes { Error::unknown_outcome(error) } else { Error::unavailable(error) };
        let answered = timeout(within, exchange).await.unwrap_or_else(|late| Err(late.into())).map_err(lost)?;
        let answer = self.tickets.0.lock().await.answers.remove(&answered);
        answer.ok_or_else(|| Error::corrupt("an answer that is not there"))
    }
}

#[async_trait]
impl Store for Outside {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        match self.call(Request::Get(key.clone(), options), options.timeout, false).await? {
            StoreAnswer::Entry(answer) => answer,
            other => Err(mistaken(&other)),
        }
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        match self.call(Request::GetMany(keys.to_vec(), options), options.timeout, false).await? {
            StoreAnswer::Entries(answer) => answer,
            other => Err(mistaken(&other)),
        }
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        match self.call(Request::Commit(txn, options), options.timeout, true).await? {
            StoreAnswer::Outcome(answer) => answer,
            other => Err(mistaken(&other)),
        }
    }

    async fn scan(&self, _: &[u8], _: ScanOptions) -> Result<Page> {
        Err(Error::Unsupported { feature: "scans from outside".to_owned() })
    }

    async fn watch(&self, _: &[u8], _: WatchOptions) -> Result<WatchStream> {
        Err(Error::Unsupported { feature: "watches from outside".to_owned() })
    }

    async fn ping(&self, _: ReadOptions) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn mistaken(answer: &StoreAnswer) -> Error {
    Error::corrupt(format!("another answer: {answer:?}"))
}

/// A client outside of the cluster.
pub(crate) async fn work(number: u64, shared: Rc<Shared>) -> turmoil::Result {
    let replicas = shared.plan.founders;
    let store = Outside {
        capabilities: Capabilities::new("outside"),
        replicas,
        current: AtomicU64::new(number),
        tickets: shared.tickets.clone(),
    };
    crate::clients::work(Arc::new(store), format!("c{number}"), shared).await;
    Ok(())
}
