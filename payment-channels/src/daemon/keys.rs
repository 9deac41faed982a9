//! The keys of snet-daemon, parsed: which record of which network and contract a key names.
//!
//! The forms are those of the daemon's releases, odd spaces and double slashes included. Here keys are only read; none
//! is ever written.

use std::collections::BTreeSet;

use storage_core::{
    Key, ScanOptions, Store,
    channel::{Address, ChannelId, Nonce},
};

use crate::{FreeCallUser, Result};

/// What a key of snet-daemon names. It begins with the network, the organization and the group; for channels and claims the contract follows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DaemonKey {
    /// A channel: `NETWORK/ORG/GROUP/MPE//payment-channel/storage/{ID: N}`.
    Channel(Address, ChannelId),
    /// A claim in progress: `NETWORK/ORG/GROUP/MPE//payment/storage/N/NONCE`.
    Claim(Address, ChannelId, Nonce),
    /// What was paid for in advance: `NETWORK/ORG/GROUP//PrePaid/storage/{ID:N/P}`.
    Planned(ChannelId),
    /// What was used of it: `.../{ID:N/U}`.
    Used(ChannelId),
    /// What was given back: `.../{ID:N/R}`.
    Refunded(ChannelId),
    /// A user's free calls: `NETWORK/ORG/GROUP//free-call-user/storage/{ID:ADDRESS/USER/ORG/SERVICE/GROUP}`.
    FreeCalls(FreeCallUser),
    /// A lock, which means nothing once the daemons have stopped.
    Lock,
}

impl DaemonKey {
    /// The network and what the key names; `None`: it is no key of the daemon.
    pub fn parse(key: &Key) -> Option<(&str, Self)> {
        let text = std::str::from_utf8(key.as_bytes()).ok()?;
        let (network, _) = text.split_once('/')?;
        let named = |found: Self| Some((network, found));
        let of = |kind: &str| text.split_once(kind);
        if let Some((service, id)) = of("//payment-channel/storage/{ID: ") {
            return named(Self::Channel(contract(service)?, id.strip_suffix('}')?.parse().ok()?));
        }
        if let Some((service, claim)) = of("//payment/storage/") {
            let (id, nonce) = claim.split_once('/')?;
            return named(Self::Claim(contract(service)?, id.parse().ok()?, nonce.parse().ok()?));
        }
        if let Some((_, usage)) = of("//PrePaid/storage/{ID:") {
            let (id, kind) = usage.strip_suffix('}')?.split_once('/')?;
            let id = id.parse().ok()?;
            return named(match kind {
                "P" => Self::Planned(id),
                "U" => Self::Used(id),
                "R" => Self::Refunded(id),
                _ => return None,
            });
        }
        if let Some((_, user)) = of("//free-call-user/storage/{ID:") {
            return named(Self::FreeCalls(free_call_user(user.strip_suffix('}')?)?));
        }
        let lock = ["//payment-channel/lock/", "//freecall/lock/", "//PrePaid/lock/"];
        lock.iter().any(|kind| text.contains(kind)).then_some((network, Self::Lock))
    }
}

/// The contract at the end of what names a service.
fn contract(service: &str) -> Option<Address> {
    service.rsplit_once('/')?.1.parse().ok()
}

/// A group's base64 may have slashes, so it is what is left.
fn free_call_user(text: &str) -> Option<FreeCallUser> {
    let mut parts = text.splitn(5, '/').map(str::to_owned);
    let address = parts.next()?.parse().ok()?;
    let [user_id, organization, service, group_id] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    Some(FreeCallUser { address, user_id, organization, service, group_id })
}

/// The chain of a network that the daemon knows by name; `None`: it knows none of this name.
pub fn chain_id_of(network: &str) -> Option<u64> {
    Some(match network {
        "main" | "mainnet" | "ethereum" => 1,
        "ropsten" => 3,
        "goerli" => 5,
        "kovan" => 42,
        "sepolia" => 11_155_111,
        _ => return None,
    })
}

/// What a store has of snet-daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DaemonStore {
    /// The networks and contracts that its channels and claims name.
    pub services: BTreeSet<(String, Address)>,
    /// Channels.
    pub channels: u64,
    /// Claims in progress.
    pub claims: u64,
    /// Other records of the daemon, but for locks.
    pub others: u64,
}

impl DaemonStore {
    /// Looks through the keys of a store, all of them if it is one of the daemon's, and else those of the first page, so that a large store of
    /// another kind costs one read.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn look<S: Store + ?Sized>(store: &S) -> Result<Self> {
        let (mut found, mut after) = (Self::default(), None);
        loop {
            let page = store.scan(b"", ScanOptions { after, ..ScanOptions::default() }).await?;
            page.entries.iter().for_each(|entry| found.note(&entry.key));
            match page.next {
                Some(next) if !found.is_empty() => after = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// There is nothing of the daemon.
    pub fn is_empty(&self) -> bool {
        self.channels + self.claims + self.others == 0
    }

    fn note(&mut self, key: &Key) {
        let Some((network, found)) = DaemonKey::parse(key) else { return };
        match found {
            DaemonKey::Channel(contract, _) => {
                self.channels += 1;
                self.services.insert((network.to_owned(), contract));
            }
            DaemonKey::Claim(contract, ..) => {
                self.claims += 1;
                self.services.insert((network.to_owned(), contract));
            }
            DaemonKey::Lock => {}
            _ => self.others += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "sepolia/org/99ybRIg2wAx55mqVsA6sB4S7WxPQHNKqa4BPu/bhj+U=";
    const CONTRACT: &str = "0x7E6366Fbe3bdfCE3C906667911FC5237Cc96BD08";
    const USER: &str = "0x101A018fE784bF01d538b5d4dfA311d047DBA491";

    #[test]
    fn keys_of_every_kind_are_read_and_others_are_not() {
        let (contract, user): (Address, Address) = (CONTRACT.parse().unwrap(), USER.parse().unwrap());
        let [id, nonce] = [42, 3];
        let of_user = |user_id: &str| FreeCallUser {
            address: user,
            user_id: user_id.to_owned(),
            organization: "org".to_owned(),
            service: "service".to_owned(),
            group_id: "4BPu/bhj+U=".to_owned(),
        };
        let id = ChannelId::from(id);
        let cases = [
            (format!("{SERVICE}/{CONTRACT}//payment-channel/storage/{{ID: 42}}"), DaemonKey::Channel(contract, id)),
            (format!("{SERVICE}/{CONTRACT}//payment/storage/42/3"), DaemonKey::Claim(contract, id, Nonce::from(nonce))),
            (format!("{SERVICE}//PrePaid/storage/{{ID:42/P}}"), DaemonKey::Planned(id)),
            (format!("{SERVICE}//PrePaid/storage/{{ID:42/U}}"), DaemonKey::Used(id)),
            (format!("{SERVICE}//PrePaid/storage/{{ID:42/R}}"), DaemonKey::Refunded(id)),
            (
                format!("{SERVICE}//free-call-user/storage/{{ID:{USER}/ann/org/service/4BPu/bhj+U=}}"),
                DaemonKey::FreeCalls(of_user("ann")),
            ),
            (
                format!("{SERVICE}//free-call-user/storage/{{ID:{USER}//org/service/4BPu/bhj+U=}}"),
                DaemonKey::FreeCalls(of_user("")),
            ),
            (format!("{SERVICE}/{CONTRACT}//payment-channel/lock/{{ID: 42}}"), DaemonKey::Lock),
        ];
        for (text, expected) in cases {
            let key = Key::new(text.clone()).unwrap();
            assert_eq!(DaemonKey::parse(&key), Some(("sepolia", expected)), "{text}");
        }
        for text in [
            "channel/2a",
            "sepolia/org//payment-channel/storage/{ID: 42}",
            &format!("{SERVICE}/{CONTRACT}//payment-channel/storage/{{ID: forty}}"),
            &format!("{SERVICE}//PrePaid/storage/{{ID:42/X}}"),
        ] {
            assert_eq!(DaemonKey::parse(&Key::new(text.to_owned()).unwrap()), None, "{text}");
        }
    }
}
