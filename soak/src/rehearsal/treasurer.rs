//! Claims from the channels while payments go on, and finishes what a treasurer before it has left half done.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use payment_channels::{AfterClaim, ChannelSource, Claim, Rejection};
use storage::channel::ChannelId;

use super::world::{Service, World};

/// So long, at random, between two claims.
const PAUSE: Duration = Duration::from_millis(400);

/// Claims from one channel after the other, in any order, until the end. Whoever aborts it leaves a claim half done; the next one
/// goes on with it.
pub(super) async fn serve(world: Arc<World>, mut rng: fastrand::Rng) {
    while !world.is_over() {
        world.pause(PAUSE.mul_f64(rng.f64())).await;
        let Ok(service) = world.service(0, "treasurer".to_owned(), Duration::ZERO).await else { continue };
        // What cannot be done now is done by the next round, or by the audit, which tells what stays undone.
        if settle(&world, &service).await.is_ok() {
            let place = rng.usize(..world.channels.len().max(1));
            if let Some(channel) = world.channels.get(place)
                && let Ok(claim) = service.start_claim(channel.id(), AfterClaim::Continue).await
            {
                let _ = finish(&world, &service, claim).await;
            }
        }
    }
}

/// Carries out every claim that was started.
pub(super) async fn settle(world: &World, service: &Service) -> Result<(), String> {
    let claims: Vec<Claim> = service.claims().try_collect().await.map_err(|error| error.to_string())?;
    for claim in claims {
        finish(world, service, claim).await?;
    }
    // What a treasurer who died has had paid, and not finished.
    service.settle_claims().await.map(drop).map_err(|error| error.to_string())
}

/// Lets the contract pay a claim, unless it has, and removes it.
pub(super) async fn finish(world: &World, service: &Service, claim: Claim) -> Result<(), String> {
    let id = claim.payment.channel_id();
    if let Some(channel) = world.channels.iter().find(|channel| channel.id() == id) {
        let mut paid = channel.paid.lock();
        match world.chain.pay_claim(&claim) {
            Ok(()) => paid.push(claim),
            // Somebody was here before.
            Err(Rejection::IncorrectNonce) if paid.contains(&claim) => {}
            Err(rejection) => return Err(format!("{claim:?} cannot be paid: {rejection}")),
        }
    }
    service.finish_claim(id, claim.payment.nonce()).await.map_err(|error| error.to_string())
}

/// What the contract has left in a channel.
pub(super) async fn left(world: &World, id: ChannelId) -> Option<storage::channel::Amount> {
    world.chain.channel(id).await.ok().flatten().map(|channel| channel.full_amount)
}
