//! Jobs at given times, on background threads of the process.
//!
//! Leases renew and lifetimes end here. Usually there is one thread; a job that takes long (its
//! server is slow to answer) gets a second one to keep the others punctual. Threads end when there
//! is nothing left to wait for. A forked child starts without jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::fork::{self, PerProcess};

type Job = Box<dyn FnOnce() + Send>;
/// When, and a number that tells jobs of the same instant apart.
type When = (Instant, u64);

#[derive(Default)]
struct State {
    jobs: BTreeMap<When, Job>,
    count: u64,
    /// Threads that wait for the next job.
    waiting: usize,
}

#[derive(Default)]
struct Clock {
    state: Mutex<State>,
    changed: Condvar,
}

static CLOCK: PerProcess<Clock> = PerProcess::new(Clock::default);

impl Clock {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that was scheduled; dropping this cancels it, unless it has begun.
#[must_use = "dropping it cancels the job"]
pub(super) struct Scheduled {
    when: When,
    process: u64,
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        if self.process == fork::generation() {
            let job = CLOCK.get().lock().jobs.remove(&self.when);
            drop(job); // what it holds is freed outside the lock
        }
    }
}

impl fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scheduled({:?})", self.when.0)
    }
}

/// Runs `job` once, at `when` or soon after, on a background thread. A panic in it ends it alone.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when no thread can be started.
pub(super) fn at(when: Instant, job: impl FnOnce() + Send + 'static) -> Result<Scheduled> {
    let clock = CLOCK.get();
    let mut state = clock.lock();
    state.count += 1;
    let when = (when, state.count);
    state.jobs.insert(when, Box::new(job));
    if state.waiting == 0 {
        start(&mut state).inspect_err(|_| drop(state.jobs.remove(&when)))?;
    } else if state.jobs.first_key_value().is_some_and(|(first, _)| *first == when) {
        clock.changed.notify_all();
    }
    Ok(Scheduled { when, process: fork::generation() })
}

/// Starts a thread, which counts as waiting from now on.
fn start(state: &mut State) -> Result<()> {
    let thread = std::thread::Builder::new().name("proxystore-clock".to_owned());
    thread.spawn(run).map_err(|source| Error::io("schedule a job", source))?;
    state.waiting += 1;
    Ok(())
}

fn run() {
    let clock = CLOCK.get();
    let mut state = clock.lock();
    while let Some((&first, _)) = state.jobs.first_key_value() {
        let left = first.0.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let woken = clock.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let job = state.jobs.remove(&first);
        state.waiting -= 1;
        if state.waiting == 0 && !state.jobs.is_empty() {
            // Without a second thread the other jobs wait for this one, which is no disaster.
            let _ = start(&mut state);
        }
        drop(state);
        let _ = catch_unwind(AssertUnwindSafe(|| job.map(|job| job())));
        state = clock.lock();
        if state.waiting > 0 {
            return; // the other thread goes on
        }
        state.waiting += 1;
    }
    state.waiting -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn after(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    #[test]
    fn jobs_run_in_the_order_of_their_times() {
        let (sender, receiver) = mpsc::channel();
        let jobs: Vec<_> = [60, 20, 40]
            .into_iter()
            .map(|time| {
                let sender = sender.clone();
                at(after(time), move || sender.send(time).unwrap_or(())).unwrap()
            })
            .collect();
        let ran: Vec<_> = (0..3).map(|_| receiver.recv().unwrap()).collect();
        assert_eq!(ran, [20, 40, 60]);
        drop(jobs);
    }

    #[test]
    fn a_dropped_job_does_not_run() {
        let (sender, receiver) = mpsc::channel();
        let cancelled = sender.clone();
        drop(at(after(10), move || cancelled.send("cancelled").unwrap_or(())).unwrap());
        let kept = at(after(50), move || sender.send("kept").unwrap_or(())).unwrap();
        assert_eq!(receiver.recv(), Ok("kept"));
        drop(kept);
    }

    #[test]
    fn a_job_that_hangs_or_panics_does_not_hold_up_the_others() {
        let (sender, receiver) = mpsc::channel();
        let (release, hold) = mpsc::channel::<()>();
        let jobs = [
            at(after(0), move || hold.recv().unwrap_or(())),
            at(after(5), || panic!("on purpose")),
            at(after(20), move || sender.send(()).unwrap_or(())),
        ];
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(()));
        drop((release, jobs));
    }
}
