//! How a connection is opened: the caller says who it is, whom it means and what for; the other side agrees or says why not.
//!
//! ```text
//! caller                                        called
//!   who, whom, what for, challenge        ->
//!                                         <-    its refusal in words, or none and its challenge
//!   proof of the token                    ->
//!                                         <-    its refusal in words, or none and its proof of the token
//! ```
//!
//! The caller proves first: a stranger who connects is told nothing that the token could be guessed from.

use std::{io, time::Duration};

use bytes::{BufMut, Bytes};
use tokio::time::timeout;

use super::{
    frame::{FrameReader, put_frame},
    security::{Identity, Refused, Security},
    stream::{ReadHalf, WriteHalf},
    token::{CHALLENGE_BYTES, Challenge, Exchange, Side, challenge},
};
use crate::{
    Refusal,
    codec::{DecodeError, Decoded, Reader, put_bytes},
    host::{self, TcpStream},
};

/// How long connecting and the handshake may take together, on both sides. A peer that connects and says nothing costs no more than this.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the other side's system may leave what was sent unacknowledged, or a probe of an idle connection unanswered,
/// until the connection is given up: a silent cut of the network or a lost machine then shows as a broken connection.
/// A process that is merely paused does not, since its system still answers.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest frame of a handshake: the greeting is a fixed 77 bytes, a refusal a line of text.
const HANDSHAKE_FRAME_BYTES: usize = 1024;

const MAGIC: u64 = u64::from_le_bytes(*b"snetpeer");

/// The version of the protocol between nodes; both sides need the same.
const PROTOCOL: u32 = 2;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Channel {
    /// A pipeline of appends with entries, and their answers in order.
    Append = 1,
    /// Votes, heartbeats and transfers of leadership, one at a time.
    Control = 2,
    /// One snapshot.
    Snapshot = 3,
    /// Calls of a replica's users, many at a time.
    Calls = 4,
}

/// Who is calling whom, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) cluster: u128,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) channel: Channel,
}

impl Hello {
    fn encode(&self, challenge: &Challenge, out: &mut Vec<u8>) {
        out.put_u64_le(MAGIC);
        out.put_u32_le(PROTOCOL);
        out.put_u128_le(self.cluster);
        out.put_u64_le(self.from);
        out.put_u64_le(self.to);
        out.put_u8(self.channel as u8);
        out.put_slice(challenge);
    }

    fn decode(bytes: Bytes) -> Decoded<(Self, Challenge)> {
        let mut reader = Reader::new(bytes);
        if reader.u64()? != MAGIC {
            return Err(DecodeError("no node of this project speaks here"));
        }
        if reader.u32()? != PROTOCOL {
            return Err(DecodeError("another version of the protocol"));
        }
        let (cluster, from, to) = (reader.u128()?, reader.u64()?, reader.u64()?);
        let channel = match reader.u8()? {
            1 => Channel::Append,
            2 => Channel::Control,
            3 => Channel::Snapshot,
            4 => Channel::Calls,
            _ => return Err(DecodeError("an unknown kind of connection")),
        };
        let challenge = whole(reader)?;
        Ok((Self { cluster, from, to, channel }, challenge))
    }
}

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
        self.send(|out| put_bytes(out, refused.words.as_bytes())).await
    }

    /// What the other side sends if it does not refuse.
    async fn agreed(&mut self) -> io::Result<[u8; CHALLENGE_BYTES]> {
        let mut answer = Reader::new(self.reader.expect().await?);
        let refusal = answer.string().map_err(not_a_node)?;
        if !refusal.is_empty() {
            return Err(Refused::new(Refusal::ByOther, refusal).into());
        }
        Ok(whole(answer).map_err(not_a_node)?)
    }
}

/// Connects to `address` and greets.
///
/// # Errors
/// `PermissionDenied` with the other side's words if it refuses, or with ours if we do; the errors of the network and of TLS.
pub(crate) async fn connect(address: &str, hello: Hello, security: &Security) -> io::Result<Connection> {
    let mut remote = None;
    let opened = timeout(HANDSHAKE_TIMEOUT, async {
        let stream = TcpStream::connect(address).await?;
        remote = stream.peer_addr().ok();
        prepare(&stream)?;
        let (reader, writer) = security.call(stream, address).await?.split();
        let reader = FrameReader::new(reader).with_limit(HANDSHAKE_FRAME_BYTES);
        let mut connection = Connection { reader, writer };
        greet(&mut connection, &hello, security).await?;
        connection.reader.reset_limit();
        Ok(connection)
    });
    let opened = opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    opened.inspect_err(|error| security.note(remote, error))
}

async fn greet(connection: &mut Connection, hello: &Hello, Security { token, .. }: &Security) -> io::Result<()> {
    let of_caller = challenge()?;
    connection.send(|out| hello.encode(&of_caller, out)).await?;
    let of_called = connection.agreed().await?;
    let exchange = Exchange { hello, of_caller: &of_caller, of_called: &of_called };
    connection.send(|out| out.put_slice(&exchange.prove(token, Side::Caller))).await?;
    let proof = connection.agreed().await?;
    if !exchange.proves(token, Side::Called, &proof) {
        return Err(Refused::new(Refusal::WrongToken, "the node there has not proved that it has our token").into());
    }
    Ok(())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    host::watch_for_silence(stream, SILENCE_TIMEOUT)
}

/// Answers a greeting. `check` says what is wrong with it, or with who sends it, if anything.
///
/// # Errors
/// Whatever the caller sent instead of a proper greeting; it has been told then, where that makes sense.
pub(crate) async fn accept(
    stream: TcpStream,
    security: &Security,
    check: impl FnOnce(&Hello, &Identity) -> Result<(), Refused>,
) -> io::Result<(Hello, Connection)> {
    let remote = stream.peer_addr().ok();
    let opened = timeout(HANDSHAKE_TIMEOUT, async {
        prepare(&stream)?;
        let (stream, identity) = security.answer(stream).await?;
        let (reader, writer) = stream.split();
        let reader = FrameReader::new(reader).with_limit(HANDSHAKE_FRAME_BYTES);
        let mut connection = Connection { reader, writer };
        let hello = welcome(&mut connection, security, |hello| check(hello, &identity)).await?;
        connection.reader.reset_limit();
        Ok((hello, connection))
    });
    let opened = opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    opened.inspect_err(|error| security.note(remote, error))
}

async fn welcome(
    connection: &mut Connection,
    Security { token, .. }: &Security,
    check: impl FnOnce(&Hello) -> Result<(), Refused>,
) -> io::Result<Hello> {
    let greeting = Hello::decode(connection.reader.expect().await?);
    let greeting = greeting.map_err(|error| Refused::new(Refusal::Protocol, error.to_string()));
    let (hello, of_caller) = match greeting.and_then(|(hello, challenge)| check(&hello).map(|()| (hello, challenge))) {
        Ok(greeting) => greeting,
        Err(refused) => {
            connection.refuse(&refused).await?;
            return Err(refused.into());
        }
    };
    let of_called = challenge()?;
    connection.send(|out| agree(out, &of_called)).await?;
    let exchange = Exchange { hello: &hello, of_caller: &of_caller, of_called: &of_called };
    if !exchange.proves(token, Side::Caller, &connection.reader.expect().await?) {
        let refused = Refused::new(Refusal::WrongToken, "the token of the cluster is another one");
        connection.refuse(&refused).await?;
        return Err(refused.into());
    }
    connection.send(|out| agree(out, &exchange.prove(token, Side::Called))).await?;
    Ok(hello)
}

/// No words of refusal, and this.
fn agree(out: &mut Vec<u8>, with: &[u8; CHALLENGE_BYTES]) {
    put_bytes(out, b"");
    out.put_slice(with);
}

/// A challenge or proof, and nothing behind it.
fn whole(reader: Reader) -> Decoded<[u8; CHALLENGE_BYTES]> {
    let rest = reader.rest();
    <[u8; CHALLENGE_BYTES]>::try_from(&rest[..]).map_err(|_| DecodeError("a challenge or proof of another length"))
}

fn not_a_node(error: DecodeError) -> Refused {
    Refused::new(Refusal::Protocol, format!("what listens there answers as no node of this release does: {error}"))
}
