//! The servers of one Consul cluster, with their certificates and token.
//!
//! The authorities of the system are never asked: a token goes to whoever they vouch for.

use std::sync::Arc;

use http::HeaderValue;
use storage_core::{
    Error, Result,
    servers::{self, TlsConfig, read_pem},
};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    client::Server,
    config::ConsulConfig,
    connection::{Connections, Tls},
};

/// The servers of one cluster. Consul's client agents are as good: they too pass calls on to the leader.
pub(crate) type Pool = servers::Pool<Server>;

/// A pool of the servers of a configuration. Reads the certificates, and connects to nothing yet.
///
/// # Errors
/// [`Error::InvalidArgument`] for certificates that cannot be read or used.
pub(crate) async fn open(config: &ConsulConfig) -> Result<Pool> {
    let tls = match config.tls() {
        Some(tls) => Some(Arc::new(client_config(tls).await?)),
        None => None,
    };
    let token = config.token().map(secret).transpose()?;
    let (closed, under_way) = (CancellationToken::new(), TaskTracker::new());
    let servers: Result<Vec<_>> = config
        .endpoints()
        .map(|address| {
            let tls = match &tls {
                Some(tls) => Some(Tls { config: Arc::clone(tls), name: expected_name(config, address)? }),
                None => None,
            };
            let (closed, under_way) = (closed.clone(), under_way.clone());
            let connections = Connections::new(address.to_owned(), tls, config.connect_timeout(), closed, under_way)?;
            Ok(Server::new(connections, token.clone()))
        })
        .collect();
    Ok(Pool::new(servers?, closed, under_way))
}

fn secret(token: &str) -> Result<HeaderValue> {
    let mut token =
        HeaderValue::from_str(token).map_err(|_| Error::invalid_argument("a token is of visible ASCII characters"))?;
    token.set_sensitive(true);
    Ok(token)
}

/// The name that the certificate of a server must have: the host of its address, if the configuration names none.
fn expected_name(config: &ConsulConfig, address: &str) -> Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = config.server_name().unwrap_or_else(|| host.trim_start_matches('[').trim_end_matches(']'));
    ServerName::try_from(name.to_owned())
        .map_err(|_| Error::invalid_argument(format!("`{name}` is no name of a server")))
}

/// Those of the system are never asked: a token goes to whoever the named authorities vouch for.
async fn client_config(tls: &TlsConfig) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&read_pem(&tls.ca).await?)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots);
    let Some((cert, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(&read_pem(key).await?).map_err(|error| unusable(&error))?;
    builder.with_client_auth_cert(certificates(&read_pem(cert).await?)?, key).map_err(|error| unusable(&error))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(Error::invalid_argument("TLS: a file without a certificate"))
        }
        certificates => certificates.map_err(|error| unusable(&error)),
    }
}

fn unusable(error: &dyn std::error::Error) -> Error {
    Error::invalid_argument(format!("TLS: {error}"))
}
