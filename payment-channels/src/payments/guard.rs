//! A reservation that renews itself and gives the channel back when it is dropped.
//!
//! One task owns the reservation from beginning to end, so that a holder that is cancelled still ends it. It must not
//! outlive its runtime: then the lease ends the reservation.

use std::sync::Arc;

use storage_core::Store;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{Payments, Reservation};
use crate::{ChannelSource, Error, Payment, Price, ReservationId, Result};

/// A reservation that keeps itself: its lease is renewed for as long as this lives, and dropped it gives the channel back. So a call may take longer
/// than a lease, and one that fails or is cancelled blocks nobody.
///
/// A process that dies does neither: then the lease ends. So does one whose runtime is shut down before the release was sent.
#[derive(Debug)]
#[must_use = "dropped, it gives the channel back, and the client is not charged"]
pub struct ReservationGuard {
    id: ReservationId,
    payment: Payment,
    /// Dropped without a word, it says that the channel is to be given back.
    end: oneshot::Sender<Ending>,
    /// The task is nobody's once the guard is gone, but it ends within the bounds of one release.
    task: JoinHandle<Result<()>>,
}

/// How the holder ends a reservation.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Commit,
    CommitPrepaid,
    Release,
}

/// So often a guard renews in one lease: two renewals may fail before the lease has ended.
const RENEWALS: u32 = 3;

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// [Reserves](Payments::reserve), and keeps the reservation until its guard is committed, released or dropped. Has to be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// Those of [`Payments::reserve`].
    ///
    /// # Cancel safety
    /// Dropped, the channel is reserved or not; if it is, it is free for others after its lease.
    pub async fn reserve_guarded(
        self: &Arc<Self>,
        payment: &Payment,
        price: impl Into<Price>,
    ) -> Result<ReservationGuard> {
        let reservation = self.reserve(payment, price).await?;
        let (end, ended) = oneshot::channel();
        let (id, payment) = (reservation.id, reservation.payment);
        let task = tokio::spawn(keep(Arc::clone(self), reservation, ended));
        Ok(ReservationGuard { id, payment, end, task })
    }
}

impl ReservationGuard {
    /// Names the reservation in its record.
    pub fn id(&self) -> ReservationId {
        self.id
    }

    /// The payment.
    pub fn payment(&self) -> &Payment {
        &self.payment
    }

    /// [Commits](Payments::commit): the client is charged.
    ///
    /// # Errors
    /// Those of [`Payments::commit`]. If it [may be applied](Error::may_be_applied), [`Payments::status`] tells.
    ///
    /// # Cancel safety
    /// Dropped, the commit goes on.
    pub async fn commit(self) -> Result<()> {
        self.end(Ending::Commit).await
    }

    /// Commits [with the credit](Payments::commit_prepaid) of what was paid.
    ///
    /// # Errors
    /// Those of [`Payments::commit_prepaid`].
    ///
    /// # Cancel safety
    /// Dropped, the commit goes on.
    pub async fn commit_prepaid(self) -> Result<()> {
        self.end(Ending::CommitPrepaid).await
    }

    /// [Gives the channel back](Payments::release), and waits until it is.
    ///
    /// # Errors
    /// Those of [`Payments::release`].
    ///
    /// # Cancel safety
    /// Dropped, the release goes on.
    pub async fn release(self) -> Result<()> {
        self.end(Ending::Release).await
    }

    async fn end(self, ending: Ending) -> Result<()> {
        // It fails if the task has ended, which the task's own result tells.
        let _ = self.end.send(ending);
        match self.task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down: nobody knows how far the task came.
            Err(_) => Err(Error::Unsettled),
        }
    }
}

/// Renews until the holder says how it ends, and carries that out.
async fn keep<S: Store, C: ChannelSource>(
    payments: Arc<Payments<S, C>>,
    mut reservation: Reservation,
    mut ended: oneshot::Receiver<Ending>,
) -> Result<()> {
    let ending = tokio::select! {
        biased;
        ending = &mut ended => ending,
        () = renew(&payments, &mut reservation) => ended.await,
    };
    match ending {
        Ok(Ending::Commit) => payments.commit(&reservation).await,
        Ok(Ending::CommitPrepaid) => payments.commit_prepaid(&reservation).await,
        Ok(Ending::Release) | Err(_) => payments.release(&reservation).await,
    }
}

/// Renews again and again, until the reservation is lost. One that is cut off is renewed or not, and stays usable.
async fn renew<S: Store, C: ChannelSource>(payments: &Payments<S, C>, reservation: &mut Reservation) {
    loop {
        tokio::time::sleep(payments.options.lease / RENEWALS).await;
        // After any other error the store may answer the next time: until the lease has ended nobody takes over.
        if let Err(Error::LeaseLost | Error::Released | Error::Committed | Error::Unsettled) =
            payments.renew(reservation).await
        {
            return;
        }
    }
}
