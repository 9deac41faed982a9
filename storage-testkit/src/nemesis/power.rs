//! The power of all servers fails at once: it finds what was written and not synced.

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};
use crate::server::ServerError;

/// The power of all servers fails at once: they find what had reached the disk.
#[derive(Debug)]
pub(super) struct PowerLoss;

#[async_trait]
impl Fault for PowerLoss {
    fn name(&self) -> &'static str {
        "power"
    }

    async fn strike(&mut self, victims: &mut Victims, _: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let Some(mut image) = victims.image.take() else { return Ok(Strike { target: "all".to_owned(), bit: false }) };
        for place in victims.members_now.clone() {
            if victims.cluster.is_running(place)? {
                victims.cluster.pause(place)?;
            }
        }
        // Copying and mounting block, for some milliseconds: nobody else may touch the servers meanwhile.
        let off = image.power_off();
        victims.cluster.kill_all();
        let on = off.and_then(|()| image.power_on());
        victims.image = Some(image);
        Ok(Strike { target: "all".to_owned(), bit: on? })
    }

    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        for place in victims.members_now.clone() {
            if !victims.cluster.is_running(place)? {
                victims.cluster.restart(place).or_else(|error| match error {
                    ServerError::AlreadyRunning { .. } => Ok(()),
                    error => Err(error),
                })?;
            }
        }
        Ok(())
    }
}
