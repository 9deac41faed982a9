//! One server process under a watchdog, so that it dies when this process does, however that ends.
//!
//! Invariant: when the watchdog is gone the server is gone, and its ports are free. A paused server has no thread that
//! still runs when pausing returns.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::node::Launch;

/// How often a process that has to stop is looked at. Threads stop within microseconds to a few milliseconds.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// The watchdog: it starts the server, and ends it when its own standard input ends.
///
/// Only this process holds the other end of that pipe, and the kernel closes it however this process ends, SIGKILL included.
/// (The parent-death signal is no substitute: it fires when the *thread* that started the child ends.)
/// Lines on the pipe are signals for the server. The server runs without the pipe, and without this process's standard
/// streams, so that nothing waits for it. The watchdog waits for the server before it ends, so once the watchdog is gone,
/// the server is gone too and its ports are free. The last `kill` takes what the server itself has started.
const WATCHDOG: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >&2 &
server=$!
echo "$server"
(
    while read -r signal <&3; do
        if kill -s "$signal" "$server"; then echo sent; else echo failed; fi
    done
    kill -s KILL "$server"
) &
wait "$server"
kill -s KILL 0
"#;

/// One running server process.
#[derive(Debug)]
pub(super) struct Process {
    watchdog: Child,
    /// Closing this kills the server.
    signals: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pid: u32,
}

impl Process {
    /// Starts a server in the folder `dir`, with what it prints appended to the file `log`.
    pub(super) fn start(launch: &Launch, dir: &Path, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&launch.program)
            .args(&launch.args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            // A group of its own: Ctrl-C in a terminal must not reach the servers before the test has ended.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let signals = watchdog.stdin.take();
        let answers = watchdog.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut process = Self { watchdog, signals, answers: BufReader::new(answers), pid: 0 };
        process.pid = process
            .answer()?
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("watchdog: {error}")))?;
        Ok(process)
    }

    /// The server's own process id, not the watchdog's.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the server still runs; a stopped one does.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.watchdog.try_wait(), Ok(None))
    }

    /// Sends the server a signal by its name without `SIG`, and waits until it is sent.
    pub(super) fn signal(&mut self, name: &str) -> io::Result<()> {
        let signals = self.signals.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(signals, "{name}")?;
        signals.flush()?;
        match self.answer()?.as_str() {
            "sent" => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Waits until no thread of the server can do anything any more, after a SIGSTOP.
    ///
    /// The signal is sent when [`Process::signal`] returns, but each thread stops by itself: one that runs on another
    /// processor, or waits for its turn, may serve one more request.
    pub(super) fn wait_until_stopped(&self, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        let mut before = None;
        loop {
            let stopped = stopped_threads(self.pid)?;
            // Twice the same threads: one that was begun while the first list was made is in the second.
            if stopped.is_some() && stopped == before {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            before = stopped;
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Kills the server with SIGKILL. It is certainly gone when [`Process::wait`] or the drop has returned.
    pub(super) fn kill(&mut self) {
        self.signals = None;
    }

    /// Waits until the server is gone.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.watchdog.wait().map(drop)
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

/// The threads of a process, if all of them are stopped.
fn stopped_threads(pid: u32) -> io::Result<Option<Vec<OsString>>> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        // One that has ended meanwhile is not there any more.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { return Ok(None) };
        // The state follows the name, which is in parentheses and may have some of its own: proc(5).
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 'Z' | 'X')) {
            return Ok(None);
        }
        threads.push(thread.file_name());
    }
    threads.sort_unstable();
    Ok(Some(threads))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // The watchdog needs no more than a SIGKILL to end; what could fail here is a second wait.
        let _ = self.wait();
    }
}
