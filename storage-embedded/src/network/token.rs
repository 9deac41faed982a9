//! The cluster's token is proved and never sent: each side answers a fresh challenge of the other.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::handshake::Hello;
use crate::host;

/// A secret that all nodes of a cluster have in common. It is neither sent nor shown.
///
/// Nodes without one have the empty token, which proves nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClusterToken(Vec<u8>);

impl ClusterToken {
    /// This token.
    pub fn new(token: impl Into<Vec<u8>>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterToken(..)")
    }
}

/// The length of a challenge, and of a proof, in bytes.
pub(crate) const CHALLENGE_BYTES: usize = 32;

/// A number that was never used before.
pub(crate) type Challenge = [u8; CHALLENGE_BYTES];

/// A challenge from the system's source of randomness.
pub(crate) fn challenge() -> std::io::Result<Challenge> {
    let mut challenge = [0; CHALLENGE_BYTES];
    host::fill_random(&mut challenge)?;
    Ok(challenge)
}

/// Who proves. Of two sides with the same token, neither can take the other's proof for its own.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Side {
    Caller = 1,
    Called = 2,
}

/// What both sides know of a connection when they prove that they know the token.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) hello: &'a Hello,
    pub(crate) of_caller: &'a Challenge,
    pub(crate) of_called: &'a Challenge,
}

impl Exchange<'_> {
    /// HMAC-SHA256 with the token over the side, both challenges, and all that the greeting says.
    pub(crate) fn prove(&self, token: &ClusterToken, side: Side) -> [u8; CHALLENGE_BYTES] {
        self.mac(token, side).map(|mac| mac.finalize().into_bytes().into()).unwrap_or_default()
    }

    /// Whether this is the side's proof; in a time that does not tell how much of it is right.
    pub(crate) fn proves(&self, token: &ClusterToken, side: Side, proof: &[u8]) -> bool {
        self.mac(token, side).is_some_and(|mac| mac.verify_slice(proof).is_ok())
    }

    /// Always there: HMAC takes keys of any length.
    fn mac(&self, token: &ClusterToken, side: Side) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&token.0).ok()?;
        let Hello { cluster, from, to, channel } = self.hello;
        mac.update(b"snet peer token 2");
        mac.update(&[side as u8, *channel as u8]);
        mac.update(self.of_caller);
        mac.update(self.of_called);
        mac.update(&cluster.to_le_bytes());
        mac.update(&from.to_le_bytes());
        mac.update(&to.to_le_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::handshake::Channel;

    #[test]
    fn a_proof_is_of_one_token_side_and_connection() {
        let hello = Hello { cluster: 1, from: 2, to: 3, channel: Channel::Control };
        let (one, other) = (challenge().unwrap(), challenge().unwrap());
        assert_ne!(one, other);
        let exchange = Exchange { hello: &hello, of_caller: &one, of_called: &other };
        let token = ClusterToken::new("secret");
        let proof = exchange.prove(&token, Side::Caller);
        assert!(exchange.proves(&token, Side::Caller, &proof));
        assert!(!exchange.proves(&ClusterToken::new("guess"), Side::Caller, &proof));
        assert!(!exchange.proves(&token, Side::Called, &proof));
        assert!(!exchange.proves(&token, Side::Caller, proof.get(1..).unwrap()));
        assert!(!exchange.proves(&token, Side::Caller, &[]));
        // Recorded and played again: the challenges are others.
        let later = Exchange { of_called: &challenge().unwrap(), ..exchange };
        assert!(!later.proves(&token, Side::Caller, &proof));
        for changed in [
            Hello { cluster: 9, ..hello },
            Hello { from: 9, ..hello },
            Hello { to: 9, ..hello },
            Hello { channel: Channel::Calls, ..hello },
        ] {
            let elsewhere = Exchange { hello: &changed, of_caller: &one, of_called: &other };
            assert!(!elsewhere.proves(&token, Side::Caller, &proof), "{changed:?}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", ClusterToken::new("s3cret")).contains("s3cret"));
    }
}
