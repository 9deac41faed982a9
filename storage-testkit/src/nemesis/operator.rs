//! What an operator does to a cluster, right or wrong, one act at a time.

use async_trait::async_trait;

use super::{Fault, NemesisError, Strike, Victims, files_full::FilesFull, restart::Restart, unreadable::Unreadable};

/// What an operator does: a command, right or wrong, of those that only who knows the servers knows; a restart; files that cannot be read, or
/// no more of which can be opened. One at a time, since a command may be to find the other servers whole.
pub(super) struct Operator {
    acts: Vec<Box<dyn Fault>>,
    struck: usize,
}

impl Default for Operator {
    fn default() -> Self {
        let acts: Vec<Box<dyn Fault>> = vec![
            Box::new(Command),
            Box::new(Command),
            Box::new(Restart),
            Box::new(Unreadable::default()),
            Box::new(FilesFull::default()),
        ];
        Self { acts, struck: 0 }
    }
}

#[async_trait]
impl Fault for Operator {
    fn name(&self) -> &'static str {
        "operator"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        self.struck = rng.usize(..self.acts.len());
        let Some(act) = self.acts.get_mut(self.struck) else { return Ok(Strike { target: String::new(), bit: false }) };
        let Strike { target, bit } = act.strike(victims, rng).await?;
        Ok(Strike { target: format!("{}: {target}", act.name()), bit })
    }

    async fn mend(&mut self, victims: &mut Victims) -> Result<(), NemesisError> {
        match self.acts.get_mut(self.struck) {
            Some(act) => act.mend(victims).await,
            None => Ok(()),
        }
    }
}

/// A command.
struct Command;

#[async_trait]
impl Fault for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    async fn strike(&mut self, victims: &mut Victims, rng: &mut fastrand::Rng) -> Result<Strike, NemesisError> {
        let Some(mut members) = victims.members.take() else {
            return Ok(Strike { target: "none".to_owned(), bit: false });
        };
        let done = members.operate(victims, rng).await;
        victims.members = Some(members);
        let done = done?;
        Ok(Strike { bit: done.is_some(), target: done.unwrap_or_else(|| "nothing was possible".to_owned()) })
    }

    /// A command brings what it needs to an end itself.
    async fn mend(&mut self, _: &mut Victims) -> Result<(), NemesisError> {
        Ok(())
    }
}
