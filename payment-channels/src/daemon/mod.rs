//! What snet-daemon has in its store, read as it stands there, and brought into ours. docs/payments.md has the cutover of a live service.

mod gob;
mod import;
mod keys;
mod records;

pub use gob::GobError;
pub use import::{DaemonImport, Imported, Skipped};
pub use keys::{DaemonKey, DaemonStore, chain_id_of};
pub use records::{
    DaemonClaim, decode_daemon_channel, decode_daemon_claim, decode_daemon_free_calls, decode_daemon_prepaid,
};
