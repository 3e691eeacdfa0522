//! Objects in a Redis server or cluster: `redis://HOST:PORT/DATABASE` (layout in
//! `docs/protocol-redis.md`).
//!
//! An object is a string with a short head; what is longer than a string may be goes in parts.
//! Whoever reaches the server with the right credentials reads any object of it, and removes with
//! [`close`](Connector::close) and `clear` only those of the connector's own *namespace*, which
//! travels with its configuration.
//!
//! User and password are given in the URL or as options, are taken off it at once, and stay in this
//! process: workers take theirs from `PROXYSTORE_REDIS_USERNAME` and `PROXYSTORE_REDIS_PASSWORD`,
//! unless the option `share_credentials` lets references carry them. Where `PROXYSTORE_REDIS_HOSTS`
//! lists servers (patterns of hosts, separated by commas), no others get what is in the environment:
//! user, password, and the client's certificate.
//!
//! A broken connection is replaced and the operation repeated. All of them bear that: a key is made
//! up by the client, a generation is written or removed by name, and a time to live is set and not
//! added to.

pub(crate) mod fault;
mod layout;
pub(crate) mod link;
mod parts;
pub(crate) mod place;
mod read;
pub(crate) mod request;
mod servers;
pub(crate) mod settings;
mod wait;
mod write;

#[cfg(feature = "testkit")]
pub(crate) use layout::fuzz;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Value as Answer;

use self::layout::{HEAD, Head, MAX_PARTS, key_of};
use self::parts::keys_of;
use self::place::Place;
use self::read::{Found, for_access};
use self::request::Request;
use self::servers::{Call, Servers};
use self::settings::{OPEN, Settings};
use self::write::{CLEANUP, SET_TTL, milliseconds, publish, set};
use super::{
    Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, checked_range, closed,
    wrong_length,
};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, check_id, fresh_generation, unique_id};
use crate::payload::Parts;

const PUT: &str = "put object";
const GET: &str = "get object";
const EXISTS: &str = "look for object";
const EVICT: &str = "evict object";
const EXPIRE: &str = "let objects expire";
const WAIT: &str = "wait for object";
const CLOSE: &str = "close a Redis connector";

/// Generation of objects stored under a key of their own.
const FIRST: u64 = 1;

/// A connector to a Redis server or cluster.
///
/// ```no_run
/// use proxystore::connectors::redis::RedisConnector;
/// use proxystore::connectors::{Connector, GetOptions, PutOptions};
/// use proxystore::payload::Parts;
///
/// let connector = RedisConnector::new("redis://localhost:6379/0")?;
/// let key = connector.put(&Parts::from(&b"hello"[..]), &PutOptions::default())?;
/// let bytes = connector.get(&key, &GetOptions::default())?.expect("just stored");
/// assert_eq!(&bytes[..], b"hello");
/// connector.close(true)?;
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct RedisConnector {
    settings: Settings,
    servers: Servers,
    closed: AtomicBool,
}

/// The URL of a place as all connectors to it write it; `None` when it is not one of Redis.
pub(super) fn identity(url: &str) -> Option<String> {
    Place::parse(url).ok().map(|(place, _)| place.to_string())
}

impl RedisConnector {
    /// A connector to the server or cluster of a URL, without options.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn new(url: &str) -> Result<Self> {
        Self::open(&ConnectorConfig::new(url))
    }

    /// A connector from its configuration.
    ///
    /// URLs are `redis://HOST:PORT/DATABASE`, `rediss://` for TLS, `redis+unix:///PATH`,
    /// `redis+cluster://HOST:PORT,HOST:PORT` and `rediss+cluster://`. Options:
    ///
    /// | option | meaning |
    /// | --- | --- |
    /// | `username`, `password` | else those of the URL, else those of the environment |
    /// | `share_credentials` | whether `config` and thus references hold them; false |
    /// | `namespace` | first part of the ids; random |
    /// | `ttl` | seconds that objects live which are put without a time to live; for ever |
    /// | `ca_file` | certificate authority of the server; those of the system |
    /// | `cert_file`, `key_file` | certificate of this client and its key; none |
    /// | `timeout` | seconds the server may be silent; 20 |
    /// | `retries` | how often an operation is repeated on a new connection; 4 |
    /// | `whole_bytes` | longer objects go in parts; 500 MiB |
    /// | `part_bytes` | length of a part; 64 MiB |
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL or option, [`ErrorKind::Permission`] when the server
    /// refuses the credentials, [`ErrorKind::Io`] when there is no server.
    pub fn open(config: &ConnectorConfig) -> Result<Self> {
        let settings = Settings::parse(config)?;
        let servers = Servers::new(&settings)?;
        let connector = Self { settings, servers, closed: AtomicBool::new(false) };
        // Whatever keeps this from being answered keeps objects from being stored.
        let call = Call::of(OPEN, "any");
        connector.servers.call(call, Request::default().command(&[b"EXISTS", &key_of("any")]))?;
        Ok(connector)
    }

    /// First part of the ids made here; `close` with `clear` removes what has it.
    pub fn namespace(&self) -> &str {
        &self.settings.namespace
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation, &self.config()));
        }
        Ok(())
    }

    /// Why a call with this key cannot be made: closed, or an unusable id.
    fn check(&self, operation: &'static str, key: &Key) -> Result<()> {
        self.check_open(operation)?;
        check_id(key.id())
    }

    fn new_id(&self) -> Result<String> {
        Ok(format!("{}.{}", self.settings.namespace, unique_id()?))
    }
}

impl Connector for RedisConnector {
    fn put(&self, object: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        self.check_open(PUT)?;
        let (id, generation) = match &options.key {
            None => (self.new_id()?, FIRST),
            Some(key) => {
                check_id(key.id())?;
                (key.id().to_owned(), fresh_generation()?)
            }
        };
        let len = object.len() as u64;
        let in_parts = len > self.settings.whole_bytes;
        let part = if in_parts { self.settings.part_bytes as u32 } else { 0 };
        let head = Head { len, generation, part };
        if head.parts() > MAX_PARTS {
            return Err(Error::new(ErrorKind::Config, PUT, "the object has too many parts")
                .with("parts", head.parts())
                .with("limit", MAX_PARTS)
                .with_hint("open the connector with a larger part_bytes"));
        }
        let ttl = options.ttl.or(self.settings.ttl);
        let call = Call { deadline: options.deadline, ..Call::of(PUT, &id) };
        let stored = if in_parts {
            self.put_parts(call, head, object, ttl)
        } else {
            let mut request = Request::default();
            if options.key.is_none() {
                set(&mut request, &id, &head, object.slices(), ttl);
                self.servers.call(call, &request).map(drop)
            } else {
                request.command(&[b"MULTI"]);
                publish(&mut request, &id, &head, object.slices(), ttl);
                request.command(&[b"EXEC"]);
                self.servers.call(call, &request).map(|answers| {
                    if let Some(Answer::Array(answers)) = answers.last() {
                        self.forget_replaced(call, &head, answers);
                    }
                })
            }
        };
        match stored {
            Ok(()) => Ok(Key::new(id, generation, len)),
            Err(error) => {
                // It may have arrived all the same; the first error is the one to report.
                let deadline = Some(Instant::now() + CLEANUP);
                let call = Call { deadline, ..call };
                let _ = self.remove(call, generation);
                let _ = self.unlink_parts(call, &head);
                Err(error.with("size", len))
            }
        }
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        self.check(GET, key)?;
        let call = Call { deadline: options.deadline, ..Call::of(GET, key.id()) };
        if options.range.is_none() && self.is_large(key) {
            let mut bytes = Buffer::zeroed(key.size() as usize);
            if self.read_pieces(call, key, bytes.as_mut().unwrap_or_default())? {
                return Ok(Some(for_access(bytes, options.access)));
            }
        }
        let bytes = loop {
            match self.find(key, options)? {
                None => return Ok(None),
                Some(Found::Whole(bytes)) => break bytes,
                Some(Found::InParts(head)) => {
                    let range = checked_range(key, options.range.as_ref(), head.len)?;
                    let mut bytes = Buffer::zeroed((range.end - range.start) as usize);
                    let target = bytes.as_mut().unwrap_or_default();
                    if self.read_parts(call, key, &head, range, target)? {
                        break bytes;
                    }
                }
            }
        };
        Ok(Some(for_access(bytes, options.access)))
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        self.check(EXISTS, key)?;
        match self.head(Call::of(EXISTS, key.id()), key) {
            // Something is there; `get` says what is wrong with it.
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(true),
            found => found.map(|found| found.is_some()),
        }
    }

    fn evict(&self, key: &Key) -> Result<()> {
        self.check(EVICT, key)?;
        self.remove(Call::of(EVICT, key.id()), key.generation())
    }

    fn new_key(&self) -> Result<Key> {
        self.check_open("make a key")?;
        Ok(Key::latest(self.new_id()?))
    }

    fn close(&self, clear: bool) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let cleared = if clear { self.clear() } else { Ok(()) };
        self.servers.disconnect();
        cleared
    }

    fn config(&self) -> ConnectorConfig {
        self.settings.config()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            event_driven_wait: true,
            range_reads: true,
            zero_copy_get: false,
            allocate: false,
            deferred_keys: true,
            ttl: true,
            cross_process: true,
            survives_process: true,
        }
    }

    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        self.wait_for(key, deadline)
    }

    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        self.check(GET, key)?;
        let call = Call::of(GET, key.id());
        let is_as_long = key.size() == target.len() as u64;
        if range.is_none()
            && is_as_long
            && self.is_large(key)
            && self.read_pieces(call, key, target)?
        {
            return Ok(true);
        }
        let options = GetOptions { range: range.clone(), ..GetOptions::default() };
        loop {
            match self.find(key, &options)? {
                None => return Ok(false),
                Some(Found::Whole(bytes)) if bytes.len() == target.len() => {
                    target.copy_from_slice(&bytes);
                    return Ok(true);
                }
                Some(Found::Whole(bytes)) => {
                    return Err(wrong_length(key, bytes.len(), target.len()));
                }
                Some(Found::InParts(head)) => {
                    let range = checked_range(key, range.as_ref(), head.len)?;
                    let len = (range.end - range.start) as usize;
                    if len != target.len() {
                        return Err(wrong_length(key, len, target.len()));
                    }
                    if self.read_parts(call, key, &head, range, target)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        self.check_open(PUT)?;
        if let Some(key) = &options.key {
            check_id(key.id())?;
        }
        let is_plain = |object: &Parts<'_>| object.len() as u64 <= self.settings.whole_bytes;
        let ids = objects.iter().map(|_| self.new_id()).collect::<Result<Vec<_>>>()?;
        let ttl = options.ttl.or(self.settings.ttl);
        let mut alone = Vec::new();
        let stored = (|| {
            let mut requests = Vec::with_capacity(objects.len());
            let mut keys = Vec::with_capacity(objects.len());
            for (id, object) in ids.iter().zip(objects) {
                if options.key.is_some() || !is_plain(object) {
                    keys.push(self.put(object, options)?);
                    alone.extend(keys.last().cloned());
                    continue;
                }
                let head = Head { len: object.len() as u64, generation: FIRST, part: 0 };
                let mut request = Request::default();
                set(&mut request, id, &head, object.slices(), ttl);
                requests.push((id.as_str(), request));
                keys.push(Key::new(id.as_str(), FIRST, head.len));
            }
            let call = Call { deadline: options.deadline, ..Call::of(PUT, "") };
            self.servers.call_all(call, &requests, |index| requests[index].1.len())?;
            Ok(keys)
        })();
        if stored.is_err() {
            self.remove_all(&ids, &alone);
        }
        stored
    }

    fn get_batch(&self, keys: &[Key], options: &GetOptions) -> Result<Vec<Option<Buffer>>> {
        /// What an object is taken to have whose size is not known.
        const USUAL: usize = 64 * 1024;
        self.check_open(GET)?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        if options.range.is_some() {
            return keys.iter().map(|key| self.get(key, options)).collect();
        }
        let requests: Vec<_> = keys
            .iter()
            .map(|key| {
                let mut request = Request::default();
                request.command(&[b"GET", &key_of(key.id())]);
                (key.id(), request)
            })
            .collect();
        let weight = |index: usize| match keys[index].size() as usize {
            0 => USUAL,
            size => size,
        };
        let call = Call { deadline: options.deadline, ..Call::of(GET, "") };
        let answers = self.servers.call_all(call, &requests, weight)?;
        keys.iter()
            .zip(answers)
            .map(|(key, mut answers)| match self.found(key, answers.pop())? {
                None => Ok(None),
                Some(Found::InParts(_)) => self.get(key, options),
                Some(Found::Whole(bytes)) => Ok(Some(for_access(bytes, options.access))),
            })
            .collect()
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        self.check_open(EXPIRE)?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let call = Call::of(EXPIRE, "");
        let look = |key: &Key| {
            let mut request = Request::default();
            request.command(&[b"GETRANGE", &key_of(key.id()), b"0", b"31"]);
            request
        };
        let looks: Vec<_> = keys.iter().map(|key| (key.id(), look(key))).collect();
        let heads = self.servers.call_all(call, &looks, |_| HEAD)?;
        let ttl = ttl.map(milliseconds).unwrap_or_default();
        let mut changes = Vec::with_capacity(keys.len());
        for (key, answers) in keys.iter().zip(heads) {
            let Some(head) = self.head_of(key, answers.first())? else { continue };
            let names = keys_of(key.id(), &head);
            let mut request = Request::default();
            request.begin(5 + names.len()).argument(b"EVAL").argument(SET_TTL);
            request.argument(names.len().to_string().as_bytes());
            for name in &names {
                request.argument(name);
            }
            request.argument(&head.generation.to_le_bytes()).argument(ttl.as_bytes());
            changes.push((key.id(), request));
        }
        self.servers.call_all(call, &changes, |index| changes[index].1.len()).map(drop)
    }
}
