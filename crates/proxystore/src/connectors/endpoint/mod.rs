//! Objects at endpoints, daemons that exchange them across sites: `endpoint:ID` or `endpoint:ID,ID` (frames in
//! `docs/protocol-endpoint.md`).
//!
//! A connector asks one daemon, that of its own site, and the daemon asks those of other sites. Keys say which endpoint
//! keeps the object, so whoever reaches any daemon that knows that endpoint reads it.
//!
//! - `home`: where the endpoints of this user are, and how their daemons are reached; `find`: which of them
//!   is asked.
//! - `stream`, `link`, `request`: one connection; `daemons`: a few of them, replaced when they break.
//! - `read`, `write`, `wait`: what is asked; `shared`: large objects of a daemon on the same host go through
//!   shared memory, as a session of [`shm`](super::shm).
//!
//! A broken connection is replaced and the operation repeated. All of them bear that: a key and its generation are
//! made up by the client, and an object that is put once more is the same one, with its time to live anew.

mod daemons;
mod find;
pub mod home;
mod key;
mod link;
mod read;
mod request;
mod settings;
mod shared;
mod stream;
mod wait;
mod write;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::daemons::{Call, Daemons};
use self::settings::{OPEN, Settings};
use super::{
    Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, closed, unsupported,
};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::key::{Key, check_id};
use crate::payload::Parts;
use crate::wire::{EndpointId, Name, Request, milliseconds};

pub(super) use settings::identity;

const PUT: &str = "put object";
const GET: &str = "get object";
const EXISTS: &str = "look for object";
const EVICT: &str = "evict object";
const EXPIRE: &str = "let objects expire";
const WAIT: &str = "wait for object";
const CLOSE: &str = "close an endpoint connector";

/// How many requests are sent before their answers are read. Answers to so many, errors even, fit in what the
/// daemon and the socket hold back, so that neither side waits for the other to read.
const AT_ONCE: usize = 64;

/// A connector to endpoints.
///
/// ```no_run
/// use proxystore::connectors::endpoint::EndpointConnector;
/// use proxystore::connectors::{Connector, GetOptions, PutOptions};
/// use proxystore::payload::Parts;
///
/// // After `proxystore endpoint configure site` and `proxystore endpoint start site`.
/// let connector = EndpointConnector::new("endpoint:site")?;
/// let key = connector.put(&Parts::from(&b"hello"[..]), &PutOptions::default())?;
/// let bytes = connector.get(&key, &GetOptions::default())?.expect("just stored");
/// assert_eq!(&bytes[..], b"hello");
/// connector.close(true)?;
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct EndpointConnector {
    settings: Settings,
    daemons: Daemons,
    config: ConnectorConfig,
    /// Whether there is shared memory with the daemon.
    has_shared: bool,
    closed: AtomicBool,
}

impl EndpointConnector {
    /// A connector to the endpoints of a URL, without options.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn new(url: &str) -> Result<Self> {
        Self::open(&ConnectorConfig::new(url))
    }

    /// A connector from its configuration.
    ///
    /// URLs are `endpoint:ID` and `endpoint:ID,ID`. An id may also be the name or the UUID of an endpoint that is
    /// configured here, or that the environment names (which is then asked); what travels are ids. The daemon that is asked is that of the first of these endpoints that is
    /// configured on this site and answers; where none of them is, that of any endpoint of this site; and then
    /// that of `PROXYSTORE_ENDPOINT_ADDRESS` (`HOST:PORT`), whose token is in `PROXYSTORE_ENDPOINT_TOKEN`.
    /// Objects are put there if it is one of the URL, else to the first of the URL. Options:
    ///
    /// | option | meaning |
    /// | --- | --- |
    /// | `namespace` | first part of the ids; random |
    /// | `home` | directory below which endpoints are configured; [`home_dir`](home::home_dir), also where there are none below it |
    /// | `hints` | list of `ID@RELAY-URL`: by which relays endpoints may be reached |
    /// | `timeout` | seconds the daemon may be silent; 30 |
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL or option, and when no endpoint is configured here;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when none runs, [`ErrorKind::Permission`](crate::ErrorKind::Permission) when
    /// it does not accept the token.
    pub fn open(config: &ConnectorConfig) -> Result<Self> {
        let settings = Settings::parse(config)?;
        let daemons = Daemons::new(&settings);
        let daemon = daemons.daemon(Call::of(OPEN))?;
        let relay = daemon.welcome.relay.as_deref();
        let config = settings.config(relay.map(|relay| (daemon.id, relay)));
        let has_shared = daemons.session(Call::of(OPEN))?.is_some();
        Ok(Self { settings, daemons, config, has_shared, closed: AtomicBool::new(false) })
    }

    /// First part of the ids made here; `close` with `clear` removes what has it.
    pub fn namespace(&self) -> &str {
        &self.settings.namespace
    }

    /// The endpoints, in the order in which they are preferred.
    pub fn endpoints(&self) -> &[EndpointId] {
        &self.settings.endpoints
    }

    /// The endpoint to which objects are put.
    ///
    /// # Errors
    /// When no daemon can be asked.
    pub fn home_endpoint(&self) -> Result<EndpointId> {
        let asked = self.daemons.daemon(Call::of(OPEN))?.id;
        let own = self.settings.endpoints.iter().find(|id| **id == asked);
        Ok(*own.unwrap_or(&self.settings.endpoints[0]))
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation, &self.config));
        }
        Ok(())
    }

    /// Why a call with this key cannot be made: closed, or an unusable id.
    fn check(&self, operation: &'static str, key: &Key) -> Result<()> {
        self.check_open(operation)?;
        check_id(key.id())
    }

    fn name_of(&self, id: &str, generation: u64) -> Name {
        key::name_of(id, generation, self.settings.endpoints[0])
    }

    fn name(&self, key: &Key) -> Name {
        self.name_of(key.id(), key.generation())
    }

    fn new_id(&self) -> Result<String> {
        key::fresh_id(&self.settings.namespace, self.home_endpoint()?)
    }

    /// Requests that are answered by "done", in groups.
    fn all_done(&self, call: Call, requests: &[(Request, &[&[u8]])]) -> Result<()> {
        for group in requests.chunks(AT_ONCE) {
            self.daemons.call(call, |link| {
                link.send(group)?;
                let mut refused = None;
                for _ in group {
                    match link.done() {
                        Err(error) if link.is_broken() => return Err(error),
                        Err(error) => refused = refused.or(Some(error)),
                        Ok(()) => {}
                    }
                }
                refused.map_or(Ok(()), Err)
            })?;
        }
        Ok(())
    }
}

impl Connector for EndpointConnector {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        self.put_one(parts, options)
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        self.get_one(key, options)
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        self.check(EXISTS, key)?;
        let request = Request::Stat { name: self.name(key), hash: false };
        self.daemons.call(Call::of(EXISTS), |link| {
            link.send(&[(request.clone(), &[])])?;
            Ok(link.stat()?.is_some())
        })
    }

    fn evict(&self, key: &Key) -> Result<()> {
        self.check(EVICT, key)?;
        self.all_done(Call::of(EVICT), &[(Request::Evict(self.name(key)), &[])])
    }

    fn new_key(&self) -> Result<Key> {
        self.check_open("make a key")?;
        Ok(Key::latest(self.new_id()?))
    }

    /// With `clear`, removes the objects of the namespace from the endpoint to which they are put.
    fn close(&self, clear: bool) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let cleared = if clear {
            self.home_endpoint().and_then(|endpoint| {
                let prefix = format!("{}.", self.settings.namespace);
                self.all_done(Call::of(CLOSE), &[(Request::Clear { endpoint, prefix }, &[])])
            })
        } else {
            Ok(())
        };
        self.daemons.disconnect();
        self.daemons.leave_session();
        cleared
    }

    fn config(&self) -> ConnectorConfig {
        self.config.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            event_driven_wait: true,
            range_reads: true,
            zero_copy_get: self.has_shared,
            allocate: self.has_shared,
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
        self.get_one_into(key, range.as_ref(), target)
    }

    fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        self.put_all(objects, options)
    }

    fn get_batch(&self, keys: &[Key], options: &GetOptions) -> Result<Vec<Option<Buffer>>> {
        self.get_all(keys, options)
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        self.check_open(EXPIRE)?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let ttl = ttl.map(milliseconds);
        let requests: Vec<(Request, &[&[u8]])> =
            keys.iter().map(|key| (Request::Expire(self.name(key), ttl), &[][..])).collect();
        self.all_done(Call::of(EXPIRE), &requests)
    }

    fn allocate(&self, len: usize) -> Result<Buffer> {
        const ALLOCATE: &str = "allocate in shared memory";
        self.check_open(ALLOCATE)?;
        match self.daemons.session(Call::of(ALLOCATE))? {
            Some(session) => session.allocate(len),
            None => Err(unsupported(ALLOCATE, &self.config).with_hint(
                "the endpoint runs on another host, or has no shared memory (`shared_from`)",
            )),
        }
    }
}
