//! One connection to one daemon: the greeting, then requests and answers in order.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::sync::Arc;

use super::find::{Candidate, Place};
use super::request::Outgoing;
use super::stream::{Patience, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::greeting::{CHALLENGE, Challenge, Hello, PROOF, Role};
use crate::wire::{
    Answer, EndpointId, FRAME_HEAD, Fault, FrameHead, PIECE_HEAD, PieceHead, Request, Stat,
    Welcome, decode_answer,
};

/// Small answers are read together; longer bodies go straight to where they belong.
const BUFFER: usize = 32 << 10;

/// Heads of answers are hardly ever longer.
const USUAL_HEAD: usize = 256;

/// A daemon that answered.
#[derive(Debug)]
pub(super) struct Daemon {
    /// Whose it is.
    pub(super) id: EndpointId,
    /// What it said first.
    pub(super) welcome: Welcome,
    candidate: Candidate,
    place: Place,
}

/// One connection; once an exchange with it was not finished, it is to be dropped.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) daemon: Arc<Daemon>,
    stream: BufReader<Stream>,
    /// What is being done, for errors.
    operation: &'static str,
    /// The number of the next request.
    next: u32,
    /// How many answers, or rests of answers, are still to come.
    owed: u32,
    /// Whether the connection, or who is at its other end, failed.
    is_broken: bool,
}

impl Link {
    /// Connects to a candidate at one of its places.
    pub(super) fn open(
        operation: &'static str,
        candidate: &Candidate,
        place: &Place,
        patience: Patience,
    ) -> Result<Self> {
        let at = |error: Error| match candidate.name.as_str() {
            "" => error.with("address", place),
            name => error.with("endpoint", name).with("address", place),
        };
        let stream = Stream::connect(place, patience)
            .map_err(|error| at(Error::io("connect to an endpoint", error)))?;
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        let (id, welcome) = greet(&mut stream, candidate).map_err(at)?;
        let (candidate, place) = (candidate.clone(), place.clone());
        let daemon = Arc::new(Daemon { id, welcome, candidate, place });
        Ok(Self { daemon, stream, operation, next: 1, owed: 0, is_broken: false })
    }

    /// Another connection to a daemon that answered before.
    pub(super) fn another(
        operation: &'static str,
        daemon: &Daemon,
        patience: Patience,
    ) -> Result<Self> {
        Self::open(operation, &daemon.candidate, &daemon.place, patience)
    }

    /// What is to be done next, and for how long to wait for it.
    pub(super) fn begin(&mut self, operation: &'static str, patience: Patience) {
        self.operation = operation;
        self.stream.get_mut().set_patience(patience);
    }

    /// Whether every request was answered, and every answer read.
    pub(super) fn is_idle(&self) -> bool {
        self.owed == 0 && !self.is_broken
    }

    /// Whether the connection failed, and not what was asked.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Sends requests with their bodies, together. Answers are owed for all of them.
    pub(super) fn send(&mut self, requests: &[(Request, &[&[u8]])]) -> Result<()> {
        let mut outgoing = Outgoing::default();
        for ((request, body), number) in requests.iter().zip(self.next..) {
            outgoing.add(number, request, body)?;
        }
        let count = requests.len() as u32;
        (self.next, self.owed) = (self.next.wrapping_add(count), self.owed + count);
        let mut slices = outgoing.io_slices();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            match self.stream.get_mut().write_vectored(slices) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(len) => IoSlice::advance_slices(&mut slices, len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Waits until something can be read; false when there is nothing after the patience.
    pub(super) fn has_more(&mut self) -> Result<bool> {
        use std::io::BufRead;
        loop {
            match self.stream.fill_buf() {
                Ok([]) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// The next answer, errors of the endpoint among them as errors. When it has a body, that is to be read with
    /// [`body`](Self::body).
    pub(super) fn answer(&mut self) -> Result<(FrameHead, Answer)> {
        let expected = self.next.wrapping_sub(self.owed);
        let (frame, answer) = self.frame()?;
        if frame.number != expected {
            return Err(self.strange("an answer came out of turn"));
        }
        if frame.body == 0 {
            self.owed -= 1;
        }
        match answer {
            Answer::Failed(fault) if fault.kind() == ErrorKind::Closed => {
                // Its daemon is stopping: as good as a connection that ended.
                self.is_broken = true;
                Err(Error::new(ErrorKind::Io, self.operation, "the endpoint is stopping")
                    .with("endpoint", &self.daemon.welcome.name)
                    .with_hint("start it again: `proxystore endpoint start`"))
            }
            Answer::Failed(fault) => Err(self.refused(fault)),
            answer => Ok((frame, answer)),
        }
    }

    /// An answer that says that something was done.
    pub(super) fn done(&mut self) -> Result<()> {
        match self.answer()? {
            (FrameHead { body: 0, .. }, Answer::Done) => Ok(()),
            _ => Err(self.strange("the answer is none to this request")),
        }
    }

    /// An answer that says what there is to know of an object.
    pub(super) fn stat(&mut self) -> Result<Option<Stat>> {
        match self.answer()? {
            (FrameHead { body: 0, .. }, Answer::Stat(stat)) => Ok(Some(stat)),
            (FrameHead { body: 0, .. }, Answer::Absent) => Ok(None),
            _ => Err(self.strange("the answer is none to this request")),
        }
    }

    /// Reads the body of an answer, all of it.
    pub(super) fn body(&mut self, frame: &FrameHead, target: &mut [u8]) -> Result<()> {
        debug_assert_eq!(frame.body, target.len() as u64, "as long as the body");
        if target.is_empty() {
            return Ok(()); // owed no more since the answer was read
        }
        if frame.in_pieces {
            let mut rest = target;
            while !rest.is_empty() {
                let mut head = [0; PIECE_HEAD];
                self.read(&mut head)?;
                match PieceHead::decode(head, rest.len() as u64) {
                    Ok(PieceHead::Bytes(len)) => {
                        let (piece, after) = rest.split_at_mut(len as usize);
                        self.read(piece)?;
                        rest = after;
                    }
                    Ok(PieceHead::Aborted) => return Err(self.aborted()),
                    Err(error) => return Err(self.corrupt(error)),
                }
            }
        } else {
            self.read(target)?;
        }
        self.owed -= 1;
        Ok(())
    }

    /// What the daemon says, and who says it.
    fn refused(&self, fault: Fault) -> Error {
        fault.into_error(self.operation).with("endpoint", &self.daemon.welcome.name)
    }

    /// The error that follows where a body broke off.
    fn aborted(&mut self) -> Error {
        match self.frame() {
            Ok((FrameHead { body: 0, .. }, Answer::Failed(fault))) => {
                self.owed -= 1;
                self.refused(fault)
            }
            Ok(_) => self.strange("an object broke off without a reason"),
            Err(error) => error,
        }
    }

    fn frame(&mut self) -> Result<(FrameHead, Answer)> {
        let read = read_frame(&mut self.stream, self.operation);
        read.map_err(|error| self.corrupt(error))
    }

    fn read(&mut self, target: &mut [u8]) -> Result<()> {
        self.stream.read_exact(target).map_err(|error| self.failed(error))
    }

    #[cold]
    fn failed(&mut self, error: io::Error) -> Error {
        self.corrupt(failed(self.operation, error))
    }

    /// The error for an answer that has no place here.
    #[cold]
    pub(super) fn strange(&mut self, message: &'static str) -> Error {
        self.corrupt(Error::new(ErrorKind::Corrupt, self.operation, message))
    }

    /// What is left cannot be understood any more.
    #[cold]
    fn corrupt(&mut self, error: Error) -> Error {
        self.is_broken = true;
        error.with("endpoint", &self.daemon.welcome.name).with("address", &self.daemon.place)
    }
}

#[cold]
fn failed(operation: &'static str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(ErrorKind::Io, operation, "the connection to the endpoint ended")
            .with_hint("see whether it runs: `proxystore endpoint status`");
    }
    Error::io(operation, error)
}

fn read_frame(stream: &mut impl Read, operation: &'static str) -> Result<(FrameHead, Answer)> {
    let mut fixed = [0; FRAME_HEAD];
    stream.read_exact(&mut fixed).map_err(|error| failed(operation, error))?;
    let frame = FrameHead::decode(&fixed)?;
    let (mut usual, mut long) = ([0; USUAL_HEAD], Vec::new());
    let len = usize::from(frame.head);
    let head = if let Some(head) = usual.get_mut(..len) {
        head
    } else {
        long.resize(len, 0);
        &mut long[..]
    };
    stream.read_exact(head).map_err(|error| failed(operation, error))?;
    let answer = decode_answer(&frame, head)?;
    Ok((frame, answer))
}

/// Whether a connection was not opened because nobody listens there.
pub(super) fn is_absent(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    error.operation() == "connect to an endpoint"
        && source.is_some_and(|e| {
            matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        })
}

/// Both sides prove that they know the token.
fn greet(stream: &mut BufReader<Stream>, candidate: &Candidate) -> Result<(EndpointId, Welcome)> {
    const GREET: &str = "greet an endpoint";
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::Io, GREET, "it closed the connection at once")
                .with_hint("its log says why; it may have too many clients")
        }
        _ => Error::io(GREET, error),
    };
    let token = candidate.token()?;
    let hello = Hello::new()?;
    stream.get_mut().write_all(&hello.encode()).map_err(ended)?;
    let mut challenge = [0; CHALLENGE];
    stream.read_exact(&mut challenge).map_err(ended)?;
    let challenge = Challenge::decode(&challenge)?;
    if candidate.id.is_some_and(|id| id != challenge.endpoint) {
        return Err(Error::new(ErrorKind::Config, GREET, "another endpoint answers there")
            .with("found", challenge.endpoint)
            .with_hint(
                "restart the endpoint that is meant, so that it says anew where it listens",
            ));
    }
    let proof = token.proof(Role::Client, &hello, &challenge);
    stream.get_mut().write_all(&proof).map_err(ended)?;
    let mut proof = [0; PROOF];
    stream.read_exact(&mut proof).map_err(ended)?;
    match read_frame(stream, GREET)? {
        (FrameHead { number: 0, body: 0, .. }, Answer::Welcome(welcome)) => {
            if token.accepts(&proof, Role::Daemon, &hello, &challenge) {
                return Ok((challenge.endpoint, welcome));
            }
            Err(Error::new(ErrorKind::Permission, GREET, "it does not know the endpoint's token")
                .with("token", candidate.token_source())
                .with_hint("something else pretends to be the endpoint; do not give it the token"))
        }
        (_, Answer::Failed(fault)) => {
            Err(fault.into_error(GREET).with("token", candidate.token_source()))
        }
        _ => Err(Error::new(ErrorKind::Corrupt, GREET, "the answer is none to a greeting")),
    }
}
