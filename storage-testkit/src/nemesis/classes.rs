use std::fmt;

use super::{
    Fault, Needs, Victims, kill::Kill, membership::Membership, partition::Partition, pause::Pause, power::PowerLoss,
};

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// kill -9 of a server, of the one that leads, or of all at once.
    Kill,
    /// A server stands still and holds its connections, by SIGSTOP.
    Pause,
    /// The network falls apart: halves, one isolated, a ring, or one direction of one link.
    Partition,
    /// All servers lose their power at once, and what they had not synced.
    Power,
    /// Members join and leave.
    Membership,
    /// All that are possible, also two at once.
    Combined,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Kill, Self::Pause, Self::Partition, Self::Power, Self::Membership, Self::Combined];

    const SINGLE: [Self; 5] = [Self::Kill, Self::Pause, Self::Partition, Self::Power, Self::Membership];

    /// Its name on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Power => "power",
            Self::Membership => "membership",
            Self::Combined => "combined",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// What has to be there before the servers start.
    #[must_use]
    pub fn needs(self) -> Needs {
        Needs {
            network: matches!(self, Self::Partition | Self::Combined),
            image: matches!(self, Self::Power | Self::Combined),
        }
    }

    /// Whether it can strike these; otherwise why it is skipped.
    ///
    /// # Errors
    /// The reason.
    pub fn possible(self, victims: &Victims) -> Result<(), String> {
        let missing = |what: Option<&String>| Err(what.cloned().unwrap_or_else(|| "it was not asked for".to_owned()));
        match self {
            Self::Partition if victims.network.is_none() => missing(victims.no_network.as_ref()),
            Self::Power if victims.image.is_none() => missing(victims.no_image.as_ref()),
            Self::Membership if victims.members.is_none() => Err("the members of these servers are fixed".to_owned()),
            Self::Combined if self.faults(victims).len() < 2 => Err("only one class of faults is possible".to_owned()),
            _ => Ok(()),
        }
    }

    /// The faults of this class that are possible here.
    #[must_use]
    pub fn faults(self, victims: &Victims) -> Vec<Box<dyn Fault>> {
        match self {
            Self::Kill => vec![Box::new(Kill::default())],
            Self::Pause => vec![Box::new(Pause::default())],
            Self::Partition => vec![Box::new(Partition)],
            Self::Power => vec![Box::new(PowerLoss)],
            Self::Membership => vec![Box::new(Membership)],
            Self::Combined => {
                let possible = Self::SINGLE.into_iter().filter(|class| class.possible(victims).is_ok());
                possible.flat_map(|class| class.faults(victims)).collect()
            }
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
