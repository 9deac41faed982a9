use std::{fmt, sync::Arc, time::Duration};

use payment_channels::{
    Authorization, ChainChannel, Error as PaymentError, MemoryChain, Options, Payments, Signer, Terms,
};
use storage::{
    Store,
    channel::{Address, Amount, BlockNumber, ChannelId, GroupId, Nonce},
};

use super::{book::PRICE, world::DEPOSIT};
use crate::{Error, Result};

/// How long a reservation whose outcome was lost blocks the channel.
const LEASE: Duration = Duration::from_secs(2);

/// A client with a channel of its own, and the service that takes its payments on one handle of the store: what a single payment costs.
pub(crate) struct Payer {
    service: Payments<Arc<dyn Store>, Arc<MemoryChain>>,
    terms: Terms,
    signer: Signer,
    channel: ChannelId,
    /// What is authorized, as far as the client knows.
    authorized: u64,
    /// Whether a payment of unknown outcome came since.
    in_doubt: bool,
}

/// Without the service and the secret.
impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Payer {
    /// A client with a new channel, which no earlier run has left anything of.
    pub(crate) fn new(place: usize, store: Arc<dyn Store>) -> Result<Self> {
        let usage = |error: String| Error::Usage(error);
        let terms = Terms {
            contract: Address::new([1; 20]),
            recipient: Address::new([2; 20]),
            group_id: GroupId::new([3; 32]),
            expiration_threshold: 100,
        };
        let mut secret = [0x51; 32];
        for (to, from) in secret.iter_mut().zip((place as u64).to_be_bytes()) {
            *to = from;
        }
        let signer = Signer::new(&secret).map_err(|error| usage(error.to_string()))?;
        let channel = ChannelId::from(fastrand::u64(..));
        let chain = Arc::new(MemoryChain::new());
        chain.open(ChainChannel {
            channel_id: channel,
            nonce: Nonce::ZERO,
            sender: signer.address(),
            signer: signer.address(),
            recipient: terms.recipient,
            group_id: terms.group_id,
            full_amount: Amount::from(DEPOSIT),
            expiration: BlockNumber::MAX,
        });
        let options = Options::new(format!("bench {place}")).lease(LEASE).wait(2 * LEASE);
        let service = Payments::new(store, chain, terms, options).map_err(|error| usage(error.to_string()))?;
        Ok(Self { service, terms, signer, channel, authorized: 0, in_doubt: false })
    }

    /// Signs for one call more, reserves and commits.
    pub(crate) async fn pay(&mut self) -> Result<()> {
        if self.in_doubt {
            self.authorized = self.payments().await? * PRICE;
            self.in_doubt = false;
        }
        let amount = self.authorized + PRICE;
        let authorization = Authorization {
            contract: self.terms.contract,
            channel_id: self.channel,
            nonce: Nonce::ZERO,
            amount: Amount::from(amount),
        };
        let payment = self.signer.sign(authorization).map_err(|error| Error::Usage(error.to_string()))?;
        self.in_doubt = true;
        let reservation = self.service.reserve(&payment, Amount::from(PRICE)).await.map_err(not_charged)?;
        self.service.commit(&reservation).await.map_err(store_error)?;
        (self.authorized, self.in_doubt) = (amount, false);
        Ok(())
    }

    /// How many payments the store has.
    pub(crate) async fn payments(&self) -> Result<u64> {
        let report = self.service.operator().report(self.channel).await.map_err(store_error)?;
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
