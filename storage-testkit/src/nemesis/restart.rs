use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};

/// One server is ended, in good order or not, and started again with the same flags at once.
#[derive(Debug)]
pub(super) struct Restart;

#[async_trait]
impl Fault for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let (place, target) = victims.choose(rng).await;
        let before = victims.cluster.node(place)?.pid();
        victims.cluster.kill(place)?;
        victims.cluster.restart(place)?;
        let bit = victims.cluster.node(place)?.pid() != before;
        Ok(Strike { target, bit })
    }

    async fn mend(&mut self, _: &mut Victims) -> Result<(), NemesisError> {
        Ok(())
    }
}
