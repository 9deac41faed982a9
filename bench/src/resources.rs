//! What servers use of the machine, as proc(5) tells it. Nothing is told where there is no such file system.

use std::fs;

/// Ticks of the times in `/proc/PID/stat` in a second: USER_HZ, which Linux has kept at this on all common machines.
const TICKS_PER_SECOND: f64 = 100.0;

/// The threads that do the clients' work, as [`crate::Clients`] names them.
const CLIENT_THREADS: &str = "bench-client";

/// What was used since some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time.
    pub(crate) cpu_seconds: f64,
    /// Bytes that were handed to the block layer, in whole pages.
    pub(crate) bytes_written: u64,
    /// Memory that is resident now.
    pub(crate) memory_bytes: u64,
}

/// Watches processes.
#[derive(Debug)]
pub(crate) struct Meter {
    servers: Option<Vec<u32>>,
    before: Usage,
}

impl Meter {
    /// Begins to watch these processes; `None`: this one, without the threads of its clients.
    pub(crate) fn start(servers: Option<Vec<u32>>) -> Option<Self> {
        let before = totals(servers.as_deref())?;
        Some(Self { servers, before })
    }

    /// What was used since the beginning.
    pub(crate) fn stop(self) -> Option<Usage> {
        let after = totals(self.servers.as_deref())?;
        Some(Usage {
            cpu_seconds: (after.cpu_seconds - self.before.cpu_seconds).max(0.0),
            bytes_written: after.bytes_written.saturating_sub(self.before.bytes_written),
            memory_bytes: after.memory_bytes,
        })
    }
}

fn totals(servers: Option<&[u32]>) -> Option<Usage> {
    let Some(servers) = servers else {
        let mut own = of_process("self")?;
        own.cpu_seconds -= clients_seconds()?;
        return Some(own);
    };
    servers.iter().try_fold(Usage::default(), |sum, pid| {
        let usage = of_process(&pid.to_string())?;
        Some(Usage {
            cpu_seconds: sum.cpu_seconds + usage.cpu_seconds,
            bytes_written: sum.bytes_written + usage.bytes_written,
            memory_bytes: sum.memory_bytes + usage.memory_bytes,
        })
    })
}

fn of_process(process: &str) -> Option<Usage> {
    let (_, cpu_seconds) = name_and_seconds(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
    let io = fs::read_to_string(format!("/proc/{process}/io")).ok()?;
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes = field(&status, "VmRSS:")?;
    Some(Usage { cpu_seconds, bytes_written: field(&io, "write_bytes:")?, memory_bytes: kibibytes * 1024 })
}

/// The processor time of the threads of this process that are its clients', and of the one that waits for them.
fn clients_seconds() -> Option<f64> {
    let own = std::process::id().to_string();
    let mut seconds = 0.0;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread may have ended since.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, used)) = name_and_seconds(&stat) else { continue };
        if name.starts_with(CLIENT_THREADS) || task.file_name().to_str() == Some(&own) {
            seconds += used;
        }
    }
    Some(seconds)
}

/// The name and the processor time of a line of `stat`. The name stands in brackets and may have blanks and brackets in it.
fn name_and_seconds(stat: &str) -> Option<(&str, f64)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // The state is the third field; user and system time are the 14th and 15th.
    let mut times = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some((name, ticks as f64 / TICKS_PER_SECOND))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_program_is_called() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 9 10 11";
        assert_eq!(name_and_seconds(stat), Some(("a (b) c", 2.0)));
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_outside_of_the_clients_threads_is_seen_and_that_of_clients_is_not() {
        // By the processor's time, since the machine may be busy with others.
        let own = || name_and_seconds(&fs::read_to_string("/proc/thread-self/stat").unwrap()).unwrap().1;
        let work = move || while own() < 0.3 {};
        let meter = Meter::start(None).unwrap();
        // The client's thread is looked at while it lives.
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let client = std::thread::Builder::new().name(CLIENT_THREADS.to_owned()).spawn(move || {
            work();
            ready.send(()).unwrap();
            let _ = wait.recv();
        });
        is_ready.recv().unwrap();
        assert!(clients_seconds().unwrap() >= 0.3, "the client has worked");
        std::thread::spawn(work).join().unwrap();
        let used = meter.stop().unwrap();
        assert!(used.cpu_seconds >= 0.2 && used.memory_bytes > 0, "{used:?}");
        drop(done);
        client.unwrap().join().unwrap();
    }
}
