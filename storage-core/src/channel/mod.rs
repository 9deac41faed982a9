//! Channels as records of a store: the numbers, the state of a channel, its encoding, and a typed view.

mod bytes;
mod numbers;
mod state;
mod store;

pub use bytes::{Address, GroupId, Signature};
pub use numbers::{Amount, BlockNumber, ChannelId, Nonce};
pub use state::{ChannelState, ChannelStatus};
pub use store::{
    ChannelConflict, ChannelEvent, ChannelPage, ChannelStore, KEY_PREFIX, VersionedChannel, id_of, key_of,
};
