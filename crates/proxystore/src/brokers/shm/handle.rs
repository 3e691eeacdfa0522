//! The rings that this process has open: each once, since closing a file gives up all locks of it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::fstat;

use super::ring::Ring;
use crate::connectors::shm::Session;
use crate::fork::PerProcess;

type Rings = HashMap<Place, Arc<Ring>>;

/// A file of a session, whose directory may have several paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    device: u64,
    directory: u64,
    file_name: String,
}

static RINGS: PerProcess<Mutex<Rings>> = PerProcess::new(Mutex::default);

/// A ring that this process has open; the last handle closes it.
#[derive(Debug)]
pub(super) struct Handle {
    place: Place,
    /// There until it is dropped.
    ring: Option<Arc<Ring>>,
}

impl Handle {
    pub(super) fn open(session: &Session, file_name: &str) -> rustix::io::Result<Self> {
        let found = fstat(&session.dir)?;
        let (device, directory) = (found.st_dev, found.st_ino);
        let place = Place { device, directory, file_name: file_name.to_owned() };
        let mut rings = RINGS.get().lock().unwrap_or_else(PoisonError::into_inner);
        let ring = match rings.get(&place) {
            Some(ring) => Arc::clone(ring),
            None => Arc::new(Ring::open(session, file_name)?),
        };
        rings.insert(place.clone(), Arc::clone(&ring));
        Ok(Self { place, ring: Some(ring) })
    }
}

impl Deref for Handle {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        self.ring.as_deref().expect("there until it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The file is closed under the lock, or who opens it again could lose locks to this.
        let mut rings = RINGS.get().lock().unwrap_or_else(PoisonError::into_inner);
        self.ring = None;
        if rings.get(&self.place).is_some_and(|ring| Arc::strong_count(ring) == 1) {
            rings.remove(&self.place);
        }
    }
}
