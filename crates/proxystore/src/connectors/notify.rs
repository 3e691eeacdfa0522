//! Waiting for something to appear: by inotify in a directory, or by asking again and again.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::error::Result;

/// Even without an event the check is made this often: events may be lost, and a connector may be
/// closed under its waiters.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Calls `check` until it is true, at once and then after every creation, renaming and closing of
/// a file in `directory`; false when `deadline` passes first.
///
/// Without inotify (its instances per user are limited) it is [`poll_for`]. Events of a network
/// file system tell only what this host does, so use `poll_for` there.
pub(crate) fn wait_for(
    directory: &Path,
    deadline: Option<Instant>,
    mut check: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    if check()? {
        return Ok(true);
    }
    if left_until(deadline).is_some_and(|left| left.is_zero()) {
        return Ok(false);
    }
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    let Some(events) = Watch::of(directory, flags) else {
        return poll_for(deadline, check);
    };
    loop {
        // What appeared before the watch began is seen here, what appears later wakes the sleep.
        if check()? {
            return Ok(true);
        }
        let left = left_until(deadline);
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        events.sleep(left.unwrap_or(AT_LEAST_EVERY).min(AT_LEAST_EVERY));
    }
}

/// Calls `check` until it is true, at once and then at intervals that grow from 1 to 100 ms; false
/// when `deadline` passes first.
pub(crate) fn poll_for(
    deadline: Option<Instant>,
    mut check: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        if check()? {
            return Ok(true);
        }
        let left = left_until(deadline);
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        std::thread::sleep(left.unwrap_or(pause).min(pause));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn left_until(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|at| at.saturating_duration_since(Instant::now()))
}

/// A watch of what happens in a directory.
pub(crate) struct Watch(Option<OwnedFd>);

impl Watch {
    /// `None` when there is no watch to be had.
    pub(crate) fn of(directory: &Path, what: WatchFlags) -> Option<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&events, directory, what).ok()?;
        Some(Self(Some(events)))
    }

    /// The descriptor, readable when something happened; `None` only while it is dropped.
    pub(crate) fn descriptor(&self) -> Option<&OwnedFd> {
        self.0.as_ref()
    }

    /// Sleeps until something happens, or for `time`; also returns early on a signal.
    fn sleep(&self, time: Duration) {
        let timeout = Timespec::try_from(time).unwrap_or_default();
        let Some(events) = self.descriptor() else { return };
        match poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                let _ = rustix::io::read(events, &mut [0_u8; 4096]); // whatever it was
            }
            Err(_) => std::thread::sleep(time.min(LONGEST_PAUSE)),
        }
    }
}

impl Drop for Watch {
    /// The kernel takes some 10 ms to close a watch, while it waits for all of its processors. Who
    /// waited for an object wants it now, so another thread does that.
    fn drop(&mut self) {
        let events = self.0.take();
        let thread = std::thread::Builder::new().name("proxystore-close".to_owned());
        let _ = thread.stack_size(32 * 1024).spawn(move || drop(events)); // without one: here
    }
}
