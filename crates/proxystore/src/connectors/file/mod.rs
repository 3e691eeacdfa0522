//! Objects as files in a directory: `file:///DIR` (layout in `docs/protocol-file.md`).
//!
//! Works wherever processes share a directory, across hosts too. An object is written aside and
//! then renamed, so that a reader sees all of it or nothing. On file systems known to be local,
//! large objects are mapped instead of read and waiters are woken by inotify; elsewhere objects
//! are read, and waiters ask at intervals that grow to 100 ms.
//!
//! Objects outlive the processes that stored them, but are not forced to disk: after a power cut
//! an object may be missing, or an error of kind `Corrupt`.

mod expiry;
mod format;
mod place;
mod read;
mod write;

#[cfg(feature = "testkit")]
pub(crate) use format::fuzz;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::format::{Fault, Trailer};
use self::place::Place;
use self::write::{Current, Draft};
use super::expiry::{Expiry, InPassing};
use super::notify::{poll_for, wait_for};
use super::{
    Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, Value, checked_range, closed,
    known_options, wrong_length,
};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, check_id, fresh_generation, unique_id};
use crate::payload::Parts;

const PUT: &str = "put object";
const GET: &str = "get object";
const EXISTS: &str = "look for object";
const EVICT: &str = "evict object";
const EXPIRE: &str = "expire objects";
const OWNERS_ONLY: &str = "only the user who stored an object can change its time to live";
const CLOSE: &str = "close a file connector";

/// Generation of objects stored under a key of their own.
const FIRST: u64 = 1;

/// A connector to a directory.
///
/// ```
/// use proxystore::connectors::file::FileConnector;
/// use proxystore::connectors::{Connector, GetOptions, PutOptions};
/// use proxystore::payload::Parts;
///
/// # let directory = tempfile::tempdir().expect("a temporary directory");
/// let connector = FileConnector::new(directory.path().join("objects"))?;
/// let key = connector.put(&Parts::from(&b"hello"[..]), &PutOptions::default())?;
/// let bytes = connector.get(&key, &GetOptions::default())?.expect("just stored");
/// assert_eq!(&bytes[..], b"hello");
/// connector.close(true)?;
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct FileConnector {
    place: Place,
    options: BTreeMap<String, Value>,
    closed: AtomicBool,
    sweeps: InPassing,
}

impl FileConnector {
    /// A connector to a directory, created if need be; a relative path is made absolute now.
    ///
    /// What writers that died left unfinished there is removed, and so are expired objects.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the path is not a directory, [`ErrorKind::Permission`] when it
    /// cannot be entered.
    pub fn new(directory: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::at(Place::open(directory.as_ref())?, BTreeMap::new()))
    }

    /// A connector from its configuration: `file:///DIR`, percent-encoded.
    ///
    /// The one option is `clear`, a truth value. It travels with the configuration for those who
    /// close the connector; what [`close`](Connector::close) is told is what is done, so that a
    /// worker does not remove what others still need.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL or option, and those of [`new`](Self::new).
    pub fn open(config: &ConnectorConfig) -> Result<Self> {
        const OPEN: &str = "open a file connector";
        known_options(OPEN, config, &["clear"])?;
        if let Some(value) = config.options.get("clear")
            && !matches!(value, Value::Bool(_))
        {
            return Err(Error::new(ErrorKind::Config, OPEN, "an option has another type")
                .with("option", "clear")
                .with_hint("it is true or false"));
        }
        Ok(Self::at(Place::from_url(&config.url)?, config.options.clone()))
    }

    fn at(place: Place, options: BTreeMap<String, Value>) -> Self {
        Self { place, options, closed: AtomicBool::new(false), sweeps: InPassing::new() }
    }

    /// The directory, absolute.
    pub fn directory(&self) -> &Path {
        &self.place.path
    }

    /// The file of a key, or why there is none: closed, or an unusable id.
    fn file_of(&self, operation: &'static str, key: &Key) -> Result<PathBuf> {
        self.check_open(operation)?;
        check_id(key.id())?;
        Ok(self.place.file(key.id()))
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation, &self.config()));
        }
        Ok(())
    }

    /// The file of the key's object, open, and its trailer.
    fn find(&self, key: &Key) -> Result<Option<(File, Trailer)>> {
        let file = match File::open(self.file_of(GET, key)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.place.error(GET, error).with("key", key)),
        };
        match read::live_trailer_of(&file) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(trailer))) => Ok(trailer.is_of(key).then_some((file, trailer))),
            Ok(Some(Err(Fault::Cut))) => Err(self.cut(key)),
            Ok(Some(Err(Fault::Newer(version)))) => {
                let newer = "the file was written by a newer version";
                Err(Error::new(ErrorKind::Incompatible, GET, newer)
                    .with("key", key)
                    .with("path", self.place.path.display())
                    .with("version", version)
                    .with_hint("upgrade this program to the version that wrote the object"))
            }
            Err(error) => Err(self.place.error(GET, error).with("key", key)),
        }
    }

    #[cold]
    fn cut(&self, key: &Key) -> Error {
        let cause = "the file is cut short, or is not an object";
        Error::new(ErrorKind::Corrupt, GET, cause)
            .with("key", key)
            .with("path", self.place.path.display())
            .with_hint("the disk filled up or lost power, or the file was altered; store it again")
    }

    /// An error while the bytes were read.
    #[cold]
    fn unread(&self, key: &Key, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut(key),
            _ => self.place.error(GET, error).with("key", key),
        }
    }
}

impl Connector for FileConnector {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        self.check_open(PUT)?;
        if let Some(key) = &options.key {
            check_id(key.id())?;
        }
        self.sweeps.now_and_then(|| {
            let _ = expiry::sweep(&self.place); // what is left is absent anyway
        });
        let (len, expiry) = (parts.len() as u64, Expiry::after(options.ttl));
        let stored = (|| -> Result<Key, io::Error> {
            let mut draft = Draft::create(&self.place, expiry)?;
            if expiry != Expiry::NEVER {
                expiry::mark(&self.place)?;
            }
            let (is_local, deadline) = (self.place.is_local, options.deadline);
            let Some(key) = &options.key else {
                let id = unique_id().map_err(io::Error::other)?;
                draft.write(parts, FIRST, deadline, is_local)?;
                draft.publish(&self.place.file(&id))?;
                return Ok(Key::new(id, FIRST, len));
            };
            let generation = fresh_generation().map_err(io::Error::other)?;
            draft.write(parts, generation, deadline, is_local)?;
            let generation = draft.publish_next(&self.place.file(key.id()))?;
            Ok(Key::new(key.id(), generation, len))
        })();
        stored.map_err(|error| self.place.error(PUT, error).with("size", len))
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        let Some((file, trailer)) = self.find(key)? else {
            return Ok(None);
        };
        let range = checked_range(key, options.range.as_ref(), trailer.len)?;
        read::read(&file, &range, options.access, self.place.is_local, options.deadline)
            .map(Some)
            .map_err(|error| self.unread(key, error))
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        let path = self.file_of(EXISTS, key)?;
        if key.generation() != 0 {
            return match self.find(key) {
                // Something is there; `get` says what is wrong with it.
                Err(error) if error.kind() == ErrorKind::Corrupt => Ok(true),
                found => found.map(|found| found.is_some()),
            };
        }
        match fs::metadata(path) {
            Ok(about) => Ok(!expiry::of(&about).is_past()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.place.error(EXISTS, error).with("key", key)),
        }
    }

    fn evict(&self, key: &Key) -> Result<()> {
        let path = self.file_of(EVICT, key)?;
        let evicted = (|| {
            if key.generation() != 0 {
                // Locked until the file is gone, so that no newer object is removed instead.
                let Some(current) = Current::lock(&path)? else {
                    return Ok(());
                };
                // What cannot be told is damaged, and of no use under any generation.
                if ![0, key.generation()].contains(&current.generation()) {
                    return Ok(());
                }
                return fs::remove_file(&path);
            }
            fs::remove_file(&path)
        })();
        match evicted {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.place.error(EVICT, error).with("key", key))
            }
            _ => Ok(()),
        }
    }

    fn new_key(&self) -> Result<Key> {
        self.check_open("make a key")?;
        Key::unique()
    }

    fn close(&self, clear: bool) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || !clear {
            return Ok(());
        }
        let is_object = |path: &Path| {
            File::open(path).is_ok_and(|file| matches!(read::trailer_of(&file), Ok(Ok(_))))
        };
        self.place.clear(is_object).map_err(|error| self.place.error(CLOSE, error))
    }

    fn config(&self) -> ConnectorConfig {
        ConnectorConfig { options: self.options.clone(), ..self.place.config() }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            event_driven_wait: self.place.is_local,
            range_reads: true,
            zero_copy_get: self.place.is_local,
            allocate: false,
            deferred_keys: true,
            ttl: true,
            cross_process: true,
            survives_process: true,
        }
    }

    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        let check = || self.exists(key);
        if self.place.is_local {
            wait_for(&self.place.path, deadline, check)
        } else {
            poll_for(deadline, check)
        }
    }

    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        let Some((file, trailer)) = self.find(key)? else {
            return Ok(false);
        };
        let range = checked_range(key, range.as_ref(), trailer.len)?;
        let len = range.end - range.start;
        if len != target.len() as u64 {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            return Err(wrong_length(key, len, target.len()));
        }
        read::read_into(&file, range.start, target, None)
            .map(|()| true)
            .map_err(|error| self.unread(key, error))
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        self.check_open(EXPIRE)?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let expiry = Expiry::after(ttl);
        let failed = |error: io::Error| self.place.error(EXPIRE, error);
        if expiry != Expiry::NEVER {
            expiry::mark(&self.place).map_err(failed)?;
        }
        for key in keys {
            let expired = Current::lock(&self.place.file(key.id())).and_then(|current| {
                current.map_or(Ok(()), |current| expiry::renew(&current, key, expiry))
            });
            expired.map_err(|error| {
                let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
                let error = failed(error).with("key", key);
                if is_refused { error.with_hint(OWNERS_ONLY) } else { error }
            })?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "testkit"))]
mod tests {
    use super::*;
    use crate::testkit::{Fixture, run_all};

    /// Directories that are taken to be on a network file system.
    struct Remote(tempfile::TempDir);

    impl Remote {
        fn at(config: &ConnectorConfig) -> Box<dyn Connector> {
            let mut connector = FileConnector::open(config).expect("a usable directory");
            connector.place.is_local = false;
            Box::new(connector)
        }
    }

    impl Fixture for Remote {
        fn open(&self) -> Box<dyn Connector> {
            let directory = self.0.path().join(unique_id().expect("random bytes"));
            Self::at(&ConnectorConfig::new(format!("file://{}", directory.display())))
        }

        fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
            Some(Self::at(config))
        }
    }

    #[test]
    fn a_put_removes_what_expired_now_and_then() {
        let base = tempfile::tempdir().unwrap();
        let connector = FileConnector::new(base.path()).unwrap();
        let put = |ttl| {
            let options = PutOptions { ttl, ..PutOptions::default() };
            connector.place.file(connector.put(&b"x"[..].into(), &options).unwrap().id())
        };
        let expired = put(Some(Duration::ZERO));
        put(None);
        assert!(expired.exists(), "too soon to look again");
        connector.sweeps.hurry();
        put(None);
        assert!(!expired.exists());
    }

    #[test]
    fn the_contract_is_kept_without_mappings_and_events() {
        let report = run_all(&Remote(tempfile::tempdir().unwrap()));
        assert!(report.is_kept(), "{report}");
    }
}
