//! Certificates that prove to clients and servers under test who they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams,
};
use tempfile::TempDir;

/// A certificate authority that writes what it signs to files, which are removed with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// How many certificates it has signed, and lists.
    signed: AtomicU64,
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
    /// The number by which its authority can revoke it.
    pub serial: u64,
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
        Ok(Self { issuer, signed: AtomicU64::new(0), dir })
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

    /// The same for a client alone, with its common name: it makes nobody a server.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign_client(&self, name: &str) -> io::Result<Identity> {
        self.sign_with(name, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    /// Writes a list of what this authority has revoked, all of it, in the place of the file that is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn revoke(&self, serials: &[u64], file: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "lists are valid by wall clocks")]
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: self.number().into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(io::Error::other)?;
        let aside = file.with_extension("new");
        fs::write(&aside, list)?;
        fs::rename(aside, file)
    }

    fn number(&self) -> u64 {
        self.signed.fetch_add(1, Ordering::Relaxed) + 1
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
        let serial = self.number();
        params.serial_number = Some(serial.into());
        adjust(&mut params);
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        // A folder of its own: one name can have several.
        let dir = tempfile::Builder::new().prefix("identity-").tempdir_in(self.dir.path())?.keep();
        let write = |file: &str, text: String| fs::write(dir.join(file), text).map(|()| dir.join(file));
        Ok(Identity {
            cert: write("cert.pem", cert.pem())?,
            key: write("key.pem", key.serialize_pem())?,
            both: write("both.pem", cert.pem() + &key.serialize_pem())?,
            serial,
        })
    }
}

fn ca(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}
