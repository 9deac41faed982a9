//! `cargo xtask test`: the workspace's tests on real servers.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::programs::{self, Ended};
use crate::report::{Report, Totals};
use crate::run;
use crate::setup::{self, Target};

/// What there is besides the defaults, so that the tests of the command line and of payments on clusters of servers run too, and short
/// soaks of all.
pub(crate) const EVERYTHING: &str = "snet/etcd,soak/all,payment-channels/servers";

/// A backend, and with it the package that has its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Backend {
    Memory,
    Embedded,
    Etcd,
    Consul,
    Zk,
}

impl Backend {
    const ALL: [Self; 5] = [Self::Memory, Self::Embedded, Self::Etcd, Self::Consul, Self::Zk];

    fn package(self) -> &'static str {
        match self {
            Self::Memory => "storage-core",
            Self::Embedded => "storage-embedded",
            Self::Etcd => "storage-etcd",
            Self::Consul => "storage-consul",
            Self::Zk => "storage-zk",
        }
    }

    fn server(self) -> Option<Target> {
        match self {
            Self::Memory | Self::Embedded => None,
            Self::Etcd => Some(Target::Etcd),
            Self::Consul => Some(Target::Consul),
            Self::Zk => Some(Target::Zk),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Test only these backends; without this the whole workspace is tested
    #[arg(long, value_enum, value_delimiter = ',')]
    backends: Vec<Backend>,
    /// Arguments for the tests themselves, such as a part of a test's name
    #[arg(last = true)]
    args: Vec<String>,
}

impl Options {
    /// Tests everything.
    pub(crate) fn all() -> Self {
        Self { backends: Vec::new(), args: Vec::new() }
    }

    fn packages(&self) -> Vec<&'static str> {
        if self.backends.is_empty() {
            return vec!["--workspace", "--features", EVERYTHING];
        }
        self.backends.iter().flat_map(|backend| ["--package", backend.package()]).collect()
    }

    /// The calls of `cargo test`: one for the packages; and one for the example when everything is tested, built beside the
    /// workspace so that what both need is built once.
    fn calls(&self) -> Vec<Command> {
        let mut packages = run::cargo();
        packages.arg("test").args(self.packages());
        let mut example = run::cargo();
        example.args(["test", "--manifest-path", run::EXAMPLE, "--target-dir"]).arg(run::target());
        if self.backends.is_empty() { vec![packages, example] } else { vec![packages] }
    }

    /// The call for the examples in the documentation, which are in no program.
    fn doc_tests(&self) -> Command {
        let mut doc = run::cargo();
        doc.arg("test").args(self.packages()).args(["--doc", "--no-fail-fast", "--"]).args(&self.args);
        doc
    }

    fn servers(&self) -> Vec<Target> {
        let all = self.backends.is_empty();
        let backends = if all { &Backend::ALL[..] } else { &self.backends };
        let servers = backends.iter().filter_map(|backend| backend.server());
        // Whatever is chosen, the etcd client may be among what has to be built.
        let others = if all { &[Target::Clients, Target::Anvil][..] } else { &[] };
        servers.chain([Target::Protoc]).chain(others.iter().copied()).collect()
    }
}

/// Sets up what the tests need, runs them, and reports.
pub(crate) fn test(options: &Options) -> Result<()> {
    let began = Instant::now();
    setup::setup(&options.servers())?;

    let report = run::root().join(".cache/conformance.jsonl");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut programs = Vec::new();
    for call in options.calls() {
        programs.extend(programs::build(call)?);
    }
    let (built, outcome) = (Instant::now(), Mutex::new(Outcome::default()));
    let color = io::stdout().is_terminal().then(|| "--color=always".to_owned());
    let arguments: Vec<String> = color.into_iter().chain(options.args.iter().cloned()).collect();
    programs::run(programs, &arguments, &[("STORAGE_CONFORMANCE_REPORT", &report)], |ended| {
        outcome.lock().unwrap_or_else(PoisonError::into_inner).add(&ended);
    })?;
    let Outcome { mut totals, mut failed } = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !run_doc_tests(options.doc_tests(), &mut totals)? {
        failed.push("cargo test --doc".to_owned());
    }

    let report = Report::parse(&fs::read_to_string(&report).unwrap_or_default())?;
    // To the test harness a case that was skipped is a test that passed.
    totals.passed = totals.passed.saturating_sub(report.skipped());
    totals.skipped += report.skipped();
    println!("\n{report}");
    let (building, testing) = (built.duration_since(began).as_secs_f64(), built.elapsed().as_secs_f64());
    println!("building took {building:.1} s, the tests {testing:.1} s");
    println!("{totals}");
    if !failed.is_empty() || report.failed() > 0 {
        bail!("some tests failed; alone they run by\n  {}", failed.join("\n  "));
    }
    Ok(())
}

/// What became of the programs that have ended so far.
#[derive(Debug, Default)]
struct Outcome {
    totals: Totals,
    /// How those that failed are repeated.
    failed: Vec<String>,
}

impl Outcome {
    fn add(&mut self, ended: &Ended) {
        println!("{}", ended.output);
        ended.output.lines().for_each(|line| self.totals.add_result_line(line));
        if !ended.succeeded {
            self.failed.push(ended.program.repeat());
        }
    }
}

/// Shows what cargo prints and adds up the result lines.
fn run_doc_tests(mut cargo: Command, totals: &mut Totals) -> Result<bool> {
    // One pipe for both streams, so that the names of the test programs stay above their results.
    let (output, input) = io::pipe()?;
    let mut child = cargo.stdout(input.try_clone()?).stderr(input).spawn().context("cannot start cargo")?;
    // It holds this process's copies of the pipe's end; the output would not end while they are open.
    drop(cargo);
    // Not `lines`: a test may print what is not UTF-8.
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        totals.add_result_line(&line);
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_backends_choose_packages_and_servers() {
        let options = Options { backends: vec![Backend::Memory, Backend::Zk], args: Vec::new() };
        assert_eq!(options.packages(), ["--package", "storage-core", "--package", "storage-zk"]);
        assert_eq!(options.servers(), [Target::Zk, Target::Protoc]);
        assert_eq!(options.calls().len(), 1);
    }

    #[test]
    fn without_a_choice_everything_is_tested() {
        assert_eq!(Options::all().packages(), ["--workspace", "--features", EVERYTHING]);
        let calls = Options::all().calls();
        assert!(calls.last().is_some_and(|call| call.get_args().any(|argument| argument == run::EXAMPLE)), "{calls:?}");
        let servers = [Target::Etcd, Target::Consul, Target::Zk, Target::Protoc, Target::Clients, Target::Anvil];
        assert_eq!(Options::all().servers(), servers);
    }
}
