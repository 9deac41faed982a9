//! A replica of the rehearsed service: it reserves, serves and commits, and is killed by being dropped wherever it is.

use std::{sync::Arc, time::Duration};

use bench::PRICE;
use payment_channels::{Error, Operation, Payment, PrepaidUsage, UsageChange};
use storage::channel::Amount;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    request::{Ask, Reply, Request},
    world::{Service, World},
};

/// How many requests wait for a replica at the most: more than clients that can have one each.
pub(super) const QUEUE: usize = 1024;

/// A replica that cannot open its store tries again after this.
const REOPEN: Duration = Duration::from_millis(200);

/// Serves until nobody asks any more. Whoever aborts it kills it: nothing is cleaned up, what was under way is cut off
/// wherever it was.
pub(super) async fn serve(world: Arc<World>, number: usize, mut requests: mpsc::Receiver<Request>) {
    let service = loop {
        match world.service(number, format!("replica {number}"), Duration::ZERO).await {
            Ok(service) => break Arc::new(service),
            Err(_) if world.is_over() => return,
            Err(error) => {
                *world.last_failure.lock() = format!("replica {number} cannot open its store: {error}");
                world.pause(REOPEN).await;
            }
        }
    };
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => drop(calls.spawn(answer(Arc::clone(&world), Arc::clone(&service), request))),
                None => break,
            },
            Some(_) = calls.join_next() => {}
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn answer(world: Arc<World>, service: Arc<Service>, request: Request) {
    let Request { channel, ask, reply } = request;
    let answer = match ask {
        Ask::Pay(payment) => pay(&world, &service, channel, &payment).await,
        Ask::Change(operation, change) => self::change(&world, &service, channel, operation, change).await,
    };
    // A client that has gone does not want to know.
    let _ = reply.send(answer);
}

async fn pay(world: &World, service: &Service, channel: usize, payment: &Payment) -> Reply {
    let reservation = match service.reserve(payment, Amount::from(PRICE)).await {
        Ok(reservation) => reservation,
        Err(Error::Refused(refusal)) => return Reply::Refused(refusal),
        Err(Error::Busy { .. }) => return Reply::Busy,
        Err(Error::LeaseLost) => return Reply::LeaseLost,
        // Whatever became of the reservation, only a commit charges.
        Err(error) => return Reply::Failed(error.to_string()),
    };
    // The call itself takes no time here; others may come in between.
    tokio::task::yield_now().await;
    match service.commit(&reservation).await {
        Ok(()) => {
            if let (Some(channel), Some(name)) = (world.channels.get(channel), name(payment)) {
                channel.book.lock().serve(name);
            }
            Reply::Done
        }
        Err(Error::LeaseLost) => Reply::LeaseLost,
        Err(Error::Refused(refusal)) => Reply::Refused(refusal),
        Err(error) if error.may_be_applied() => Reply::Unknown,
        Err(error) => Reply::Failed(error.to_string()),
    }
}

async fn change(
    world: &World,
    service: &Service,
    channel: usize,
    mut operation: Operation,
    change: UsageChange,
) -> Reply {
    let Some(channel) = world.channels.get(channel) else { return Reply::Wrong("no such channel".to_owned()) };
    let usage = PrepaidUsage::new(service.store().clone(), service.ledger());
    match usage.change(channel.id(), &mut operation, change).await {
        Ok(_) => Reply::Done,
        Err(Error::UsageRefused(refusal)) => Reply::Wrong(format!("{change:?} was refused: {refusal}")),
        Err(error) if error.may_be_applied() => Reply::Unknown,
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// The nonce and the amount of a payment.
pub(super) fn name(payment: &Payment) -> Option<(u64, u64)> {
    payment.nonce().to_u64().zip(payment.amount().to_u64())
}
