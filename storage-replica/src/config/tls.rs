//! Certificates by etcd's names: what serves which URL, and what is missing or wrong.
//!
//! Invariant: an `https` URL without its certificates is a mistake of the configuration, and never plain HTTP. Keys
//! themselves are not kept here.

use std::path::PathBuf;

use storage_core::Error;
use storage_embedded::tls::{Loaded, TlsFiles};

use super::{
    Login, NodeUrl,
    fields::{Fields, path},
    mistakes::{Location, Reporter},
    tree::Table,
};

/// The certificates of a replica, as files in PEM, by etcd's names.
///
/// They are for the client URL, and for being a client of other nodes' client URLs; for the peer URL too, where there is nothing else for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `cert_file`: the replica's own certificate.
    pub cert_file: Option<PathBuf>,
    /// `key_file`: its key.
    pub key_file: Option<PathBuf>,
    /// `trusted_ca_file`: the authorities that sign the certificates of the others.
    pub trusted_ca_file: Option<PathBuf>,
    /// `crl_file`: the certificates that those authorities have revoked.
    pub crl_file: Option<PathBuf>,
    /// `client_cert_auth`: whether clients need a certificate. `None`: if there is a `trusted_ca_file`.
    pub client_cert_auth: Option<bool>,
    /// `peer_cert_file`: the certificate that other nodes are shown, if it is another one.
    pub peer_cert_file: Option<PathBuf>,
    /// `peer_key_file`: its key.
    pub peer_key_file: Option<PathBuf>,
    /// `peer_trusted_ca_file`: the authorities that sign the certificates of other nodes, if they are others.
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// `peer_crl_file`: the certificates that the authorities of other nodes have revoked, if it is another file.
    pub peer_crl_file: Option<PathBuf>,
    /// `user` and `password_file`: who the replica is as a client of nodes that ask for users.
    pub login: Option<Login>,
}

/// Whom a client of nodes trusts, and who it is to them: files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The authorities that sign the certificates of the nodes. Those of the system are never asked.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The user that it is, if the nodes ask for users and do not take the name in its certificate.
    pub login: Option<Login>,
}

/// Its keys, of which a replica's row can have those of the files for itself.
const KEYS: [&str; 11] = [
    "cert_file",
    "key_file",
    "trusted_ca_file",
    "crl_file",
    "client_cert_auth",
    "peer_cert_file",
    "peer_key_file",
    "peer_trusted_ca_file",
    "peer_crl_file",
    "user",
    "password_file",
];

impl Tls {
    /// The table `tls`.
    pub(super) fn read(table: &Table, report: &Reporter) -> Self {
        let fields = Fields::of(table, &KEYS, report);
        let client_cert_auth = fields.flag("client_cert_auth").map(|at| at.value);
        let user = fields.parsed("user", |user| Ok::<_, String>(user.to_owned())).map(|at| at.value);
        let file = fields.parsed("password_file", path).map(|at| at.value);
        let login = match (user, file) {
            (Some(user), Some(file)) => Some(Login::from_file(user, file)),
            (None, None) => None,
            _ => {
                report.mistake(Location::Line(1), "`user` and `password_file` of the table `tls` belong together");
                None
            }
        };
        Self { client_cert_auth, login, ..Self::default() }.with(&fields)
    }

    /// The same, with those files of a row that it has for itself.
    pub(super) fn with(&self, row: &Fields<'_>) -> Self {
        let or = |name: &'static str, shared: &Option<PathBuf>| {
            row.parsed(name, path).map(|at| at.value).or_else(|| shared.clone())
        };
        Self {
            cert_file: or("cert_file", &self.cert_file),
            key_file: or("key_file", &self.key_file),
            trusted_ca_file: or("trusted_ca_file", &self.trusted_ca_file),
            crl_file: or("crl_file", &self.crl_file),
            client_cert_auth: self.client_cert_auth,
            peer_cert_file: or("peer_cert_file", &self.peer_cert_file),
            peer_key_file: or("peer_key_file", &self.peer_key_file),
            peer_trusted_ca_file: or("peer_trusted_ca_file", &self.peer_trusted_ca_file),
            peer_crl_file: or("peer_crl_file", &self.peer_crl_file),
            login: self.login.clone(),
        }
    }

    /// What an `https` client URL is served with. With an authority, clients need certificates of it.
    ///
    /// # Errors
    /// What is missing for that.
    pub fn server(&self) -> Result<TlsFiles, String> {
        let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) else {
            return Err("an https client URL needs a certificate and its key: `cert_file` and `key_file`".to_owned());
        };
        let ca = match (self.client_cert_auth, &self.trusted_ca_file) {
            (Some(true), None) => {
                return Err(
                    "`client_cert_auth` needs `trusted_ca_file`, which signs the certificates of clients".to_owned()
                );
            }
            (Some(false), _) => None,
            (_, ca) => ca.clone(),
        };
        // The lists are of the authorities: without them, nobody's certificate is looked at.
        let crl = ca.as_ref().and(self.crl_file.clone());
        Ok(TlsFiles { cert: cert.clone(), key: key.clone(), ca, crl })
    }

    /// What nodes with `https` peer URLs show each other. They always need certificates.
    ///
    /// # Errors
    /// What is missing for that.
    pub fn peer(&self) -> Result<TlsFiles, String> {
        let pair = |cert: &Option<PathBuf>, key: &Option<PathBuf>| Some((cert.clone()?, key.clone()?));
        let own = match (&self.peer_cert_file, &self.peer_key_file) {
            (None, None) => pair(&self.cert_file, &self.key_file),
            (cert, key) => pair(cert, key),
        };
        let Some((cert, key)) = own else {
            return Err("an https peer URL needs a certificate and its key: `peer_cert_file` and `peer_key_file`, or \
                        `cert_file` and `key_file`"
                .to_owned());
        };
        let ca = self.peer_trusted_ca_file.clone().or_else(|| self.trusted_ca_file.clone());
        let ca = ca.ok_or(
            "an https peer URL needs `peer_trusted_ca_file` or `trusted_ca_file`, which signs the certificates of nodes",
        )?;
        // The lists of the clients' authorities say nothing of others.
        let shared = if self.peer_trusted_ca_file.is_none() { self.crl_file.clone() } else { None };
        let crl = self.peer_crl_file.clone().or(shared);
        Ok(TlsFiles { cert, key, ca: Some(ca), crl })
    }

    /// Who the replica is as a client of nodes.
    pub fn client(&self) -> ClientTls {
        let identity = self.cert_file.clone().zip(self.key_file.clone());
        ClientTls { ca: self.trusted_ca_file.clone(), identity, login: self.login.clone() }
    }

    /// What is missing for a node with these URLs.
    ///
    /// # Errors
    /// Each thing that is.
    pub fn suffices(&self, client_url: &NodeUrl, peer_url: &NodeUrl) -> Result<(), Vec<String>> {
        let client = client_url.is_tls().then(|| self.server().err()).flatten();
        let peer = peer_url.is_tls().then(|| self.peer().err()).flatten();
        let missing: Vec<_> = client.into_iter().chain(peer).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Reads all files that a node with these URLs uses, and says what is wrong with them on this machine.
    ///
    /// # Errors
    /// Each thing that is wrong: files that cannot be read, and keys of other certificates.
    pub fn try_files(&self, client_url: &NodeUrl, peer_url: &NodeUrl) -> Result<(), Vec<String>> {
        self.suffices(client_url, peer_url)?;
        let client = client_url.is_tls().then(|| self.server().ok()).flatten();
        let peer = peer_url.is_tls().then(|| self.peer().ok()).flatten();
        let peer = peer.filter(|peer| client.as_ref() != Some(peer));
        let tried = client.into_iter().chain(peer).filter_map(|files| Loaded::read(&files).err());
        let wrong: Vec<_> = tried
            .map(|error| match error {
                // Whoever reads a configuration knows what kind of mistake it is.
                Error::InvalidArgument { reason } => reason,
                error => error.to_string(),
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// What a node with these URLs lets others see or do who share its network, if it does.
pub fn exposed(client_url: &NodeUrl, peer_url: &NodeUrl) -> Vec<String> {
    let mut exposed = Vec::new();
    if !client_url.is_tls() && !client_url.is_loopback() {
        exposed.push(format!(
            "{client_url} has no TLS: whoever reaches this port can read and change all data, and whoever is on the way can see them"
        ));
    }
    if !peer_url.is_tls() && !peer_url.is_loopback() {
        exposed.push(format!(
            "{peer_url} has no TLS: whoever is on the way between the nodes can see all data, and take over a connection once the \
             token is proved"
        ));
    }
    exposed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> NodeUrl {
        text.parse().unwrap()
    }

    #[test]
    fn the_peer_port_takes_what_it_has_for_itself_before_what_clients_are_shown() {
        let file = |name: &str| Some(PathBuf::from(name));
        let shared = Tls {
            cert_file: file("c"),
            key_file: file("k"),
            trusted_ca_file: file("ca"),
            crl_file: file("crl"),
            ..Tls::default()
        };
        let all = TlsFiles { cert: "c".into(), key: "k".into(), ca: file("ca"), crl: file("crl") };
        assert_eq!((shared.server(), shared.peer()), (Ok(all.clone()), Ok(all.clone())));
        let open = Tls { client_cert_auth: Some(false), ..shared.clone() };
        assert_eq!((open.server().unwrap().ca, open.server().unwrap().crl, open.peer()), (None, None, Ok(all)));
        let own =
            Tls { peer_cert_file: file("pc"), peer_key_file: file("pk"), peer_trusted_ca_file: file("pca"), ..shared };
        let its_own = TlsFiles { cert: "pc".into(), key: "pk".into(), ca: file("pca"), crl: None };
        assert_eq!(own.peer(), Ok(its_own.clone()));
        let revoking = Tls { peer_crl_file: file("pcrl"), ..own.clone() };
        assert_eq!(revoking.peer(), Ok(TlsFiles { crl: file("pcrl"), ..its_own }));
        assert!(Tls { peer_key_file: None, ..own }.peer().is_err(), "a certificate and another's key");
    }

    #[test]
    fn what_is_missing_is_told_for_each_url() {
        let (http, https) = (url("http://10.0.0.1:1"), url("https://10.0.0.1:2"));
        assert_eq!(Tls::default().suffices(&http, &http), Ok(()));
        assert_eq!(Tls::default().suffices(&https, &https).unwrap_err().len(), 2);
        let auth = Tls {
            cert_file: Some("c".into()),
            key_file: Some("k".into()),
            client_cert_auth: Some(true),
            ..Tls::default()
        };
        let missing = auth.suffices(&https, &http).unwrap_err();
        assert!(missing[0].contains("`client_cert_auth` needs `trusted_ca_file`"), "{missing:?}");
        assert_eq!((exposed(&http, &https).len(), exposed(&http, &http).len()), (1, 2));
        for near in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert_eq!(exposed(&url(near), &url(near)), Vec::<String>::new());
        }
    }
}
