//! Objects on their way in: into memory while there is room, else to disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proxystore::wire::Stat;
use proxystore::{Error, ErrorKind, Key, Result};

use super::disk::{Kind, OnDisk, Unfinished};
use super::format::Head;
use super::index::{Held, InMemory, Object, entry_bytes};
use super::room::Charge;
use super::time::End;
use super::{Inner, PUT, blocking};
use crate::body::{Body, PIECE};

/// Pieces shorter than this are copied together: each may hold on to a buffer that is far longer.
const COPIED_BELOW: usize = 64 << 10;
/// So much is written to disk at once.
const BATCH: usize = 1 << 20;

impl Inner {
    pub(super) async fn put(
        self: &Arc<Self>,
        id: &str,
        generation: u64,
        ttl: Option<Duration>,
        mut body: Body,
    ) -> Result<()> {
        let stat = Stat { generation, size: body.len(), hash: None };
        self.admit(stat.size)?;
        let id: Arc<str> = id.into();
        if body.is_held() && !self.settings.persist {
            let mut pieces = body.collect().await?;
            let held = if pieces.len() == 1 {
                Held::One(pieces.remove(0).unwrap_or_default()) // as it was read: a copy of its own
            } else {
                let mut gathered = Gathered::new(stat.size);
                for piece in pieces {
                    gathered.push(piece);
                }
                gathered.finish()
            };
            let Some(mut charge) = self.memory.take(entry_bytes(&id) + stat.size) else {
                return self.receive(id, stat, ttl, Body::held(held.pieces()?)).await;
            };
            let memory = InMemory::new(held, charge.split(stat.size));
            return self
                .insert(id, stat, ttl.and_then(End::after), charge, Some(memory), None)
                .await;
        }
        if stat.size == 0 {
            body = Body::empty();
        }
        self.receive(id, stat, ttl, body).await
    }

    /// Stores a body that may be long, may come slowly, or for which room has to be made.
    async fn receive(
        self: &Arc<Self>,
        id: Arc<str>,
        stat: Stat,
        ttl: Option<Duration>,
        mut body: Body,
    ) -> Result<()> {
        let entry = entry_bytes(&id);
        // All else may be just on its way in or out, and cannot leave memory for that time.
        let entry = match self.memory_for(entry).await? {
            None => self.memory.take_last(entry).ok_or_else(|| self.full(stat.size))?,
            Some(entry) => entry,
        };
        let head =
            Head { id: (&*id).into(), size: stat.size, generation: stat.generation, ends: 0 };
        let (persist, size) = (self.settings.persist, stat.size);
        let is_large = size > self.memory.limit() / 8;
        let straight = size > self.memory.limit()
            || is_large
                && size > self.memory.free()
                && head.len() + size <= self.room_on_disk.free();
        let mut draft = Draft {
            inner: self,
            memory: (!(straight || persist && is_large)).then(|| self.memory.insist(0)),
            gathered: Gathered::new(size),
            to_disk: false,
            disk: self.room_on_disk.insist(0),
            pending: Vec::new(),
            pending_bytes: 0,
            file: None,
            head,
        };
        if persist || draft.memory.is_none() {
            draft.begin_file()?;
        }
        while let Some(piece) = body.next().await {
            draft.take(piece?).await?;
        }
        let end = ttl.and_then(End::after);
        draft.head.ends = end.map_or(0, |end| end.since_1970);
        let disk = if draft.to_disk { Some(draft.finish_file().await?) } else { None };
        let Draft { memory, gathered, .. } = draft;
        let memory = memory.map(|charge| InMemory::new(gathered.finish(), charge));
        self.insert(id, stat, end, entry, memory, disk).await
    }

    /// Takes over what a client put into shared memory.
    pub(super) async fn put_shared(
        self: &Arc<Self>,
        id: &str,
        generation: u64,
        ttl: Option<Duration>,
        key: Key,
    ) -> Result<()> {
        let session = self.session.clone().ok_or_else(no_session)?;
        let stat = Stat { generation, size: key.size(), hash: None };
        let is_there = self.lock().find(id, generation).is_some_and(|o| o.stat.size == stat.size);
        if is_there && generation != 0 {
            // The same request again; what came with it is ours to free, unless it is what we have.
            let _ = blocking(PUT, move || session.take(key).map(drop)).await;
            return self.expire(id, generation, ttl.and_then(End::after)).await;
        }
        let segment = blocking(PUT, move || session.take(key)).await?; // freed if anything fails from here on
        self.admit(stat.size)?;
        let id: Arc<str> = id.into();
        let room = entry_bytes(&id) + stat.size;
        let charge = if self.settings.persist { None } else { self.memory_for(room).await? };
        match charge {
            Some(mut charge) => {
                let held = Held::Shared(Arc::new(segment));
                let memory = InMemory::new(held, charge.split(stat.size));
                self.insert(id, stat, ttl.and_then(End::after), charge, Some(memory), None).await
            }
            None => self.receive(id, stat, ttl, segment.bytes()?.into()).await,
        }
    }

    pub(super) async fn take_shared(&self, key: Key) -> Result<Body> {
        let session = self.session.clone().ok_or_else(no_session)?;
        blocking(PUT, move || Ok(session.take(key)?.bytes()?.into())).await
    }

    async fn insert(
        self: &Arc<Self>,
        id: Arc<str>,
        stat: Stat,
        end: Option<End>,
        entry: Charge,
        memory: Option<InMemory>,
        disk: Option<OnDisk>,
    ) -> Result<()> {
        let persists = disk.as_ref().is_some_and(OnDisk::persists);
        let replaced = {
            let mut index = self.lock();
            index.check_open(PUT)?;
            let mut object = Object::new(index.next_serial(), stat, end, entry);
            (object.memory, object.disk) = (memory, disk.map(Arc::new));
            let replaced = index.insert(id, object);
            self.heed(&index, end);
            replaced
        };
        self.discard(replaced, persists).await
    }
}

fn no_session() -> Error {
    Error::new(ErrorKind::Unsupported, PUT, "this endpoint has no shared memory")
        .with_hint("send the bytes, or set `shared_from` in section [storage]")
}

/// An object of which not all bytes are here. Dropped, it leaves nothing behind.
struct Draft<'a> {
    inner: &'a Arc<Inner>,
    /// While it is to be kept in memory.
    memory: Option<Charge>,
    gathered: Gathered,
    to_disk: bool,
    disk: Charge,
    /// What is to be written next.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    file: Option<Unfinished>,
    head: Head,
}

impl Draft<'_> {
    fn begin_file(&mut self) -> Result<()> {
        self.to_disk = true;
        self.charge_disk(self.head.len())
    }

    fn charge_disk(&mut self, bytes: u64) -> Result<()> {
        if self.disk.grow(bytes) { Ok(()) } else { Err(self.inner.full(self.head.size)) }
    }

    async fn take(&mut self, piece: Bytes) -> Result<()> {
        if let Some(memory) = &mut self.memory {
            let len = piece.len() as u64;
            let has_room = memory.grow(len) || {
                let more = self.inner.memory_for(len).await?;
                more.map(|more| memory.merge(more)).is_some()
            };
            if has_room {
                self.gathered.push(piece.clone());
            } else {
                self.leave_memory().await?;
            }
        }
        if self.to_disk {
            self.append(piece).await?;
        }
        Ok(())
    }

    /// Goes on on disk alone.
    async fn leave_memory(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered).finish();
        if !self.to_disk {
            self.begin_file()?;
            for piece in gathered.pieces()? {
                self.append(piece).await?;
            }
            self.write().await?;
        }
        self.memory = None;
        Ok(())
    }

    async fn append(&mut self, piece: Bytes) -> Result<()> {
        self.charge_disk(piece.len() as u64)?;
        self.pending_bytes += piece.len();
        self.pending.push(piece);
        if self.pending_bytes >= BATCH { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<()> {
        let create = self.creation();
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let inner = Arc::clone(self.inner);
        let file = blocking(PUT, move || {
            let write = || {
                let mut file = create()?;
                file.write(&pending)?;
                Ok(file)
            };
            write().map_err(|error| inner.disk_error(PUT, error))
        });
        self.file = Some(file.await?);
        Ok(())
    }

    /// Gives the file, which is made if it is not there.
    fn creation(&mut self) -> impl FnOnce() -> std::io::Result<Unfinished> + Send + 'static {
        let file = self.file.take();
        let (disk, head) = (Arc::clone(&self.inner.disk), self.head.len());
        let number = if file.is_some() { 0 } else { self.inner.lock().next_serial() };
        move || file.map_or_else(|| disk.create(number, head), Ok)
    }

    async fn finish_file(&mut self) -> Result<OnDisk> {
        let create = self.creation();
        let pending = std::mem::take(&mut self.pending);
        let charge = self.disk.split(u64::MAX);
        let (inner, head) = (Arc::clone(self.inner), self.head.clone());
        let kind = if inner.settings.persist { Kind::Object } else { Kind::Spill };
        blocking(PUT, move || {
            let write = || {
                let mut file = create()?;
                file.write(&pending)?;
                file.finish(&head, kind, charge)
            };
            write().map_err(|error| inner.disk_error(PUT, error))
        })
        .await
    }
}

/// Pieces that are put together where they are short.
#[derive(Debug, Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    /// Short ones.
    open: BytesMut,
    /// How many bytes are to come.
    left: usize,
}

impl Gathered {
    fn new(size: u64) -> Self {
        Self { left: usize::try_from(size).unwrap_or(usize::MAX), ..Self::default() }
    }

    fn push(&mut self, piece: Bytes) {
        if piece.len() >= COPIED_BELOW {
            self.close();
            self.left = self.left.saturating_sub(piece.len());
            self.pieces.push(piece);
            return;
        }
        if self.open.len() + piece.len() > self.open.capacity() {
            self.close();
            // As much as is believed to come, but never much more than did.
            self.open = BytesMut::with_capacity(self.left.min(PIECE).max(piece.len()));
        }
        self.left = self.left.saturating_sub(piece.len());
        self.open.extend_from_slice(&piece);
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if !open.is_empty() {
            self.pieces.push(open.freeze());
        }
    }

    fn finish(mut self) -> Held {
        self.close();
        match self.pieces.len() {
            0 => Held::One(Bytes::new()),
            1 => Held::One(self.pieces.swap_remove(0)),
            _ => Held::Many(self.pieces.into()),
        }
    }
}
