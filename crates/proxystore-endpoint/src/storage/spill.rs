//! Memory is made room in by moving what was not used for longest to disk.

use std::sync::Arc;

use proxystore::{Error, ErrorKind, Result};
use tracing::warn;

use super::disk::{Kind, OnDisk};
use super::index::Chosen;
use super::room::Charge;
use super::{Inner, PUT, blocking};

impl Inner {
    /// Room in memory for so many bytes, which others may have to leave; `None` when they cannot.
    pub(super) async fn memory_for(self: &Arc<Self>, bytes: u64) -> Result<Option<Charge>> {
        loop {
            if let Some(charge) = self.memory.take(bytes) {
                return Ok(Some(charge));
            }
            if bytes > self.memory.limit() || !self.make_room(bytes).await? {
                return Ok(None);
            }
        }
    }

    /// Lets some objects leave memory; false when none can.
    async fn make_room(self: &Arc<Self>, bytes: u64) -> Result<bool> {
        let inner = Arc::clone(self);
        // A task, so that it comes to its end also when who asked for it is gone.
        let task = self.tasks.spawn(async move {
            let _turn = inner.making_room.lock().await;
            // More than that at once, so that the next ones find room.
            let wanted = bytes.max(inner.memory.limit() / 64);
            let missing = wanted.saturating_sub(inner.memory.free());
            if inner.memory.free() >= bytes {
                return Ok(true); // somebody else made it
            }
            let chosen = inner.lock().choose(missing, inner.room_on_disk.free());
            if chosen.is_empty() {
                return Ok(false);
            }
            let mover = Arc::clone(&inner);
            blocking(PUT, move || mover.spill(chosen)).await
        });
        task.await.map_err(|source| {
            Error::new(ErrorKind::Io, PUT, "making room for it failed").with_source(source)
        })?
    }

    fn spill(&self, chosen: Vec<Chosen>) -> Result<bool> {
        let (mut some_left, mut failure) = (false, None);
        for one in chosen {
            let file = if one.on_disk {
                Ok(None)
            } else if failure.is_some() {
                self.lock().stay(&one);
                continue;
            } else {
                self.write_spill(&one).map(Some)
            };
            match file {
                Ok(file) => {
                    let unused = self.lock().leave_memory(&one, file);
                    drop(unused);
                    some_left = true;
                }
                Err(error) => {
                    warn!(%error, "an object stays in memory: it cannot be moved to disk");
                    self.lock().stay(&one);
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if !some_left => Err(error),
            _ => Ok(some_left),
        }
    }

    fn write_spill(&self, one: &Chosen) -> Result<OnDisk> {
        let len = one.head.len() + one.head.size;
        let charge = self.room_on_disk.take(len).ok_or_else(|| self.full(one.head.size))?;
        let number = self.lock().next_serial();
        let pieces = one.held.pieces()?;
        let write = || {
            let mut file = self.disk.create(number, one.head.len())?;
            file.write(&pieces)?;
            file.finish(&one.head, Kind::Spill, charge)
        };
        write().map_err(|error| self.disk_error(PUT, error))
    }
}
