//! The classes of faults: their names, what they need of the machine, and which can strike here.
//!
//! A class that is impossible says why. It is skipped with that reason, and never counted as survived.

use std::fmt;

use super::{
    Fault, Needs, Victims, client::HostileClient, kill::Kill, membership::Membership, operator::Operator,
    partition::Partition, pause::Pause, power::PowerLoss,
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
    /// An operator's commands, wrong ones among them, restarts, and files that cannot be read or opened.
    Operator,
    /// A client that does what harm it can.
    Client,
    /// Those of machines, the first five, as far as they are possible, also two at once.
    Combined,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Pause,
        Self::Partition,
        Self::Power,
        Self::Membership,
        Self::Operator,
        Self::Client,
        Self::Combined,
    ];

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
            Self::Operator => "operator",
            Self::Client => "client",
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
            Self::Membership | Self::Operator if victims.members.is_none() => {
                Err("the members of these servers are fixed".to_owned())
            }
            Self::Client if victims.clients.is_none() => Err("no handle for it was given".to_owned()),
            Self::Combined if self.faults(victims).len() < 2 => Err("only one class of faults is possible".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether the servers are whole when a fault has ended, so that the service is to be back soon.
    #[must_use]
    pub(super) fn is_survived(self) -> bool {
        matches!(self, Self::Operator | Self::Client)
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
            Self::Operator => vec![Box::new(Operator::default())],
            Self::Client => vec![Box::new(HostileClient::default())],
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
