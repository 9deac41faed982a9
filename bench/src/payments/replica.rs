use std::{sync::Arc, time::Duration};

use payment_channels::{Error, Operation, Payment, PrepaidUsage, Refusal, UsageChange};
use storage::channel::Amount;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    book::PRICE,
    world::{Handle, Service, World},
};

/// How many requests wait for a replica at the most: more than clients that can have one each.
pub(super) const QUEUE: usize = 1024;

/// A replica that cannot open its store tries again after this.
const REOPEN: Duration = Duration::from_millis(200);

/// What a client wants.
pub(super) enum Ask {
    /// A call for this payment.
    Pay(Payment),
    /// A change of the channel's prepaid usage.
    Change(Operation, UsageChange),
}

/// A request over the wire. If the replica dies, the reply never comes.
pub(super) struct Request {
    pub(super) channel: usize,
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// What a replica says.
#[derive(Debug)]
pub(super) enum Answer {
    /// The payment was taken, and the call made; or the change was counted.
    Done,
    /// The payment does not pay. The client is not charged.
    Refused(Refusal),
    /// Another payment is in flight. The client is not charged.
    Busy,
    /// Another one took over. The client is not charged.
    LeaseLost,
    /// The store failed. The client is not charged.
    Failed(String),
    /// Nobody knows whether the client is charged.
    Unknown,
    /// This must not happen.
    Wrong(String),
}

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
        Ask::Change(operation, change) => self::change(&world, service.store(), channel, operation, change).await,
    };
    // A client that has gone does not want to know.
    let _ = reply.send(answer);
}

async fn pay(world: &World, service: &Service, channel: usize, payment: &Payment) -> Answer {
    let reservation = match service.reserve(payment, Amount::from(PRICE)).await {
        Ok(reservation) => reservation,
        Err(Error::Refused(refusal)) => return Answer::Refused(refusal),
        Err(Error::Busy { .. }) => return Answer::Busy,
        Err(Error::LeaseLost) => return Answer::LeaseLost,
        // Whatever became of the reservation, only a commit charges.
        Err(error) => return Answer::Failed(error.to_string()),
    };
    // The call itself takes no time here; others may come in between.
    tokio::task::yield_now().await;
    match service.commit(&reservation).await {
        Ok(()) => {
            if let (Some(channel), Some(name)) = (world.channels.get(channel), name(payment)) {
                channel.book.lock().serve(name);
            }
            Answer::Done
        }
        Err(Error::LeaseLost) => Answer::LeaseLost,
        Err(Error::Refused(refusal)) => Answer::Refused(refusal),
        Err(error) if error.may_be_applied() => Answer::Unknown,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

async fn change(
    world: &World,
    store: &Handle,
    channel: usize,
    mut operation: Operation,
    change: UsageChange,
) -> Answer {
    let Some(channel) = world.channels.get(channel) else { return Answer::Wrong("no such channel".to_owned()) };
    match PrepaidUsage::new(store.clone()).change(channel.id, &mut operation, change).await {
        Ok(_) => Answer::Done,
        Err(Error::UsageRefused(refusal)) => Answer::Wrong(format!("{change:?} was refused: {refusal}")),
        Err(error) if error.may_be_applied() => Answer::Unknown,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// The nonce and the amount of a payment.
pub(super) fn name(payment: &Payment) -> Option<(u64, u64)> {
    payment.nonce().to_u64().zip(payment.amount().to_u64())
}
