//! What the nodes of a cluster have in common and nobody else knows.

use std::path::Path;

use storage_embedded::{ClusterToken, HOW_TO_HAVE_A_TOKEN, disk::exposure};

use super::{
    NodeUrl, Token,
    fields::{At, Fields, path},
    mistakes::{Location, Reporter},
};

/// The token that stands in a table, or in the file that the table names. `exposed`: others can open the file of the table, in words.
pub(super) fn token(fields: &Fields<'_>, exposed: Option<&str>, report: &Reporter) -> Option<Token> {
    if let (Some(inside), true) = (fields.text("token"), fields.has("token_file")) {
        report.mistake(inside.location, "there is one token, in `token` or in `token_file`");
    }
    if fields.has("token_file") {
        let file = fields.parsed("token_file", path)?;
        if let Some(exposure) = exposure(&file.value) {
            report.warning(file.location, exposure);
        }
        // Who only connects to nodes has no such file, and needs none.
        return Some(token_in(&file.value).unwrap_or_else(Token::missing));
    }
    let token = fields.parsed("token", str::parse::<Token>)?;
    if let (At { location: location @ Location::Line(_), .. }, Some(exposed)) = (&token, exposed) {
        report.warning(
            *location,
            format!("the token stands here, and {exposed}. Better in a file of its own: `token_file`"),
        );
    }
    Some(token.value)
}

/// The token in a file.
///
/// # Errors
/// Why there is none.
pub fn token_in(file: &Path) -> Result<Token, String> {
    storage_embedded::secret_in(file).map_err(|error| error.to_string())?.parse()
}

/// Refuses a token that keeps nobody out where others can reach the nodes, which have these peer URLs.
///
/// # Errors
/// Why, and what to do.
pub fn check_token<'a>(token: &Token, peer_urls: impl IntoIterator<Item = &'a NodeUrl>) -> Result<(), String> {
    token.check()?;
    let Some(weakness) = ClusterToken::new(token.as_str()).weakness() else { return Ok(()) };
    match peer_urls.into_iter().find(|url| !url.is_loopback()) {
        Some(url) => Err(format!("{weakness}, and others can reach {url}: {HOW_TO_HAVE_A_TOKEN}")),
        // An embedded node logs it.
        None => Ok(()),
    }
}
