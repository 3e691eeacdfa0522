//! Requests and answers: the heads of frames.

use std::ops::Range;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{FRAME_HEAD, FrameHead, MAX_HEAD};
use super::{EndpointId, Fault};
use crate::error::{Error, ErrorKind, Result};
use crate::key::check_id;

/// Names an object: whose it is, its id, and its generation (0 for whichever is current).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The endpoint that keeps it.
    pub endpoint: EndpointId,
    /// Its id there; see [`check_id`].
    pub id: String,
    /// Which of the objects stored under the id in turn.
    pub generation: u64,
}

/// Where in shared memory an object is, for clients on the host of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Its id in the session that [`Welcome`] named.
    pub id: String,
    /// Its generation there.
    pub generation: u64,
    /// Its length, bytes.
    pub size: u64,
}

/// What a client, or a peer, wants of an endpoint. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Store the body, or what is in shared memory, as this generation of an object. Answered by
    /// [`Answer::Done`].
    Put {
        /// Under which name; its generation is made by the client and is not 0.
        name: Name,
        /// Milliseconds it lives.
        ttl: Option<u64>,
        /// Where the bytes are, if they are not the body. They are the endpoint's from now on.
        shared: Option<Shared>,
    },
    /// The bytes of an object. Answered by [`Answer::Object`] or [`Answer::Absent`].
    Get {
        /// Which object.
        name: Name,
        /// Which of its bytes; all where there is none.
        range: Option<Range<u64>>,
        /// Whether the client can read shared memory.
        shared: bool,
    },
    /// What there is to know of an object. Answered by [`Answer::Stat`] or [`Answer::Absent`].
    Stat {
        /// Which object.
        name: Name,
        /// Whether its hash is wanted, which may have to be computed.
        hash: bool,
    },
    /// Remove an object, if it is there. Answered by [`Answer::Done`].
    Evict(Name),
    /// Let an object vanish so many milliseconds from now, or only when evicted. Answered by [`Answer::Done`],
    /// also when it is absent.
    Expire(Name, Option<u64>),
    /// Wait until an object is there, for so long. Answered by [`Answer::Stat`] or [`Answer::Absent`].
    Wait(Name, u64),
    /// Remove all objects of the endpoint whose ids begin so. Answered by [`Answer::Done`].
    Clear {
        /// Whose objects.
        endpoint: EndpointId,
        /// How their ids begin: a namespace and a dot. Whoever knows no namespace clears nothing.
        prefix: String,
    },
    /// By which relay an endpoint may be reached. Answered by [`Answer::Done`].
    Hint(EndpointId, String),
    /// Answer, and say how this endpoint is reached. Answered by [`Answer::Pong`].
    Ping(EndpointId),
    /// What `proxystore endpoint status` shows, as JSON in the body. Answered by [`Answer::Object`].
    Status,
    /// Finish what was begun and stop. Answered by [`Answer::Done`].
    Stop,
    /// Read again who is a peer. Answered by [`Answer::Done`].
    Reload,
}

/// What an endpoint answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// The bytes follow as the body, unless they are in shared memory.
    Object {
        /// What the object is.
        stat: Stat,
        /// Where the whole object is in shared memory.
        shared: Option<Shared>,
    },
    /// There is no such object.
    Absent,
    /// What there is to know of an object.
    Stat(Stat),
    /// How an endpoint is reached.
    Pong(Pong),
    /// The first answer on a connection.
    Welcome(Welcome),
    /// It could not be done.
    Failed(Fault),
}

/// What there is to know of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Which of the objects stored under the id in turn.
    pub generation: u64,
    /// Its length, bytes.
    pub size: u64,
    /// BLAKE3 of its bytes, where it is known or was asked for.
    #[serde(with = "serde_bytes")]
    pub hash: Option<[u8; 32]>,
}

/// How an endpoint is reached from the one that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// `local`, `direct` or `relayed`.
    pub path: String,
    /// The address or the relay.
    pub via: String,
    /// Microseconds a request took to be answered.
    pub round_trip_us: u64,
}

/// What an endpoint tells a client first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The endpoint's name on its site.
    pub name: String,
    /// The relay by which peers reach it.
    pub relay: Option<String>,
    /// The session of shared memory (`shm://NAME`) in which it takes and gives large objects.
    pub shared: Option<String>,
    /// From how many bytes on shared memory is worth it.
    pub shared_from: u64,
    /// The longest object it takes, bytes.
    pub max_object: u64,
}

mod kind {
    pub(super) const PUT: u8 = 0x01;
    pub(super) const GET: u8 = 0x02;
    pub(super) const STAT: u8 = 0x03;
    pub(super) const EVICT: u8 = 0x04;
    pub(super) const EXPIRE: u8 = 0x05;
    pub(super) const WAIT: u8 = 0x06;
    pub(super) const CLEAR: u8 = 0x07;
    pub(super) const HINT: u8 = 0x08;
    pub(super) const PING: u8 = 0x09;
    pub(super) const STATUS: u8 = 0x0a;
    pub(super) const STOP: u8 = 0x0b;
    pub(super) const RELOAD: u8 = 0x0c;
    pub(super) const DONE: u8 = 0x81;
    pub(super) const OBJECT: u8 = 0x82;
    pub(super) const ABSENT: u8 = 0x83;
    pub(super) const STATED: u8 = 0x84;
    pub(super) const PONG: u8 = 0x85;
    pub(super) const WELCOME: u8 = 0x86;
    pub(super) const FAILED: u8 = 0xff;
}

impl Request {
    /// The endpoint that has to do it, where that may be another than the one that is asked.
    pub fn endpoint(&self) -> Option<&EndpointId> {
        match self {
            Self::Put { name, .. }
            | Self::Get { name, .. }
            | Self::Stat { name, .. }
            | Self::Evict(name)
            | Self::Expire(name, _)
            | Self::Wait(name, _) => Some(&name.endpoint),
            Self::Clear { endpoint, .. } | Self::Ping(endpoint) => Some(endpoint),
            Self::Hint(..) | Self::Status | Self::Stop | Self::Reload => None,
        }
    }
}

/// Appends the fixed part and the head of a request whose body has `body` bytes.
///
/// # Errors
/// [`ErrorKind::Config`] when the head would be too long.
pub fn encode_request(
    out: &mut Vec<u8>,
    number: u32,
    request: &Request,
    body: u64,
    in_pieces: bool,
) -> Result<()> {
    let frame = Frame { out, number, body, in_pieces };
    match request {
        Request::Put { name, ttl, shared } => frame.of(kind::PUT, &(name, ttl, shared)),
        Request::Get { name, range, shared } => {
            let range = range.as_ref().map(|range| (range.start, range.end));
            frame.of(kind::GET, &(name, range, shared))
        }
        Request::Stat { name, hash } => frame.of(kind::STAT, &(name, hash)),
        Request::Evict(name) => frame.of(kind::EVICT, &(name,)),
        Request::Expire(name, ttl) => frame.of(kind::EXPIRE, &(name, ttl)),
        Request::Wait(name, time) => frame.of(kind::WAIT, &(name, time)),
        Request::Clear { endpoint, prefix } => frame.of(kind::CLEAR, &(endpoint, prefix)),
        Request::Hint(endpoint, relay) => frame.of(kind::HINT, &(endpoint, relay)),
        Request::Ping(endpoint) => frame.of(kind::PING, &(endpoint,)),
        Request::Status => frame.of(kind::STATUS, &()),
        Request::Stop => frame.of(kind::STOP, &()),
        Request::Reload => frame.of(kind::RELOAD, &()),
    }
}

/// The request of a frame.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a head that is none, [`ErrorKind::Unsupported`] for a kind of request
/// that this build does not know, [`ErrorKind::Config`] for an unusable id.
pub fn decode_request(frame: &FrameHead, bytes: &[u8]) -> Result<Request> {
    let request = match frame.kind {
        kind::PUT => {
            let (name, ttl, shared) = read(bytes)?;
            Request::Put { name, ttl, shared }
        }
        kind::GET => {
            let (name, range, shared): (_, Option<(u64, u64)>, _) = read(bytes)?;
            Request::Get { name, range: range.map(|(start, end)| start..end), shared }
        }
        kind::STAT => {
            let (name, hash) = read(bytes)?;
            Request::Stat { name, hash }
        }
        kind::EVICT => Request::Evict(read::<(Name,)>(bytes)?.0),
        kind::EXPIRE => {
            let (name, ttl) = read(bytes)?;
            Request::Expire(name, ttl)
        }
        kind::WAIT => {
            let (name, time) = read(bytes)?;
            Request::Wait(name, time)
        }
        kind::CLEAR => {
            let (endpoint, prefix) = read::<(_, String)>(bytes)?;
            check_id(&prefix)?;
            if prefix.len() < 2 || !prefix.ends_with('.') {
                return Err(Error::new(
                    ErrorKind::Config,
                    "read a request",
                    "it clears no namespace",
                )
                .with("prefix", prefix)
                .with_hint("give a namespace, and a dot after it"));
            }
            Request::Clear { endpoint, prefix }
        }
        kind::HINT => {
            let (endpoint, relay) = read(bytes)?;
            Request::Hint(endpoint, relay)
        }
        kind::PING => Request::Ping(read::<(EndpointId,)>(bytes)?.0),
        kind::STATUS => Request::Status,
        kind::STOP => Request::Stop,
        kind::RELOAD => Request::Reload,
        kind => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "read a request",
                "its kind is unknown",
            )
            .with("kind", kind)
            .with_hint("install the same version of proxystore on both sides"));
        }
    };
    if let Request::Put { name, .. }
    | Request::Get { name, .. }
    | Request::Stat { name, .. }
    | Request::Evict(name)
    | Request::Expire(name, _)
    | Request::Wait(name, _) = &request
    {
        check_id(&name.id)?;
    }
    Ok(request)
}

/// Appends the fixed part and the head of an answer whose body has `body` bytes.
///
/// # Errors
/// [`ErrorKind::Config`] when the head would be too long.
pub fn encode_answer(
    out: &mut Vec<u8>,
    number: u32,
    answer: &Answer,
    body: u64,
    in_pieces: bool,
) -> Result<()> {
    let frame = Frame { out, number, body, in_pieces };
    match answer {
        Answer::Done => frame.of(kind::DONE, &()),
        Answer::Object { stat, shared } => frame.of(kind::OBJECT, &(stat, shared)),
        Answer::Absent => frame.of(kind::ABSENT, &()),
        Answer::Stat(stat) => frame.of(kind::STATED, &(stat,)),
        Answer::Pong(pong) => frame.of(kind::PONG, pong),
        Answer::Welcome(welcome) => frame.of(kind::WELCOME, welcome),
        Answer::Failed(fault) => frame.of(kind::FAILED, fault),
    }
}

/// The answer of a frame.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a head that is none, or an answer of an unknown kind.
pub fn decode_answer(frame: &FrameHead, bytes: &[u8]) -> Result<Answer> {
    Ok(match frame.kind {
        kind::DONE => Answer::Done,
        kind::OBJECT => {
            let (stat, shared) = read(bytes)?;
            Answer::Object { stat, shared }
        }
        kind::ABSENT => Answer::Absent,
        kind::STATED => Answer::Stat(read::<(Stat,)>(bytes)?.0),
        kind::PONG => Answer::Pong(read(bytes)?),
        kind::WELCOME => Answer::Welcome(read(bytes)?),
        kind::FAILED => Answer::Failed(read(bytes)?),
        kind => {
            return Err(Error::new(ErrorKind::Corrupt, "read an answer", "its kind is unknown")
                .with("kind", kind));
        }
    })
}

/// Milliseconds of a duration, as they travel; at least one of any that is not zero.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A frame to be appended.
struct Frame<'a> {
    out: &'a mut Vec<u8>,
    number: u32,
    body: u64,
    in_pieces: bool,
}

impl Frame<'_> {
    fn of(self, kind: u8, head: &impl Serialize) -> Result<()> {
        let Self { out, number, body, in_pieces } = self;
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEAD]);
        rmp_serde::encode::write(out, head).map_err(|source| {
            Error::new(ErrorKind::Encode, "write a frame", "its head has no form")
                .with_source(source)
        })?;
        let len = out.len() - start - FRAME_HEAD;
        let Some(head) = u16::try_from(len).ok().filter(|_| len <= MAX_HEAD) else {
            out.truncate(start);
            return Err(Error::new(ErrorKind::Config, "write a frame", "its head is too long")
                .with("head", len)
                .with("limit", MAX_HEAD));
        };
        let fixed = FrameHead { kind, in_pieces, head, number, body }.encode();
        out[start..start + FRAME_HEAD].copy_from_slice(&fixed);
        Ok(())
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|source| {
        Error::new(ErrorKind::Corrupt, "read a frame", "its head is damaged").with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EndpointId, greeting};

    fn name() -> Name {
        Name { endpoint: EndpointId::from_bytes([7; 32]), id: "a.b".into(), generation: 3 }
    }

    fn split(bytes: &[u8]) -> (FrameHead, &[u8]) {
        let (fixed, head) = bytes.split_first_chunk().unwrap();
        (FrameHead::decode(fixed).unwrap(), head)
    }

    #[test]
    fn requests_read_as_they_were_written() {
        let shared = Some(Shared { id: "x".into(), generation: 1, size: 1 << 40 });
        let all = [
            Request::Put { name: name(), ttl: Some(5), shared },
            Request::Get { name: name(), range: Some(1..u64::MAX), shared: true },
            Request::Get { name: name(), range: None, shared: false },
            Request::Stat { name: name(), hash: true },
            Request::Evict(name()),
            Request::Expire(name(), None),
            Request::Wait(name(), 1000),
            Request::Clear { endpoint: name().endpoint, prefix: "a.".into() },
            Request::Hint(name().endpoint, "https://relay".into()),
            Request::Ping(name().endpoint),
            Request::Status,
            Request::Stop,
            Request::Reload,
        ];
        let mut bytes = Vec::new();
        for (number, request) in (0..).zip(&all) {
            bytes.clear();
            encode_request(&mut bytes, number, request, 9, false).unwrap();
            let (frame, head) = split(&bytes);
            assert_eq!((frame.number, frame.body, frame.in_pieces), (number, 9, false));
            assert_eq!(&decode_request(&frame, head).unwrap(), request);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, 2, &Request::Evict(name()), 0, false).unwrap();
        let mut expected = vec![0x04, 0, 42, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0x91, 0x93, 0xc4, 32]);
        expected.extend([7; 32]);
        expected.extend([0xa3, b'a', b'.', b'b', 3]);
        expected[2] = (expected.len() - 16) as u8;
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_error_says_on_this_side_what_it_said_on_that() {
        let error = Error::new(ErrorKind::Full, "put object", "no room")
            .with("size", 5)
            .with_hint("evict something");
        let mut bytes = Vec::new();
        encode_answer(&mut bytes, 1, &Answer::Failed(Fault::of(&error)), 0, false).unwrap();
        let (frame, head) = split(&bytes);
        let Answer::Failed(fault) = decode_answer(&frame, head).unwrap() else { panic!() };
        let told = fault.into_error("set result");
        assert_eq!(told.kind(), ErrorKind::Full);
        let text = "failed to set result: no room [size=5]; evict something";
        assert_eq!(told.to_string(), text);
    }

    #[test]
    fn ids_that_could_leave_a_directory_are_refused() {
        let name = Name { id: "../x".into(), ..name() };
        let mut bytes = Vec::new();
        encode_request(&mut bytes, 1, &Request::Evict(name), 0, false).unwrap();
        let (frame, head) = split(&bytes);
        assert_eq!(decode_request(&frame, head).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn proofs_are_of_one_role_and_one_greeting() {
        use greeting::{Challenge, Hello, Role, Token};
        let token = Token::random().unwrap();
        let hello = Hello::new().unwrap();
        let challenge = Challenge::to(&hello, name().endpoint).unwrap();
        let proof = token.proof(Role::Client, &hello, &challenge);
        assert!(token.accepts(&proof, Role::Client, &hello, &challenge));
        assert!(!token.accepts(&proof, Role::Daemon, &hello, &challenge));
        let other = Challenge::to(&hello, name().endpoint).unwrap();
        assert!(!token.accepts(&proof, Role::Client, &hello, &other));
        let same: Token = token.reveal().parse().unwrap();
        assert!(same == token && format!("{token:?}") == "Token(..)");
    }

    #[test]
    fn an_endpoint_has_one_name_in_three_forms() {
        let id = EndpointId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse::<EndpointId>().unwrap(), id);
        assert_eq!("ab".repeat(32).parse::<EndpointId>().unwrap(), id);
        assert_eq!(id.uuid(), "abababab-abab-8bab-abab-abababababab");
        assert!("short".parse::<EndpointId>().is_err());
    }
}
