//! Reading: bytes come over the connection, straight to where they belong, or are in shared memory.

use std::ops::Range;

use super::daemons::Call;
use super::link::Link;
use super::shared::key_of;
use super::{AT_ONCE, EndpointConnector, GET};
use crate::buffer::Buffer;
use crate::connectors::{Access, Connector, GetOptions, wrong_length};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, check_id};
use crate::wire::{Answer, FrameHead, Request, Shared};

/// An object that was asked for.
enum Found {
    Absent,
    /// So many bytes are to be read.
    Coming(FrameHead),
    /// It is in shared memory.
    Shared(Shared),
}

/// What became of a request that may be answered with shared memory.
enum Got<T> {
    Here(T),
    There(Shared),
}

impl EndpointConnector {
    pub(super) fn get_one(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        self.check(GET, key)?;
        let call = Call { operation: GET, deadline: options.deadline };
        let may_share = self.may_share(call, key)?;
        let request = self.request(key, options.range.as_ref(), may_share);
        let got = self.daemons.call(call, |link| {
            link.send(&[(request.clone(), &[])])?;
            Self::take(link, key, options)
        })?;
        match got {
            Got::Here(bytes) => Ok(bytes),
            Got::There(shared) => self.get_shared(call, key, &shared, options),
        }
    }

    pub(super) fn get_all(
        &self,
        keys: &[Key],
        options: &GetOptions,
    ) -> Result<Vec<Option<Buffer>>> {
        self.check_open(GET)?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let call = Call { operation: GET, deadline: options.deadline };
        let mut found = Vec::with_capacity(keys.len());
        for group in keys.chunks(AT_ONCE) {
            let mut requests: Vec<(Request, &[&[u8]])> = Vec::with_capacity(group.len());
            for key in group {
                let may_share = self.may_share(call, key)?;
                requests.push((self.request(key, options.range.as_ref(), may_share), &[]));
            }
            let got = self.daemons.call(call, |link| {
                link.send(&requests)?;
                // The first error ends it, and the connection with it if more answers are to come.
                group.iter().map(|key| Self::take(link, key, options)).collect::<Result<Vec<_>>>()
            })?;
            for (key, got) in group.iter().zip(got) {
                found.push(match got {
                    Got::Here(bytes) => bytes,
                    Got::There(shared) => self.get_shared(call, key, &shared, options)?,
                });
            }
        }
        Ok(found)
    }

    pub(super) fn get_one_into(
        &self,
        key: &Key,
        range: Option<&Range<u64>>,
        target: &mut [u8],
    ) -> Result<bool> {
        self.check(GET, key)?;
        let call = Call::of(GET);
        let mut may_share = self.may_share(call, key)?;
        loop {
            let request = self.request(key, range, may_share);
            let got = self.daemons.call(call, |link| {
                link.send(&[(request.clone(), &[])])?;
                match found(link, key, range)? {
                    Found::Absent => Ok(Got::Here(false)),
                    Found::Shared(shared) => Ok(Got::There(shared)),
                    Found::Coming(frame) if frame.body == target.len() as u64 => {
                        link.body(&frame, target)?;
                        Ok(Got::Here(true))
                    }
                    Found::Coming(frame) => {
                        Err(wrong_length(key, frame.body as usize, target.len()))
                    }
                }
            })?;
            let shared = match got {
                Got::Here(is_there) => return Ok(is_there),
                Got::There(shared) => shared,
            };
            if let Some(session) = self.daemons.session(call)?
                && session.get_into(&key_of(&shared), range.cloned(), target)?
            {
                return Ok(true);
            }
            may_share = false; // it went away meanwhile
        }
    }

    /// Whether the daemon may answer with shared memory.
    fn may_share(&self, call: Call, key: &Key) -> Result<bool> {
        let is_large = self.daemons.daemon(call)?.shares(key.size()) || key.size() == 0;
        Ok(is_large && self.daemons.session(call)?.is_some())
    }

    fn request(&self, key: &Key, range: Option<&Range<u64>>, shared: bool) -> Request {
        Request::Get { name: self.name(key), range: range.cloned(), shared }
    }

    /// The next answer, and the bytes that come with it.
    fn take(link: &mut Link, key: &Key, options: &GetOptions) -> Result<Got<Option<Buffer>>> {
        match found(link, key, options.range.as_ref())? {
            Found::Absent => Ok(Got::Here(None)),
            Found::Shared(shared) => Ok(Got::There(shared)),
            Found::Coming(frame) => {
                let mut bytes = Buffer::try_zeroed(frame.body)?;
                link.body(&frame, bytes.as_mut().unwrap_or_default())?;
                Ok(Got::Here(Some(match options.access {
                    Access::Private => bytes,
                    Access::ReadOnly => bytes.into_read_only(),
                })))
            }
        }
    }

    /// Reads an object in shared memory; asks for its bytes when it went away meanwhile.
    fn get_shared(
        &self,
        call: Call,
        key: &Key,
        shared: &Shared,
        options: &GetOptions,
    ) -> Result<Option<Buffer>> {
        if let Some(session) = self.daemons.session(call)?
            && let Some(bytes) = session.get(&key_of(shared), options)?
        {
            return Ok(Some(bytes));
        }
        let request = self.request(key, options.range.as_ref(), false);
        let got = self.daemons.call(call, |link| {
            link.send(&[(request.clone(), &[])])?;
            Self::take(link, key, options)
        })?;
        match got {
            Got::Here(bytes) => Ok(bytes),
            Got::There(_) => {
                Err(Error::new(ErrorKind::Corrupt, GET, "shared memory was not asked for")
                    .with("key", key))
            }
        }
    }
}

/// The next answer, up to its body, which is as long as the object, or the range of it.
fn found(link: &mut Link, key: &Key, range: Option<&Range<u64>>) -> Result<Found> {
    let (frame, answer) = match link.answer() {
        Ok(answered) => answered,
        Err(error) => return Err(error.with("key", key)),
    };
    let (stat, shared) = match answer {
        Answer::Absent if frame.body == 0 => return Ok(Found::Absent),
        Answer::Object { stat, shared } => (stat, shared),
        _ => return Err(link.strange("the answer is none to this request")),
    };
    let len = range.map_or(stat.size, |range| range.end.saturating_sub(range.start));
    match shared {
        Some(shared) if frame.body == 0 => Ok(Found::Shared(shared)),
        None if frame.body == len => Ok(Found::Coming(frame)),
        _ => Err(link.strange("the object has another length than it should").with("key", key)),
    }
}
