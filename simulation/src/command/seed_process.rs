//! A seed in a process of its own. Tokio numbers the tasks of a whole process, and the number decides in which order those of a host that
//! crashes are dropped: only where nothing has run before, and nothing runs beside, does a seed give the same run every time. A panic while a
//! host is dropped, which ends the process, ends one seed then.

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use simulation::run::{Options, Outcome, run};

/// What the line with the outcome begins with.
const OUTCOME: &str = "outcome ";

/// Runs one seed with the bug of that name, or none. What it prints is printed here.
pub(super) fn run_in_child(seed: u64, options: Options, planted: Option<&str>) -> Result<Outcome, String> {
    let mut child = start(seed, options, planted).map_err(|error| format!("cannot start the process: {error}"))?;
    let (mut outcome, mut panics) = (None, Vec::new());
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line.map_err(|error| error.to_string())?;
        match line.strip_prefix(OUTCOME) {
            Some(text) => outcome = Some(serde_json::from_str(text).map_err(|error| error.to_string())?),
            None if line.starts_with(PANIC) => panics.push(line),
            None => println!("{line}"),
        }
    }
    let ended = child.wait().map_err(|error| error.to_string())?;
    // The panics behind the first come of it.
    match (outcome, panics.into_iter().next()) {
        (Some(outcome), None) if ended.success() => Ok(outcome),
        (_, Some(panic)) => Err(panic),
        (_, None) => Err(format!("the process ended with {ended}")),
    }
}

fn start(seed: u64, options: Options, planted: Option<&str>) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--here", &seed.to_string(), "--ticks", &options.ticks.to_string()]);
    command.args(options.trace.then_some("--trace"));
    command.args(planted.into_iter().flat_map(|name| ["--planted", name]));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// What the line with a panic begins with.
const PANIC: &str = "a panic: ";

/// Runs one seed in this process, for the one that has started it.
pub(super) fn run_here(seed: u64, options: &Options) -> ExitCode {
    let usual = std::panic::take_hook();
    // At once: the process may end with the next panic.
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or("without a text").replace('\n', " ");
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        println!("{PANIC}{text}{place}");
        usual(panic);
    }));
    // On a thread of its own, as its stack is to be of the same size everywhere.
    let options = *options;
    let running =
        thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK).spawn(move || run(seed, &options));
    let Ok(Ok(outcome)) = running.map(thread::JoinHandle::join) else { return ExitCode::FAILURE };
    match serde_json::to_string(&outcome) {
        Ok(text) => println!("{OUTCOME}{text}"),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The size of the stack of a seed.
const STACK: usize = 8 << 20;
