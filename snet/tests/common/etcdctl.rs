//! A user of `etcdctl` on a cluster.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use storage_testkit::programs;

/// However busy the machine is, a command has ended by then.
const DEADLINE: Duration = Duration::from_secs(180);

/// How `etcdctl` is called.
pub(crate) struct Etcdctl {
    /// Client URLs.
    pub(crate) endpoints: Vec<String>,
    /// `--cacert` and so on.
    pub(crate) tls: Vec<String>,
}

impl Etcdctl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::find("etcdctl").unwrap_or_else(|error| panic!("{error}")));
        // Its own limits are for machines that have nothing else to do.
        command.env("ETCDCTL_API", "3").args(["--command-timeout", "60s", "--dial-timeout", "60s", "--endpoints"]);
        command.arg(self.endpoints.join(",")).args(&self.tls).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        ended(self.command(arguments).spawn().unwrap())
    }

    /// What it prints, when it succeeds.
    #[track_caller]
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a user does on the first day, on an empty cluster. `dir` is for a file.
    pub(crate) fn walk(&self, dir: &Path) {
        for (key, value) in [("channel/1", "open"), ("channel/2", "open"), ("other", "x")] {
            assert_eq!(self.told(&["put", key, value]), "OK\n");
        }
        assert_eq!(self.told(&["get", "--prefix", "channel/"]), "channel/1\nopen\nchannel/2\nopen\n");

        let mut txn = self.command(&["txn"]).stdin(Stdio::piped()).spawn().unwrap();
        let script = b"value(\"channel/1\") = \"open\"\n\nput channel/1 claimed\nget channel/1\n\nget other\n\n";
        txn.stdin.take().unwrap().write_all(script).unwrap();
        let txn = ended(txn);
        assert_eq!(String::from_utf8(txn.stdout).unwrap(), "SUCCESS\n\nOK\n\nchannel/1\nclaimed\n");

        let watch = Lines::of(self.command(&["watch", "--prefix", "channel/", "--rev", "2"]));
        assert_eq!(watch.next(3), ["PUT", "channel/1", "open"]);
        assert_eq!(watch.next(6), ["PUT", "channel/2", "open", "PUT", "channel/1", "claimed"]);
        self.told(&["del", "channel/2"]);
        assert_eq!(watch.next(3), ["DELETE", "channel/2", ""]);

        let granted = self.told(&["lease", "grant", "60"]);
        let id = granted.split(' ').nth(1).unwrap();
        self.told(&["put", "--lease", id, "leased", "v"]);
        let kept = Lines::of(self.command(&["lease", "keep-alive", id]));
        assert_eq!(kept.next(1), [format!("lease {id} keepalived with TTL(60)")]);
        assert_eq!(self.told(&["lease", "revoke", id]), format!("lease {id} revoked\n"));
        assert_eq!(self.told(&["get", "leased"]), "");

        let nodes = self.endpoints.len();
        assert_eq!(self.told(&["member", "list"]).matches(", started, ").count(), nodes);
        let status = self.told(&["endpoint", "status"]);
        let leads = |line: &&str| line.split(", ").nth(4) == Some("true");
        assert_eq!((status.lines().count(), status.lines().filter(leads).count()), (nodes, 1), "{status}");
        let health = self.run(&["endpoint", "health"]);
        let said = [health.stdout, health.stderr].concat();
        assert_eq!(String::from_utf8(said).unwrap().matches("is healthy").count(), nodes);

        let file = dir.join("saved-by-etcdctl");
        let saved = Self { endpoints: self.endpoints[..1].to_vec(), tls: self.tls.clone() };
        saved.told(&["snapshot", "save", file.to_str().unwrap()]);
        assert!(file.metadata().unwrap().len() > 0);

        assert_eq!(self.told(&["get", "--rev", "2", "channel/1"]), "channel/1\nopen\n");
        assert_eq!(self.told(&["compact", "5"]), "compacted revision 5\n");
        let compacted = self.run(&["get", "--rev", "2", "channel/1"]);
        assert!(String::from_utf8(compacted.stderr).unwrap().contains("required revision has been compacted"));
        assert_eq!(self.told(&["get", "--rev", "5", "channel/1"]), "channel/1\nclaimed\n");
    }
}

/// Waits for the end of a process.
fn ended(child: Child) -> Output {
    let pid = child.id().to_string();
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    output.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
        panic!("etcdctl does not end")
    })
}

/// What a process prints while it runs. It is killed when this is dropped.
struct Lines {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::inherit()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, lines }
    }

    fn next(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let line = || self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        (0..count).map(|_| line().expect("etcdctl goes on")).collect()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
