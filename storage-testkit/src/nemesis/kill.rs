//! kill -9 of one server or of all: it finds what was never written.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};

/// One in so many kills takes all servers at once.
const ALL_AT_ONCE: u32 = 5;

/// kill -9. The kernel keeps what a server has written, so this finds what was not written, not what was not synced.
#[derive(Debug, Default)]
pub(super) struct Kill {
    killed: BTreeSet<usize>,
}

#[async_trait]
impl Fault for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let target = if rng.u32(..ALL_AT_ONCE) == 0 {
            self.killed = victims.members_now.clone();
            victims.cluster.kill_all();
            "all".to_owned()
        } else {
            let (place, target) = victims.choose(rng).await;
            self.killed = [place].into();
            victims.cluster.kill(place)?;
            target
        };
        let mut bit = true;
        for place in &self.killed {
            bit &= !victims.cluster.is_running(*place)?;
        }
        Ok(Strike { target, bit })
    }

    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        for place in std::mem::take(&mut self.killed) {
            if victims.members_now.contains(&place) && !victims.cluster.is_running(place)? {
                victims.cluster.restart(place)?;
            }
        }
        Ok(())
    }
}
