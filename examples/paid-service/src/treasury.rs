//! Claims, for the operator.

use std::sync::Arc;

use futures::TryStreamExt;
use payment_channels::{AfterClaim, Claim, ClaimRefusal, Error};
use storage::channel::{Amount, ChannelId};
use tonic::{Request, Response, Status};

use crate::{
    books::Books,
    channel_state::status,
    proto::example::{ClaimReply, ClaimRequest, SettleReply, SettleRequest, treasury_server::Treasury},
};

#[derive(Debug)]
pub(crate) struct Treasurer {
    books: Arc<Books>,
}

impl Treasurer {
    pub(crate) fn new(books: Arc<Books>) -> Self {
        Self { books }
    }
}

#[tonic::async_trait]
impl Treasury for Treasurer {
    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimReply>, Status> {
        let ClaimRequest { channel_ids, close } = request.into_inner();
        let after = if close { AfterClaim::Close } else { AfterClaim::Continue };
        for id in channel_ids {
            match self.books.start_claim(ChannelId::from(id), after).await {
                // Cut off after its claim was started, this is called again.
                Ok(_) | Err(Error::ClaimRefused(ClaimRefusal::NothingToClaim { .. })) => {}
                Err(error) => return Err(status(error)),
            }
        }
        let claims: Vec<Claim> = self.books.claims().try_collect().await.map_err(status)?;
        let amounts = claims.iter().map(|claim| claim.payment.amount());
        let amount = amounts.into_iter().try_fold(Amount::ZERO, Amount::checked_add);
        let amount = amount.ok_or_else(|| Status::out_of_range("more than 2^256 - 1 is claimed"))?;
        Ok(Response::new(ClaimReply { calldata: Claim::calldata_of_many(&claims).into(), amount: amount.to_string() }))
    }

    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        let report = self.books.settle_claims().await.map_err(status)?;
        let open = report.claims.iter().filter(|claim| !claim.is_finished).count() as u64;
        Ok(Response::new(SettleReply { open }))
    }
}
