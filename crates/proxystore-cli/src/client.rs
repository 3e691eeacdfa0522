//! A client of a daemon that asks one thing after another.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proxystore::connectors::endpoint::home::Card;
use proxystore::wire::greeting::{CHALLENGE, Challenge, Hello, PROOF, Role, Token};
use proxystore::wire::{
    Answer, EndpointId, FRAME_HEAD, FrameHead, PIECE_HEAD, PieceHead, Request, decode_answer,
    encode_request,
};
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::lock::host_name;

const CONNECT: &str = "connect to an endpoint";
const ASK: &str = "ask an endpoint";
/// The longest body that is read into memory.
const LONGEST: u64 = 16 << 30;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection to a daemon.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    number: u32,
}

impl Client {
    /// Connects to the daemon of a directory, which may be silent for `patience`.
    ///
    /// # Errors
    /// When nobody is there, or somebody else.
    pub(crate) fn connect(directory: &Directory, patience: Duration) -> Result<Self> {
        let card = directory.card()?.ok_or_else(|| not_running(directory))?;
        let stream = connect(&card, patience)?.ok_or_else(|| not_running(directory))?;
        Self::greet(stream, &directory.token()?, card.endpoint()?)
    }

    fn greet(mut stream: Box<dyn Stream>, token: &Token, expected: EndpointId) -> Result<Self> {
        let hello = Hello::new()?;
        stream.write_all(&hello.encode()).map_err(broken)?;
        let challenge = Challenge::decode(&array::<CHALLENGE>(&mut stream)?)?;
        stream.write_all(&token.proof(Role::Client, &hello, &challenge)).map_err(broken)?;
        let proof = array::<PROOF>(&mut stream)?;
        let known = token.accepts(&proof, Role::Daemon, &hello, &challenge);
        match receive(&mut stream)? {
            (Answer::Failed(fault), _) => Err(fault.into_error(CONNECT)),
            (Answer::Welcome(_), _) if known && challenge.endpoint == expected => {
                Ok(Self { stream, number: 0 })
            }
            _ => Err(Error::new(ErrorKind::Untrusted, CONNECT, "somebody else answers")
                .with("endpoint", challenge.endpoint.short())
                .with_hint("restart the endpoint, which writes anew how it is reached")),
        }
    }

    /// The answer to a request, and the bytes with it. Faults are errors.
    ///
    /// # Errors
    /// What the daemon says, and when it does not answer.
    pub(crate) fn ask(&mut self, request: &Request, body: &[u8]) -> Result<(Answer, Vec<u8>)> {
        self.number = self.number.wrapping_add(1);
        let mut out = Vec::with_capacity(256);
        encode_request(&mut out, self.number, request, body.len() as u64, false)?;
        self.stream.write_all(&out).and_then(|()| self.stream.write_all(body)).map_err(broken)?;
        match receive(&mut self.stream)? {
            (Answer::Failed(fault), _) => Err(fault.into_error(ASK)),
            answered => Ok(answered),
        }
    }
}

/// Has the daemon of a directory read again who is a peer.
///
/// # Errors
/// When it does not run, and when what it read makes no sense.
pub(crate) fn reload(directory: &Directory) -> Result<()> {
    Client::connect(directory, Duration::from_secs(10))?.ask(&Request::Reload, &[]).map(drop)
}

/// A stream to the daemon of a card; `None` when it runs nowhere.
fn connect(card: &Card, patience: Duration) -> Result<Option<Box<dyn Stream>>> {
    let refused = |error| {
        Error::io(CONNECT, error)
            .with("endpoint", &card.name)
            .with_hint("look whether it runs: `proxystore endpoint list`")
    };
    if let Some(socket) = card.socket.as_ref().filter(|_| card.host == Some(host_name())) {
        let stream = UnixStream::connect(socket).map_err(refused)?;
        stream.set_read_timeout(Some(patience)).map_err(refused)?;
        stream.set_write_timeout(Some(patience)).map_err(refused)?;
        return Ok(Some(Box::new(stream)));
    }
    let Some(address) = &card.tcp else { return Ok(None) };
    let address = address.to_socket_addrs().map_err(refused)?.next();
    let Some(address) = address else { return Ok(None) };
    let stream = TcpStream::connect_timeout(&address, patience).map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    stream.set_read_timeout(Some(patience)).map_err(refused)?;
    stream.set_write_timeout(Some(patience)).map_err(refused)?;
    Ok(Some(Box::new(stream)))
}

fn receive(stream: &mut Box<dyn Stream>) -> Result<(Answer, Vec<u8>)> {
    let frame = FrameHead::decode(&array::<FRAME_HEAD>(stream)?)?;
    let mut head = vec![0; frame.head.into()];
    stream.read_exact(&mut head).map_err(broken)?;
    let answer = decode_answer(&frame, &head)?;
    if frame.body > LONGEST {
        return Err(Error::new(ErrorKind::Unsupported, ASK, "the answer is too long")
            .with("size", frame.body));
    }
    let mut body = Vec::new();
    while (body.len() as u64) < frame.body {
        let left = frame.body - body.len() as u64;
        let run = if frame.in_pieces {
            match PieceHead::decode(array::<PIECE_HEAD>(stream)?, left)? {
                PieceHead::Bytes(len) => len.into(),
                PieceHead::Aborted => return receive(stream),
            }
        } else {
            left
        };
        let before = body.len() as u64;
        stream.take(run).read_to_end(&mut body).map_err(broken)?;
        if body.len() as u64 - before < run {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok((answer, body))
}

fn array<const N: usize>(stream: &mut Box<dyn Stream>) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

fn broken(error: std::io::Error) -> Error {
    let silent =
        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
    if silent {
        return Error::new(ErrorKind::Timeout, ASK, "it does not answer in time")
            .with_hint("its log, `log.txt` in its directory, may say what it is busy with");
    }
    Error::io(ASK, error).with_hint("its log, `log.txt` in its directory, may say why")
}

fn not_running(directory: &Directory) -> Error {
    let name = directory.path().file_name().unwrap_or_default().display();
    Error::new(ErrorKind::Closed, CONNECT, "it does not run")
        .with("directory", directory.path().display())
        .with_hint(format!("start it: `proxystore endpoint start {name}`"))
}
