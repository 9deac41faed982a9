//! Certificates that prove to clients and servers under test who they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

/// A certificate authority that writes what it signs to files, which are removed with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// What an [`Authority`] has signed for one name: files in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both in one file, as some servers want it.
    pub both: PathBuf,
}

impl Authority {
    /// An authority that nobody trusts yet.
    ///
    /// # Errors
    /// What the system or the generator of keys says.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        let dir = tempfile::tempdir()?;
        fs::write(ca(dir.path()), issuer.pem())?;
        Ok(Self { issuer, dir })
    }

    /// The file with the certificate of this authority, for those who trust it.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        ca(self.dir.path())
    }

    /// A new certificate for this host name or IP address.
    ///
    /// # Errors
    /// As [`Authority::new`], and for what is no name.
    pub fn sign(&self, name: &str) -> io::Result<Identity> {
        self.sign_with(name, |_| {})
    }

    /// The same for a client alone: it makes nobody a server.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign_client(&self, name: &str) -> io::Result<Identity> {
        self.sign_with(name, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// A certificate that was valid until yesterday.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign_expired(&self, name: &str) -> io::Result<Identity> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        #[expect(clippy::disallowed_methods, reason = "certificates are valid by wall clocks")]
        let now = SystemTime::now();
        self.sign_with(name, |params| {
            params.not_before = (now - 2 * DAY).into();
            params.not_after = (now - DAY).into();
        })
    }

    fn sign_with(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> io::Result<Identity> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(io::Error::other)?;
        adjust(&mut params);
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        // A folder of its own: one name can have several.
        let dir = tempfile::Builder::new().prefix("identity-").tempdir_in(self.dir.path())?.keep();
        let write = |file: &str, text: String| fs::write(dir.join(file), text).map(|()| dir.join(file));
        Ok(Identity {
            cert: write("cert.pem", cert.pem())?,
            key: write("key.pem", key.serialize_pem())?,
            both: write("both.pem", cert.pem() + &key.serialize_pem())?,
        })
    }
}

fn ca(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}
