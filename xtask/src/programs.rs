//! Test programs, several at a time: most tests wait for elections and timeouts, and one program alone leaves the processors idle.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How many programs run at a time. Each runs as many tests at a time as there are processors; two leave these idle for a tenth of the time.
const AT_ONCE: usize = 3;

/// A test program that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The folder of its package, where it runs.
    folder: PathBuf,
    /// Package and target, for people.
    name: String,
    /// What repeats it, after `cargo test`.
    selection: String,
    file: PathBuf,
}

/// What a program has printed, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) program: Program,
    pub(crate) output: String,
    pub(crate) succeeded: bool,
}

/// Builds the test programs that a call of `cargo test` would run.
///
/// # Errors
/// When they cannot be built.
pub(crate) fn build(mut cargo: Command) -> Result<Vec<Program>> {
    let cargo = cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let mut programs = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output of cargo")?).lines() {
        programs.extend(program(&line?)?);
    }
    if !child.wait()?.success() {
        bail!("the tests cannot be built");
    }
    Ok(programs)
}

/// The test program that cargo tells of in a line, if it does.
fn program(line: &str) -> Result<Option<Program>> {
    let message: Value = serde_json::from_str(line).with_context(|| format!("not a message of cargo: {line}"))?;
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let is_test = message.pointer("/profile/test").and_then(Value::as_bool) == Some(true);
    let (Some("compiler-artifact"), true, Some(file)) = (text("/reason"), is_test, text("/executable")) else {
        return Ok(None);
    };
    let folder = Path::new(text("/manifest_path").context("cargo names no manifest")?).parent();
    let folder = folder.context("a manifest without a folder")?.to_owned();
    let target = text("/target/name").context("cargo names no target")?;
    let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let which = match text("/target/kind/0") {
        Some("test") => format!("--test {target}"),
        Some("bin") => format!("--bin {target}"),
        _ => "--lib".to_owned(),
    };
    // Not by the name of the package: the example is no member of the workspace.
    let manifest = folder.strip_prefix(crate::run::root()).unwrap_or(&folder).join("Cargo.toml");
    let (name, selection) = (format!("{package} {target}"), format!("--manifest-path {} {which}", manifest.display()));
    Ok(Some(Program { folder, name, selection, file: file.into() }))
}

/// The programs in another order: the first of each package, then the second of each, and so on. The programs of one package want the
/// same servers, and several clusters of the heaviest would starve each other.
fn mixed(programs: Vec<Program>) -> Vec<Program> {
    let mut seen: HashMap<PathBuf, usize> = HashMap::new();
    let mut place = |program: &Program| {
        let place = seen.entry(program.folder.clone()).or_default();
        *place += 1;
        *place
    };
    let mut placed: Vec<_> = programs.into_iter().map(|program| (place(&program), program)).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, program)| program).collect()
}

/// Runs programs side by side, and gives each to `ended` when it has ended.
///
/// # Errors
/// When one cannot be started.
pub(crate) fn run(
    programs: Vec<Program>,
    arguments: &[String],
    environment: &[(&str, &Path)],
    ended: impl Fn(Ended) + Sync,
) -> Result<()> {
    let count = programs.len();
    let queue = Mutex::new((1..).zip(mixed(programs)).collect::<VecDeque<(usize, Program)>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let lane = || -> Result<()> {
        while let Some((number, program)) = next() {
            eprintln!("     Running {} ({number} of {count})", program.name);
            ended(run_one(program, arguments, environment)?);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn run_one(program: Program, arguments: &[String], environment: &[(&str, &Path)]) -> Result<Ended> {
    let began = Instant::now();
    // One pipe for both streams, so that what a test prints stays beside its name.
    let (mut output, input) = io::pipe()?;
    let mut command = crate::run::with_known(Command::new(&program.file));
    command.args(arguments).current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.file.display()))?;
    // It holds this process's copies of the pipe's end; the output would not end while they are open.
    drop(command);
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    let succeeded = child.wait()?.success();
    // A test may print what is not UTF-8.
    let output = String::from_utf8_lossy(&bytes);
    let output = format!("\n==> {}, {:.1} s\n{output}", program.name, began.elapsed().as_secs_f64());
    Ok(Ended { program, output, succeeded })
}

impl Program {
    /// The command that runs it alone.
    pub(crate) fn repeat(&self) -> String {
        format!("cargo test {}", self.selection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_package_do_not_follow_each_other() {
        let program = |name: &str| Program {
            folder: name.split(' ').next().unwrap_or_default().into(),
            name: name.to_owned(),
            selection: String::new(),
            file: PathBuf::new(),
        };
        let programs = ["zk conformance", "zk faults", "zk lib", "etcd faults", "etcd lib", "core lib"].map(program);
        let mixed = mixed(programs.to_vec());
        let names: Vec<_> = mixed.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["zk conformance", "etcd faults", "core lib", "zk faults", "etcd lib", "zk lib"]);
    }

    #[test]
    fn what_cargo_has_built_to_be_run_as_a_test_is_found() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/w/storage-zk/Cargo.toml","target":{"kind":["test"],"name":"faults"},"profile":{"test":true},"executable":"/w/target/debug/deps/faults-1"}"#;
        let found = program(line).unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.folder.as_path()), ("storage-zk faults", Path::new("/w/storage-zk")));
        assert_eq!(found.repeat(), "cargo test --manifest-path /w/storage-zk/Cargo.toml --test faults");
        for other in [
            line.replace("\"test\":true", "\"test\":false"),
            line.replace("\"/w/target/debug/deps/faults-1\"", "null"),
            line.replace("compiler-artifact", "build-finished"),
        ] {
            assert_eq!(program(&other).unwrap(), None, "{other}");
        }
        assert!(program("warning: no JSON").is_err());
    }

    #[test]
    fn all_programs_run_and_one_that_fails_is_told_with_what_it_printed() {
        let program = |number: usize| Program {
            folder: std::env::temp_dir(),
            name: format!("number {number}"),
            selection: String::new(),
            file: "/bin/sh".into(),
        };
        let ended = Mutex::new(Vec::new());
        let arguments = ["-c".to_owned(), "echo out; echo $WHO >&2; exit 3".to_owned()];
        let programs = (0..5).map(program).collect();
        run(programs, &arguments, &[("WHO", Path::new("me"))], |one| ended.lock().unwrap().push(one)).unwrap();
        let ended = ended.into_inner().unwrap();
        assert_eq!(ended.len(), 5);
        for one in ended {
            assert!(!one.succeeded && one.output.ends_with("out\nme\n"), "{one:?}");
        }
    }
}
