//! `soak`: every workload under every class of faults, for a while. `cargo xtask soak` calls it.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use bench::soak::{Soak, soak, workloads};
use lexopt::prelude::*;
use storage_testkit::nemesis::Class;

const HELP: &str = "\
Strikes a cluster while clients work on it, and checks every answer.

Usage: soak --backend embedded|etcd|consul|zk [options]

  --minutes N      how long (default: 2); a fraction is fine
  --seed S         where all choices come from (default: at random; printed)
  --fault CLASS    kill, pause, partition, power, membership or combined (default: one after the other)
  --workload W     register, counter, bank, lock, watch or payments (default: one after the other)
  --nodes N        voters (default: 3)
  --clients N      clients (default: 12)
  --round SECONDS  how long a round of one workload under one class is (default: 20)
  --directory DIR  where the servers have their data (default: the system's temporary folder)
  --out DIR        where the history of a violation goes (default: target/soak)

Partitions and loss of power need root on Linux; without it they are skipped, with the reason.

Exit code 0: passed. 1: a violation, or servers that did not come back. 2: the command line is wrong. 3: some rounds prove nothing.
";

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string(), 1),
    };
    let mut arguments = lexopt::Parser::from_env();
    if env::args().nth(1).as_deref() == Some("node") {
        // The word itself.
        let _ = arguments.next();
        return node(&runtime, &mut arguments);
    }
    let chosen = match parse(&mut arguments) {
        Ok(Some(chosen)) => chosen,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error.to_string(), 2),
    };
    let (backend, seed, seconds) = (&chosen.backend, chosen.seed, chosen.time.as_secs());
    println!("{backend}, {} nodes, {} clients, {seconds} s, seed {seed}", chosen.nodes, chosen.clients);
    match runtime.block_on(soak(&chosen, |line| println!("{line}"))) {
        Ok(summary) => {
            println!("\n{summary}");
            let code = if summary.is_violated() { 1 } else { u8::from(!summary.is_passed()) * 3 };
            ExitCode::from(code)
        }
        Err(error) => fail(&error.to_string(), 1),
    }
}

fn fail(what: &str, code: u8) -> ExitCode {
    eprintln!("soak: {what}");
    ExitCode::from(code)
}

#[cfg(feature = "embedded")]
fn node(runtime: &tokio::runtime::Runtime, arguments: &mut lexopt::Parser) -> ExitCode {
    match runtime.block_on(bench::soak::node(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

#[cfg(not(feature = "embedded"))]
fn node(_: &tokio::runtime::Runtime, _: &mut lexopt::Parser) -> ExitCode {
    fail("the embedded engine is not in this build", 2)
}

fn parse(arguments: &mut lexopt::Parser) -> Result<Option<Soak>, Box<dyn std::error::Error>> {
    let mut chosen = Soak {
        backend: String::new(),
        nodes: 3,
        time: Duration::from_secs(120),
        round: Duration::from_secs(20),
        seed: fastrand::u64(..1 << 32),
        class: None,
        workload: None,
        clients: 12,
        directory: env::temp_dir(),
        out: PathBuf::from("target/soak"),
        program: env::current_exe()?,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("backend") => chosen.backend = arguments.value()?.string()?,
            Long("minutes") => {
                chosen.time = Duration::try_from_secs_f64(60.0 * arguments.value()?.parse::<f64>()?)?;
            }
            Long("seed") => chosen.seed = arguments.value()?.parse()?,
            Long("fault") => {
                let name = arguments.value()?.string()?;
                let known = Class::ALL.map(Class::name).join(", ");
                chosen.class = Some(Class::named(&name).ok_or(format!("the classes of faults are {known}"))?);
            }
            Long("workload") => {
                let name = arguments.value()?.string()?;
                if !workloads().contains(&name.as_str()) {
                    return Err(format!("the workloads are {}", workloads().join(", ")).into());
                }
                chosen.workload = Some(name);
            }
            Long("nodes") => chosen.nodes = arguments.value()?.parse()?,
            Long("clients") => chosen.clients = arguments.value()?.parse()?,
            Long("round") => chosen.round = Duration::from_secs(arguments.value()?.parse()?),
            Long("directory") => chosen.directory = arguments.value()?.into(),
            Long("out") => chosen.out = arguments.value()?.into(),
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.backend.is_empty() {
        return Err("--backend is needed; --help tells more".into());
    }
    Ok(Some(chosen))
}
