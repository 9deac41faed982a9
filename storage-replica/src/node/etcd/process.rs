//! A child process that ends when this process does, however this process ends.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStderr, ChildStdin, Command},
    task::JoinHandle,
};

/// Starts the program, and ends it when its own standard input ends or has a line.
///
/// Only this process holds the other end of that pipe, and the kernel closes it however this process ends. (The
/// parent-death signal of Linux is no substitute: it comes when the *thread* that started the child ends.) A line asks the
/// program to end in good order. The shell waits for the program, so once the shell is gone, the program is gone too.
const KEEPER: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
program=$!
(
    if read -r line <&3; then
        kill -s TERM "$program"
        read -r line <&3
    fi
    kill -s KILL "$program"
) 2>/dev/null &
keeper=$!
wait "$program" 2>/dev/null
status=$?
kill -s KILL "$keeper" 2>/dev/null
exit "$status"
"#;

/// So many of the last lines that a child has printed are kept, for whoever asks why it ended.
const LINES_KEPT: usize = 5;

/// A child process.
#[derive(Debug)]
pub(super) struct Child {
    keeper: tokio::process::Child,
    /// Closing this kills the program.
    control: Option<ChildStdin>,
    last_lines: LastLines,
    printing: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts a program. What it prints on standard error is printed on that of this process.
    pub(super) fn start(program: &Path, arguments: &[impl AsRef<OsStr>]) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        // Variables of this name are etcd's flags by another way; ours alone shall count.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ETCD_")) {
            command.env_remove(name);
        }
        let mut keeper = command
            .args(["-c", KEEPER, "keeper"])
            .arg(program)
            .args(arguments)
            // A group of its own: Ctrl-C in a terminal is for this process, which then ends the program in good order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let last_lines = LastLines::default();
        let printing = keeper.stderr.take().map(|stderr| tokio::spawn(print(stderr, last_lines.clone())));
        Ok(Self { control: keeper.stdin.take(), keeper, last_lines, printing })
    }

    /// Waits until the program has ended, and tells how, in words.
    ///
    /// # Cancel safety
    /// Dropped, nothing has happened.
    pub(super) async fn ended(&mut self) -> String {
        let status = self.keeper.wait().await;
        if let Some(printing) = &mut self.printing {
            // What a program leaves behind may hold the pipe: nothing waits for that.
            let _ = tokio::time::timeout(Duration::from_secs(1), printing).await;
            self.printing = None;
        }
        let how = match status {
            Ok(status) => status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}")),
            Err(error) => error.to_string(),
        };
        let lines = self.last_lines.text();
        if lines.is_empty() { how } else { format!("{how}; it said last:\n{lines}") }
    }

    /// Ends the program in good order, or by force when that takes longer than this.
    pub(super) async fn stop(&mut self, grace: Duration) {
        if let Some(control) = &mut self.control {
            // It fails only if the program has ended already.
            let _ = control.write_all(b"stop\n").await;
            let _ = control.flush().await;
        }
        if tokio::time::timeout(grace, self.keeper.wait()).await.is_err() {
            self.control = None;
            let _ = self.keeper.wait().await;
        }
    }
}

/// The last lines that a program has printed.
#[derive(Clone, Debug, Default)]
struct LastLines(Arc<Mutex<Vec<String>>>);

impl LastLines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT {
            lines.remove(0);
        }
        lines.push(line);
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

async fn print(stderr: ChildStderr, last_lines: LastLines) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    let mut output = tokio::io::stderr();
    while let Ok(Some(mut line)) = lines.next_segment().await {
        last_lines.push(String::from_utf8_lossy(&line).into_owned());
        line.push(b'\n');
        // If nobody takes it, there is nobody to tell.
        let _ = output.write_all(&line).await;
    }
}
