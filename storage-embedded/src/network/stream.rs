//! Both halves of a connection, in the clear or with TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use crate::host::{OwnedReadHalf, OwnedWriteHalf, TcpStream};

/// A connection that is not divided yet.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>, crate::tls::Withdrawal),
}

/// What comes.
#[derive(Debug)]
pub(crate) enum ReadHalf {
    Plain(OwnedReadHalf),
    #[cfg(feature = "tls")]
    Tls(tokio::io::ReadHalf<tokio_rustls::TlsStream<TcpStream>>, crate::tls::Withdrawal),
}

/// What goes.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Plain(OwnedWriteHalf),
    #[cfg(feature = "tls")]
    Tls(tokio::io::WriteHalf<tokio_rustls::TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (ReadHalf::Plain(reader), WriteHalf::Plain(writer))
            }
            #[cfg(feature = "tls")]
            Self::Tls(stream, withdrawal) => {
                let (reader, writer) = tokio::io::split(*stream);
                (ReadHalf::Tls(reader, withdrawal), WriteHalf::Tls(writer))
            }
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_read(context, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(half, withdrawal) => {
                // Whoever has a connection reads from it as long as it is of use, so this ends it.
                if let Poll::Ready(error) = withdrawal.poll(context) {
                    return Poll::Ready(Err(error));
                }
                match Pin::new(half).poll_read(context, buffer) {
                    // The other side has dropped the connection and not said so in TLS. As without TLS, that is an end: frames say
                    // themselves whether they are whole, and no meaning hangs on where a connection ends.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                    read => read,
                }
            }
        }
    }
}

impl WriteHalf {
    /// Sends all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(half) => half.write_all(bytes).await,
            #[cfg(feature = "tls")]
            Self::Tls(half) => {
                half.write_all(bytes).await?;
                // What the socket did not take at once is kept back until somebody asks.
                half.flush().await
            }
        }
    }

    /// Says that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(half) => half.shutdown().await,
            #[cfg(feature = "tls")]
            Self::Tls(half) => half.shutdown().await,
        }
    }
}
