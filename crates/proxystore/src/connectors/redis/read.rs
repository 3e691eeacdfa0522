//! Reading: the string of an object, its head, and what is wrong with them.

use redis::Value as Answer;

use super::layout::{Fault, HEAD, Head, key_of};
use super::request::Request;
use super::servers::Call;
use super::{GET, RedisConnector};
use crate::buffer::Buffer;
use crate::connectors::{Access, GetOptions, checked_range};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// A stored object, found.
pub(super) enum Found {
    Whole(Buffer),
    InParts(Head),
}

/// From this size on, an object of known size is read in pieces.
const LARGE: u64 = 2 << 20;

/// A piece is small enough to stay in the processor's caches on its way to where it belongs.
const PIECE: usize = 256 << 10;

/// Pieces that are asked for before they are needed.
const AHEAD: usize = 32;

impl RedisConnector {
    /// Whether an object is likely to be worth reading in pieces.
    pub(super) fn is_large(&self, key: &Key) -> bool {
        (LARGE..=self.settings.whole_bytes).contains(&key.size())
    }

    /// Reads an object of the size that its key says straight to where it belongs; false when it
    /// is not as the key says, or changed meanwhile, which [`find`](Self::find) has an answer to.
    ///
    /// Reading it in one answer would copy it twice more. The head is looked at before and after:
    /// within a generation, nothing changes.
    pub(super) fn read_pieces(&self, call: Call<'_>, key: &Key, target: &mut [u8]) -> Result<bool> {
        let name = key_of(key.id());
        let ask = |arguments: &[&[u8]]| {
            let mut request = Request::default();
            request.command(arguments);
            request
        };
        let head = ask(&[b"GETRANGE", &name, b"0", b"31"]);
        let mut requests = vec![head.clone(), ask(&[b"STRLEN", &name])];
        for start in (0..target.len()).step_by(PIECE) {
            let first = (HEAD + start).to_string();
            let last = (HEAD + target.len().min(start + PIECE) - 1).to_string();
            requests.push(ask(&[b"GETRANGE", &name, first.as_bytes(), last.as_bytes()]));
        }
        requests.push(head);
        let len = target.len() as u64;
        self.servers.with_link(call, |link, is_exception| {
            if is_exception {
                return Ok(false);
            }
            let mut before = None;
            let mut is_right = true;
            let mut refused = None;
            link.stream(&requests, AHEAD, |index, answer| match answer {
                Answer::ServerError(error) => refused = refused.take().or(Some(error)),
                Answer::BulkString(bytes) if index == 0 => {
                    before = Head::parse(&bytes).ok().filter(|head| {
                        head.is_meant(key.generation()) && head.part == 0 && head.len == len
                    });
                }
                Answer::BulkString(bytes) if index + 1 == requests.len() => {
                    is_right &= before.is_some() && before == Head::parse(&bytes).ok();
                }
                Answer::BulkString(bytes) => {
                    let start = (index - 2) * PIECE;
                    let piece = &mut target[start..len.min((start + PIECE) as u64) as usize];
                    if bytes.len() == piece.len() {
                        piece.copy_from_slice(&bytes);
                    } else {
                        is_right = false;
                    }
                }
                answer => is_right &= number_of(&answer) == Some(len + HEAD as u64),
            })?;
            refused.map_or(Ok(is_right), |error| Err(error.into()))
        })
    }

    /// The object of a key, or a range of it.
    pub(super) fn find(&self, key: &Key, options: &GetOptions) -> Result<Option<Found>> {
        let call = Call { deadline: options.deadline, ..Call::of(GET, key.id()) };
        let name = key_of(key.id());
        let mut request = Request::default();
        let Some(range) = &options.range else {
            request.command(&[b"GET", &name]);
            return self.found(key, self.servers.call(call, &request)?.pop());
        };
        // What lies past the longest string is past the end of the object, too.
        let limit = 1 << 40;
        let first = (range.start.min(limit) + HEAD as u64).to_string();
        let last = (range.end.min(limit) + HEAD as u64 - 1).to_string();
        request.command(&[b"MULTI"]);
        request.command(&[b"STRLEN", &name]);
        request.command(&[b"GETRANGE", &name, b"0", b"31"]);
        request.command(&[b"GETRANGE", &name, first.as_bytes(), last.as_bytes()]);
        request.command(&[b"EXEC"]);
        let mut answers = match self.servers.call(call, &request)?.pop() {
            Some(Answer::Array(answers)) => answers.into_iter(),
            _ => return Err(self.strange(GET)),
        };
        let len = answers.next().as_ref().and_then(number_of).unwrap_or_default();
        let Some(head) = self.head_of(key, answers.next().as_ref())? else {
            return Ok(None);
        };
        if head.part != 0 {
            return Ok(Some(Found::InParts(head)));
        }
        if len != head.len + HEAD as u64 {
            return Err(self.cut(key));
        }
        checked_range(key, Some(range), head.len)?;
        match answers.next() {
            Some(Answer::BulkString(bytes)) => Ok(Some(Found::Whole(bytes.into()))),
            _ => Err(self.strange(GET)),
        }
    }

    /// The object in the answer to a GET.
    pub(super) fn found(&self, key: &Key, answer: Option<Answer>) -> Result<Option<Found>> {
        let Some(head) = self.head_of(key, answer.as_ref())? else {
            return Ok(None);
        };
        match answer {
            _ if head.part != 0 => Ok(Some(Found::InParts(head))),
            Some(Answer::BulkString(bytes)) if bytes.len() as u64 == head.len + HEAD as u64 => {
                let len = bytes.len();
                Ok(Some(Found::Whole(Buffer::from(bytes).slice(HEAD..len))))
            }
            _ => Err(self.cut(key)),
        }
    }

    /// The head at the start of an answer; `None` when the key means no object or another one.
    pub(super) fn head_of(&self, key: &Key, answer: Option<&Answer>) -> Result<Option<Head>> {
        match answer {
            Some(Answer::BulkString(bytes)) if !bytes.is_empty() => match Head::parse(bytes) {
                Ok(head) => Ok(head.is_meant(key.generation()).then_some(head)),
                Err(Fault::Damaged) => Err(self.cut(key)),
                Err(Fault::Newer(version)) => {
                    let newer = "the object was written by a newer version";
                    Err(Error::new(ErrorKind::Incompatible, GET, newer)
                        .with("key", key)
                        .with("channel", &self.settings.url)
                        .with("version", version)
                        .with_hint("upgrade this program to the version that wrote the object"))
                }
            },
            _ => Ok(None),
        }
    }

    /// The head of the object that a key means.
    pub(super) fn head(&self, call: Call<'_>, key: &Key) -> Result<Option<Head>> {
        let mut request = Request::default();
        request.command(&[b"GETRANGE", &key_of(key.id()), b"0", b"31"]);
        self.head_of(key, self.servers.call(call, &request)?.pop().as_ref())
    }

    #[cold]
    pub(super) fn cut(&self, key: &Key) -> Error {
        let cause = "the stored bytes are cut short, or are not an object";
        Error::new(ErrorKind::Corrupt, GET, cause)
            .with("key", key)
            .with("channel", &self.settings.url)
            .with_hint("another program changed them, or the server evicted a part; store it again")
    }

    #[cold]
    pub(super) fn strange(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Io, operation, "the server answers in a way Redis does not")
            .with("channel", &self.settings.url)
            .with_hint("check that it is a Redis server of version 6 or newer")
    }
}

pub(super) fn number_of(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// The bytes as the caller asked for them.
pub(super) fn for_access(bytes: Buffer, access: Access) -> Buffer {
    match access {
        Access::Private => bytes,
        Access::ReadOnly => bytes.into_read_only(),
    }
}
