//! How a connection is opened: the caller says who it is, whom it means and what for; the other side agrees or says why not.
//!
//! ```text
//! caller                                        called
//!   who, whom, what for, challenge        ->
//!                                         <-    its refusal in words, or none and its challenge
//!   proof of the token                    ->
//!                                         <-    its refusal in words, or none, its proof of the token, and whether the caller belongs to the cluster
//! ```
//!
//! The caller proves first: a stranger who connects is told nothing that the token could be guessed from, and neither which cluster nor which node is
//! here. The log of this node has those words. Whether the caller belongs to the cluster is covered by the proof: a stranger cannot make a node
//! believe that it was removed.

use std::{io, time::Duration};

use bytes::BufMut;
use tokio::time::timeout;

use super::{
    belonging::Belonging,
    frame::{FrameReader, put_frame},
    hello::{CHALLENGE_BYTES, Hello, challenge, whole},
    refused::Refused,
    security::{Identity, Security},
    stream::{ReadHalf, WriteHalf},
    token::{Exchange, Side},
};
use crate::{
    Refusal,
    codec::{DecodeError, Reader, put_bytes},
    connections::SILENCE_TIMEOUT,
    host::{self, TcpStream},
};

/// How long connecting and the handshake may take together, on both sides. A peer that connects and says nothing costs no more than this.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest frame of a handshake: the greeting has at most 125 bytes, a refusal a line of text.
const HANDSHAKE_FRAME_BYTES: usize = 1024;

/// What whoever has not proved the token is told, whatever else is wrong with it.
const WRONG_TOKEN: &str = "the token of the cluster is another one";

/// Both halves of an open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: FrameReader<ReadHalf>,
    pub(crate) writer: WriteHalf,
}

impl Connection {
    async fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut out = Vec::new();
        put_frame(&mut out, write);
        self.writer.send(&out).await
    }

    /// Tells the other side that it is refused, and why.
    async fn refuse(&mut self, refused: &Refused) -> io::Result<()> {
        self.send(|out| put_bytes(out, refused.told().as_bytes())).await
    }

    /// What the other side sends if it does not refuse.
    async fn agreed(&mut self) -> io::Result<Reader> {
        let mut answer = Reader::new(self.reader.expect().await?);
        let refusal = answer.string().map_err(not_a_node)?;
        if !refusal.is_empty() {
            return Err(Refused::new(Refusal::ByOther, refusal).into());
        }
        Ok(answer)
    }
}

/// Connects to `address` and greets. What the other side knows of this node is for its [`Admission`](super::admission::Admission) to judge:
/// one that it does not let in is not answered.
///
/// # Errors
/// `PermissionDenied` with the other side's words if it refuses, or with ours if we do; the errors of the network and of TLS.
pub(crate) async fn connect(address: &str, hello: Hello, security: &Security) -> io::Result<(Belonging, Connection)> {
    let mut remote = None;
    let opened = timeout(HANDSHAKE_TIMEOUT, async {
        let stream = TcpStream::connect(address).await?;
        remote = stream.peer_addr().ok();
        prepare(&stream)?;
        let (reader, writer) = security.call(stream, address).await?.split();
        let mut connection = Connection { reader: FrameReader::new(reader, HANDSHAKE_FRAME_BYTES), writer };
        let belonging = greet(&mut connection, &hello, security).await?;
        connection.reader.set_limit(hello.channel.answer_bytes());
        Ok((belonging, connection))
    });
    let opened = opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    security.note_opened(remote, &opened);
    opened
}

async fn greet(connection: &mut Connection, hello: &Hello, Security { token, .. }: &Security) -> io::Result<Belonging> {
    // Fresh for each connection, as the other side's is: what was recorded of another one proves nothing here.
    let of_caller = challenge()?;
    connection.send(|out| hello.encode(&of_caller, out)).await?;
    let of_called = whole(connection.agreed().await?).map_err(not_a_node)?;
    let exchange = Exchange { hello, of_caller: &of_caller, of_called: &of_called };
    connection.send(|out| out.put_slice(&exchange.prove(token, Side::Caller))).await?;
    let mut answer = connection.agreed().await?;
    let belonging = Belonging::decode(&mut answer).map_err(not_a_node)?;
    if !exchange.proves(token, Side::Called(belonging), &whole(answer).map_err(not_a_node)?) {
        return Err(Refused::new(Refusal::WrongToken, "the node there has not proved that it has our token").into());
    }
    Ok(belonging)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    host::watch_for_silence(stream, SILENCE_TIMEOUT)
}

/// Answers a greeting. `check` says what is wrong with it, or with who sends it, if anything, which the caller hears only once it has proved the
/// token; `judge`, whether the caller belongs to the cluster.
///
/// # Errors
/// Whatever the caller sent instead of a proper greeting, and that it does not belong to the cluster; it has been told then, where that makes sense.
pub(crate) async fn accept(
    stream: TcpStream,
    security: &Security,
    check: impl FnOnce(&Hello, &Identity) -> Result<(), Refused>,
    judge: impl FnOnce(&Hello) -> Belonging,
) -> io::Result<(Hello, Connection)> {
    let remote = stream.peer_addr().ok();
    let opened = timeout(HANDSHAKE_TIMEOUT, async {
        prepare(&stream)?;
        let (stream, identity) = security.answer(stream).await?;
        let (reader, writer) = stream.split();
        // A stranger may make this node keep a kilobyte, for the time of a handshake. Only a member may send large frames.
        let mut connection = Connection { reader: FrameReader::new(reader, HANDSHAKE_FRAME_BYTES), writer };
        let hello = welcome(&mut connection, security, |hello| check(hello, &identity), judge).await?;
        connection.reader.set_limit(hello.channel.request_bytes());
        Ok((hello, connection))
    });
    let opened = opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    security.note_opened(remote, &opened);
    opened
}

async fn welcome(
    connection: &mut Connection,
    Security { token, .. }: &Security,
    check: impl FnOnce(&Hello) -> Result<(), Refused>,
    judge: impl FnOnce(&Hello) -> Belonging,
) -> io::Result<Hello> {
    let greeting = Hello::decode(connection.reader.expect().await?);
    let (hello, of_caller) = match greeting.map_err(|error| Refused::new(Refusal::Protocol, error.to_string())) {
        Ok(greeting) => greeting,
        Err(refused) => {
            connection.refuse(&refused).await?;
            return Err(refused.into());
        }
    };
    let of_called = challenge()?;
    connection.send(|out| agree(out, &[], &of_called)).await?;
    let exchange = Exchange { hello: &hello, of_caller: &of_caller, of_called: &of_called };
    let has_proved = exchange.proves(token, Side::Caller, &connection.reader.expect().await?);
    let checked = match (has_proved, check(&hello)) {
        (true, checked) => checked,
        // Of another cluster the token is another one too: the log of this node says what is to be mended.
        (false, Err(refused)) if refused.refusal == Refusal::OtherCluster => Err(refused.telling(WRONG_TOKEN)),
        (false, _) => Err(Refused::new(Refusal::WrongToken, WRONG_TOKEN)),
    };
    if let Err(refused) = checked {
        connection.refuse(&refused).await?;
        return Err(refused.into());
    }
    let belonging = judge(&hello);
    let proof = exchange.prove(token, Side::Called(belonging));
    connection.send(|out| agree(out, &belonging.bytes(), &proof)).await?;
    match belonging {
        Belonging::Admitted => Ok(hello),
        Belonging::Unknown => Err(Refused::new(Refusal::NotMember, format!("node {} is no member", hello.from)).into()),
        Belonging::Removed { at } => {
            let words = format!("node {} is no member since entry {at}: it was removed", hello.from);
            Err(Refused::new(Refusal::NotMember, words).into())
        }
    }
}

/// No words of refusal, and this.
fn agree(out: &mut Vec<u8>, said: &[u8], with: &[u8; CHALLENGE_BYTES]) {
    put_bytes(out, b"");
    out.put_slice(said);
    out.put_slice(with);
}

fn not_a_node(error: DecodeError) -> Refused {
    Refused::new(Refusal::Protocol, format!("what listens there answers as no node of this release does: {error}"))
}
