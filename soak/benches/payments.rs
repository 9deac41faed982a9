//! `cargo bench --bench payments`: payments per second, each client with a channel of its own, and all of them on one hot channel, with
//! ten clients and three replicas in a closed loop. A payment is signed, validated, reserved and committed; each run is audited.
//! Backends as in the bench `store`.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot run has nobody to tell but the person who reads"
)]

use std::{future::pending, time::Duration};

use bench::{Amount, Clients, Placement, default_directory, to_bench};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use soak::{Rehearsal, Traffic, in_turn, rehearse};

const CLIENTS: usize = 10;
const REPLICAS: usize = 3;

/// Sizes of clusters; a store in memory has one.
const NODES: [usize; 2] = [1, 3];

fn payments(criterion: &mut Criterion) {
    let directory = default_directory();
    let clients = Clients::new(Clients::THREADS).expect("threads for the clients");
    for backend in to_bench() {
        backend.installed().unwrap_or_else(|error| panic!("{error}"));
        for nodes in NODES.into_iter().filter(|nodes| backend.has(*nodes)) {
            let target = clients.block_on(backend.start(nodes, &directory));
            let target = target.unwrap_or_else(|error| panic!("{error}"));
            let handles = target.handles(Placement::Spread);
            for (name, hot_share) in [("own channels", 0.0), ("one hot channel", 1.0)] {
                let mut group = criterion.benchmark_group(format!("payments, {name}"));
                group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
                group.bench_function(BenchmarkId::from_parameter(format!("{}-{nodes}", backend.name)), |bencher| {
                    bencher.iter_custom(|payments| {
                        let rehearsal = Rehearsal {
                            replicas: REPLICAS,
                            clients: CLIENTS,
                            hot_share,
                            amount: Amount::Iterations(payments),
                            traffic: Traffic::Payments,
                            kill_replicas: false,
                            lease: Duration::from_secs(30),
                            seed: payments,
                        };
                        let report =
                            clients.block_on(rehearse(&rehearsal, in_turn(handles.clone()), pending(), |_| {}));
                        let report = report.unwrap_or_else(|error| panic!("{error}"));
                        assert!(report.audit.violations.is_empty(), "{:?}", report.audit);
                        Duration::from_secs_f64(report.seconds)
                    });
                });
                group.finish();
            }
            clients.block_on(target.stop());
        }
    }
}

/// Short, since each sample is a service of its own.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = payments }
criterion_main!(benches);
