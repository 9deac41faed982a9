//! A client that pays from a channel of its own, to measure what one payment costs the store.
//!
//! After a payment in doubt it reads what was charged, since it may never count a payment twice.

use std::{fmt, sync::Arc, time::Duration};

use payment_channels::{Error as PaymentError, MemoryChain, Options, Payments};
use storage::{
    Store,
    channel::{Amount, ChannelId, Nonce},
};

use crate::{
    Error, Result,
    wallet::{PRICE, Wallet, terms},
};

/// How long a reservation whose outcome was lost blocks the channel.
const LEASE: Duration = Duration::from_secs(2);

/// A client with a channel of its own, and the service that takes its payments on one handle of the store: what a single payment costs.
pub(crate) struct Payer {
    service: Payments<Arc<dyn Store>, Arc<MemoryChain>>,
    wallet: Wallet,
    /// What is authorized, as far as the client knows.
    authorized: u64,
    /// Whether a payment of unknown outcome came since.
    in_doubt: bool,
}

/// Without the service and the secret.
impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer").field("wallet", &self.wallet).finish_non_exhaustive()
    }
}

impl Payer {
    /// A client with a new channel, which no earlier run has left anything of.
    pub(crate) fn new(place: usize, store: Arc<dyn Store>) -> Result<Self> {
        let chain = Arc::new(MemoryChain::new());
        let wallet = Wallet::open(place as u64, ChannelId::from(fastrand::u64(..)), &chain)?;
        let options = Options::new(format!("bench {place}")).lease(LEASE).wait(2 * LEASE);
        let service = Payments::new(store, chain, terms(), options);
        let service = service.map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Self { service, wallet, authorized: 0, in_doubt: false })
    }

    /// Signs for one call more, reserves and commits.
    pub(crate) async fn pay(&mut self) -> Result<()> {
        if self.in_doubt {
            self.authorized = self.payments().await? * PRICE;
            self.in_doubt = false;
        }
        let amount = self.authorized + PRICE;
        let payment = self.wallet.sign(Nonce::ZERO, Amount::from(amount))?;
        self.in_doubt = true;
        let reservation = self.service.reserve(&payment, Amount::from(PRICE)).await.map_err(not_charged)?;
        self.service.commit(&reservation).await.map_err(store_error)?;
        (self.authorized, self.in_doubt) = (amount, false);
        Ok(())
    }

    /// How many payments the store has.
    pub(crate) async fn payments(&self) -> Result<u64> {
        let report = self.service.operator().report(self.wallet.channel).await.map_err(store_error)?;
        let authorized = report.channel.map_or(Some(0), |channel| channel.authorized_amount.to_u64());
        let authorized =
            authorized.ok_or_else(|| Error::Verification("more is authorized than was signed".to_owned()))?;
        if authorized.is_multiple_of(PRICE) {
            return Ok(authorized / PRICE);
        }
        Err(Error::Verification(format!("{authorized} are authorized, which nobody signed")))
    }
}

/// Whatever became of a reservation, only a commit charges.
fn not_charged(error: PaymentError) -> Error {
    match error {
        PaymentError::Store(error) if error.may_be_applied() => {
            storage::Error::unavailable(format!("the reservation: {error}")).into()
        }
        error => store_error(error),
    }
}

fn store_error(error: PaymentError) -> Error {
    match error {
        PaymentError::Store(error) => error.into(),
        PaymentError::Busy { .. } | PaymentError::LeaseLost | PaymentError::Unsettled => {
            storage::Error::unavailable(error.to_string()).into()
        }
        error => Error::Verification(format!("a payment that pays was not taken: {error}")),
    }
}
