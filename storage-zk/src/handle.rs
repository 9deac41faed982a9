use std::sync::Arc;

use storage_core::Capabilities;

use crate::{barrier::Barriers, garbage::Garbage, layout::SharedLayout, listing::Listings, session::Session};

/// What the store, its watches and its collector share. The files that read, scan, watch and collect add what they do with it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) session: Arc<Session>,
    pub(crate) barriers: Barriers,
    pub(crate) layout: SharedLayout,
    pub(crate) listings: Listings,
    pub(crate) garbage: Garbage,
    pub(crate) capabilities: Capabilities,
}
