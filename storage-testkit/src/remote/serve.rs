//! Serves a store to other processes: one line of JSON a call, one connection a watch.
//!
//! For tests alone: it knows no authentication and no limits.

use std::{io, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture};
use storage_core::{Result, Store, WatchEvent};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::wire::{Call, Raw, Reply, Request, garbled, row};

/// Answers a line that is no call of the store: a word for the process itself.
pub type Ask = Arc<dyn Fn(String) -> BoxFuture<'static, String> + Send + Sync>;

/// How long nothing is accepted after that has failed.
const ACCEPTS_AGAIN: Duration = Duration::from_millis(20);

/// Serves a store until the future is dropped. A line that does not begin with `{` or `"` is for `ask`, and the connection
/// ends with the answer.
pub async fn serve(listener: TcpListener, store: Arc<dyn Store>, ask: Ask) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (store, ask) = (Arc::clone(&store), Arc::clone(&ask));
                connections.spawn(async move {
                    // The other end has gone, which is its own affair.
                    let _ = converse(stream, store, ask).await;
                });
            }
            // There is no file left for a connection, and there may be one soon.
            Err(_) => tokio::time::sleep(ACCEPTS_AGAIN).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, store: Arc<dyn Store>, ask: Ask) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        if !line.starts_with(['{', '"']) {
            return writer.write_all(ask(line).await.as_bytes()).await;
        }
        let request = serde_json::from_str::<Request>(&line).map_err(|error| garbled(&error.to_string()));
        match request.and_then(Call::try_from) {
            Ok(Call::Watch(prefix, options)) => match store.watch(&prefix, options).await {
                Ok(events) => return watch(events, lines, writer).await,
                Err(error) => say(&mut writer, &error.into()).await?,
            },
            Ok(call) => {
                let answer = answer(&*store, call).await.unwrap_or_else(Reply::from);
                say(&mut writer, &answer).await?;
            }
            Err(error) => say(&mut writer, &error.into()).await?,
        }
    }
    Ok(())
}

async fn answer(store: &dyn Store, call: Call) -> Result<Reply> {
    Ok(match call {
        Call::GetMany(keys, options, one) => {
            let entries = match (keys.as_slice(), one) {
                ([key], true) => vec![store.get(key, options).await?],
                (keys, _) => store.get_many(keys, options).await?,
            };
            Reply::Entries(entries.iter().map(|entry| entry.as_ref().map(row)).collect())
        }
        Call::Scan(prefix, options) => store.scan(&prefix, options).await?.into(),
        Call::Commit(txn, options) => store.commit(txn, options).await?.into(),
        Call::Ping(options) => store.ping(options).await.map(|()| Reply::Done)?,
        Call::Watch(..) => return Err(garbled("a watch has a connection of its own")),
    })
}

/// Passes events on until the watch or the connection ends.
async fn watch(
    mut events: storage_core::WatchStream,
    mut lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    mut writer: OwnedWriteHalf,
) -> io::Result<()> {
    say(&mut writer, &Reply::Done).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // Whoever watches says nothing more: this is the end of the connection.
            _ = lines.next_line() => None,
        };
        let Some(event) = event else { return Ok(()) };
        let answer = match event {
            Ok(WatchEvent::Put { entry, revision }) => Reply::Put(row(&entry), revision.map(|revision| revision.0)),
            Ok(event) => Reply::Deleted(Raw::of(event.key().as_bytes()), event.revision().map(|revision| revision.0)),
            Err(error) => return say(&mut writer, &error.into()).await,
        };
        say(&mut writer, &answer).await?;
    }
}

async fn say(writer: &mut OwnedWriteHalf, answer: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
