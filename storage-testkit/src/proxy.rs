//! A link between a client and one server that can be broken in the ways that links break.
//!
//! A [`Proxy`] listens on a loopback port of its own and forwards to a server. It runs in user space, so it needs no root,
//! and knows nothing of what is spoken.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::server::{Reservation, ServerError};

/// A connection passes on pieces of at most this many bytes.
const PIECE: usize = 64 * 1024;

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkFault {
    /// Nothing: everything is passed on.
    #[default]
    None,
    /// Nothing arrives in either direction, and nobody is told. As over a network that was cut, what was sent meanwhile
    /// arrives when the fault is over.
    Blackhole,
    /// Requests arrive and are served, their replies never arrive: the caller cannot know whether it was done.
    /// Connections are cut when this is over, since bytes of theirs are lost.
    LoseReplies,
    /// New connections are refused, and those that exist are cut: what a client sees of a server that was killed.
    Refuse,
}

/// A TCP link to one server, with a fault that can be changed at any time. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wanted: watch::Sender<Link>,
    /// Which [`Link::change`] the task that accepts connections has followed.
    followed: watch::Receiver<u64>,
    task: JoinHandle<()>,
    _port: Reservation,
}

/// What all connections of a link look at.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    fault: LinkFault,
    /// A connection ends when this is not what it was at its beginning.
    cuts: u64,
    /// The number of this change.
    change: u64,
}

impl Proxy {
    /// Opens a link to the server on this loopback port. The server need not listen yet.
    ///
    /// # Errors
    /// [`ServerError::NoFreePort`] and [`ServerError::Io`].
    pub async fn start(server: u16) -> Result<Self, ServerError> {
        let mut reservation = Reservation::default();
        let port = reservation.port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.map_err(ServerError::io(format!("listen on {address}")))?;
        let (wanted, link) = watch::channel(Link::default());
        let (follows, followed) = watch::channel(0);
        let task = tokio::spawn(accept(listener, address, (Ipv4Addr::LOCALHOST, server).into(), link, follows));
        Ok(Self { port, wanted, followed, task, _port: reservation })
    }

    /// The port that clients connect to instead of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the fault of all connections, those that exist and those to come. When this returns it is in force: not a
    /// byte goes through any more that the new fault would not let through, even if it was read before.
    pub async fn set(&self, fault: LinkFault) {
        self.change(|link| {
            if fault != link.fault && (link.fault == LinkFault::LoseReplies || fault == LinkFault::Refuse) {
                link.cuts += 1;
            }
            link.fault = fault;
        })
        .await;
    }

    /// Cuts the connections that exist; those that are made after this has returned find the link as it is.
    pub async fn cut(&self) {
        self.change(|link| link.cuts += 1).await;
    }

    async fn change(&self, change: impl FnOnce(&mut Link)) {
        let mut number = 0;
        self.wanted.send_modify(|link| {
            change(link);
            link.change += 1;
            number = link.change;
        });
        let mut followed = self.followed.clone();
        // The task ends only with this proxy, so there is no error to see.
        let _ = followed.wait_for(|followed| *followed >= number).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections, and owns them: they end with this task.
async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    server: SocketAddr,
    mut link: watch::Receiver<Link>,
    follows: watch::Sender<u64>,
) {
    let mut connections = JoinSet::new();
    let mut open = Some(listener);
    loop {
        while connections.try_join_next().is_some() {}
        let Link { fault, cuts, change } = *link.borrow_and_update();
        if fault == LinkFault::Refuse {
            open = None;
        } else if open.is_none() {
            // The port is reserved, and a port that was ours binds again at once.
            open = TcpListener::bind(address).await.ok();
        }
        follows.send_replace(change);
        let Some(listener) = &open else {
            if link.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    // Of before it was accepted: a cut that came in between is for this connection too.
                    connections.spawn(serve(client, server, link.clone(), cuts));
                }
            }
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// One connection, which ends when the link's number of cuts is no longer `born`.
async fn serve(mut client: TcpStream, server: SocketAddr, link: watch::Receiver<Link>, born: u64) {
    let mut cut = link.clone();
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    // A proxy that waits to fill packets would be a fault of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let to_server = Gate { to: to_server, link: link.clone(), born };
        let to_client = Gate { to: to_client, link, born };
        tokio::select! {
            _ = async { tokio::join!(requests(from_client, to_server), replies(from_server, to_client)) } => return,
            () = until(&mut cut, |link| link.cuts != born) => {}
        }
    }
    // Reset instead of an orderly end: what a client sees of a peer that is gone.
    let _ = (client.set_zero_linger(), server.set_zero_linger());
}

async fn requests(mut from: ReadHalf<'_>, mut to: Gate<'_>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let Some(piece) = buffer.get(..length) else { return };
        if to.pass(piece, |_| false).await.is_err() {
            return;
        }
    }
    // The client has said all that it wants to say; the server may still answer.
    to.end(|_| false).await;
}

async fn replies(mut from: ReadHalf<'_>, mut to: Gate<'_>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let Some(piece) = buffer.get(..length) else { return };
        if to.pass(piece, is_lost).await.is_err() {
            return;
        }
    }
    // The end of the stream is a reply too: a lost one stays away until the connection is cut.
    to.end(is_lost).await;
}

fn is_lost(fault: LinkFault) -> bool {
    fault == LinkFault::LoseReplies
}

/// One direction of a connection: what goes through here goes through under the fault that there is at that moment.
struct Gate<'a> {
    to: WriteHalf<'a>,
    link: watch::Receiver<Link>,
    born: u64,
}

impl Gate<'_> {
    /// Passes a piece on when the link does, unless it is `lost` under the fault that there is then.
    async fn pass(&mut self, mut piece: &[u8], lost: impl Fn(LinkFault) -> bool) -> io::Result<()> {
        while !piece.is_empty() {
            let fault = self.passable().await;
            if lost(fault) {
                return Ok(());
            }
            if let Some(written) = self.under(fault, |to, context| to.poll_write(context, piece)).await? {
                piece = piece.get(written..).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Passes the end of the stream on when the link does; stays while it is `lost`.
    async fn end(&mut self, lost: impl Fn(LinkFault) -> bool) {
        loop {
            let fault = self.passable().await;
            if lost(fault) {
                std::future::pending::<()>().await;
            }
            if !matches!(self.under(fault, |to, context| to.poll_shutdown(context)).await, Ok(None)) {
                return;
            }
        }
    }

    /// Waits while the link passes nothing on; returns the fault there is.
    async fn passable(&mut self) -> LinkFault {
        let born = self.born;
        loop {
            until(&mut self.link, |link| link.fault != LinkFault::Blackhole && link.cuts == born).await;
            let fault = self.link.borrow().fault;
            // It may have changed between the two looks.
            if fault != LinkFault::Blackhole {
                return fault;
            }
        }
    }

    /// Does something to the other end, or nothing if the fault is another one by now.
    ///
    /// While it is done the link cannot be changed, since [`watch::Receiver::borrow`] holds a lock. This is what
    /// [`Proxy::set`] rests on: no piece that was seen fit under the old fault gets through under the new one.
    async fn under<T>(
        &mut self,
        fault: LinkFault,
        act: impl Fn(Pin<&mut WriteHalf<'_>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<Option<T>> {
        let Self { to, link, born } = self;
        poll_fn(|context| {
            let link = link.borrow();
            if link.fault != fault || link.cuts != *born {
                return Poll::Ready(Ok(None));
            }
            act(Pin::new(&mut *to), context).map_ok(Some)
        })
        .await
    }
}

/// Waits until the link is as asked.
async fn until(link: &mut watch::Receiver<Link>, holds: impl FnMut(&Link) -> bool) {
    if link.wait_for(holds).await.is_err() {
        // The proxy is gone, and this task is about to be.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Long enough to believe that something does not happen.
    const NEVER: Duration = Duration::from_millis(50);

    /// A piece that waits for room on its way out, when the fault comes.
    #[tokio::test]
    async fn a_piece_that_was_let_in_before_a_fault_is_not_let_out_after_it() {
        let faults = [(LinkFault::Blackhole, 0, true), (LinkFault::LoseReplies, 0, false), (LinkFault::None, 1, false)];
        for (fault, cuts, survives) in faults {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut receiver, _) = listener.accept().await.unwrap();
            let (wanted, link) = watch::channel(Link::default());
            let (_, to) = sender.split();
            to.writable().await.unwrap();
            let mut room = 0;
            while let Ok(written) = to.try_write(&[0; PIECE]) {
                room += written;
            }
            let mut gate = Gate { to, link, born: 0 };
            let mut passing = Box::pin(gate.pass(b"late", is_lost));
            assert!(poll_fn(|context| Poll::Ready(passing.as_mut().poll(context).is_pending())).await);

            wanted.send_modify(|link| *link = Link { fault, cuts, change: 1 });
            receiver.read_exact(&mut vec![0; room]).await.unwrap();
            let mut late = [0; 4];
            tokio::select! {
                _ = receiver.read_exact(&mut late) => panic!("it came through after {fault:?} and {cuts} cuts"),
                () = async {
                    let _ = passing.as_mut().await;
                    std::future::pending().await
                } => {}
                () = tokio::time::sleep(NEVER) => {}
            }
            if survives {
                wanted.send_modify(|link| *link = Link::default());
                passing.await.unwrap();
                receiver.read_exact(&mut late).await.unwrap();
                assert_eq!(&late, b"late", "what the fault holds up arrives after it");
            }
        }
    }
}
