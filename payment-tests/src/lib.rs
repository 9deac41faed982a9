//! The model of payments on clusters of real servers.
//!
//! There is nothing here but tests. They are apart from `payment-channels` so that its own tests need no server, and nothing that
//! only a server's client needs to be built.
