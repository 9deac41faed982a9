//! The bar on standard error. Nothing is drawn when that is not a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar is drawn while a step lasts. Seldom enough to cost the measurement nothing.
const TICK: Duration = Duration::from_millis(500);

/// A bar of so many steps; removed from the terminal when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    begun: bool,
}

impl Progress {
    pub(crate) fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {pos}/{len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(TICK);
        Self { bar, begun: false }
    }

    /// A step begins, and so the one before is done.
    pub(crate) fn step(&mut self, what: &str) {
        if self.begun {
            self.bar.inc(1);
        }
        self.begun = true;
        self.bar.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
