//! Several channels as one: `multi:NAME=URL;NAME=URL`. Policies choose where an object goes.
//!
//! A part is a connector with a name and a [`Policy`]. An object goes to the part of the highest
//! priority whose policy takes it, the earlier defined of two equals; its key names the part, so
//! that everything else goes there directly. When the chosen part fails, the put fails: an object
//! that was meant for one channel does not turn up in another.
//!
//! - A put with a time to live passes over parts whose channel has none.
//! - [`new_key`](Connector::new_key) knows neither size nor tags. It passes over parts without
//!   deferred keys, and over those with a `max_size_bytes`: the object may be larger.
//! - [`allocate`](Connector::allocate) gives memory of the part that takes an untagged object of
//!   that size, ordinary memory where that part has none.
//! - A batch is split by part; when one part fails, nothing of the batch stays.
//!
//! A part is *dormant* in a process whose host its policy does not allow, or which does not know
//! its kind of channel, when it comes from a configuration. Nothing is put there, using its keys is
//! an error, and [`config`](Connector::config) still has it.

mod config;
mod policy;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use config::{KIND, PartConfig, config_of, join_key, parts_of, split_key};
pub use policy::Policy;

use super::notify;
use super::open::{is_known, open};
use super::{Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, Tags, closed};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, check_id};
use crate::payload::Parts;
use policy::Refusal;

const PUT: &str = "put object";
const NEW_KEY: &str = "make a key";

/// A connector to several channels.
///
/// ```
/// use std::sync::Arc;
/// use proxystore::connectors::memory::MemoryConnector;
/// use proxystore::connectors::multi::{MultiConnector, Policy};
/// use proxystore::connectors::{Connector, PutOptions};
/// use proxystore::payload::Parts;
///
/// let small = Policy { priority: 1, max_size_bytes: 10, ..Policy::default() };
/// let connector = MultiConnector::new(vec![
///     ("small".to_owned(), Arc::new(MemoryConnector::new("multi-a")?), small),
///     ("rest".to_owned(), Arc::new(MemoryConnector::new("multi-b")?), Policy::default()),
/// ])?;
/// let put = |bytes: &[u8]| connector.put(&Parts::from(bytes), &PutOptions::default());
/// assert!(put(b"hello")?.id().starts_with("small:"));
/// assert!(put(b"hello, world")?.id().starts_with("rest:"));
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct MultiConnector {
    /// In order of definition.
    parts: Vec<Part>,
    /// Places of the parts, the one to be asked first coming first.
    by_priority: Vec<usize>,
    config: ConnectorConfig,
    closed: AtomicBool,
}

/// A part of a [`MultiConnector`], as it is in this process.
#[derive(Debug)]
pub struct Part {
    /// Name, channel and policy.
    pub config: PartConfig,
    /// `None` for a part that is dormant here.
    pub connector: Option<Arc<dyn Connector>>,
    /// Why nothing is put there from here, if so.
    pub off: Option<String>,
}

/// The source of errors that are about the parts and not of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoutingError {
    /// No part takes the object.
    NoPartTakesIt,
    /// The key names no part of this connector.
    UnknownPart,
    /// The key names a part that is dormant here.
    DormantPart,
}

impl fmt::Display for RoutingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPartTakesIt => "no part of the multi connector takes the object",
            Self::UnknownPart => "the multi connector has no such part",
            Self::DormantPart => "the part of the multi connector is dormant",
        })
    }
}

impl std::error::Error for RoutingError {}

impl MultiConnector {
    /// A connector to these channels, each with a name and a policy. A policy that is not for
    /// this host keeps objects from being put there; objects that are there can be got.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names that are empty or used twice, and for a host pattern that
    /// is no regular expression.
    pub fn new(parts: Vec<(String, Arc<dyn Connector>, Policy)>) -> Result<Self> {
        let part = |(name, connector, policy): (String, Arc<dyn Connector>, Policy)| {
            let off = off_here(&policy).map_err(|error| error.with("part", &name))?;
            let config = PartConfig { name, channel: connector.config(), policy };
            Ok(Part { config, connector: Some(connector), off })
        };
        Self::of(parts.into_iter().map(part).collect::<Result<_>>()?)
    }

    /// A connector of parts that the caller has opened, or left dormant.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names that are empty or used twice.
    pub fn of(parts: Vec<Part>) -> Result<Self> {
        for (place, part) in parts.iter().enumerate() {
            let name = &part.config.name;
            if name.is_empty() || parts[..place].iter().any(|other| other.config.name == *name) {
                return Err(Error::new(
                    ErrorKind::Config,
                    "make a multi connector",
                    "the name of a part is empty or used twice",
                )
                .with("part", format_args!("{name:?}")));
            }
        }
        let mut by_priority: Vec<usize> = (0..parts.len()).collect();
        // A stable sort: of two equals, the one defined first stays first.
        by_priority.sort_by_key(|place| -i128::from(parts[*place].config.policy.priority));
        let configs: Vec<_> = parts.iter().map(|part| part.config.clone()).collect();
        let config = config_of(&configs);
        Ok(Self { parts, by_priority, config, closed: AtomicBool::new(false) })
    }

    /// A connector from its configuration; parts that are not for this host, or of a kind that
    /// this build does not know, are dormant.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as [`parts_of`] has it, else what opening a part fails with.
    pub fn open(config: &ConnectorConfig) -> Result<Self> {
        let part = |mut config: PartConfig| {
            let here = || -> Result<_> {
                if let Some(off) = off_here(&config.policy)? {
                    return Ok((None, Some(off)));
                }
                let kind = config.channel.kind();
                if !is_known(kind) {
                    return Ok((
                        None,
                        Some(format!("this program has no channels of kind {kind:?}")),
                    ));
                }
                Ok((Some(open(&config.channel)?), None))
            };
            let (connector, off) = here().map_err(|error| error.with("part", &config.name))?;
            if let Some(connector) = &connector {
                config.channel = connector.config(); // without what shall not travel
            }
            Ok(Part { config, connector, off })
        };
        Self::of(parts_of(config)?.into_iter().map(part).collect::<Result<_>>()?)
    }

    /// The parts, in order of definition.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation, &self.config));
        }
        Ok(())
    }

    fn live(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.parts.iter().filter_map(|part| part.connector.as_ref())
    }

    /// The place of the part that takes an object: the first by priority that does not refuse.
    fn place_for<'a>(
        &'a self,
        operation: &'static str,
        refusal: impl Fn(&'a Part) -> Option<Refusal<'a>>,
    ) -> Result<usize> {
        self.check_open(operation)?;
        let refusal = |part: &'a Part| part.off().or_else(|| refusal(part));
        let taken = self.by_priority.iter().find(|place| refusal(&self.parts[**place]).is_none());
        taken.copied().ok_or_else(|| {
            let refusals = self.parts.iter().filter_map(|part| Some((part, refusal(part)?)));
            self.nobody_takes_it(operation, &refusals.collect::<Vec<_>>())
        })
    }

    #[cold]
    fn nobody_takes_it(&self, operation: &'static str, refusals: &[(&Part, Refusal<'_>)]) -> Error {
        let listed: Vec<_> =
            refusals.iter().map(|(part, why)| format!("{}: {why}", part.config.name)).collect();
        let message = match listed.as_slice() {
            [] => "no part of the multi connector takes it: it has none".to_owned(),
            listed => format!("no part of the multi connector takes it ({})", listed.join("; ")),
        };
        let asks_too_much = |why: &Refusal<'_>| {
            matches!(why, Refusal::NoTtl | Refusal::NoDeferredKeys | Refusal::UnknownSize(_))
        };
        if refusals.iter().any(|(_, why)| asks_too_much(why)) {
            return Error::new(ErrorKind::Unsupported, operation, message)
                .with("channel", super::without_credentials(&self.config.url));
        }
        Error::new(ErrorKind::Config, operation, message)
            .with_hint("add a part whose policy takes what the others do not")
            .with_source(RoutingError::NoPartTakesIt)
    }

    /// The place of the part where an object is put without a key.
    fn place_of_put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<usize> {
        let size = parts.len() as u64;
        self.place_for(PUT, |part| {
            part.config.policy.refusal(Some(size), &options.tags).or_else(|| {
                let no_ttl = options.ttl.is_some() && !part.can(|capable| capable.ttl);
                no_ttl.then_some(Refusal::NoTtl)
            })
        })
        .map_err(|error| {
            let error = error.with("size", size);
            if options.tags == Tags::default() {
                return error;
            }
            error
                .with("subset_tags", format_args!("{:?}", options.tags.subset))
                .with("superset_tags", format_args!("{:?}", options.tags.superset))
        })
    }

    /// The place of the part that a key names, and the part's own key; `None` for a key of no
    /// part, such as that of an object inside its reference.
    fn place_of_key(&self, operation: &'static str, key: &Key) -> Result<Option<(usize, Key)>> {
        self.check_open(operation)?;
        let Some((name, own)) = split_key(key) else {
            check_id(key.id()).map_err(|error| {
                error.with_hint("an id is the name of a part, a colon, and the part's own id")
            })?;
            return Ok(None);
        };
        let place = self.parts.iter().position(|part| part.config.name == name);
        let about = |cause: String, source: RoutingError| {
            Error::new(ErrorKind::Config, operation, cause)
                .with("part", format_args!("{name:?}"))
                .with("key", key)
                .with_source(source)
        };
        let Some(place) = place else {
            let cause = "the key belongs to a part that the multi connector does not have";
            let names: Vec<_> = self.parts.iter().map(|part| part.config.name.as_str()).collect();
            return Err(about(cause.to_owned(), RoutingError::UnknownPart)
                .with_hint(format!("its parts are {}", names.join(", "))));
        };
        if self.parts[place].connector.is_none() {
            let why = self.parts[place].off.as_deref().unwrap_or("it was given as such");
            let cause = format!("the key belongs to a part that is dormant: {why}");
            return Err(about(cause, RoutingError::DormantPart)
                .with_hint("use the object where the part is reachable, or change its policy"));
        }
        Ok(Some((place, own)))
    }

    /// As `place_of_key`, for putting.
    fn place_to_put(&self, key: &Key) -> Result<(usize, Key)> {
        self.place_of_key(PUT, key)?.ok_or_else(|| {
            Error::new(ErrorKind::Config, PUT, "the key names no part of the multi connector")
                .with("key", key)
                .with_hint("put under keys that `new_key` or another put returned")
        })
    }

    /// Calls the connector of a part; errors name the part.
    fn call<R>(&self, place: usize, call: impl FnOnce(&dyn Connector) -> Result<R>) -> Result<R> {
        let part = &self.parts[place];
        match &part.connector {
            Some(connector) => {
                call(&**connector).map_err(|error| error.with("part", &part.config.name))
            }
            None => Err(Error::new(ErrorKind::Config, "use a part", "it is dormant")
                .with("part", &part.config.name)),
        }
    }

    /// Calls the connector of the part that a key names, with the part's own key; `absent` for a
    /// key of no part.
    fn call_for<R>(
        &self,
        operation: &'static str,
        key: &Key,
        absent: R,
        call: impl FnOnce(&dyn Connector, &Key) -> Result<R>,
    ) -> Result<R> {
        match self.place_of_key(operation, key)? {
            Some((place, own)) => self.call(place, |connector| call(connector, &own)),
            None => Ok(absent),
        }
    }

    /// The part's own keys by the place of their part, each with its place among `keys`.
    fn group(&self, operation: &'static str, keys: &[Key]) -> Result<Vec<(Vec<usize>, Vec<Key>)>> {
        let mut groups = vec![(Vec::new(), Vec::new()); self.parts.len()];
        for (index, key) in keys.iter().enumerate() {
            if let Some((place, own)) = self.place_of_key(operation, key)? {
                groups[place].0.push(index);
                groups[place].1.push(own);
            }
        }
        Ok(groups)
    }

    fn joined(&self, place: usize, key: &Key) -> Key {
        join_key(&self.parts[place].config.name, key)
    }
}

/// Why nothing is put from this host under a policy, if so.
fn off_here(policy: &Policy) -> Result<Option<String>> {
    Ok((!policy.is_valid_on_host()?).then(|| policy.host_refusal()))
}

impl Part {
    /// Why nothing at all is put there.
    fn off(&self) -> Option<Refusal<'_>> {
        match (&self.off, &self.connector) {
            (Some(why), _) => Some(Refusal::Off(why)),
            (None, None) => Some(Refusal::Off("it is dormant")),
            (None, Some(_)) => None,
        }
    }

    /// Why its connector does not make keys for objects of which nothing is known yet.
    fn refusal_of_new_key(&self) -> Option<Refusal<'_>> {
        let policy = &self.config.policy;
        policy.refusal(None, &Tags::default()).or_else(|| {
            if policy.max_size_bytes != u64::MAX {
                return Some(Refusal::UnknownSize(policy.max_size_bytes));
            }
            (!self.can(|capable| capable.deferred_keys)).then_some(Refusal::NoDeferredKeys)
        })
    }

    fn can(&self, capability: impl FnOnce(Capabilities) -> bool) -> bool {
        self.connector.as_ref().is_some_and(|connector| capability(connector.capabilities()))
    }
}

impl Connector for MultiConnector {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        let (place, own) = match &options.key {
            None => (self.place_of_put(parts, options)?, None),
            Some(key) => {
                let (place, own) = self.place_to_put(key)?;
                (place, Some(own))
            }
        };
        let options = PutOptions { key: own, ..options.clone() };
        let key = self.call(place, |connector| connector.put(parts, &options))?;
        Ok(self.joined(place, &key))
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        self.call_for("get object", key, None, |connector, own| connector.get(own, options))
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        self.call_for("look for object", key, false, Connector::exists)
    }

    fn evict(&self, key: &Key) -> Result<()> {
        self.call_for("evict object", key, (), Connector::evict)
    }

    fn new_key(&self) -> Result<Key> {
        let place = self.place_for(NEW_KEY, Part::refusal_of_new_key)?;
        let key = self.call(place, Connector::new_key)?;
        Ok(self.joined(place, &key))
    }

    /// Closes all parts; the first error is reported when all were tried.
    fn close(&self, clear: bool) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let closed = (0..self.parts.len())
            .filter(|place| self.parts[*place].connector.is_some())
            .map(|place| self.call(place, |connector| connector.close(clear)));
        closed.fold(Ok(()), Result::and)
    }

    fn config(&self) -> ConnectorConfig {
        self.config.clone()
    }

    /// What callers rely on for every object needs every part that is not dormant to have it; what
    /// is asked for before the part is known needs one.
    fn capabilities(&self) -> Capabilities {
        let all =
            |has: fn(&Capabilities) -> bool| self.live().all(|part| has(&part.capabilities()));
        Capabilities {
            event_driven_wait: all(|part| part.event_driven_wait),
            range_reads: all(|part| part.range_reads),
            zero_copy_get: all(|part| part.zero_copy_get),
            allocate: self.live().any(|part| part.capabilities().allocate),
            deferred_keys: self
                .parts
                .iter()
                .any(|part| part.off().or_else(|| part.refusal_of_new_key()).is_none()),
            ttl: all(|part| part.ttl),
            cross_process: all(|part| part.cross_process),
            survives_process: all(|part| part.survives_process),
        }
    }

    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        const WAIT: &str = "wait for object";
        match self.place_of_key(WAIT, key)? {
            Some((place, own)) => self.call(place, |connector| connector.wait(&own, deadline)),
            None => notify::poll_for(deadline, || self.check_open(WAIT).map(|()| false)),
        }
    }

    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        let fill = |connector: &dyn Connector, own: &Key| connector.get_into(own, range, target);
        self.call_for("get object", key, false, fill)
    }

    fn put_batch(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        self.check_open(PUT)?;
        let mut own_key = None;
        let mut groups = vec![Vec::new(); self.parts.len()];
        if let Some(key) = &options.key {
            let (place, own) = self.place_to_put(key)?;
            groups[place] = (0..objects.len()).collect();
            own_key = Some(own);
        } else {
            for (index, parts) in objects.iter().enumerate() {
                groups[self.place_of_put(parts, options)?].push(index);
            }
        }
        let options = PutOptions { key: own_key, ..options.clone() };
        let mut keys: Vec<Option<Key>> = vec![None; objects.len()];
        for (place, group) in groups.iter().enumerate().filter(|(_, group)| !group.is_empty()) {
            let chosen: Vec<_> = group.iter().map(|index| objects[*index].clone()).collect();
            match self.call(place, |connector| connector.put_batch(&chosen, &options)) {
                Ok(put) => {
                    for (index, key) in group.iter().zip(&put) {
                        keys[*index] = Some(self.joined(place, key));
                    }
                }
                Err(error) => {
                    for key in keys.iter().flatten() {
                        let _ = self.evict(key); // the first error is the one to report
                    }
                    return Err(error);
                }
            }
        }
        Ok(keys.into_iter().flatten().collect())
    }

    fn get_batch(&self, keys: &[Key], options: &GetOptions) -> Result<Vec<Option<Buffer>>> {
        let mut found: Vec<Option<Buffer>> = keys.iter().map(|_| None).collect();
        for (place, (indices, own)) in self.group("get objects", keys)?.iter().enumerate() {
            if indices.is_empty() {
                continue;
            }
            let got = self.call(place, |connector| connector.get_batch(own, options))?;
            for (index, bytes) in indices.iter().zip(got) {
                found[*index] = bytes;
            }
        }
        Ok(found)
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        for (place, (_, own)) in self.group("expire objects", keys)?.iter().enumerate() {
            if !own.is_empty() {
                self.call(place, |connector| connector.expire(own, ttl))?;
            }
        }
        Ok(())
    }

    fn allocate(&self, len: usize) -> Result<Buffer> {
        let place = self.place_for("allocate in the channel", |part| {
            part.config.policy.refusal(Some(len as u64), &Tags::default())
        })?;
        if !self.parts[place].can(|capable| capable.allocate) {
            return Ok(Buffer::zeroed(len));
        }
        self.call(place, |connector| connector.allocate(len))
    }
}
