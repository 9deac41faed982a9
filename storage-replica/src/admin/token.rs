use storage_core::{Error, Result};
use storage_etcd_api::proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::{Admin, read_error};
use crate::config::NodeUrl;

/// A node, with the token of the user that asks it.
pub(super) type Known = InterceptedService<Channel, WithToken>;

/// Puts a token into each request.
#[derive(Clone, Debug, Default)]
pub(super) struct WithToken(Option<MetadataValue<Ascii>>);

impl Interceptor for WithToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

impl Admin {
    /// A node, with the token that there is.
    pub(super) fn known(&self, channel: &Channel) -> Known {
        let token = self.login.as_ref().and_then(|login| login.token()?.parse().ok());
        let token = token.map(|mut token: MetadataValue<Ascii>| {
            token.set_sensitive(true);
            token
        });
        InterceptedService::new(channel.clone(), WithToken(token))
    }

    /// A node, with a token if there is a user; given by this node if there was none.
    pub(super) async fn logged_in(&self, url: &NodeUrl, channel: &Channel) -> Result<Known> {
        if let Some(login) = self.login.as_ref().filter(|login| login.token().is_none()) {
            let request = AuthenticateRequest { name: login.user().to_owned(), password: login.password()? };
            let mut client = AuthClient::new(channel.clone());
            match self.ask(client.authenticate(request)).await {
                Ok(answer) => login.set_token(Some(answer.into_inner().token)),
                // It does not ask for users, or it is one that knows none.
                Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::Unimplemented) => {}
                Err(status) if status.code() == Code::InvalidArgument => {
                    return Err(Error::Unauthenticated { source: format!("{url}: {}", status.message()).into() });
                }
                Err(status) => return Err(read_error(url, &status)),
            }
        }
        Ok(self.known(channel))
    }
}
