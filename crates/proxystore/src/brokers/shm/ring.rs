//! The ring of one topic: a file that is read and written by who has its lock.
//!
//! It is read and written by calls rather than through a mapping: a full file system is an error then
//! and no signal that kills, and whatever the file says, nothing outside of it is touched.
//! Messages are written first and the header last, within one page, so that whoever is killed in
//! between has published nothing.

use std::fs::File;
use std::io::ErrorKind as Io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::layout::{GROUPS, Group, Header, LENGTH, RING_AT, record};
use super::lock;
use crate::connectors::shm::{Session, io};
use crate::error::{Error, ErrorKind, Result};

/// Messages up to here are written and read with their length, by one call.
const SMALL: usize = 2048;

/// How much memory a ring keeps when all its messages are taken.
const KEEP: u64 = 1 << 20;

/// The ring of a topic, as this process has it open.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    path: PathBuf,
    members: Mutex<Members>,
}

/// How many subscribers of each group are in this process; also what keeps its threads apart.
type Members = [u32; GROUPS];

impl Ring {
    pub(super) fn open(session: &Session, file_name: &str) -> rustix::io::Result<Self> {
        let file = File::from(session.open_or_create(file_name)?);
        Ok(Self { file, path: session.path.join(file_name), members: Mutex::new([0; GROUPS]) })
    }

    /// The lock of the ring; `None` if others have it until one is to give up. A ring that is not
    /// there yet is made.
    pub(super) fn lock(
        &self,
        operation: &'static str,
        capacity: u64,
        give_up: impl Fn() -> bool,
    ) -> Result<Option<Locked<'_>>> {
        // Nobody has it for long, unless stopped; those whose time is up look all the same.
        let patience = Instant::now() + Duration::from_millis(50);
        for attempt in 0_u32.. {
            let members = match self.members.try_lock() {
                Ok(members) => Some(members),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(members) = members
                && lock::try_lock(&self.file, lock::ACCESS)
                    .map_err(|e| self.failed(operation, e))?
            {
                let header = Header::new(capacity);
                let mut locked = Locked { ring: self, operation, members, header };
                locked.load()?;
                return Ok(Some(locked));
            }
            if attempt > 150 && Instant::now() > patience && give_up() {
                break;
            }
            match attempt {
                0..100 => thread::yield_now(),
                100..200 => thread::sleep(Duration::from_micros(20)),
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(None)
    }

    /// A subscriber that joined leaves.
    pub(super) fn leave(&self, place: usize) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members[place] = members[place].saturating_sub(1);
        if members[place] == 0 {
            let _ = lock::unlock(&self.file, lock::member(place)); // or closing the file does it
        }
    }

    fn failed(&self, operation: &'static str, errno: Errno) -> Error {
        io(operation, errno).with("file", self.path.display())
    }

    fn damaged(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, operation, "the file of the topic is damaged")
            .with("file", self.path.display())
            .with_hint("stop the programs that use it, and remove it; its messages are lost")
    }
}

/// The ring, locked, until it is dropped.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    ring: &'a Ring,
    operation: &'static str,
    members: MutexGuard<'a, Members>,
    pub(super) header: Header,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = lock::unlock(&self.ring.file, lock::ACCESS); // fails for no file that is open
    }
}

impl Locked<'_> {
    fn load(&mut self) -> Result<()> {
        let mut bytes = [0; Header::SIZE];
        let read = self.ring.file.read_at(&mut bytes, 0).map_err(|error| self.error(error))?;
        if read == 0 {
            return self.save(); // a new one; and whoever finds nothing has to make it
        }
        let header = (read == bytes.len()).then(|| Header::decode(&bytes)).flatten();
        self.header = header.ok_or_else(|| self.ring.damaged(self.operation))?;
        Ok(())
    }

    /// Lets the others see the header as it is.
    fn save(&self) -> Result<()> {
        let written = self.ring.file.write_all_at(&self.header.encode(), 0);
        written.map_err(|error| self.error(error))
    }

    /// Makes sure that there is room for a message, if need be by forgetting groups nobody is in:
    /// they do not hold back the publishers of others that live.
    pub(super) fn make_room(&mut self, len: u64) -> Result<bool> {
        let has_room = |header: &Header| header.capacity - header.used() >= record(len);
        if has_room(&self.header) {
            return Ok(true);
        }
        let living = self.living()?;
        // Where nobody lives, all is kept for who comes next.
        if living.contains(&true) {
            for (group, lives) in self.header.groups.iter_mut().zip(living) {
                *group = group.filter(|_| lives);
            }
        }
        if has_room(&self.header) {
            return Ok(true);
        }
        self.header.publishers_wait = true;
        self.save()?;
        Ok(false)
    }

    /// Which groups have subscribers that live.
    fn living(&self) -> Result<[bool; GROUPS]> {
        let mut living = [false; GROUPS];
        for (place, lives) in living.iter_mut().enumerate() {
            *lives = self.header.groups[place].is_some()
                && (self.members[place] > 0
                    || lock::is_held_elsewhere(&self.ring.file, lock::member(place))
                        .map_err(|errno| self.ring.failed(self.operation, errno))?);
        }
        Ok(living)
    }

    /// Publishes a message for which there is room; says whether somebody waits for it.
    pub(super) fn append(&mut self, message: &[u8]) -> Result<bool> {
        let (head, len) = (self.header.head, message.len() as u64);
        // Written too, or the file could end before the head.
        let padding = &[0; 8][..(record(len) - LENGTH - len) as usize];
        if message.len() <= SMALL {
            let mut whole = Vec::with_capacity(LENGTH as usize + SMALL);
            whole.extend_from_slice(&len.to_le_bytes());
            whole.extend_from_slice(message);
            whole.extend_from_slice(padding);
            self.write(head, &whole)?;
        } else {
            self.write(head, &len.to_le_bytes())?;
            self.write(head + LENGTH, message)?;
            self.write(head + LENGTH + len, padding)?;
        }
        self.header.head += record(len);
        let is_awaited = std::mem::take(&mut self.header.subscribers_wait);
        self.save()?;
        Ok(is_awaited)
    }

    /// Takes the next message of a group, so that nobody else of it gets it; also says whether somebody
    /// waits for the room. `None` when there is no message, and who publishes one is to say so.
    pub(super) fn take(&mut self, place: usize, id: u128) -> Result<Option<(Vec<u8>, bool)>> {
        let damaged = || self.ring.damaged(self.operation);
        let group = self.header.groups[place].filter(|group| group.id == id);
        let cursor = group.ok_or_else(damaged)?.cursor;
        let ahead = self.header.head - cursor;
        if ahead == 0 {
            if !std::mem::replace(&mut self.header.subscribers_wait, true) {
                self.save()?;
            }
            return Ok(None);
        }
        // The length, and with it the message if that is small.
        let mut start = [0; LENGTH as usize + SMALL];
        let start = &mut start[..ahead.min(LENGTH + SMALL as u64) as usize];
        self.read(cursor, start)?;
        let (len, start) = start.split_first_chunk().ok_or_else(damaged)?;
        let len = u64::from_le_bytes(*len);
        if len > self.header.largest() || record(len) > ahead {
            return Err(damaged());
        }
        let mut message = vec![0; len as usize];
        if let Some(start) = start.get(..message.len()) {
            message.copy_from_slice(start);
        } else {
            self.read(cursor + LENGTH, &mut message)?;
        }
        self.header.groups[place] = Some(Group { id, cursor: cursor + record(len) });
        let is_awaited = std::mem::take(&mut self.header.publishers_wait);
        let end = self.header.rewind();
        self.save()?;
        if end.is_some_and(|end| end > KEEP) {
            let _ = self.ring.file.set_len(RING_AT + KEEP); // a kindness
        }
        Ok(Some((message, is_awaited)))
    }

    /// Joins a group as one more of its subscribers; says which place it has.
    pub(super) fn join(&mut self, id: u128) -> Result<usize> {
        let mut place = self.header.join(id);
        if place.is_none() {
            // One that nobody is in gives way.
            let dead = self.living()?.iter().position(|lives| !lives);
            dead.inspect(|place| self.header.groups[*place] = None);
            place = self.header.join(id);
        }
        let place = place.ok_or_else(|| {
            Error::new(ErrorKind::Full, self.operation, "the topic has all the groups it can have")
                .with("groups", GROUPS)
                .with_hint("use fewer groups, or another topic")
        })?;
        self.save()?;
        lock::share(&self.ring.file, lock::member(place))
            .map_err(|errno| self.ring.failed(self.operation, errno))?;
        self.members[place] += 1;
        Ok(place)
    }

    fn write(&self, position: u64, bytes: &[u8]) -> Result<()> {
        let (first, rest) = bytes.split_at(self.until_the_end(position, bytes.len()));
        let file = &self.ring.file;
        file.write_all_at(first, self.offset(position))
            .and_then(|()| file.write_all_at(rest, RING_AT))
            .map_err(|error| self.error(error))
    }

    fn read(&self, position: u64, bytes: &mut [u8]) -> Result<()> {
        let (first, rest) = bytes.split_at_mut(self.until_the_end(position, bytes.len()));
        let file = &self.ring.file;
        file.read_exact_at(first, self.offset(position))
            .and_then(|()| file.read_exact_at(rest, RING_AT))
            .map_err(|error| self.error(error))
    }

    fn offset(&self, position: u64) -> u64 {
        RING_AT + position % self.header.capacity
    }

    /// How many of the bytes at a position lie before the end of the ring.
    fn until_the_end(&self, position: u64, len: usize) -> usize {
        len.min((self.header.capacity - position % self.header.capacity) as usize)
    }

    fn error(&self, error: std::io::Error) -> Error {
        match error.kind() {
            Io::UnexpectedEof => self.ring.damaged(self.operation),
            _ => Error::io(self.operation, error).with("file", self.ring.path.display()),
        }
    }
}
