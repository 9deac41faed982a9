//! A client with a channel: it signs a payment for each call, and asks where it stands when it does not know.
//!
//! It never signs more than the last state that it knows and one price: what is lost in the worst case is one call.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use payment_channels::{Authorization, ClientMessage, ESCROW, Signer, header};
use storage::channel::{Address, Amount, ChannelId, Nonce};
use tokio::time::{Instant, sleep};
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    channel_state::word,
    evm::Evm,
    proto::{
        escrow::{ChannelStateRequest, payment_channel_state_service_client::PaymentChannelStateServiceClient},
        example::{Numbers, calculator_client::CalculatorClient},
    },
};

/// So long a client goes on about one call while no replica answers.
const PATIENCE: Duration = Duration::from_secs(120);

/// For one request: longer than a replica waits for a channel.
const TIMEOUT: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Client {
    evm: Arc<Evm>,
    replicas: Vec<Channel>,
    signer: Signer,
    contract: Address,
    channel: u64,
    price: u64,
    /// Which replica is called next.
    turn: usize,
    nonce: Nonce,
    /// What it has signed away at this nonce, as far as it knows.
    authorized: u64,
    pub(crate) counts: Counts,
}

/// What became of the calls of a client.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    /// The replica answered.
    pub(crate) answered: u64,
    /// The replica died or did not know, and the client was charged.
    pub(crate) charged_without_answer: u64,
    /// The same payment again, to every replica.
    pub(crate) double_spends: u64,
    /// Of those, what a replica took.
    pub(crate) accepted: u64,
}

impl Client {
    pub(crate) fn new(
        evm: Arc<Evm>,
        replicas: &[SocketAddr],
        (contract, channel): (Address, u64),
        price: u64,
        signer: Signer,
    ) -> Result<Self> {
        let replicas =
            replicas.iter().map(|replica| Ok(Endpoint::from_shared(format!("http://{replica}"))?.connect_lazy()));
        let replicas = replicas.collect::<Result<Vec<_>>>()?;
        let (turn, nonce, counts) = (usize::try_from(channel)?, Nonce::ZERO, Counts::default());
        Ok(Self { evm, replicas, signer, contract, channel, price, turn, nonce, authorized: 0, counts })
    }

    /// Pays for one call, at one replica after the other, until the client has been charged for it.
    pub(crate) async fn pay(&mut self) -> Result<()> {
        let (began, nonce, before) = (Instant::now(), self.nonce, self.authorized);
        loop {
            let amount = self.authorized + self.price;
            self.turn += 1;
            match self.call(self.turn, amount).await {
                Ok(()) => {
                    self.authorized = amount;
                    self.counts.answered += 1;
                    return Ok(());
                }
                Err(status) if began.elapsed() > PATIENCE => bail!("channel {}: no answer: {status}", self.channel),
                // Charged or not: the state tells.
                Err(_) => self.ask_state().await?,
            }
            if (self.nonce, self.authorized) != (nonce, before) {
                self.counts.charged_without_answer += 1;
                return Ok(());
            }
        }
    }

    /// Sends the last payment again, to every replica.
    pub(crate) async fn pay_again(&mut self) {
        for replica in 0..self.replicas.len() {
            self.counts.double_spends += 1;
            self.counts.accepted += u64::from(self.call(replica, self.authorized).await.is_ok());
        }
    }

    /// What it has signed away at the channel's nonce.
    pub(crate) fn authorized(&self) -> u64 {
        self.authorized
    }

    /// Asks one replica after the other where the channel stands.
    pub(crate) async fn ask_state(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.turn += 1;
            let block = self.evm.block().await?;
            let message = ClientMessage::ChannelState { channel_id: ChannelId::from(self.channel), block };
            let signature = self.signer.sign_message(&message, self.contract)?;
            let request = ChannelStateRequest {
                channel_id: self.channel.to_be_bytes().to_vec().into(),
                signature: signature.as_bytes().to_vec().into(),
                current_block: block.to_u64().context("a block has 64 bits")?,
            };
            let asked = PaymentChannelStateServiceClient::new(self.replica(self.turn)?)
                .get_channel_state(with_timeout(request))
                .await;
            match asked {
                Ok(reply) => {
                    let reply = reply.into_inner();
                    let number = |bytes: &[u8]| word(bytes).context("a number has at most 32 bytes");
                    self.nonce = Nonce::from_be_bytes(number(&reply.current_nonce)?);
                    let amount = Amount::from_be_bytes(number(&reply.current_signed_amount)?);
                    self.authorized = amount.to_u64().context("nobody signed so much")?;
                    return Ok(());
                }
                Err(status) if began.elapsed() > PATIENCE => bail!("channel {}: no state: {status}", self.channel),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn call(&self, replica: usize, amount: u64) -> Result<(), Status> {
        let mut request = with_timeout(Numbers { a: 20, b: 22 });
        *request.metadata_mut() = self.headers(amount).map_err(|error| Status::internal(error.to_string()))?;
        let replica = self.replica(replica).map_err(|error| Status::internal(error.to_string()))?;
        let sum = CalculatorClient::new(replica).add(request).await?.into_inner();
        if sum.value == 42 { Ok(()) } else { Err(Status::data_loss("a wrong sum")) }
    }

    /// The headers that the SDKs send.
    fn headers(&self, amount: u64) -> Result<MetadataMap> {
        let channel_id = ChannelId::from(self.channel);
        let authorization =
            Authorization { contract: self.contract, channel_id, nonce: self.nonce, amount: Amount::from(amount) };
        let payment = self.signer.sign(authorization)?;
        let mut headers = MetadataMap::new();
        headers.insert(header::PAYMENT_TYPE, ESCROW.parse()?);
        headers.insert(header::CHANNEL_ID, channel_id.to_string().parse()?);
        headers.insert(header::CHANNEL_NONCE, self.nonce.to_string().parse()?);
        headers.insert(header::CHANNEL_AMOUNT, amount.to_string().parse()?);
        let signature = MetadataValue::from_bytes(payment.signature().as_bytes());
        headers.insert_bin(header::CHANNEL_SIGNATURE, signature);
        Ok(headers)
    }

    fn replica(&self, place: usize) -> Result<Channel> {
        self.replicas.get(place % self.replicas.len()).cloned().context("there are replicas")
    }
}

fn with_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}
