//! Who asks: by a token, or by the certificate of its connection.

use storage_embedded::{Auth, Identity};
use tonic::{Request, Status};

use crate::{
    connection::Life,
    error,
    limits::REQUEST_TIMEOUT,
    passwords::Passwords,
    tokens::{Token, Tokens},
};

use storage_embedded::Mvcc;

/// What a request says of whoever makes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    token: Option<String>,
    /// Of a certificate that was verified.
    common_name: Option<String>,
}

impl Credentials {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata();
        // The first is that of clients over gRPC, the second that of gateways.
        let token = metadata.get("token").or_else(|| metadata.get("authorization"));
        // What cannot be read is no token, and not none.
        let token = token.map(|token| token.to_str().unwrap_or_default());
        let token = token.map(|token| token.strip_prefix("Bearer ").unwrap_or(token).to_owned());
        // The certificate of a gateway is not that of whoever asks it.
        let is_gateway = metadata.contains_key("grpcgateway-accept");
        let life = request.extensions().get::<Life>().filter(|_| !is_gateway);
        Self { token, common_name: life.and_then(Life::common_name).map(str::to_owned) }
    }
}

/// What finds out who asks.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) passwords: Passwords,
    pub(crate) tokens: Tokens,
}

impl Gate {
    /// Who asks; nobody, as long as users are not asked for.
    ///
    /// # Errors
    /// For a token that is not good, and if the cluster does not answer meanwhile.
    pub(crate) async fn who(&self, mvcc: &Mvcc, credentials: &Credentials) -> Result<Identity, Status> {
        let auth = mvcc.node().auth();
        let Some(text) = &credentials.token else {
            let status = auth.status();
            return Ok(match &credentials.common_name {
                Some(name) if status.enabled => Identity { user: name.clone(), revision: status.revision },
                _ => Identity::NOBODY,
            });
        };
        let token = Token::parse(text);
        // The client has logged in elsewhere, and this replica is behind.
        if token.as_ref().is_some_and(|token| token.revision > auth.status().revision) {
            mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        }
        self.holder(&auth, token)
    }

    fn holder(&self, auth: &Auth, token: Option<Token>) -> Result<Identity, Status> {
        // Before the rest: whatever changes meanwhile makes it an old one.
        let status = auth.status();
        if !status.enabled {
            return Ok(Identity::NOBODY);
        }
        let token = token.ok_or(error::INVALID_TOKEN)?;
        match auth.login(&token.user) {
            None => Ok(Identity::NOBODY),
            Some(Some(login)) if self.tokens.takes(&token, &login) => {
                Ok(Identity { user: token.user, revision: status.revision })
            }
            Some(_) => Err(error::INVALID_TOKEN.into()),
        }
    }
}
