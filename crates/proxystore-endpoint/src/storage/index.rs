//! What there is, and where: all that is looked at and changed under the one lock. Nothing here blocks.
//!
//! What is taken out is handed to the caller, who drops it after letting go of the lock: files and shared
//! memory are removed then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use proxystore::wire::Stat;
use proxystore::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::disk::OnDisk;
use super::format::Head;
use super::recent::{Place, Recent};
use super::room::Charge;
use super::shared::Segment;
use super::time::End;
use super::waiters::Waiters;
use crate::frames::WHOLE;

/// An object that is stored.
#[derive(Debug)]
pub(super) struct Object {
    /// Which put it is of; tells it apart from all others under its id.
    pub(super) serial: u64,
    pub(super) stat: Stat,
    pub(super) end: Option<End>,
    pub(super) memory: Option<InMemory>,
    pub(super) disk: Option<Arc<OnDisk>>,
    /// How often it was read from disk.
    pub(super) reads: u8,
    /// Where it is among those that can leave memory.
    place: Option<Place>,
    /// For all that is kept of it besides its bytes.
    _entry: Charge,
}

/// The bytes of an object in memory, and the charge for them.
#[derive(Debug)]
pub(super) struct InMemory {
    pub(super) held: Held,
    charge: Charged,
}

/// The charge for long bytes is shared with who reads them: they are there for as long as that takes, also when the
/// object is gone. Short ones are copied when they are sent.
#[derive(Debug)]
enum Charged {
    Short { _charge: Charge },
    Long(Arc<Charge>),
}

impl InMemory {
    pub(super) fn new(held: Held, charge: Charge) -> Self {
        let is_short = charge.bytes() <= WHOLE;
        let charge = if is_short {
            Charged::Short { _charge: charge }
        } else {
            Charged::Long(Arc::new(charge))
        };
        Self { held, charge }
    }

    /// The charge, for who reads the bytes for long.
    pub(super) fn charge(&self) -> Option<Arc<Charge>> {
        match &self.charge {
            Charged::Short { .. } => None,
            Charged::Long(charge) => Some(Arc::clone(charge)),
        }
    }

    fn is_being_read(&self) -> bool {
        matches!(&self.charge, Charged::Long(charge) if Arc::strong_count(charge) > 1)
    }
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub(super) enum Held {
    One(Bytes),
    Many(Arc<[Bytes]>),
    Shared(Arc<Segment>),
}

/// Shorter ones take more on disk, and for being found there, than they would leave of memory.
const LEAST_SPILLED: u64 = 512;

impl Object {
    pub(super) fn new(serial: u64, stat: Stat, end: Option<End>, entry: Charge) -> Self {
        Self { serial, stat, end, memory: None, disk: None, reads: 0, place: None, _entry: entry }
    }

    pub(super) fn is_of(&self, generation: u64) -> bool {
        generation == 0 || self.stat.generation == generation
    }

    /// Whether memory is won when it leaves.
    fn can_leave(&self) -> bool {
        let least = if self.disk.is_some() { 1 } else { LEAST_SPILLED };
        self.memory.is_some() && self.stat.size >= least
    }

    /// Whether that blocks, or has much to free.
    pub(super) fn takes_time_to_drop(&self) -> bool {
        const MUCH: u64 = 1 << 20;
        let is_shared = matches!(&self.memory, Some(InMemory { held: Held::Shared(_), .. }));
        self.disk.is_some() || is_shared || self.stat.size > MUCH
    }

    /// Leaves its file for the next run, if it is to persist.
    pub(super) fn outlive(&self) {
        if let Some(disk) = self.disk.as_ref().filter(|disk| disk.persists()) {
            disk.leave();
        }
    }

    pub(super) fn head(&self, id: &str) -> Head {
        let ends = self.end.map_or(0, |end| end.since_1970);
        Head { id: id.into(), size: self.stat.size, generation: self.stat.generation, ends }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    objects: HashMap<Arc<str>, Object>,
    /// Those in memory that can leave it.
    recent: Recent,
    /// When objects end; the serial tells those apart that end together.
    ends: BTreeMap<(Instant, u64), Arc<str>>,
    pub(super) waiters: Waiters,
    last_serial: u64,
    pub(super) closed: bool,
}

impl Index {
    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if !self.closed {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Closed, operation, "the endpoint is stopping")
            .with_hint("try again when it has started again"))
    }

    /// A number that was never given before.
    pub(super) fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// Numbers go on after this one.
    pub(super) fn skip_to(&mut self, serial: u64) {
        self.last_serial = self.last_serial.max(serial);
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The object, if it is there, of this generation, and has not expired.
    pub(super) fn find(&mut self, id: &str, generation: u64) -> Option<&mut Object> {
        let object = self.objects.get_mut(id).filter(|object| object.is_of(generation))?;
        if object.end.is_some_and(|end| end.at <= Instant::now()) {
            return None;
        }
        Some(object)
    }

    /// The same, which is thereby used.
    pub(super) fn using(&mut self, id: &str, generation: u64) -> Option<&mut Object> {
        let place = self.find(id, generation)?.place;
        if let Some(place) = place {
            self.recent.touch(place);
        }
        self.objects.get_mut(id)
    }

    /// The object of one put.
    pub(super) fn of_serial(&mut self, id: &str, serial: u64) -> Option<&mut Object> {
        self.objects.get_mut(id).filter(|object| object.serial == serial)
    }

    /// Stores an object, and returns the one that it replaces. Wakes who waits for it.
    pub(super) fn insert(&mut self, id: Arc<str>, mut object: Object) -> Option<Object> {
        let replaced = self.remove(&id, 0);
        if object.can_leave() {
            object.place = self.recent.enter(Arc::clone(&id));
        }
        if let Some(end) = object.end {
            self.ends.insert((end.at, object.serial), Arc::clone(&id));
        }
        self.waiters.wake(&id);
        self.objects.insert(id, object);
        replaced
    }

    /// Takes an object out, expired or not.
    pub(super) fn remove(&mut self, id: &str, generation: u64) -> Option<Object> {
        if !self.objects.get(id)?.is_of(generation) {
            return None;
        }
        let mut object = self.objects.remove(id)?;
        if let Some(place) = object.place.take() {
            self.recent.leave(place);
        }
        if let Some(end) = object.end {
            self.ends.remove(&(end.at, object.serial));
        }
        Some(object)
    }

    /// Ids that begin so.
    pub(super) fn beginning(&self, prefix: &str) -> Vec<Arc<str>> {
        self.objects.keys().filter(|id| id.starts_with(prefix)).cloned().collect()
    }

    /// Lets an object end then.
    pub(super) fn set_end(&mut self, id: &str, end: Option<End>) {
        let Some((id, _)) = self.objects.get_key_value(id) else { return };
        let id = Arc::clone(id);
        let Some(object) = self.objects.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut object.end, end) {
            self.ends.remove(&(old.at, object.serial));
        }
        if let Some(new) = end {
            self.ends.insert((new.at, object.serial), id);
        }
    }

    /// When the next object ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out what has expired, at most so many.
    pub(super) fn expired(&mut self, most: usize) -> Vec<Object> {
        let now = Instant::now();
        let mut expired = Vec::new();
        while expired.len() < most
            && let Some(((at, _), id)) = self.ends.first_key_value()
            && *at <= now
        {
            let id = Arc::clone(id);
            expired.extend(self.remove(&id, 0));
        }
        expired
    }

    /// Puts the bytes of an object into memory, where it can leave again. What is returned is of no more use.
    pub(super) fn set_memory(
        &mut self,
        id: &str,
        serial: u64,
        memory: InMemory,
    ) -> (Option<InMemory>, Option<Arc<OnDisk>>) {
        let Some((id, _)) = self.objects.get_key_value(id) else { return (Some(memory), None) };
        let id = Arc::clone(id);
        let Some(object) = self.objects.get_mut(&id).filter(|o| o.serial == serial) else {
            return (Some(memory), None);
        };
        object.reads = 0;
        // What is not to persist need not be there twice.
        let disk = object.disk.take_if(|disk| !disk.persists());
        // Clients may have been told where it is in shared memory.
        let unused = match &object.memory {
            Some(InMemory { held: Held::Shared(_), .. }) => Some(memory),
            _ => object.memory.replace(memory),
        };
        if object.place.is_none() && object.can_leave() {
            object.place = self.recent.enter(id);
        }
        (unused, disk)
    }

    /// Objects to leave memory, the least recently used first, with `bytes` bytes at least if there are so
    /// many that fit on a disk with so much left. They are not chosen again until they [`stay`](Self::stay).
    pub(super) fn choose(&mut self, bytes: u64, mut disk: u64) -> Vec<Chosen> {
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut sum = 0;
        for id in self.recent.oldest_first().take(Chosen::LOOKED_AT) {
            if sum >= bytes {
                break;
            }
            let Some(object) = self.objects.get(id) else { continue };
            let Some(memory) = &object.memory else { continue };
            if memory.is_being_read() {
                continue; // it would stay in memory all the same
            }
            let (head, on_disk) = (object.head(id), object.disk.is_some());
            if !on_disk {
                let Some(left) = disk.checked_sub(head.len() + head.size) else { continue };
                disk = left;
            }
            sum += object.stat.size;
            let (held, serial) = (memory.held.clone(), object.serial);
            chosen.push(Chosen { id: Arc::clone(id), serial, held, head, on_disk });
        }
        for one in &chosen {
            if let Some(object) = self.objects.get_mut(&one.id)
                && let Some(place) = object.place.take()
            {
                self.recent.leave(place);
            }
        }
        chosen
    }

    /// An object stays in memory after all.
    pub(super) fn stay(&mut self, one: &Chosen) {
        if let Some(object) = self.objects.get_mut(&one.id)
            && object.serial == one.serial
            && object.place.is_none()
            && object.can_leave()
        {
            object.place = self.recent.enter(Arc::clone(&one.id));
        }
    }

    /// An object leaves memory, and may be on disk now. What is returned is of no more use.
    pub(super) fn leave_memory(
        &mut self,
        one: &Chosen,
        disk: Option<OnDisk>,
    ) -> (Option<InMemory>, Option<OnDisk>) {
        match self.objects.get_mut(&one.id).filter(|object| object.serial == one.serial) {
            Some(object) => {
                if let Some(disk) = disk {
                    object.disk = Some(Arc::new(disk));
                }
                if object.disk.is_none() {
                    // It was taken from disk into memory meanwhile.
                    if object.place.is_none() && object.can_leave() {
                        object.place = self.recent.enter(Arc::clone(&one.id));
                    }
                    return (None, None);
                }
                if let Some(place) = object.place.take() {
                    self.recent.leave(place);
                }
                (object.memory.take(), None)
            }
            None => (None, disk),
        }
    }

    /// Takes everything out.
    pub(super) fn take_all(&mut self) -> Vec<Object> {
        self.recent = Recent::default();
        self.ends.clear();
        std::mem::take(&mut self.objects).into_values().collect()
    }
}

/// An object that is to leave memory.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) id: Arc<str>,
    pub(super) serial: u64,
    pub(super) held: Held,
    pub(super) head: Head,
    /// It need not be written.
    pub(super) on_disk: bool,
}

impl Chosen {
    /// So many are looked at, lest one call holds the lock for long.
    const LOOKED_AT: usize = 1024;
}

/// What an object takes besides its bytes: its entry, its places in the lists, its id.
pub(super) fn entry_bytes(id: &str) -> u64 {
    (size_of::<Object>() + 128 + id.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::{Disk, Kind};
    use crate::storage::room::Room;

    #[test]
    fn what_is_taken_from_disk_while_it_leaves_memory_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, ..) = Disk::open(dir.path(), false).unwrap();
        let (mut index, room, id) = (Index::default(), Room::new(1 << 20, 0), "a");
        let stat = Stat { generation: 1, size: 1000, hash: None };
        let in_memory = || {
            let held = Held::One(vec![0; 1000].into());
            InMemory::new(held, room.insist(1000))
        };
        let mut object = Object::new(1, stat, None, room.insist(0));
        object.memory = Some(in_memory());
        let head = object.head(id);
        let file = disk.create(1, head.len()).unwrap();
        let on_disk = file.finish(&head, Kind::Spill, room.insist(0)).unwrap();
        object.disk = Some(Arc::new(on_disk));
        index.insert(id.into(), object);

        let chosen = index.choose(1, 0);
        assert!(chosen[0].on_disk);
        let (memory, disk) = index.set_memory(id, 1, in_memory()); // by who reads it from there
        assert!(memory.is_some() && disk.is_some());
        let (memory, disk) = index.leave_memory(&chosen[0], None);
        assert!(memory.is_none() && disk.is_none());
        assert!(index.find(id, 1).unwrap().memory.is_some());
        assert_eq!(index.choose(1, 1 << 20).len(), 1, "it can leave later");
    }
}
