//! The numbers by which clusters, replicas and nodes are told apart.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A replica of the service, by the number that the configuration gives it.
pub type ReplicaId = u64;
/// A data directory that takes part, by the number that the cluster has given it. Never used again once it is removed.
pub type NodeId = u64;

/// The id of a cluster: 128 bits that were drawn by lot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// One that never was.
    ///
    /// # Errors
    /// What the system's source of randomness says.
    pub fn mint() -> storage_core::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| storage_core::Error::unavailable(error.to_string()))?;
        Ok(Self(u128::from_le_bytes(bytes)))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = u128::from_str_radix(text, 16);
        number.map(Self).map_err(|_| format!("`{text}` is no id of a cluster: it has 32 hexadecimal digits"))
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
