//! A server that can open no more files: it must live on, and serve again when it can.

use std::{fs, process::Stdio};

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};

/// A server has as many files open as it may: no connection, no segment, no snapshot can be opened.
#[derive(Debug, Default)]
pub(super) struct FilesFull {
    struck: Option<usize>,
}

#[async_trait]
impl Fault for FilesFull {
    fn name(&self) -> &'static str {
        "files-full"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let (place, target) = victims.choose(rng).await;
        let Some(pid) = victims.cluster.node(place)?.pid() else { return Ok(Strike { target, bit: false }) };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
        self.struck = Some(place);
        // Fewer than there are: those stay open.
        let bit = limit(pid, &open.to_string()).await && limits(pid).is_some_and(|(soft, _)| soft == open);
        Ok(Strike { target: format!("{target}: {open} files"), bit })
    }

    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        let Some(place) = self.struck.take() else { return Ok(()) };
        if !victims.cluster.is_running(place)? {
            victims.note("full files end no node", format!("n{place} ended\n{}", victims.cluster.logs()));
            return Ok(victims.cluster.restart(place)?);
        }
        if let Some((pid, (_, hard))) = victims.cluster.node(place)?.pid().and_then(|pid| Some((pid, limits(pid)?))) {
            limit(pid, &hard.to_string()).await;
        }
        Ok(())
    }
}

/// Sets how many files a process may have open; what it may raise that to stays.
async fn limit(pid: u32, soft: &str) -> bool {
    let mut prlimit = tokio::process::Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]).stderr(Stdio::null());
    prlimit.status().await.is_ok_and(|status| status.success())
}

/// How many files a process may have open, and to how many it may raise that. Linux only.
pub(super) fn limits(pid: u32) -> Option<(u64, u64)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_can_be_left_without_files_and_be_given_them_back() {
        let mut sleeper = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let pid = sleeper.id().unwrap();
        let (_, hard) = limits(pid).unwrap();
        assert!(limit(pid, "3").await);
        assert_eq!(limits(pid), Some((3, hard)));
        assert!(limit(pid, &hard.to_string()).await);
        assert_eq!(limits(pid), Some((hard, hard)));
        sleeper.kill().await.unwrap();
    }
}
