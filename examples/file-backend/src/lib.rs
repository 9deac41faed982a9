//! The contract of `storage-core` on one file: the smallest backend that is durable, and the example that
//! docs/adding-a-backend.md walks through.
//!
//! `url` opens a store, `store` is the contract, `state` is the data (pure), `disk` keeps it. All handles of one
//! directory in one process share its data; another process is kept out by a lock. Each commit writes the whole file
//! anew, so this is for small data.

mod disk;
mod state;
mod store;
mod url;

pub use self::{
    store::FileStore,
    url::{PARAMETERS, SCHEMES, open},
};
