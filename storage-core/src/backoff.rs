use std::time::Duration;

/// Waits that grow exponentially, with full jitter: uniform between zero and the current bound, so that
/// writers which collided once do not collide again.
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
#[derive(Debug)]
pub struct Backoff {
    bound: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Waits of at most `floor` at first, doubling up to `ceiling`.
    pub fn new(floor: Duration, ceiling: Duration) -> Self {
        Self { bound: floor.min(ceiling), ceiling }
    }

    /// How long to wait next.
    pub fn next_wait(&mut self) -> Duration {
        // Full jitter, not half: of the schemes measured in that article it leads to the fewest calls.
        let wait = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(self.ceiling);
        wait
    }

    /// Waits that long.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}
