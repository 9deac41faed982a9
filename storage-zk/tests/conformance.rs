//! The contract, case by case, on ensembles of one and of three servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use storage_testkit::suite;

use common::ZooKeeper;

storage_core::conformance_tests!(one_server, || suite::harness::<ZooKeeper>(1));
storage_core::conformance_tests!(three_servers, || suite::harness::<ZooKeeper>(3));
