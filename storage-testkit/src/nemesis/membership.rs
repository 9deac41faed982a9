use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims};

/// One server joins and another leaves, under load and whatever else goes on.
#[derive(Debug)]
pub(super) struct Membership;

#[async_trait]
impl Fault for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let Some(mut members) = victims.members.take() else {
            return Ok(Strike { target: "none".to_owned(), bit: false });
        };
        let changed = members.change(victims, rng).await;
        victims.members = Some(members);
        let changed = changed?;
        Ok(Strike { bit: changed.is_some(), target: changed.unwrap_or_else(|| "no change was possible".to_owned()) })
    }

    /// What has changed stays.
    async fn mend(&mut self, _: &mut Victims) -> Result<(), NemesisError> {
        Ok(())
    }
}
