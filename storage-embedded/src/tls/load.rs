//! Certificates from files, and the configurations of rustls that are made of them.
//!
//! Invariants: between nodes TLS 1.3 and certificates on both sides, always; no session is resumed, since a resumed one
//! shows no certificate. Errors name the file.

use std::{path::Path, sync::Arc};

use storage_core::{Error, Result};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{TlsFiles, classify::words};
use crate::disk::warn_if_exposed;

/// The cryptography of all TLS here: ring, whatever other libraries of the process have chosen.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a node needs to talk to others, and to look at their certificates.
#[derive(Debug)]
pub(crate) struct PeerConfigs {
    pub(crate) server: ServerSide,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) verifier: Arc<WebPkiServerVerifier>,
    pub(crate) authorities: Arc<RootCertStore>,
}

/// What a server shows, and whom it trusts.
#[derive(Debug)]
pub struct ServerSide {
    /// How it answers who connects.
    pub config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerSide {
    /// Whether somebody would still be let in who has shown these certificates: the own one first, then those between it and the authority.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, shown: &[CertificateDer<'_>]) -> std::result::Result<(), tokio_rustls::rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let (own, between) = shown.split_first().ok_or(tokio_rustls::rustls::Error::NoCertificatesPresented)?;
        verifier.verify_client_cert(own, between, UnixTime::now()).map(|_| ())
    }
}

/// Certificates that have been read.
#[derive(Debug)]
pub struct Loaded {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Option<Arc<RootCertStore>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the file, for one that cannot be read or has no certificate or key, and for a key of
    /// another certificate.
    pub fn read(files: &TlsFiles) -> Result<Self> {
        warn_if_exposed(&files.key);
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, "key", &error))?;
        let authorities = match &files.ca {
            None => None,
            Some(file) => Some(Arc::new(authorities(file)?)),
        };
        let revoked = match &files.crl {
            None => Vec::new(),
            Some(file) if authorities.is_some() => revocation_lists(file)?,
            Some(file) => {
                let file = file.display();
                return Err(Error::invalid_argument(format!(
                    "{file} revokes certificates, and nobody needs one here: name their authority, too"
                )));
            }
        };
        let loaded = Self { chain, key, authorities, revoked };
        // rustls looks whether key and certificate belong together.
        loaded.unverified_server().map_err(|error| {
            let (cert, key) = (files.cert.display(), files.key.display());
            Error::invalid_argument(format!("{cert} and {key} cannot be used together: {}", words(&error)))
        })?;
        Ok(loaded)
    }

    /// A server that offers these protocols. Whoever connects needs a certificate if there are authorities.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for certificates that cannot be used.
    pub fn server(&self, protocols: &[&[u8]]) -> Result<ServerSide> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| unusable(&error))?;
        let verifier =
            self.authorities.as_ref().map(|authorities| self.verifier_of_clients(authorities)).transpose()?;
        let builder = match verifier.clone() {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config =
            builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(|error| unusable(&error))?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(ServerSide { config: Arc::new(without_resumption(config)), verifier })
    }

    /// Both sides of connections between equals, and who verifies servers. TLS 1.3 alone, and both sides need certificates.
    pub(crate) fn peer(&self) -> Result<PeerConfigs> {
        let Some(authorities) = &self.authorities else {
            return Err(Error::invalid_argument("TLS between nodes needs the certificate of the authority"));
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(authorities), provider())
            .with_crls(self.revoked.iter().cloned())
            .build()
            .map_err(|error| unusable(&error))?;
        let verifier_of_clients = self.verifier_of_clients(authorities)?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(Arc::clone(&verifier_of_clients))
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| unusable(&error))?;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_webpki_verifier(Arc::clone(&verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| unusable(&error))?;
        client.resumption = Resumption::disabled();
        let server = ServerSide { config: Arc::new(without_resumption(server)), verifier: Some(verifier_of_clients) };
        Ok(PeerConfigs { server, client: Arc::new(client), verifier, authorities: Arc::clone(authorities) })
    }

    fn verifier_of_clients(&self, authorities: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), provider())
            .with_crls(self.revoked.iter().cloned())
            .build()
            .map_err(|error| unusable(&error))
    }

    fn unverified_server(&self) -> std::result::Result<ServerConfig, tokio_rustls::rustls::Error> {
        ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
    }
}

/// A session that is resumed shows no certificate, which may have expired meanwhile. Connections are few and long here.
fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates: Vec<_> = read.map_err(|error| unreadable(file, "certificate", &error))?;
    if certificates.is_empty() {
        return Err(unreadable(file, "certificate", &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    const WHAT: &str = "list of revoked certificates";
    let read =
        CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let lists: Vec<_> = read.map_err(|error| unreadable(file, WHAT, &error))?;
    // Nobody would be revoked by a file that is empty for a moment.
    if lists.is_empty() { Err(unreadable(file, WHAT, &pem::Error::NoItemsFound)) } else { Ok(lists) }
}

fn authorities(file: &Path) -> Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(file)? {
        authorities
            .add(certificate)
            .map_err(|error| Error::invalid_argument(format!("{}: {}", file.display(), words(&error))))?;
    }
    Ok(authorities)
}

fn unreadable(file: &Path, what: &str, error: &pem::Error) -> Error {
    let why = match error {
        pem::Error::NoItemsFound => format!("there is no {what} in it, in PEM"),
        pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    Error::invalid_argument(format!("cannot read the {what} in {}: {why}", file.display()))
}

fn unusable(error: &dyn std::error::Error) -> Error {
    Error::invalid_argument(format!("TLS: {}", words(error)))
}
