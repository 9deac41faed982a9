//! How a node learns that it was removed from its cluster.
//!
//! Mostly it is not told: the leader sends it nothing any more. What it has applied may say so, and every member that it calls does, whatever for
//! (see `network/belonging.rs`): a vote, a comparison, a call of its users. A node that nobody leads calls the members to hear it: a learner asks for no votes.

use std::{io, sync::Arc, time::Duration};

use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::timeout;

use super::leader::Leader;
use crate::{
    network::peer::{PeerContext, standing},
    state_machine::Raft,
};

/// How often a node that knows no leader calls the members.
const CALLED_EVERY: Duration = Duration::from_secs(1);

/// How long it waits for them.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Watches for as long as the node runs.
///
/// # Errors
/// Those of the disk, on which the node remembers what it has learnt.
pub(super) async fn watch(raft: Raft, peers: Arc<PeerContext>, leader: Leader) -> io::Result<()> {
    let mut metrics = raft.server_metrics();
    loop {
        peers.admission.look()?;
        match timeout(CALLED_EVERY, metrics.changed()).await {
            Ok(Ok(())) => continue,
            // Raft has ended, which others tell.
            Ok(Err(_)) => return Ok(()),
            Err(_) => {}
        }
        if leader.known().is_some() {
            continue;
        }
        let others: Vec<_> = {
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.membership().nodes().filter(|(id, _)| **id != peers.node);
            members.map(|(id, member)| (*id, member.peer_address.clone())).collect()
        };
        // The greeting has told what there is to know, whatever they answer.
        let calls = others.iter().map(|(id, address)| standing(&peers, *id, address));
        let _ = timeout(ANSWER_WITHIN, join_all(calls)).await;
    }
}
