//! The environment variables that stand over a file's keys. They are read, and their mistakes told, like the rest.

use super::{
    mistakes::Location,
    tree::{Node, Table, Value},
};

/// The environment variables that stand over a file's keys, and those keys. Several outputs have commas between them. Certificates are
/// in the table `tls`; what a replica's row has for itself counts before.
pub const VARIABLES: [(&str, &str); 23] = [
    ("SNET_STORAGE_TOKEN", "token"),
    ("SNET_STORAGE_TOKEN_FILE", "token_file"),
    ("SNET_STORAGE_DATA_DIR", "data_dir"),
    ("SNET_STORAGE_SNAPSHOT_BYTES", "snapshot_bytes"),
    ("SNET_STORAGE_LOG_KEPT_BYTES", "log_kept_bytes"),
    ("SNET_STORAGE_QUOTA_BACKEND_BYTES", "quota_backend_bytes"),
    ("SNET_STORAGE_MAX_CONNECTIONS", "max_connections"),
    ("SNET_STORAGE_ENGINE", "engine"),
    ("SNET_STORAGE_ETCD_PROGRAM", "etcd_program"),
    ("SNET_STORAGE_STARTUP_TIMEOUT", "startup_timeout"),
    ("SNET_STORAGE_LOG_LEVEL", "log_level"),
    ("SNET_STORAGE_LOG_OUTPUTS", "log_outputs"),
    ("SNET_STORAGE_LOG_FORMAT", "log_format"),
    ("SNET_STORAGE_CERT_FILE", "tls.cert_file"),
    ("SNET_STORAGE_KEY_FILE", "tls.key_file"),
    ("SNET_STORAGE_TRUSTED_CA_FILE", "tls.trusted_ca_file"),
    ("SNET_STORAGE_CRL_FILE", "tls.crl_file"),
    ("SNET_STORAGE_PEER_CERT_FILE", "tls.peer_cert_file"),
    ("SNET_STORAGE_PEER_KEY_FILE", "tls.peer_key_file"),
    ("SNET_STORAGE_PEER_TRUSTED_CA_FILE", "tls.peer_trusted_ca_file"),
    ("SNET_STORAGE_PEER_CRL_FILE", "tls.peer_crl_file"),
    ("SNET_STORAGE_USER", "tls.user"),
    ("SNET_STORAGE_PASSWORD_FILE", "tls.password_file"),
];

/// Sets in a table what the environment says, so that it is read, and its mistakes are told, like the rest.
pub(super) fn apply(table: &mut Table, variable: impl Fn(&str) -> Option<String>) {
    // The environment stands over the file: a token that it has in one way takes the place of that which the file has in the other.
    for (name, key, other) in
        [("SNET_STORAGE_TOKEN", "token", "token_file"), ("SNET_STORAGE_TOKEN_FILE", "token_file", "token")]
    {
        if variable(name).is_some() {
            table.remove(key);
            table.remove(other);
        }
    }
    for (name, key) in VARIABLES {
        let Some(text) = variable(name) else { continue };
        let location = Location::Variable(name);
        let node = |text: &str| Node { location, value: Value::Text(text.to_owned()) };
        let node = match key {
            "log_outputs" => Node { location, value: Value::List(text.split(',').map(node).collect()) },
            _ => node(&text),
        };
        match key.split_once('.') {
            Some((inner, key)) => table.set_within(inner, key, node),
            None => table.set(key, node),
        }
    }
}
