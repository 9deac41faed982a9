//! What a service tells the clients of snet-daemon of their channels.

use storage_core::{
    Store,
    channel::{Amount, BlockNumber, ChannelId, Nonce, Signature},
};

use super::Payments;
use crate::{ChannelSource, ClientMessage, Error, MessageRefusal, Refusal, Result, merge};

/// The state of a channel for its client. What he can spend is what the chain has in the channel, less both amounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelAnswer {
    /// The nonce of the next payment.
    pub nonce: Nonce,
    /// What he has authorized at this nonce; `None`: nothing.
    pub signed: Option<SignedAmount>,
    /// What is claimed, and the chain has not paid yet: the last payment at the nonce before. `None`: no claim is pending.
    pub old: Option<SignedAmount>,
}

/// An amount, and the client's own signature of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedAmount {
    /// What was authorized.
    pub amount: Amount,
    /// The signature.
    pub signature: Signature,
}

impl<S: Store, C: ChannelSource> Payments<S, C> {
    /// Tells the signer, the sender or the recipient of a channel its state, as snet-daemon does. `block` and `signature` are those of the request
    /// ([`ClientMessage::ChannelState`]). Two reads, and nothing is written.
    ///
    /// # Errors
    /// [`Error::MessageRefused`] for a signature that is none, of somebody else, or of another time; [`Error::Refused`] for a channel that the blockchain
    /// does not know; [`Error::Unsettled`] if the claim that is pending was finished before the chain had paid it; those of the blockchain, of the
    /// store and of its records.
    pub async fn channel_answer(
        &self,
        channel_id: ChannelId,
        block: BlockNumber,
        signature: &[u8],
    ) -> Result<ChannelAnswer> {
        let message = ClientMessage::ChannelState { channel_id, block };
        // Before anybody is asked: a signature that is none costs nothing.
        let signer = message.signer(self.terms.contract, signature).map_err(MessageRefusal::Signature)?;
        let (chain, current) = self.chain_view(channel_id).await?;
        if !message.is_recent(current) {
            return Err(MessageRefusal::NotRecent { block, current }.into());
        }
        if !signer.is_some_and(|signer| [chain.signer, chain.sender, chain.recipient].contains(&signer)) {
            return Err(MessageRefusal::Unauthenticated.into());
        }
        let (recipient, group_id) = (chain.recipient, chain.group_id);
        if (recipient, group_id) != (self.terms.recipient, self.terms.group_id) {
            return Err(Refusal::ForeignChannel { recipient, group_id }.into());
        }
        let operator = self.operator();
        let stored = operator.report(channel_id).await?.channel;
        let state = merge(stored.as_ref(), &chain);
        let signed = state.signature.map(|signature| SignedAmount { amount: state.authorized_amount, signature });
        let mut answer = ChannelAnswer { nonce: state.nonce, signed, old: None };
        if state.nonce > chain.nonce {
            let claims = operator.claims_of(channel_id).await?;
            let claim = claims.iter().rfind(|claim| claim.payment.nonce().checked_next() == Some(state.nonce));
            let payment = claim.ok_or(Error::Unsettled)?.payment;
            answer.old = Some(SignedAmount { amount: payment.amount(), signature: payment.signature() });
        }
        Ok(answer)
    }
}
