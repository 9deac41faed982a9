//! Tokens, by which users that have logged in are known: a client keeps one and sends it with each request.
//!
//! A token says whose it is and when it was given, signed with a secret that all replicas have. So each of them takes it, also behind a change of
//! leaders or a restart, and none has to remember who has logged in. It is good for the password that the user had then, and until users are
//! not asked for any more.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use storage_embedded::{Login, MAX_NAME_BYTES, TokenSecret};

/// How many tokens a node remembers that were used lately: 4 MiB. One more lives no longer than it was given for.
const MAX_USED: usize = 65_536;

const NONCE_BYTES: usize = 16;
const NUMBERS_BYTES: usize = 3 * 8;
const MAC_BYTES: usize = 32;
const MAX_TOKEN_BYTES: usize = (NONCE_BYTES + NUMBERS_BYTES + MAX_NAME_BYTES + MAC_BYTES).div_ceil(3) * 4;

/// The tokens as one node knows them.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// How long one is good after it was given, or was used here.
    ttl: Duration,
    /// When tokens were used here last, by their nonces.
    used: Mutex<HashMap<[u8; NONCE_BYTES], Instant>>,
}

/// A token that was taken apart, and not yet checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) user: String,
    /// The revision of the users and roles when it was given: a node that has not come so far cannot judge it.
    pub(crate) revision: u64,
    nonce: [u8; NONCE_BYTES],
    /// In milliseconds since 1970, by the clock of who gave it.
    given: u64,
    /// The revision in which the password was set.
    since: u64,
    mac: [u8; MAC_BYTES],
}

impl Tokens {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, used: Mutex::default() }
    }

    /// A token for a user that has logged in.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub(crate) fn give(&self, user: &str, revision: u64, login: &Login) -> Result<String, getrandom::Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        let mut token =
            Token { user: user.to_owned(), revision, nonce, given: now(), since: login.since, mac: [0; MAC_BYTES] };
        token.mac = mac(&login.secret, &token.signed()).finalize().into_bytes().into();
        Ok(URL_SAFE_NO_PAD.encode([&token.signed()[..], &token.mac].concat()))
    }

    /// Whether a token is that of a user as it is, and lives. It lives on then.
    pub(crate) fn takes(&self, token: &Token, login: &Login) -> bool {
        let is_signed = mac(&login.secret, &token.signed()).verify_slice(&token.mac).is_ok();
        is_signed && token.since == login.since && self.lives(token)
    }

    fn lives(&self, token: &Token) -> bool {
        let (now, age) = (Instant::now(), Duration::from_millis(now().saturating_sub(token.given)));
        let is_new = |used: &Instant| now.duration_since(*used) <= self.ttl;
        let mut used = self.used.lock();
        let was_used = used.get(&token.nonce).is_some_and(is_new);
        if age > self.ttl && !was_used {
            used.remove(&token.nonce);
            return false;
        }
        if used.len() >= MAX_USED && !was_used {
            used.retain(|_, used| is_new(used));
        }
        if was_used || used.len() < MAX_USED {
            used.insert(token.nonce, now);
        }
        true
    }
}

impl Token {
    /// `None`: it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, rest) = bytes.split_first_chunk()?;
        let (rest, mac) = rest.split_last_chunk()?;
        let (given, rest) = rest.split_first_chunk()?;
        let (since, rest) = rest.split_first_chunk()?;
        let (revision, user) = rest.split_first_chunk()?;
        let user = std::str::from_utf8(user).ok()?.to_owned();
        let [given, since, revision] = [given, since, revision].map(|number| u64::from_le_bytes(*number));
        Some(Self { user, revision, nonce: *nonce, given, since, mac: *mac })
    }

    fn signed(&self) -> Vec<u8> {
        let numbers = [self.given, self.since, self.revision].map(u64::to_le_bytes);
        [&self.nonce[..], numbers.as_flattened(), self.user.as_bytes()].concat()
    }
}

#[expect(clippy::expect_used, reason = "RFC 2104: longer keys are hashed, shorter ones filled up")]
fn mac(secret: &TokenSecret, signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
    mac.update(b"snet user token 1");
    mac.update(signed);
    mac
}

#[expect(
    clippy::disallowed_methods,
    reason = "nodes have no other clock in common; a wrong one makes a token live longer or shorter"
)]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(since: u64, secret: u8) -> Login {
        Login { password: None, since, secret: TokenSecret([secret; 32]) }
    }

    #[test]
    fn a_token_is_good_for_its_user_as_it_was() {
        let tokens = Tokens::new(Duration::from_secs(300));
        let text = tokens.give("alice", 7, &login(3, 1)).unwrap();
        let token = Token::parse(&text).unwrap();
        assert_eq!((token.user.as_str(), token.revision), ("alice", 7));
        // On another node, which has not seen it before.
        assert!(Tokens::new(Duration::from_secs(300)).takes(&token, &login(3, 1)));
        assert!(!tokens.takes(&token, &login(4, 1)), "of another password");
        assert!(!tokens.takes(&token, &login(3, 2)), "of another secret");
        let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for place in 0..bytes.len() {
            bytes[place] ^= 1;
            let token = Token::parse(&URL_SAFE_NO_PAD.encode(&bytes));
            assert!(token.is_none_or(|token| !tokens.takes(&token, &login(3, 1))), "byte {place} was changed");
            bytes[place] ^= 1;
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "x", "a.12", &"A".repeat(90), &"A".repeat(MAX_TOKEN_BYTES + 1), "\u{fc}"] {
            assert!(Token::parse(text).is_none_or(|token| token.mac == [0; 32]), "{text}");
        }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let tokens = Tokens::new(Duration::from_millis(200));
        let given = |user| Token::parse(&tokens.give(user, 1, &login(3, 1)).unwrap()).unwrap();
        let (used, idle) = (given("used"), given("idle"));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            let before = Instant::now();
            let lives = tokens.takes(&used, &login(3, 1));
            // A machine that stands still lets it end.
            if !lives {
                assert!(before.elapsed() + began.elapsed() > Duration::from_millis(200));
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!tokens.takes(&idle, &login(3, 1)));
        assert!(!Tokens::new(Duration::from_millis(200)).takes(&used, &login(3, 1)), "where it was not used");
    }
}
