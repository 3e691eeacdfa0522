//! Waiting: the kernel tells when a link appears.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::connectors::notify::Watch;
use crate::error::Result;

use super::session::{KEYS, Session};

/// How often to look when the kernel has no watch left to give.
const FALLBACK: Duration = Duration::from_millis(2);

/// How the name of a link begins that only wakes waiters; no id begins with a dot.
const WAKE: &str = ".wake-";

/// Waits until `is_there` says so; false when `deadline` passes first. It is asked again
/// whenever the link of `id` changes.
pub(super) fn wait(
    session: &Session,
    id: &str,
    deadline: Option<Instant>,
    mut is_there: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    if is_there()? {
        return Ok(true);
    }
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    let watch = Watch::of(&session.path.join(KEYS), flags);
    loop {
        // After the watch is set, or else what happens in between would be missed.
        if is_there()? {
            return Ok(true);
        }
        if !next_change(watch.as_ref().and_then(Watch::descriptor), id, deadline) {
            return is_there();
        }
    }
}

/// Makes every waiter of the session look again.
pub(super) fn wake(session: &Session) {
    let Ok(unique) = crate::key::unique_id() else { return };
    let name = format!("{WAKE}{unique}");
    if symlinkat("-", &session.keys, &name).is_ok() {
        let _ = unlinkat(&session.keys, &name, AtFlags::empty()); // swept with the session
    }
}

/// Returns when the link may have changed; false when the time is up.
fn next_change(watch: Option<&OwnedFd>, id: &str, deadline: Option<Instant>) -> bool {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        let Some(watch) = watch else {
            std::thread::sleep(left.map_or(FALLBACK, |left| left.min(FALLBACK)));
            return true;
        };
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut ready = [PollFd::new(watch, PollFlags::IN)];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) if concerns(watch, id) => return true,
            Ok(_) => {}
            Err(_) => {
                std::thread::sleep(FALLBACK);
                return true;
            }
        }
    }
}

/// Reads the events that are there; true when one is about `id`, or when some were lost.
fn concerns(watch: &OwnedFd, id: &str) -> bool {
    let mut memory = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(watch, &mut memory);
    let mut ours = false;
    while let Ok(event) = events.next() {
        ours |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        ours |= event.file_name().is_some_and(|name| {
            let name = name.to_bytes();
            name == id.as_bytes() || name.starts_with(WAKE.as_bytes())
        });
    }
    ours
}
