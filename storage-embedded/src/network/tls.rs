//! TLS between nodes: both sides show a certificate, which names the host that the cluster knows the node by.
//!
//! A node's certificate has to allow both uses, of a server and of a client, since every node is both: that of a client of the
//! service, which allows only the latter, makes nobody a node.

use std::{io, sync::Arc};

use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self,
        client::{danger::ServerCertVerifier, verify_server_cert_signed_by_trust_anchor},
        pki_types::{CertificateDer, ServerName, UnixTime},
        server::ParsedCertificate,
    },
};

use super::{refused::Refused, stream::Stream};
use crate::{
    Refusal, Refusals,
    host::TcpStream,
    tls::{Loaded, PeerConfigs, Reloading, TlsFiles, Withdrawal, refusal_of, words},
};

/// The certificates of a node.
#[derive(Debug)]
pub(crate) struct PeerTls {
    files: Reloading<PeerConfigs>,
    refusals: Arc<Refusals>,
}

impl PeerTls {
    pub(crate) fn new(files: TlsFiles, refusals: Arc<Refusals>) -> storage_core::Result<Self> {
        Ok(Self { files: Reloading::new(files, Loaded::peer)?, refusals })
    }

    pub(crate) async fn call(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no certificate can name the host {host}: {error}"))
        })?;
        let configs = self.files.current();
        let stream = TlsConnector::from(configs.client.clone()).connect(name.clone(), stream).await?;
        let (socket, tls) = stream.get_ref();
        let shown = shown(tls.peer_certificates());
        let withdrawal = self.withdrawal(socket, move |configs| {
            let (own, between) = shown.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
            configs.verifier.verify_server_cert(own, between, &name, &[], UnixTime::now()).map(|_| ())
        });
        Ok(Stream::Tls(Box::new(stream.into()), withdrawal))
    }

    pub(crate) async fn answer(&self, stream: TcpStream) -> io::Result<(Stream, PeerCertificate)> {
        let configs = self.files.current();
        let stream = TlsAcceptor::from(configs.server.config.clone()).accept(stream).await?;
        let (socket, tls) = stream.get_ref();
        let presented = shown(tls.peer_certificates());
        let again = presented.clone();
        let withdrawal = self.withdrawal(socket, move |configs| configs.server.verify(&again));
        Ok((Stream::Tls(Box::new(stream.into()), withdrawal), PeerCertificate { presented, configs }))
    }

    /// Looks at the files once a second for ever.
    pub(crate) async fn follow_files(&self) {
        self.files.follow().await;
    }

    /// What ends an open connection when the other side would not be let in any more. It is counted as a refusal.
    fn withdrawal(
        &self,
        socket: &TcpStream,
        verify: impl Fn(&PeerConfigs) -> Result<(), rustls::Error> + Send + Sync + 'static,
    ) -> Withdrawal {
        let (refusals, remote) = (Arc::clone(&self.refusals), socket.peer_addr().ok());
        Withdrawal::new(&self.files, move |configs| {
            verify(configs).inspect_err(|error| {
                let refusal = refusal_of(error).unwrap_or(Refusal::UntrustedCertificate);
                refusals.record(refusal, remote, &words(error));
            })
        })
    }
}

fn shown(certificates: Option<&[CertificateDer<'static>]>) -> Vec<CertificateDer<'static>> {
    certificates.unwrap_or_default().to_vec()
}

/// The certificate of whoever has connected. TLS has verified it, as one of a client.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    presented: Vec<CertificateDer<'static>>,
    configs: Arc<PeerConfigs>,
}

impl PeerCertificate {
    /// Whether it is the certificate of a node, at this host if the host is known.
    pub(crate) fn may_be(&self, host: Option<&str>) -> Result<(), Refused> {
        let Some((own, between)) = self.presented.split_first() else {
            return Err(Refused::new(Refusal::NoCertificate, "there is no certificate"));
        };
        let verified = match host {
            Some(host) => self.names(own, between, host),
            None => self.is_a_node(own, between),
        };
        verified.map_err(|error| {
            let refusal = refusal_of(&error).unwrap_or(Refusal::UntrustedCertificate);
            let words = format!("its certificate is not that of this member: {}", words(&error));
            Refused::new(refusal, words).telling("your certificate is not that of the member that you say you are")
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
