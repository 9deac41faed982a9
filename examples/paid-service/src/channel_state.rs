//! Tells clients the state of their channels, as snet-daemon does.

use std::sync::Arc;

use bytes::Bytes;
use storage::channel::{BlockNumber, ChannelId};
use tonic::{Code, Request, Response, Status};

use crate::{
    books::Books,
    proto::escrow::{
        ChannelStateReply, ChannelStateRequest, payment_channel_state_service_server::PaymentChannelStateService,
    },
};

#[derive(Debug)]
pub(crate) struct ChannelState {
    books: Arc<Books>,
}

impl ChannelState {
    pub(crate) fn new(books: Arc<Books>) -> Self {
        Self { books }
    }
}

#[tonic::async_trait]
impl PaymentChannelStateService for ChannelState {
    async fn get_channel_state(
        &self,
        request: Request<ChannelStateRequest>,
    ) -> Result<Response<ChannelStateReply>, Status> {
        let ChannelStateRequest { channel_id, signature, current_block } = request.into_inner();
        let id = word(&channel_id).ok_or_else(|| Status::invalid_argument("channel_id has more than 32 bytes"))?;
        let id = ChannelId::from_be_bytes(id);
        let answer =
            self.books.channel_answer(id, BlockNumber::from(current_block), &signature).await.map_err(status)?;
        let mut reply =
            ChannelStateReply { current_nonce: answer.nonce.to_be_bytes().to_vec().into(), ..Default::default() };
        if let Some(signed) = answer.signed {
            reply.current_signed_amount = signed.amount.to_be_bytes().to_vec().into();
            reply.current_signature = Bytes::copy_from_slice(signed.signature.as_bytes());
        }
        if let Some(old) = answer.old {
            reply.old_nonce_signed_amount = old.amount.to_be_bytes().to_vec().into();
            reply.old_nonce_signature = Bytes::copy_from_slice(old.signature.as_bytes());
        }
        Ok(Response::new(reply))
    }
}

/// A number of at most 32 bytes, with zeros before it.
pub(crate) fn word(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut word = [0; 32];
    let start = word.len().checked_sub(bytes.len())?;
    word.get_mut(start..)?.copy_from_slice(bytes);
    Some(word)
}

/// What a caller is told of an error; all codes but that for another nonce are gRPC's own.
pub(crate) fn status(error: payment_channels::Error) -> Status {
    Status::new(Code::from(i32::from(error.grpc_code().number())), error.to_string())
}
