//! Objects on their way out: from memory, from shared memory, or from disk as they are read.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proxystore::wire::Stat;
use proxystore::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use super::disk::{self, OnDisk};
use super::index::{Held, InMemory};
use super::room::Charge;
use super::{Found, GET, Inner, Wanted, blocking};
use crate::body::{Body, PIECE};

/// Where the bytes of an object are.
struct Source {
    serial: u64,
    stat: Stat,
    held: Option<Held>,
    /// Keeps the bytes charged, and in memory.
    charge: Option<Arc<Charge>>,
    disk: Option<Arc<OnDisk>>,
    head: u64,
    reads: u8,
}

impl Inner {
    pub(super) async fn get(
        self: &Arc<Self>,
        id: &str,
        generation: u64,
        wanted: &Wanted,
    ) -> Result<Option<Found>> {
        loop {
            let Some(mut source) = self.source(id, generation)? else { return Ok(None) };
            let stat = source.stat;
            let range = wanted.range.clone().unwrap_or(0..stat.size);
            if range.start > range.end || range.end > stat.size {
                return Err(Error::new(
                    ErrorKind::Config,
                    "get part of an object",
                    "the range reaches past the end",
                )
                .with("range", format_args!("{}..{}", range.start, range.end))
                .with("size", stat.size));
            }
            if let Some(held) = &source.held {
                let mut held = held.clone();
                if wanted.shared && self.may_share(stat.size) && !matches!(held, Held::Shared(_)) {
                    held = self.share(id, &source, held).await?;
                }
                if let (true, Held::Shared(segment)) = (wanted.shared, &held) {
                    let shared = Some(segment.place());
                    return Ok(Some(Found { stat, body: Body::empty(), shared }));
                }
                let mut body = Body::held(cut(held.as_pieces()?.as_ref(), &range));
                if let Some(charge) = source.charge.take() {
                    body = body.keeping(charge);
                }
                return Ok(Some(Found { stat, body, shared: None }));
            }
            if let Some(body) = self.get_from_disk(id, &source, range).await? {
                return Ok(Some(Found { stat, body, shared: None }));
            }
            // It was removed or replaced while we went for it: look again, when others have had their turn.
            tokio::task::yield_now().await;
        }
    }

    fn source(&self, id: &str, generation: u64) -> Result<Option<Source>> {
        let mut index = self.lock();
        index.check_open(GET)?;
        Ok(index.using(id, generation).map(|object| {
            let held = object.memory.as_ref().map(|memory| memory.held.clone());
            let charge = object.memory.as_ref().and_then(InMemory::charge);
            let disk = if held.is_some() { None } else { object.disk.clone() };
            if disk.is_some() {
                object.reads = object.reads.saturating_add(1);
            }
            let head = (super::format::HEAD + id.len()) as u64;
            Source {
                serial: object.serial,
                stat: object.stat,
                held,
                charge,
                disk,
                head,
                reads: object.reads,
            }
        }))
    }

    async fn get_from_disk(
        self: &Arc<Self>,
        id: &str,
        source: &Source,
        range: Range<u64>,
    ) -> Result<Option<Body>> {
        let Some(file) = self.open_file(source).await? else { return Ok(None) };
        let (at, len) = (source.head + range.start, range.end - range.start);
        if len > PIECE as u64 {
            let (sender, body) = Body::coming(len);
            let (inner, file) = (Arc::clone(self), Arc::new(file));
            self.tasks.spawn(async move {
                let streamed = inner.stream(file, at, len, &sender);
                tokio::select! {
                    () = streamed => {}
                    () = inner.stop.cancelled() => {} // whoever reads is told that it broke off
                }
            });
            return Ok(Some(body));
        }
        let inner = Arc::clone(self);
        let bytes = blocking(GET, move || {
            disk::read(&file, at, len as usize).map_err(|error| inner.disk_error(GET, error))
        });
        let bytes = bytes.await?;
        if len == source.stat.size {
            self.promote(id, source, &bytes).await?;
        }
        Ok(Some(bytes.into()))
    }

    /// The file with the bytes; `None` when it is not that of the object any more.
    async fn open_file(self: &Arc<Self>, source: &Source) -> Result<Option<File>> {
        let Some(on_disk) = source.disk.clone() else { return Ok(None) };
        let inner = Arc::clone(self);
        let expected = source.head + source.stat.size;
        blocking(GET, move || {
            let failed = |error| inner.disk_error(GET, error);
            let Some(file) = on_disk.open().map_err(failed)? else { return Ok(None) };
            let len = file.metadata().map_err(failed)?.len();
            if len == expected {
                return Ok(Some(file));
            }
            Err(Error::new(ErrorKind::Corrupt, GET, "its file was cut short or lengthened")
                .with("file", on_disk.path().display())
                .with_hint("something altered the files of the endpoint; store the object again"))
        })
        .await
    }

    async fn stream(
        self: &Arc<Self>,
        file: Arc<File>,
        mut at: u64,
        mut left: u64,
        sender: &mpsc::Sender<Result<Bytes>>,
    ) {
        while left > 0 {
            let len = left.min(PIECE as u64);
            let (inner, from) = (Arc::clone(self), Arc::clone(&file));
            let piece = blocking(GET, move || {
                disk::read(&from, at, len as usize).map_err(|error| inner.disk_error(GET, error))
            });
            let piece = piece.await;
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return; // nobody wants the rest, or there is none
            }
            (at, left) = (at + len, left - len);
        }
    }

    /// Takes a short object into memory again: at once where there is room, and in place of others when it is
    /// read a second time. Who reads it need not wait until these have left, and other readers' objects do not queue
    /// for the same.
    async fn promote(self: &Arc<Self>, id: &str, source: &Source, bytes: &Bytes) -> Result<()> {
        let size = source.stat.size;
        if size > self.memory.limit() / 8 {
            return Ok(());
        }
        if let Some(charge) = self.memory.take(size) {
            let memory = InMemory::new(Held::One(bytes.clone()), charge);
            return self.set_memory(id, source.serial, memory).await;
        }
        if source.reads > 1 && self.making_room.try_lock().is_ok() {
            let (inner, id, bytes) = (Arc::clone(self), id.to_owned(), bytes.clone());
            let serial = source.serial;
            self.tasks.spawn(async move {
                if let Ok(Some(charge)) = inner.memory_for(size).await {
                    let memory = InMemory::new(Held::One(bytes), charge);
                    let _ = inner.set_memory(&id, serial, memory).await; // it stays on disk
                }
            });
        }
        Ok(())
    }

    async fn set_memory(&self, id: &str, serial: u64, memory: InMemory) -> Result<()> {
        let (memory, disk) = self.lock().set_memory(id, serial, memory);
        if disk.is_none() && !matches!(&memory, Some(InMemory { held: Held::Shared(_), .. })) {
            return Ok(());
        }
        blocking(GET, move || {
            drop((memory, disk));
            Ok(())
        })
        .await
    }

    /// Whether an object of so many bytes is put into shared memory for who can read it there.
    fn may_share(&self, size: u64) -> bool {
        let from = self.settings.shared_from;
        self.session.is_some() && from > 0 && size >= from
    }

    /// Copies an object from memory to shared memory, if there is room, once for all who ask.
    async fn share(self: &Arc<Self>, id: &str, source: &Source, held: Held) -> Result<Held> {
        let Some(session) = self.session.clone() else { return Ok(held) };
        let _turn = self.sharing.lock().await;
        let now = self.lock().of_serial(id, source.serial).and_then(|object| {
            object.memory.as_ref().map(|memory| memory.held.clone()) // somebody else may have done it
        });
        if let Some(shared @ Held::Shared(_)) = now {
            return Ok(shared);
        }
        // For the time of copying it is there twice.
        let Some(charge) = self.memory.take(source.stat.size) else { return Ok(held) };
        let pieces = held.pieces()?;
        let Ok(segment) = blocking(GET, move || session.put(&pieces)).await else {
            return Ok(held); // shared memory is full: it is no reason not to answer
        };
        let shared = Held::Shared(Arc::new(segment));
        let memory = InMemory::new(shared.clone(), charge);
        self.set_memory(id, source.serial, memory).await?;
        Ok(shared)
    }

    /// What there is to know of an object, its hash included.
    pub(super) async fn hashed(
        self: &Arc<Self>,
        id: &str,
        generation: u64,
    ) -> Result<Option<Stat>> {
        loop {
            let Some(source) = self.source(id, generation)? else { return Ok(None) };
            if source.stat.hash.is_some() {
                return Ok(Some(source.stat));
            }
            let mut hasher = blake3::Hasher::new();
            if let Some(held) = &source.held {
                let pieces = held.pieces()?;
                let mut hash = move || {
                    for piece in &pieces {
                        hasher.update(piece);
                    }
                    hasher.finalize()
                };
                let hash = if source.stat.size <= PIECE as u64 {
                    hash()
                } else {
                    blocking(GET, move || Ok(hash())).await?
                };
                return Ok(Some(self.remember(id, &source, hash)));
            }
            let Some(file) = self.open_file(&source).await? else {
                tokio::task::yield_now().await; // as above
                continue;
            };
            let inner = Arc::clone(self);
            let (mut at, mut left) = (source.head, source.stat.size);
            let hash = blocking(GET, move || {
                while left > 0 {
                    let len = left.min(PIECE as u64);
                    let bytes = disk::read(&file, at, len as usize)
                        .map_err(|error| inner.disk_error(GET, error))?;
                    hasher.update(&bytes);
                    (at, left) = (at + len, left - len);
                }
                Ok(hasher.finalize())
            });
            let hash = hash.await?;
            return Ok(Some(self.remember(id, &source, hash)));
        }
    }

    fn remember(&self, id: &str, source: &Source, hash: blake3::Hash) -> Stat {
        let stat = Stat { hash: Some(*hash.as_bytes()), ..source.stat };
        if let Some(object) = self.lock().of_serial(id, source.serial) {
            object.stat = stat;
        }
        stat
    }
}

impl Held {
    /// The bytes in pieces.
    pub(super) fn pieces(&self) -> Result<Vec<Bytes>> {
        Ok(self.as_pieces()?.as_ref().to_vec())
    }

    fn as_pieces(&self) -> Result<HeldPieces<'_>> {
        Ok(match self {
            Self::One(bytes) => HeldPieces::Borrowed(std::slice::from_ref(bytes)),
            Self::Many(pieces) => HeldPieces::Borrowed(pieces),
            Self::Shared(segment) => HeldPieces::Mapped(segment.bytes()?),
        })
    }
}

enum HeldPieces<'a> {
    Borrowed(&'a [Bytes]),
    Mapped(Bytes),
}

impl AsRef<[Bytes]> for HeldPieces<'_> {
    fn as_ref(&self) -> &[Bytes] {
        match self {
            Self::Borrowed(pieces) => pieces,
            Self::Mapped(bytes) => std::slice::from_ref(bytes),
        }
    }
}

/// The bytes of a range.
fn cut(pieces: &[Bytes], range: &Range<u64>) -> VecDeque<Bytes> {
    let mut at = 0;
    let parts = pieces.iter().filter_map(|piece| {
        let (start, end) = (at, at + piece.len() as u64);
        at = end;
        let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
        (from < to).then(|| piece.slice((from - start) as usize..(to - start) as usize))
    });
    parts.collect()
}
