//! The checker is held against a search that knows no rules, and against stores with one defect each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod agreement;
mod brute;
mod planted;
mod scale;
#[path = "../support/simulate.rs"]
mod simulate;
