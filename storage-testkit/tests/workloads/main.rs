//! The workloads pass on a sound store under faults, and find planted bugs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bugs;
mod planted;
mod sound;
