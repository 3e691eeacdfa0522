//! Whole objects, read by ranges at the same time.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Source;
use crate::buffer::Buffer;
use crate::connectors::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Received;

/// How often the caller's progress function is asked while nothing arrives.
const LOOK_UP: Duration = Duration::from_millis(50);

const LOAD: &str = "load an object";

/// How a whole object is read; start from `LoadOptions::default()`.
///
/// Reading ranges at the same time helps where one stream does not use the channel up: parallel
/// file systems, servers at a distance.
pub struct LoadOptions<'a> {
    /// How many threads read; with 1, the calling thread does.
    pub threads: usize,
    /// How long the ranges are, in bytes.
    pub part_bytes: usize,
    /// Told the bytes that are there and the bytes of all, in the calling thread, after each range
    /// and now and then while none comes. Loading is given up when it returns false.
    pub progress: Option<&'a mut dyn FnMut(u64, u64) -> bool>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self { threads: 1, part_bytes: 8 << 20, progress: None }
    }
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("threads", &self.threads)
            .field("part_bytes", &self.part_bytes)
            .finish_non_exhaustive()
    }
}

/// A range of a part, and the memory it is read into.
struct Piece<'a> {
    part: usize,
    start: u64,
    target: &'a mut [u8],
}

impl Piece<'_> {
    fn read(self, source: &Source) -> Result<u64> {
        let len = self.target.len() as u64;
        source.read_into(self.part, self.start..self.start + len, self.target).map(|()| len)
    }
}

pub(super) fn load(source: &Source, access: Access, options: LoadOptions<'_>) -> Result<Received> {
    let head = source.head();
    source.check_end(head.parts().len().saturating_sub(1), head.len())?;
    let mut bytes = Buffer::try_zeroed(head.len())?;
    let total = head.parts().iter().map(|part| part.end - part.start).sum();
    let target = bytes.as_mut().unwrap_or_default(); // the sole holder of writable memory
    let pieces = cut(target, head.parts(), options.part_bytes.max(1));
    let mut progress = Progress { done: 0, total, tell: options.progress };
    let threads = options.threads.min(pieces.len());
    if threads <= 1 {
        for piece in pieces {
            let len = piece.read(source)?;
            progress.add(len)?;
        }
    } else {
        load_in_parallel(source, pieces, threads, &mut progress)?;
    }
    let bytes = if access == Access::ReadOnly { bytes.into_read_only() } else { bytes };
    Ok(Received::of_parts(head.clone(), bytes))
}

/// Cuts the parts into pieces of this length, each with its memory: parts lie in order.
fn cut<'a>(mut target: &'a mut [u8], parts: &[Range<u64>], len: usize) -> Vec<Piece<'a>> {
    let (mut at, mut pieces) = (0, Vec::new());
    for (part, place) in parts.iter().enumerate() {
        let (_, rest) = target.split_at_mut((place.start - at) as usize);
        let (here, after) = rest.split_at_mut((place.end - place.start) as usize);
        (target, at) = (after, place.end);
        let mut start = 0;
        for target in here.chunks_mut(len) {
            let next = start + target.len() as u64;
            pieces.push(Piece { part, start, target });
            start = next;
        }
    }
    pieces
}

struct Progress<'a> {
    done: u64,
    total: u64,
    tell: Option<&'a mut dyn FnMut(u64, u64) -> bool>,
}

impl Progress<'_> {
    fn add(&mut self, len: u64) -> Result<()> {
        self.done += len;
        let goes_on = self.tell.as_mut().is_none_or(|tell| tell(self.done, self.total));
        if goes_on {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, LOAD, "its progress function ended it")
            .with("bytes", self.done)
            .with("of", self.total))
    }
}

fn load_in_parallel(
    source: &Source,
    pieces: Vec<Piece<'_>>,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let (queue, stop) = (Mutex::new(pieces.into_iter()), AtomicBool::new(false));
    let work = |done: Sender<Result<u64>>| {
        while !stop.load(Ordering::Relaxed) {
            let piece = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(piece) = piece else { return };
            let outcome = piece.read(source);
            let failed = outcome.is_err();
            if done.send(outcome).is_err() || failed {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (work, sender) = (&work, sender.clone());
            let thread = thread::Builder::new().name("proxystore-load".to_owned());
            if let Err(error) = thread.spawn_scoped(scope, move || work(sender)) {
                stop.store(true, Ordering::Relaxed);
                return Err(Error::io(LOAD, error));
            }
        }
        drop(sender); // so that the last thread's end is the end
        loop {
            let outcome = match receiver.recv_timeout(LOOK_UP) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Timeout) => Ok(0),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if let Err(error) = outcome.and_then(|len| progress.add(len)) {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    })
}
