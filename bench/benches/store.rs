//! `cargo bench`: every workload on clusters of 1, 3 and 5 nodes with values of 128 bytes and 2 KiB, through the `Store`
//! trait, with ten clients in a closed loop. The embedded engine needs nothing installed; other backends come with
//! their features, `cargo bench --features etcd,consul,zk`, and start real servers. The time that criterion shows for one element is the whole time divided by all clients' requests.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot run has nobody to tell but the person who reads"
)]

use std::time::Duration;

use bench::{Amount, Clients, Load, Placement, Workload, default_directory, on_tmpfs, to_bench};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

/// As in the published table that the project compares itself with.
const CLIENTS: usize = 10;
const NODES: [usize; 3] = [1, 3, 5];
const VALUE_BYTES: [usize; 2] = [128, 2048];

fn stores(criterion: &mut Criterion) {
    let directory = default_directory();
    if on_tmpfs(&directory).expect("a directory") {
        eprintln!("warning: {} is in memory, where a sync costs nothing", directory.display());
    }
    let clients = Clients::new(Clients::THREADS).expect("threads for the clients");
    let backends: Vec<_> = to_bench().filter(|backend| backend.durable).collect();
    for backend in &backends {
        backend.installed().unwrap_or_else(|error| panic!("{error}"));
    }
    for backend in backends {
        for nodes in NODES {
            let target = clients.block_on(backend.start(nodes, &directory));
            let target = target.unwrap_or_else(|error| panic!("{error}"));
            let handles = target.handles(Placement::Spread);
            for workload in Workload::ALL {
                let mut group = criterion.benchmark_group(workload.name());
                group.throughput(Throughput::Elements(workload.requests().into())).sampling_mode(SamplingMode::Flat);
                for value_bytes in VALUE_BYTES {
                    let load = Load { workload, clients: CLIENTS, rate: None, value_bytes };
                    let id = BenchmarkId::new(format!("{}-{nodes}", backend.name), format!("{value_bytes}B"));
                    group.bench_function(id, |bencher| {
                        let mut session = clients.prepare(&handles, &load).expect("clients");
                        bencher.iter_custom(|iterations| {
                            session.run(Amount::Iterations(iterations)).expect("a run").elapsed
                        });
                        session.verify().expect("counters that add up");
                    });
                }
                group.finish();
            }
            clients.block_on(target.stop());
        }
    }
}

/// Short, since there are thirty of them for each backend.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = short(); targets = stores }
criterion_main!(benches);
