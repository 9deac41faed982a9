//! The cluster's token is proved and never sent: each side answers a fresh challenge of the other.

use std::{env, fmt, path::Path};

use storage_core::{Error, Result};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{
    belonging::Belonging,
    hello::{CHALLENGE_BYTES, Challenge, Hello},
};
use crate::disk::warn_if_exposed;

/// How long a token is at the least, in bytes. The ids that nodes show are hashes of it, so whoever sees one can try words
/// as fast as SHA-256 goes: 16 random bytes are not found, and a word is.
const MIN_BYTES: usize = 16;

/// Tokens that everybody knows: they stand in the documents of this project, or are the default of the original daemon.
const KNOWN_TO_ALL: [&str; 2] = ["unique-token", "another-token"];

/// The variables of the environment that a token may be in, or the name of a file with it.
const VARIABLE: &str = "SNET_STORAGE_TOKEN";
const FILE_VARIABLE: &str = "SNET_STORAGE_TOKEN_FILE";

/// How to have a token, for whoever is refused without a good one.
pub const HOW_TO_HAVE_A_TOKEN: &str = "draw one by lot and give each node the same: `(umask 077; openssl rand -hex 32 > FILE)`, then `--token-file FILE` of \
     snet, `token_file` of a file or URL, `ClusterToken::from_file` of a program, or the variable SNET_STORAGE_TOKEN_FILE";

/// A secret that all nodes of a cluster have in common. It is neither sent nor shown.
///
/// Nodes without one have the empty token, which proves nothing: only clusters on one machine may, and those with TLS.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClusterToken(Vec<u8>);

impl ClusterToken {
    /// This token.
    pub fn new(token: impl Into<Vec<u8>>) -> Self {
        Self(token.into())
    }

    /// The token in a file: what is in it, without the end of the line. If others than its owner may read the file, that is logged.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a file that cannot be read, or has nothing in it.
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self> {
        warn_if_exposed(file.as_ref());
        secret_in(file.as_ref()).map(Self::new)
    }

    /// The token that the environment has, in `SNET_STORAGE_TOKEN` or in the file that `SNET_STORAGE_TOKEN_FILE` names.
    ///
    /// # Errors
    /// Those of [`ClusterToken::from_file`].
    pub fn from_env() -> Result<Option<Self>> {
        match (env::var(VARIABLE), env::var_os(FILE_VARIABLE)) {
            (Ok(token), _) if !token.is_empty() => Ok(Some(Self::new(token))),
            (_, Some(file)) => Self::from_file(Path::new(&file)).map(Some),
            _ => Ok(None),
        }
    }

    /// Why it does not keep strangers out, in words.
    pub fn weakness(&self) -> Option<String> {
        if self.0.is_empty() {
            return Some("there is no token".to_owned());
        }
        if KNOWN_TO_ALL.iter().any(|known| known.as_bytes() == self.0) {
            return Some("the token is an example that stands in documents".to_owned());
        }
        let bytes = self.0.len();
        (bytes < MIN_BYTES).then(|| format!("the token has {bytes} bytes, and {MIN_BYTES} are the least"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The secret in a file: its text, without the end of the line.
///
/// # Errors
/// [`Error::InvalidArgument`] for a file that cannot be read, or has nothing in it.
pub fn secret_in(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::invalid_argument(format!("cannot read {}: {error}", file.display())))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(Error::invalid_argument(format!("{} has nothing in it", file.display())));
    }
    Ok(secret.to_owned())
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterToken(..)")
    }
}

/// Who proves. Of two sides with the same token, neither can take the other's proof for its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Caller,
    /// It says with its proof what becomes of the caller: nobody else can tell a node that it was removed.
    Called(Belonging),
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
        self.mac(token, side).finalize().into_bytes().into()
    }

    /// Whether this is the side's proof; in a time that does not tell how much of it is right.
    pub(crate) fn proves(&self, token: &ClusterToken, side: Side, proof: &[u8]) -> bool {
        self.mac(token, side).verify_slice(proof).is_ok()
    }

    #[expect(clippy::expect_used, reason = "RFC 2104: longer keys are hashed, shorter ones filled up")]
    fn mac(&self, token: &ClusterToken, side: Side) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&token.0).expect("HMAC takes a key of any length");
        let Hello { cluster, from, to, channel, origin, has_run, claim } = self.hello;
        mac.update(b"snet peer token 4");
        match side {
            Side::Caller => mac.update(&[1, *channel as u8]),
            Side::Called(belonging) => {
                mac.update(&[2, *channel as u8]);
                mac.update(&belonging.bytes());
            }
        }
        mac.update(self.of_caller);
        mac.update(self.of_called);
        mac.update(&cluster.to_le_bytes());
        mac.update(&from.to_le_bytes());
        mac.update(&to.to_le_bytes());
        mac.update(&origin.to_le_bytes());
        mac.update(&[u8::from(*has_run)]);
        let mut claimed = Vec::new();
        claim.encode(&mut claimed);
        mac.update(&claimed);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{
        belonging::MembershipClaim,
        hello::{Channel, challenge},
    };

    #[test]
    fn a_proof_is_of_one_token_side_and_connection() {
        let (channel, claim) = (Channel::Control, MembershipClaim::default());
        let hello = Hello { cluster: 1, from: 2, to: 3, channel, origin: 4, has_run: false, claim };
        let (one, other) = (challenge().unwrap(), challenge().unwrap());
        assert_ne!(one, other);
        let exchange = Exchange { hello: &hello, of_caller: &one, of_called: &other };
        let token = ClusterToken::new("secret");
        let proof = exchange.prove(&token, Side::Caller);
        assert!(exchange.proves(&token, Side::Caller, &proof));
        assert!(!exchange.proves(&ClusterToken::new("guess"), Side::Caller, &proof));
        assert!(!exchange.proves(&token, Side::Called(Belonging::Admitted), &proof));
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
            Hello { origin: 9, ..hello },
            Hello { has_run: true, ..hello },
            Hello { claim: MembershipClaim { named_at: Some(1), ..claim }, ..hello },
        ] {
            let elsewhere = Exchange { hello: &changed, of_caller: &one, of_called: &other };
            assert!(!elsewhere.proves(&token, Side::Caller, &proof), "{changed:?}");
        }
    }

    /// Whoever only stands between two nodes can make neither believe that it was removed.
    #[test]
    fn what_the_called_node_says_of_the_caller_is_proved() {
        let (channel, claim) = (Channel::Control, MembershipClaim { member_since: Some(1), named_at: None });
        let hello = Hello { cluster: 1, from: 2, to: 3, channel, origin: 4, has_run: false, claim };
        let (one, other) = (challenge().unwrap(), challenge().unwrap());
        let exchange = Exchange { hello: &hello, of_caller: &one, of_called: &other };
        let token = ClusterToken::new("secret");
        let proof = exchange.prove(&token, Side::Called(Belonging::Admitted));
        assert!(exchange.proves(&token, Side::Called(Belonging::Admitted), &proof));
        for said in [Belonging::Unknown, Belonging::Removed { at: 0 }, Belonging::Removed { at: 7 }] {
            assert!(!exchange.proves(&token, Side::Called(said), &proof), "{said:?}");
        }
    }

    #[test]
    fn a_token_that_can_be_guessed_is_weak() {
        for (token, expected) in [
            ("", Some("no token")),
            ("t", Some("1 bytes")),
            ("unique-token", Some("example")),
            ("0123456789abcde", Some("15 bytes, and 16")),
            ("0123456789abcdef", None),
        ] {
            let weakness = ClusterToken::new(token).weakness();
            assert_eq!(weakness.is_some(), expected.is_some(), "{token}");
            assert!(weakness.unwrap_or_default().contains(expected.unwrap_or_default()), "{token}");
        }
    }

    #[test]
    fn a_token_is_read_from_a_file_without_the_end_of_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, " s3 cret\r\n").unwrap();
        assert_eq!(ClusterToken::from_file(&file).unwrap(), ClusterToken::new(" s3 cret"));
        std::fs::write(&file, "\n").unwrap();
        assert!(ClusterToken::from_file(&file).unwrap_err().to_string().contains("nothing in it"));
        std::fs::remove_file(&file).unwrap();
        assert!(ClusterToken::from_file(&file).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", ClusterToken::new("s3cret")).contains("s3cret"));
    }
}
