//! What `fork` does to state: a child must not touch what its parent's threads may hold.
//!
//! A forked child has a copy of every mutex, locked or not, and nobody to unlock it. State that
//! has locks, files or a place in a channel therefore lives in a [`PerProcess`], of which the
//! child gets a fresh one; the inherited one is left alone, not even dropped.
#![expect(unsafe_code, reason = "registers the fork hooks of the C library")]

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use once_cell::race::OnceBox;

static GENERATION: AtomicU64 = AtomicU64::new(0);
static FORKS: AtomicU64 = AtomicU64::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

extern "C" fn before_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
}

fn install() {
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        // SAFETY: the hooks only add to atomics, which is safe between fork and exec. Failure
        // (no memory) leaves the counters at rest.
        unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) };
    }
}

/// How many forks lie between the first process of this program and this one.
pub fn generation() -> u64 {
    install();
    GENERATION.load(Ordering::SeqCst)
}

/// How often this process or its ancestors have begun to fork.
pub fn count() -> u64 {
    install();
    FORKS.load(Ordering::SeqCst)
}

/// A value made anew in every process that uses it.
pub struct PerProcess<T> {
    first: OnceBox<Node<T>>,
}

struct Node<T> {
    generation: u64,
    value: Option<Box<T>>,
    next: OnceBox<Node<T>>,
}

impl<T> PerProcess<T> {
    /// Holds nothing until the first [`get`](Self::get).
    pub const fn new() -> Self {
        Self { first: OnceBox::new() }
    }

    /// This process's value. `make` may be called by several threads at once; one result is kept.
    pub fn get(&self, make: impl Fn() -> T) -> &T {
        let generation = generation();
        let mut place = &self.first;
        loop {
            let node = place.get_or_init(|| {
                let value = Some(Box::new(make()));
                Box::new(Node { generation, value, next: OnceBox::new() })
            });
            match &node.value {
                Some(value) if node.generation == generation => return value,
                _ => place = &node.next,
            }
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        // An inherited value may be in the middle of a change by a thread that is not here.
        if self.generation != generation() {
            self.value.take().map(Box::leak);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_child_gets_a_value_of_its_own_even_when_the_lock_was_held() {
        let state = PerProcess::<Mutex<u32>>::new();
        let guard = state.get(|| Mutex::new(1)).lock().unwrap();
        let forks = count();
        // SAFETY: the child only locks a fresh mutex and leaves with `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let fresh = state.get(|| Mutex::new(2)).try_lock().is_ok_and(|value| *value == 2);
            // SAFETY: ends the child without running anything else.
            unsafe { libc::_exit(i32::from(!fresh)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(*guard, 1);
        assert!(count() > forks);
    }
}
