//! Who may connect: what a node demands of the others and proves to them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use storage_core::Result;

use super::{refused::Refused, strangers::MembersAddresses, stream::Stream, token::ClusterToken};
use crate::{Refusal, Refusals, host::TcpStream, tls::TlsFiles};

/// What a node demands of the others and proves to them.
#[derive(Debug)]
pub(crate) struct Security {
    pub(crate) token: ClusterToken,
    pub(crate) refusals: Arc<Refusals>,
    /// Where members have proved themselves.
    pub(crate) members: MembersAddresses,
    #[cfg(feature = "tls")]
    tls: Option<super::tls::PeerTls>,
}

/// Who the other side is, as far as TLS says it.
#[derive(Debug)]
pub(crate) enum Identity {
    /// Nobody has asked.
    Unknown,
    #[cfg(feature = "tls")]
    Certificate(super::tls::PeerCertificate),
}

impl Identity {
    /// Whether it may be the node at this host; `None`: a node that is no member yet.
    pub(crate) fn may_be(&self, host: Option<&str>) -> std::result::Result<(), Refused> {
        match self {
            Self::Unknown => {
                let _ = host;
                Ok(())
            }
            #[cfg(feature = "tls")]
            Self::Certificate(certificate) => certificate.may_be(host),
        }
    }
}

impl Security {
    #[cfg(feature = "tls")]
    pub(crate) fn new(token: ClusterToken, files: Option<&TlsFiles>) -> Result<Self> {
        let refusals = Arc::new(Refusals::new("peer"));
        let tls = files.cloned().map(|files| super::tls::PeerTls::new(files, Arc::clone(&refusals))).transpose()?;
        Ok(Self { token, refusals, members: MembersAddresses::default(), tls })
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn new(token: ClusterToken, files: Option<&TlsFiles>) -> Result<Self> {
        match files {
            None => Ok(Self { token, refusals: Arc::new(Refusals::new("peer")), members: MembersAddresses::default() }),
            Some(_) => Err(storage_core::Error::Unsupported {
                feature: "TLS between nodes in this build: build it with the cargo feature `tls`".to_owned(),
            }),
        }
    }

    /// Whether nodes talk with TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether nodes talk with TLS.
    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with TLS it depends")]
    pub(crate) fn is_encrypted(&self) -> bool {
        false
    }

    /// Looks at the certificates again and again, for ever if there are any: connections end that would not be opened any more.
    pub(crate) async fn follow_files(&self) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.follow_files().await;
        }
    }

    /// Secures a connection that this node has made to `address`, `host:port`: the certificate there has to name the host.
    pub(crate) async fn call(&self, stream: TcpStream, address: &str) -> io::Result<Stream> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.call(stream, host(address)).await;
        }
        let _ = address;
        Ok(Stream::Plain(stream))
    }

    /// Secures a connection that another has made to this node.
    pub(crate) async fn answer(&self, stream: TcpStream) -> io::Result<(Stream, Identity)> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let (stream, certificate) = tls.answer(stream).await?;
            return Ok((stream, Identity::Certificate(certificate)));
        }
        Ok((Stream::Plain(stream), Identity::Unknown))
    }

    /// Remembers where a member has proved itself, or counts and logs why nobody has.
    pub(crate) fn note_opened<T>(&self, remote: Option<SocketAddr>, opened: &io::Result<T>) {
        match (opened, remote) {
            (Ok(_), Some(remote)) => self.members.note(remote.ip()),
            (Ok(_), None) => {}
            (Err(error), remote) => self.note(remote, error),
        }
    }

    /// Counts and logs a failure to open a connection, if it is a refusal.
    pub(crate) fn note(&self, remote: Option<SocketAddr>, error: &io::Error) {
        if let Some(refusal) = refusal(error) {
            self.refusals.record(refusal, remote, error);
        }
    }
}

fn refusal(error: &io::Error) -> Option<Refusal> {
    if let Some(refused) = error.get_ref().and_then(|error| error.downcast_ref::<Refused>()) {
        return Some(refused.refusal);
    }
    #[cfg(feature = "tls")]
    if let Some(refusal) = crate::tls::refusal(error) {
        return Some(refusal);
    }
    // Bytes that are no frames, or no greeting.
    (error.kind() == io::ErrorKind::InvalidData).then_some(Refusal::Protocol)
}

/// Whether nobody reaches `host:port` from another machine.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = host(address);
    host.parse::<IpAddr>().map_or(host == "localhost", |address| address.to_canonical().is_loopback())
}

/// The host of `host:port`; an IPv6 address without its brackets.
pub(crate) fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
