//! turmoil's sockets, which the one who simulates can break: turmoil loses a segment for good where TCP would send it again until it
//! gives the connection up.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::{
    ToSocketAddrs,
    net::{self, tcp},
};

thread_local! {
    static CONNECTS: Cell<u64> = const { Cell::new(0) };
    static CONNECTIONS: RefCell<Vec<Weak<Wire>>> = const { RefCell::new(Vec::new()) };
}

/// How often a host of this thread has tried to connect to another.
#[must_use]
pub fn connects() -> u64 {
    CONNECTS.get()
}

/// What both halves of an end of a connection share.
#[derive(Debug)]
struct Wire {
    ends: (IpAddr, IpAddr),
    broken: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// Breaks the connections between two hosts, as their systems do after some silence: whoever uses one is told so.
pub fn break_connections(one: IpAddr, other: IpAddr) {
    CONNECTIONS.with_borrow_mut(|connections| {
        connections.retain(|wire| {
            let Some(wire) = wire.upgrade() else { return false };
            let hit = wire.ends == (one, other) || wire.ends == (other, one);
            if hit {
                wire.broken.store(true, Relaxed);
                wire.reader.wake();
                wire.writer.wake();
            }
            !hit
        });
    });
}

impl Wire {
    fn new(stream: &net::TcpStream) -> io::Result<Arc<Self>> {
        let wire = Arc::new(Self {
            ends: (stream.local_addr()?.ip(), stream.peer_addr()?.ip()),
            broken: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        CONNECTIONS.with_borrow_mut(|connections| connections.push(Arc::downgrade(&wire)));
        Ok(wire)
    }

    fn check(&self, waker: &AtomicWaker, context: &Context<'_>) -> io::Result<()> {
        waker.register(context.waker());
        if self.broken.load(Relaxed) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// A listener of a simulated host.
pub struct TcpListener(net::TcpListener);

impl TcpListener {
    /// Binds an address of this host.
    ///
    /// # Errors
    /// As on a real machine.
    pub async fn bind<A: ToSocketAddrs>(address: A) -> io::Result<Self> {
        net::TcpListener::bind(address).await.map(Self)
    }

    /// The next connection.
    ///
    /// # Errors
    /// As on a real machine.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, remote) = self.0.accept().await?;
        Ok((TcpStream::new(stream)?, remote))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As on a real machine.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TcpListener").field(&self.0.local_addr()).finish()
    }
}

/// A connection of a simulated host.
#[derive(Debug)]
pub struct TcpStream {
    stream: net::TcpStream,
    wire: Arc<Wire>,
}

impl TcpStream {
    fn new(stream: net::TcpStream) -> io::Result<Self> {
        Ok(Self { wire: Wire::new(&stream)?, stream })
    }

    /// Connects to a host.
    ///
    /// # Errors
    /// As on a real machine.
    pub async fn connect<A: ToSocketAddrs>(address: A) -> io::Result<Self> {
        CONNECTS.set(CONNECTS.get() + 1);
        Self::new(net::TcpStream::connect(address).await?)
    }

    /// The other end.
    ///
    /// # Errors
    /// As on a real machine.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Changes nothing.
    ///
    /// # Errors
    /// As on a real machine.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    /// Both directions, each for itself.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let (reader, writer) = self.stream.into_split();
        (OwnedReadHalf { half: reader, wire: self.wire.clone() }, OwnedWriteHalf { half: writer, wire: self.wire })
    }
}

/// What comes.
#[derive(Debug)]
pub struct OwnedReadHalf {
    half: tcp::OwnedReadHalf,
    wire: Arc<Wire>,
}

/// What goes.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    half: tcp::OwnedWriteHalf,
    wire: Arc<Wire>,
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire.check(&self.wire.reader, context)?;
        Pin::new(&mut self.half).poll_read(context, buffer)
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.check(&self.wire.writer, context)?;
        Pin::new(&mut self.half).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.check(&self.wire.writer, context)?;
        Pin::new(&mut self.half).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.check(&self.wire.writer, context)?;
        Pin::new(&mut self.half).poll_shutdown(context)
    }
}
