//! Reports for people: Markdown, and one page of HTML that needs nothing else.

mod axis;
mod charts;
mod format;
mod html;
mod markdown;
mod view;

pub use format::{bytes, millis, seconds, thousands};
pub use html::html;
pub use markdown::markdown;

use crate::{Physics, Report};

/// What every report says of how it was made.
fn method(report: &Report) -> Vec<String> {
    let amount = match (report.iterations, report.seconds) {
        (Some(iterations), _) => format!("{} iterations of each client", thousands(iterations as f64)),
        (None, seconds) => format!("{} s", seconds.unwrap_or_default()),
    };
    let mut lines = vec![
        format!(
            "All nodes run on this machine: {}. fdatasync of an overwrite takes {} (p99 {}){}, a round trip over loopback {}.",
            report.machine.line(),
            millis(report.physics.fdatasync.p50_us),
            millis(report.physics.fdatasync.p99_us),
            shared_syncs(&report.physics),
            millis(report.physics.round_trip.p50_us),
        ),
        format!(
            "{} rounds of {amount} after {} s of warm-up, with {}-byte values. Each round starts new clusters, one backend after the \
             other, so that a machine that drifts does so for all of them. Figures are medians of the rounds with the lowest and \
             the highest.",
            report.rounds, report.warm_up_seconds, report.value_bytes
        ),
        format!(
            "Clients run on threads of their own and call through the same trait, placed: {}. In a closed loop each waits for its answer \
             before it goes on. In an open loop iterations begin at a fixed rate and latencies count from when they should have begun.",
            report.placement
        ),
        "A cas is a read and a swap and counts as two requests; a payment is a reservation and a commit, likewise. hot-cas is the same \
         on one key for all clients: those that lose are counted as conflicts. After each run the counters in the store had to add \
         up to what was acknowledged."
            .to_owned(),
        "The limit is what waiting allows clients in a closed loop: clients x requests / (fdatasync + round trips), \
         with the fdatasync of a majority of the nodes at once on the disk they share."
            .to_owned(),
        "Processor time and bytes written are those of the servers for 100,000 iterations; of nodes in the clients' process, without \
         the clients' threads (calls that travel on these are not counted), and memory is that of the whole process."
            .to_owned(),
    ];
    if let Some(failover) = report.failovers.first() {
        lines.push(format!(
            "The time without service runs from the SIGKILL of the leader to the first acknowledgement of a cas that began after it, by any of \
             {} clients. The embedded engine's clients are in the process of a node that lives; the others call all nodes.",
            failover.clients
        ));
    }
    lines
}

/// How much longer a sync takes on a disk that is shared: ", by a majority of 3 nodes at once 0.30 ms".
pub fn shared_syncs(physics: &Physics) -> String {
    let each = physics.shared_fdatasync.iter();
    each.map(|(nodes, time)| format!(", by a majority of {nodes} nodes at once {}", millis(time.p50_us))).collect()
}

/// What has to be known before any figure is read.
fn warnings(report: &Report) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if report.on_tmpfs {
        warnings.push("THE DATA WAS IN MEMORY: the figures of durable stores say nothing.");
    }
    if !report.is_clean() {
        warnings.push("OPERATIONS FAILED: the figures say how many and how.");
    }
    warnings
}
