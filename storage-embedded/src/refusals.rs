//! Why connections were refused: counted for metrics, and logged so that a flood of them does not flood the log.
//!
//! Bounded: neither many addresses nor many refusals take more than a fixed memory.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The other side showed no certificate.
    NoCertificate,
    /// Its certificate is not signed by an authority that is trusted here, or cannot be used at all.
    UntrustedCertificate,
    /// Its certificate is valid no more, or not yet.
    ExpiredCertificate,
    /// Its certificate names another host than that of the member that it claims to be.
    WrongName,
    /// Its certificate is not for this use: that of a client, where nodes talk to each other.
    WrongPurpose,
    /// It could not prove that it knows the cluster's token.
    WrongToken,
    /// It belongs to another cluster, or was founded with another token.
    OtherCluster,
    /// It means another node than this one.
    OtherNode,
    /// Its data began with another snapshot than those of this node, or one of the two was not restored.
    OtherOrigin,
    /// It is no member of the cluster, as far as the node that was called knows: it was removed, or is not yet known.
    NotMember,
    /// It does not speak the protocol: another program, another release, or no TLS where TLS is spoken.
    Protocol,
    /// The other side refused this node.
    ByOther,
    /// The port has as many connections as it may have.
    TooMany,
    /// It has asked nothing for too long.
    Silent,
    /// A member has sent something in the name of another.
    OtherSender,
    /// Its certificate was revoked.
    RevokedCertificate,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NoCertificate,
        Self::UntrustedCertificate,
        Self::ExpiredCertificate,
        Self::WrongName,
        Self::WrongPurpose,
        Self::WrongToken,
        Self::OtherCluster,
        Self::OtherNode,
        Self::OtherOrigin,
        Self::NotMember,
        Self::Protocol,
        Self::ByOther,
        Self::TooMany,
        Self::Silent,
        Self::OtherSender,
        Self::RevokedCertificate,
    ];

    /// A word for it, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UntrustedCertificate => "untrusted_certificate",
            Self::ExpiredCertificate => "expired_certificate",
            Self::WrongName => "wrong_name",
            Self::WrongPurpose => "wrong_purpose",
            Self::WrongToken => "wrong_token",
            Self::OtherCluster => "other_cluster",
            Self::OtherNode => "other_node",
            Self::OtherOrigin => "other_origin",
            Self::NotMember => "not_member",
            Self::Protocol => "protocol",
            Self::ByOther => "by_other",
            Self::TooMany => "too_many",
            Self::Silent => "silent",
            Self::OtherSender => "other_sender",
            Self::RevokedCertificate => "revoked_certificate",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal from one address is logged again after so long, however often it happens meanwhile.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Of so many refusals it is remembered at the most that they were logged; with more, the oldest is forgotten.
const REMEMBERED: usize = 1024;

/// How often connections of one port were refused since the start, by reason.
#[derive(Debug)]
pub struct Refusals {
    /// Of which port, for the log.
    port: &'static str,
    counts: [AtomicU64; Refusal::ALL.len()],
    said: Mutex<HashMap<(Refusal, Option<IpAddr>), Instant>>,
}

impl Refusals {
    /// None yet. `port` is a word for the port, as messages have it.
    pub fn new(port: &'static str) -> Self {
        Self { port, counts: Default::default(), said: Mutex::default() }
    }

    /// How often this happened.
    pub fn count(&self, refusal: Refusal) -> u64 {
        self.counts.get(refusal as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Each reason, and how often it happened.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.count(refusal)))
    }

    /// Counts a refusal, and logs it if none for this reason from this address was logged within the last minute.
    pub fn record(&self, refusal: Refusal, remote: Option<SocketAddr>, what: &dyn fmt::Display) {
        if let Some(count) = self.counts.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if self.is_news(refusal, remote.map(|remote| remote.ip())) {
            let remote = remote.map_or_else(|| "an unknown address".to_owned(), |remote| remote.to_string());
            tracing::warn!(port = self.port, reason = refusal.name(), remote, %what, "refused a connection");
        }
    }

    fn is_news(&self, refusal: Refusal, remote: Option<IpAddr>) -> bool {
        let (now, mut said) = (Instant::now(), self.said.lock());
        let is_news =
            said.get(&(refusal, remote)).is_none_or(|last| now.saturating_duration_since(*last) >= SAID_AGAIN);
        if is_news {
            if said.len() >= REMEMBERED {
                said.retain(|_, last| now.saturating_duration_since(*last) < SAID_AGAIN);
            }
            // All of the last minute: whoever has so many addresses shall not have the memory too.
            if said.len() >= REMEMBERED
                && let Some(oldest) = said.iter().min_by_key(|(_, last)| **last).map(|(key, _)| *key)
            {
                said.remove(&oldest);
            }
            said.insert((refusal, remote), now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_of_its_own_and_is_said_once_an_address() {
        let refusals = Refusals::new("peer");
        let remote = |last: u8, port: u16| Some(SocketAddr::from(([10, 0, 0, last], port)));
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
            refusals.record(refusal, remote(1, 1), &"a reason");
        }
        refusals.record(Refusal::WrongToken, remote(1, 2), &"again");
        assert_eq!(refusals.count(Refusal::WrongToken), 2);
        assert_eq!(refusals.iter().map(|(_, count)| count).sum::<u64>(), Refusal::ALL.len() as u64 + 1);
        assert!(!refusals.is_news(Refusal::WrongToken, remote(1, 3).map(|remote| remote.ip())));
        assert!(refusals.is_news(Refusal::WrongToken, remote(2, 1).map(|remote| remote.ip())));
        for host in 0..3000_u32 {
            refusals.is_news(Refusal::Protocol, Some(IpAddr::from(host.to_be_bytes())));
        }
        assert!(refusals.said.lock().len() <= REMEMBERED);
    }
}
