//! What a failed TLS handshake means, in words for metrics and logs.

use std::{error::Error, io};

use tokio_rustls::rustls::{self, CertificateError};

use crate::Refusal;

/// What a failed TLS handshake means, if it is a refusal and not a connection that broke.
pub fn refusal(error: &io::Error) -> Option<Refusal> {
    let source = error.get_ref()?;
    of(source.downcast_ref::<rustls::Error>()?)
}

/// The same for what rustls says.
pub(crate) fn of(error: &rustls::Error) -> Option<Refusal> {
    Some(match error {
        rustls::Error::NoCertificatesPresented => Refusal::NoCertificate,
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Refusal::ExpiredCertificate,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Refusal::WrongName,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Refusal::WrongPurpose,
            CertificateError::Revoked => Refusal::RevokedCertificate,
            _ => Refusal::UntrustedCertificate,
        },
        rustls::Error::AlertReceived(_) => Refusal::ByOther,
        rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::NoApplicationProtocol => Refusal::Protocol,
        // A signature that is not of the certificate's key, and what no proper client sends.
        rustls::Error::PeerMisbehaved(_) | rustls::Error::DecryptError => Refusal::UntrustedCertificate,
        _ => return None,
    })
}

/// What an error says, with its causes.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
