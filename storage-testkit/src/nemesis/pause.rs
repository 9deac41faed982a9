//! Servers that stand still and hold their connections, and go on later as if nothing had been.

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};

/// SIGSTOP: a server that stands still, holds its connections, and goes on later as if nothing had been. Sometimes two.
#[derive(Debug, Default)]
pub(super) struct Pause {
    paused: Vec<usize>,
}

#[async_trait]
impl Fault for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let (first, mut target) = victims.choose(rng).await;
        let mut places = vec![first];
        if rng.u32(..4) == 0 {
            let (second, other) = victims.choose(rng).await;
            if second != first {
                target = format!("{target}; {other}");
                places.push(second);
            }
        }
        let mut bit = true;
        for place in places {
            // One that another fault has killed cannot be paused.
            if victims.cluster.is_running(place)? {
                // Returns when every thread stands still.
                victims.cluster.pause(place)?;
                self.paused.push(place);
            } else {
                bit = false;
            }
        }
        Ok(Strike { target, bit })
    }

    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        for place in self.paused.drain(..) {
            if victims.cluster.is_running(place)? {
                victims.cluster.resume(place)?;
            }
        }
        Ok(())
    }
}
