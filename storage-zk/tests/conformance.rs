//! The contract, case by case, on ensembles of one and of three servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

storage_core::conformance_tests!(one_server, || common::harness(1));
storage_core::conformance_tests!(three_servers, || common::harness(3));
