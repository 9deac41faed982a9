//! Looks at the disk of this node, and raises the alarm when there is little space on it.
//!
//! The alarm stands in the log, for all replicas: a write that a majority can take and this node cannot would leave it behind.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Inner, Node};
use crate::{
    command::Command,
    disk::{RESERVE_BYTES, Reserve},
    host::blocking,
};

/// How often a node looks: what others write meanwhile is bounded by the speed of the disk.
const LOOKED_AT: Duration = Duration::from_millis(250);

/// How long the alarm may take; then it is raised again.
const RAISED_WITHIN: Duration = Duration::from_secs(2);

/// Looks for as long as the node runs.
pub(super) async fn watch(node: Weak<Inner>, reserve: Arc<Reserve>) {
    let mut is_said = false;
    loop {
        tokio::time::sleep(LOOKED_AT).await;
        let Some(node) = node.upgrade().map(Node) else { return };
        if *node.0.stopping.borrow() {
            return;
        }
        let wanted = RESERVE_BYTES.saturating_add(node.0.snapshots.metrics().newest_bytes);
        let reserve = Arc::clone(&reserve);
        match blocking(move || reserve.keep(wanted)).await {
            Ok(space) => {
                node.0.space.send_replace(space);
                let id = node.id();
                let stands = || node.state().read(|replica| replica.state.tables().alarms().any(|member| member == id));
                if space.is_short() && !stands() {
                    tracing::warn!(?space, "there is little space on the disk: what grows is refused from now on");
                    if let Err(error) = node.apply(&Command::Alarm { member: id, raise: true }, RAISED_WITHIN).await {
                        tracing::debug!(%error, "the alarm could not be raised yet");
                    }
                }
            }
            Err(error) if !std::mem::replace(&mut is_said, true) => {
                tracing::warn!(%error, "cannot look after the space on the disk, or hold some of it in reserve");
            }
            Err(_) => {}
        }
    }
}
