//! Objects in shared memory, which clients of this host put and read without the socket.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Access, Connector, GetOptions, PutOptions};
use proxystore::key::check_id;
use proxystore::payload::Parts;
use proxystore::wire::Shared;
use proxystore::{Error, ErrorKind, Key, Result};

/// The session of shared memory of this endpoint and its clients.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) name: String,
    shared: Arc<Connected>,
}

/// Objects shorter than this are copied by who reads them, so that keeping them mapped would keep a copy.
const COPIED_BELOW: usize = 64 << 10;
/// As many objects are kept mapped at most: a process has no more than 65530 mappings, and each takes two.
const MOST_MAPPED: usize = 1 << 13;

#[derive(Debug)]
struct Connected {
    connector: ShmConnector,
    /// What has an owner here, so that nothing has two.
    owned: Mutex<HashSet<Box<str>>>,
}

impl Connected {
    fn owned(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Joins the session, and clears it of what an earlier run left in it.
    pub(super) fn open(name: &str) -> Result<Self> {
        // Clients that live on hold the session of a daemon that was killed; its objects are nobody's.
        ShmConnector::new(name)?.close(true)?;
        let shared = Connected { connector: ShmConnector::new(name)?, owned: Mutex::default() };
        Ok(Self { name: name.to_owned(), shared: Arc::new(shared) })
    }

    /// Takes over what is there under a key.
    pub(super) fn take(&self, key: Key) -> Result<Segment> {
        const TAKE: &str = "take an object over";
        check_id(key.id())?;
        if !self.shared.owned().insert(key.id().into()) {
            return Err(Error::new(
                ErrorKind::Config,
                TAKE,
                "it is that of another object already",
            )
            .with("key", &key)
            .with_hint("put it into shared memory once for each object"));
        }
        let mut segment = Segment { shared: Arc::clone(&self.shared), key, mapped: None };
        // Whoever put it may have given it an end for the case that we never hear of it.
        self.shared.connector.expire(std::slice::from_ref(&segment.key), None)?;
        let (kind, message) = match segment.buffer()? {
            Some(buffer) if buffer.len() as u64 == segment.key.size() => {
                segment.keep(buffer);
                return Ok(segment);
            }
            // Of a client in a container, for example, who sends the bytes when it hears this.
            None => (ErrorKind::NotFound, "it is not in shared memory"),
            Some(_) => (ErrorKind::Config, "it is not as long in shared memory as the client says"),
        };
        Err(Error::new(kind, TAKE, message)
            .with("key", &segment.key)
            .with("size", segment.key.size())
            .with_hint("store it again"))
    }

    /// Copies an object there.
    pub(super) fn put(&self, pieces: &[Bytes]) -> Result<Segment> {
        let mut parts = Parts::default();
        for piece in pieces {
            parts.push(piece);
        }
        let key = self.shared.connector.put(&parts, &PutOptions::default())?;
        self.shared.owned().insert(key.id().into());
        let mut segment = Segment { shared: Arc::clone(&self.shared), key, mapped: None };
        if let Some(buffer) = segment.buffer()? {
            segment.keep(buffer);
        }
        Ok(segment)
    }

    /// Leaves the session, and removes all that is in it.
    pub(super) fn close(&self) -> Result<()> {
        self.shared.connector.close(true)
    }
}

/// One object there, which is removed when this is dropped. Readers keep the bytes they have.
#[derive(Debug)]
pub(super) struct Segment {
    shared: Arc<Connected>,
    key: Key,
    /// Its bytes, so that they are not lost with their file: some systems remove the files of users who log out.
    mapped: Option<Bytes>,
}

impl Segment {
    fn keep(&mut self, buffer: proxystore::Buffer) {
        if buffer.len() >= COPIED_BELOW && self.shared.owned().len() <= MOST_MAPPED {
            self.mapped = Some(Bytes::from_owner(buffer));
        }
    }

    /// How clients find it.
    pub(super) fn place(&self) -> Shared {
        Shared {
            id: self.key.id().to_owned(),
            generation: self.key.generation(),
            size: self.key.size(),
        }
    }

    fn buffer(&self) -> Result<Option<proxystore::Buffer>> {
        let options = GetOptions { access: Access::ReadOnly, ..GetOptions::default() };
        self.shared.connector.get(&self.key, &options)
    }

    /// Its bytes, where they are.
    pub(super) fn bytes(&self) -> Result<Bytes> {
        if let Some(mapped) = &self.mapped {
            return Ok(mapped.clone());
        }
        let buffer = self.buffer()?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "get object", "it vanished from shared memory")
                .with("key", &self.key)
                .with_hint("something removed files of the session; store the object again")
        })?;
        Ok(Bytes::from_owner(buffer))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.mapped = None; // or its memory could not be used again at once
        let _ = self.shared.connector.evict(&self.key); // or it goes with the session
        self.shared.owned().remove(self.key.id());
    }
}
