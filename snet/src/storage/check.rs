//! `snet storage check`: the conformance suite on a live store.

mod handle;

use std::{sync::Arc, time::Instant};

use ::storage::{
    Key, Prefixed, Result, ScanOptions, Store, Txn, WriteOptions,
    conformance::{CASES, Case, Harness, Injected, Namespace, Servers, Verdict},
};
use anyhow::anyhow;
use async_trait::async_trait;
use serde::Serialize;

use self::handle::Handle;
use super::flags::StoreUrlFlags;
use crate::{
    exit::{Failure, Outcome},
    progress::Progress,
    table::Table,
};

/// Hold a store against the contract, case by case.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  snet storage check mem:
  snet storage check etcd://127.0.0.1:2379
  snet storage check --endpoints http://10.0.1.1:2379,http://10.0.1.2:2379 --output json
  snet storage check embedded:/var/lib/scratch --only cas
      the cases whose name contains `cas`

Each case works on keys of its own, below a random prefix of `snet-check/`, and removes them. Cases that break servers are
skipped, since others may use them. The store should be idle or at least not in use by many: some cases write much.
A case that fails ends the command with code 1.")]
pub(crate) struct Check {
    #[command(flatten)]
    store: StoreUrlFlags,
    /// Run only the cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

pub(super) async fn run(arguments: &Check) -> Outcome {
    let name_of = |case: &Case| case.to_string();
    let cases: Vec<&Case> = CASES.iter().filter(|case| name_of(case).contains(&arguments.only)).collect();
    if cases.is_empty() {
        return Err(Failure::Usage(anyhow!("no case has `{}` in its name", arguments.only)));
    }
    let live = Live::open(&arguments.store.url()?).await?;
    let store = Arc::clone(&live.store);
    // Lost replies and outages need no help of the servers.
    let checked = Injected::new(live);
    let mut report = SuiteReport { cases: Vec::new(), passed: 0, skipped: 0, failed: 0 };
    let mut progress = Progress::new(cases.len());
    for case in &cases {
        progress.step(&name_of(case));
        let began = Instant::now();
        let verdict = ::storage::conformance::run(case, &checked).await;
        *match &verdict {
            Verdict::Passed => &mut report.passed,
            Verdict::Skipped(_) => &mut report.skipped,
            Verdict::Failed(_) => &mut report.failed,
        } += 1;
        report.cases.push(Checked {
            case: name_of(case),
            verdict: verdict.kind(),
            reason: verdict.reason().to_owned(),
            millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
    drop(progress);
    let _ = store.close().await;
    arguments.store.output.print(&report, table)?;
    match report.failed {
        0 => Ok(()),
        failed => Err(Failure::Wrong(anyhow!("the store breaks the contract in {failed} of {} cases", cases.len()))),
    }
}

/// What was found.
#[derive(Serialize)]
struct SuiteReport {
    cases: Vec<Checked>,
    passed: usize,
    skipped: usize,
    failed: usize,
}

#[derive(Serialize)]
struct Checked {
    case: String,
    verdict: &'static str,
    reason: String,
    millis: u64,
}

fn table(report: &SuiteReport) -> String {
    let mut table = Table::default();
    for Checked { case, verdict, reason, millis } in &report.cases {
        table.row([format!("{verdict:<9}{case}"), format!("{millis} ms")]);
        if let Some(reason) = reason.lines().next() {
            table.row([format!("           {reason}")]);
        }
    }
    let SuiteReport { passed, skipped, failed, .. } = report;
    format!("{table}\n{passed} passed, {skipped} skipped, {failed} failed\n")
}

/// The live store. Each handle of a case is opened on its own by the URL, with a connection of its own, except on an
/// embedded node, which can be started only once: there all share it.
struct Live {
    url: String,
    store: Arc<dyn Store>,
    shared: bool,
}

impl Live {
    async fn open(url: &str) -> Result<Self> {
        // Handles on a store in memory find each other by its name.
        let url = if url == "mem:" { format!("mem:snet-check-{:016x}", fastrand::u64(..)) } else { url.to_owned() };
        let store = ::storage::open(&url).await?;
        let shared = store.capabilities().backend == "embedded";
        Ok(Self { url, store, shared })
    }
}

#[async_trait]
impl Harness for Live {
    fn name(&self) -> &str {
        self.store.capabilities().backend
    }

    fn servers(&self) -> Servers {
        Servers::Shared
    }

    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        let prefix = Key::new(format!("snet-check/{:016x}/", fastrand::u64(..)))?;
        let url = (!self.shared).then(|| self.url.clone());
        Ok(Box::new(Space { store: Arc::clone(&self.store), url, prefix }))
    }
}

/// The keys below a prefix.
struct Space {
    store: Arc<dyn Store>,
    /// How to open a handle; `None`: the store itself has to be shared.
    url: Option<String>,
    prefix: Key,
}

#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        let handle = match &self.url {
            Some(url) => ::storage::open(url).await?,
            None => Arc::new(Handle::new(Arc::clone(&self.store))),
        };
        Ok(Arc::new(Prefixed::new(handle, self.prefix.clone())))
    }

    async fn remove(&self) -> Result<()> {
        loop {
            let page = self.store.scan(self.prefix.as_bytes(), ScanOptions::default()).await?;
            for entries in page.entries.chunks(self.store.capabilities().max_txn_ops) {
                let txn = entries.iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key.clone()));
                // Without guards there is no conflict.
                let _ = self.store.commit(txn, WriteOptions::default()).await?;
            }
            if page.next.is_none() {
                return Ok(());
            }
        }
    }

    fn max_key_bytes(&self) -> usize {
        Key::MAX_BYTES - self.prefix.as_bytes().len()
    }
}
