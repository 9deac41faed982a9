use std::{fs, path::Path};

use storage_core::{Error, Result};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::ClientTls;

/// What a client of nodes with `https` URLs needs.
pub(crate) fn config(tls: &ClientTls) -> Result<ClientTlsConfig> {
    let Some(ca) = &tls.ca else {
        return Err(Error::invalid_argument(
            "https needs the certificate of the authority that signs those of the nodes",
        ));
    };
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    Ok(match &tls.identity {
        Some((cert, key)) => config.identity(Identity::from_pem(read(cert)?, read(key)?)),
        None => config,
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| Error::invalid_argument(format!("cannot read {}: {error}", file.display())))
}
