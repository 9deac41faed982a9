//! Steps with their times, and a table of them at the end.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed,
}

/// Steps that all run, whatever became of the others.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Verdict)>,
}

impl Steps {
    /// Runs one step and shows its error, if there is one.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        println!("\n==> {name}");
        let began = Instant::now();
        let verdict = match step() {
            Ok(()) => Verdict::Passed,
            Err(error) => {
                eprintln!("error: {error:#}");
                Verdict::Failed
            }
        };
        println!("<== {name}: {:.1} s", began.elapsed().as_secs_f64());
        self.done.push((name.to_owned(), began.elapsed(), verdict));
    }

    /// Notes a step that does not run here, and why.
    pub(crate) fn skip(&mut self, name: &str, reason: &Error) {
        println!("\n==> {name}: SKIPPED\n{reason:#}");
        self.done.push((name.to_owned(), Duration::ZERO, Verdict::Skipped(reason.to_string())));
    }

    /// Prints the table.
    ///
    /// # Errors
    /// When a step has failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{}", self.table());
        let failed = self.done.iter().filter(|(_, _, verdict)| *verdict == Verdict::Failed).count();
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        Ok(())
    }

    fn table(&self) -> String {
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let rows = self.done.iter().map(|(name, time, verdict)| {
            let verdict = match verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Skipped(reason) => format!("SKIPPED: {reason}"),
                Verdict::Failed => "FAILED".to_owned(),
            };
            format!("{name:width$}  {:>8.1} s  {verdict}", time.as_secs_f64())
        });
        let total: Duration = self.done.iter().map(|(_, time, _)| *time).sum();
        let total = format!("{:width$}  {:>8.1} s", "total", total.as_secs_f64());
        rows.chain([total]).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole_and_the_others_still_run() {
        let mut steps = Steps::default();
        steps.run("first", || bail!("on purpose"));
        steps.run("second", || Ok(()));
        steps.skip("third", &Error::msg("no registry").context("no tool"));
        let table = steps.table();
        for line in ["first        0.0 s  FAILED", "second       0.0 s  passed", "third        0.0 s  SKIPPED: no tool"]
        {
            assert!(table.contains(line), "{line:?} is not in\n{table}");
        }
        assert_eq!(steps.finish().unwrap_err().to_string(), "1 of 3 steps failed");
    }

    #[test]
    fn steps_that_pass_or_are_skipped_make_a_success() {
        let mut steps = Steps::default();
        steps.run("first", || Ok(()));
        steps.skip("second", &Error::msg("no tool"));
        assert!(steps.finish().is_ok());
    }
}
