//! The contract, case by case, on clusters of one and of three servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use storage_testkit::suite;

use common::Consul;

storage_core::conformance_tests!(one_server, || suite::harness::<Consul>(1));
storage_core::conformance_tests!(three_servers, || suite::harness::<Consul>(3));
