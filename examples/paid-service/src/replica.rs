//! One replica: a store, the contract, and the services in front of them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use payment_channels::{EscrowOptions, EscrowSource, HttpNode, Ledger, Options, Payments, Terms};
use storage::{
    Store,
    channel::{Address, Amount, GroupId},
};
use tokio::sync::watch;
use tonic::transport::Server;
use tower::Layer;

use crate::{
    books::Books,
    channel_state::ChannelState,
    paid::PaidLayer,
    proto::{
        escrow::payment_channel_state_service_server::PaymentChannelStateServiceServer,
        example::{
            Numbers, Sum,
            calculator_server::{Calculator, CalculatorServer},
            treasury_server::TreasuryServer,
        },
    },
    treasury::Treasurer,
};

/// So long a replica that died blocks the channels whose payments it had in flight.
const LEASE: Duration = Duration::from_secs(1);

/// So long a call waits for the one before it on its channel, also for one whose replica died.
const WAIT: Duration = Duration::from_secs(5);

/// So many blocks a channel has to be good for still, so that there is time to claim.
const EXPIRATION_THRESHOLD: u64 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Replica {
    /// What this replica is called.
    #[arg(long)]
    name: String,
    /// Where clients call it.
    #[arg(long)]
    listen: SocketAddr,
    /// Where the operator calls it. Whoever reaches it can start claims.
    #[arg(long)]
    treasury: SocketAddr,
    /// The store that all replicas share, such as embedded:/DIR?id=1&listen=...&members=...
    #[arg(long)]
    store: String,
    /// A node of the blockchain, http://HOST:PORT.
    #[arg(long)]
    node: String,
    /// The number of the chain.
    #[arg(long)]
    chain_id: u64,
    /// The MultiPartyEscrow contract.
    #[arg(long)]
    contract: Address,
    /// Who is paid.
    #[arg(long)]
    recipient: Address,
    /// The group of replicas that is paid.
    #[arg(long)]
    group: GroupId,
    /// What a call costs, in the smallest unit of the token.
    #[arg(long)]
    price: Amount,
}

impl Replica {
    pub(crate) async fn run(self) -> Result<()> {
        let (ended, end) = watch::channel(());
        tokio::spawn(async move {
            let _ = tokio::signal::ctrl_c().await;
            drop(ended);
        });
        let store = storage::open(&self.store).await.context("cannot open the store")?;
        let books = Arc::new(self.books(Arc::clone(&store)).await?);
        let calculator = PaidLayer::new(Arc::clone(&books), self.price).layer(CalculatorServer::new(Adder));
        let state = PaymentChannelStateServiceServer::new(ChannelState::new(Arc::clone(&books)));
        let clients = Server::builder().add_service(calculator).add_service(state);
        let operator = Server::builder().add_service(TreasuryServer::new(Treasurer::new(books)));
        let until = |mut end: watch::Receiver<()>| async move { drop(end.changed().await) };
        let served = tokio::try_join!(
            clients.serve_with_shutdown(self.listen, until(end.clone())),
            operator.serve_with_shutdown(self.treasury, until(end)),
        );
        served.context("cannot serve")?;
        store.close().await.context("cannot close the store")
    }

    async fn books(&self, store: Arc<dyn Store>) -> Result<Books> {
        let node = HttpNode::new(&self.node).with_context(|| format!("{} is not http://HOST:PORT", self.node))?;
        let ledger = Ledger { chain_id: self.chain_id, contract: self.contract };
        let chain = EscrowSource::connect(node, ledger, EscrowOptions::default()).await?;
        let terms = Terms {
            contract: self.contract,
            recipient: self.recipient,
            group_id: self.group,
            expiration_threshold: EXPIRATION_THRESHOLD,
        };
        Ok(Payments::new(store, chain, terms, Options::new(&self.name).lease(LEASE).wait(WAIT))?)
    }
}

/// What is paid for. It knows nothing of that.
#[derive(Debug)]
struct Adder;

#[tonic::async_trait]
impl Calculator for Adder {
    async fn add(&self, request: tonic::Request<Numbers>) -> Result<tonic::Response<Sum>, tonic::Status> {
        let Numbers { a, b } = request.into_inner();
        let value = a.checked_add(b).ok_or_else(|| tonic::Status::out_of_range("the sum has no 64 bits"))?;
        Ok(tonic::Response::new(Sum { value }))
    }
}
