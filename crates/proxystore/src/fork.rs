//! State that must not be shared with a forked child.
//!
//! A child of `fork` inherits every lock in the state another thread left it, so an inherited
//! mutex may be held by nobody who still exists. [`PerProcess`] never takes one: the child gets
//! fresh state, and the inherited state is leaked rather than dropped.
#![expect(unsafe_code, reason = "registers a fork hook and owns state through a raw pointer")]

use std::fmt;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static FORKS: AtomicU64 = AtomicU64::new(0);

fn install_hooks() {
    static HOOKS: Once = Once::new();
    extern "C" fn before() {
        FORKS.fetch_add(1, Ordering::SeqCst);
    }
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    HOOKS.call_once(|| {
        // SAFETY: the hooks only bump an atomic, which is safe around a fork.
        unsafe { libc::pthread_atfork(Some(before), None, Some(in_child)) };
    });
}

/// How many forks lie between the process that loaded this library and this one.
pub fn generation() -> u64 {
    install_hooks();
    GENERATION.load(Ordering::Relaxed)
}

/// How often this process or its ancestors have begun to fork; tells whether memory that was
/// mapped at some time may since be shared with a child.
pub fn count() -> u64 {
    install_hooks();
    FORKS.load(Ordering::SeqCst)
}

/// A value of the process that made it: a forked child has none, and does not drop it either.
pub struct Inherited<T: 'static> {
    generation: u64,
    value: Option<Box<T>>,
}

impl<T> Inherited<T> {
    /// A value of this process.
    pub fn new(value: T) -> Self {
        Self { generation: generation(), value: Some(Box::new(value)) }
    }

    /// The value; `None` in a child of the process that made it.
    pub fn get(&self) -> Option<&T> {
        self.value.as_deref().filter(|_| self.generation == generation())
    }
}

impl<T> Drop for Inherited<T> {
    fn drop(&mut self) {
        if self.generation != generation()
            && let Some(value) = self.value.take()
        {
            Box::leak(value); // its locks may be held for ever, its threads are not here
        }
    }
}

impl<T> fmt::Debug for Inherited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inherited")
    }
}

/// State of this process alone; a forked child starts over from `fresh`.
pub struct PerProcess<T: 'static> {
    current: AtomicPtr<State<T>>,
    fresh: fn() -> T,
}

struct State<T> {
    generation: u64,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// State that starts as `fresh()` in every process.
    pub const fn new(fresh: fn() -> T) -> Self {
        Self { current: AtomicPtr::new(std::ptr::null_mut()), fresh }
    }

    /// This process's state.
    pub fn get(&self) -> &T {
        let generation = generation();
        loop {
            let current = self.current.load(Ordering::Acquire);
            // SAFETY: once published, a state is freed only by drop, which has exclusive access.
            if let Some(state) = unsafe { current.as_ref() }
                && state.generation == generation
            {
                return &state.value;
            }
            let fresh = Box::into_raw(Box::new(State { generation, value: (self.fresh)() }));
            let swapped =
                self.current.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire);
            if swapped.is_err() {
                // SAFETY: never published, so this is its only owner.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: exclusive access; an inherited state is leaked, its locks may be held for ever.
        if let Some(state) = unsafe { current.as_ref() }
            && state.generation == generation()
        {
            // SAFETY: made by Box::into_raw and dropped once.
            drop(unsafe { Box::from_raw(current) });
        }
    }
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerProcess")
    }
}
