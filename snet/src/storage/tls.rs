//! The flags for certificates: etcd's of a node, and etcdctl's of a client.

use std::path::PathBuf;

use storage_replica::config::{ClientTls, Login, Tls};

use super::password;
use crate::exit::Failure;

/// The certificates of a node.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Certificates, in PEM files, for URLs with https")]
pub(super) struct NodeFlags {
    /// The node's own certificate.
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// The authorities that sign the certificates of clients and nodes; with it, clients need one.
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_TRUSTED_CA_FILE")]
    trusted_ca_file: Option<PathBuf>,
    /// The certificates that these authorities have revoked, in lists of all of them.
    #[arg(long, visible_alias = "client-crl-file", value_name = "FILE", env = "SNET_STORAGE_CRL_FILE")]
    crl_file: Option<PathBuf>,
    /// Demand a certificate of clients, as `--trusted-ca-file` does already.
    #[arg(long, requires = "trusted_ca_file")]
    client_cert_auth: bool,
    /// The certificate that other nodes are shown [default: that of `--cert-file`].
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_PEER_CERT_FILE")]
    peer_cert_file: Option<PathBuf>,
    /// Its key [default: that of `--key-file`].
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_PEER_KEY_FILE")]
    peer_key_file: Option<PathBuf>,
    /// The authorities that sign the certificates of other nodes [default: those of `--trusted-ca-file`].
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_PEER_TRUSTED_CA_FILE")]
    peer_trusted_ca_file: Option<PathBuf>,
    /// The certificates that these have revoked [default: those of `--crl-file`, unless other nodes have authorities of their own].
    #[arg(long, value_name = "FILE", env = "SNET_STORAGE_PEER_CRL_FILE")]
    peer_crl_file: Option<PathBuf>,
    /// Demand certificates of other nodes, which an https peer URL always does.
    #[arg(long)]
    peer_client_cert_auth: bool,
    /// The user to be to the nodes of others, where these ask for users.
    #[arg(long, value_name = "NAME", requires = "password_file", env = "SNET_STORAGE_USER")]
    user: Option<String>,
    /// The file with its password.
    #[arg(long, value_name = "FILE", requires = "user", env = "SNET_STORAGE_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
}

impl From<NodeFlags> for Tls {
    fn from(flags: NodeFlags) -> Self {
        // Both switches say what is so anyway; they are there for whoever comes with etcd's flags.
        let NodeFlags { peer_client_cert_auth: _, client_cert_auth, .. } = flags;
        Self {
            cert_file: flags.cert_file,
            key_file: flags.key_file,
            trusted_ca_file: flags.trusted_ca_file,
            crl_file: flags.crl_file,
            client_cert_auth: client_cert_auth.then_some(true),
            peer_cert_file: flags.peer_cert_file,
            peer_key_file: flags.peer_key_file,
            peer_trusted_ca_file: flags.peer_trusted_ca_file,
            peer_crl_file: flags.peer_crl_file,
            login: flags.user.zip(flags.password_file).map(|(user, file)| Login::from_file(user, file)),
        }
    }
}

/// Whom a client trusts, and who it is. The fields are named apart from those of the commands: `get` has a key of the store.
#[derive(Debug, clap::Args)]
pub(super) struct ClientFlags {
    /// With https endpoints, the file with the authorities that sign the nodes' certificates, in PEM.
    #[arg(long = "cacert", value_name = "FILE", env = "SNET_STORAGE_CACERT")]
    tls_ca: Option<PathBuf>,
    /// The file with the client's own certificate, in PEM, if the nodes demand one.
    #[arg(long = "cert", value_name = "FILE", requires = "tls_key", env = "SNET_STORAGE_CERT")]
    tls_cert: Option<PathBuf>,
    /// The file with its key, in PEM.
    #[arg(long = "key", value_name = "FILE", requires = "tls_cert", env = "SNET_STORAGE_KEY")]
    tls_key: Option<PathBuf>,
    /// The user to be, where the nodes ask for users. Its password is in `--password-file` or in SNET_STORAGE_PASSWORD, or is asked for.
    #[arg(long = "user", value_name = "NAME", env = "SNET_STORAGE_USER")]
    login_user: Option<String>,
    /// The file with the user's password.
    #[arg(long = "password-file", value_name = "FILE", requires = "login_user", env = "SNET_STORAGE_PASSWORD_FILE")]
    login_password_file: Option<PathBuf>,
}

impl ClientFlags {
    /// Who to be, and whom to trust. It asks for a password if there is a user and no password.
    pub(super) fn client(&self) -> Result<ClientTls, Failure> {
        let login = match (&self.login_user, &self.login_password_file) {
            (None, _) => None,
            (Some(user), Some(file)) => Some(Login::from_file(user, file)),
            (Some(user), None) => Some(Login::new(user, password::of(user)?)),
        };
        Ok(ClientTls { ca: self.tls_ca.clone(), identity: self.tls_cert.clone().zip(self.tls_key.clone()), login })
    }
}
