//! TLS between nodes: both sides show a certificate, which names the host that the cluster knows the node by.
//!
//! A node's certificate has to allow both uses, of a server and of a client, since every node is both: that of a client of the
//! service, which allows only the latter, makes nobody a node.

use std::{io, sync::Arc};

use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, ClientConfig, ServerConfig,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_cert_signed_by_trust_anchor},
        pki_types::{CertificateDer, ServerName, UnixTime},
        server::ParsedCertificate,
    },
};

use super::{
    security::{Identity, Refused},
    stream::Stream,
};
use crate::{
    Refusal,
    host::TcpStream,
    tls::{Loaded, Reloading, TlsFiles, refusal_of, words},
};

/// The certificates of a node.
#[derive(Debug)]
pub(crate) struct PeerTls(Reloading<Configs>);

#[derive(Debug)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
    authorities: Arc<rustls::RootCertStore>,
}

impl PeerTls {
    pub(crate) fn new(files: TlsFiles) -> storage_core::Result<Self> {
        Reloading::new(files, configs).map(Self)
    }

    pub(crate) async fn call(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no certificate can name the host {host}: {error}"))
        })?;
        let stream = TlsConnector::from(self.0.current().client.clone()).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    pub(crate) async fn answer(&self, stream: TcpStream) -> io::Result<(Stream, Identity)> {
        let configs = self.0.current();
        let stream = TlsAcceptor::from(configs.server.clone()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let identity = Identity::Certificate(PeerCertificate { shown, configs });
        Ok((Stream::Tls(Box::new(stream.into())), identity))
    }
}

fn configs(loaded: &Loaded) -> storage_core::Result<Configs> {
    let (server, client, verifier, authorities) = loaded.peer()?;
    Ok(Configs { server: Arc::new(server), client: Arc::new(client), verifier, authorities })
}

/// The certificate of whoever has connected. TLS has verified it, as one of a client.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    shown: Vec<CertificateDer<'static>>,
    configs: Arc<Configs>,
}

impl PeerCertificate {
    /// Whether it is the certificate of a node, at this host if the host is known.
    pub(crate) fn may_be(&self, host: Option<&str>) -> Result<(), Refused> {
        let Some((own, between)) = self.shown.split_first() else {
            return Err(Refused::new(Refusal::NoCertificate, "there is no certificate"));
        };
        let verified = match host {
            Some(host) => self.names(own, between, host),
            None => self.is_a_node(own, between),
        };
        verified.map_err(|error| {
            let refusal = refusal_of(&error).unwrap_or(Refusal::UntrustedCertificate);
            Refused::new(refusal, format!("your certificate is not that of this member: {}", words(&error)))
        })
    }

    fn names(&self, own: &CertificateDer<'_>, between: &[CertificateDer<'_>], host: &str) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(host).map_err(|error| rustls::Error::General(format!("{host}: {error}")))?;
        self.configs.verifier.verify_server_cert(own, between, &name, &[], UnixTime::now()).map(|_| ())
    }

    fn is_a_node(&self, own: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let algorithms = crate::tls::provider().signature_verification_algorithms.all;
        let own = ParsedCertificate::try_from(own)?;
        verify_server_cert_signed_by_trust_anchor(&own, &self.configs.authorities, between, UnixTime::now(), algorithms)
    }
}
