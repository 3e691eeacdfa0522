//! The lifetime of the process.
#![expect(unsafe_code, reason = "registers a handler with atexit")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::{ContextLifetime, Lifetime};
use crate::error::Result;
use crate::key::Key;
use crate::store::Store;

static PROCESS: ProcessLifetime = ProcessLifetime(ContextLifetime::new());

/// The lifetime that ends with the process: when `main` returns, or by `std::process::exit`.
///
/// Nothing runs when a process aborts or is killed; use a [`LeaseLifetime`](super::LeaseLifetime)
/// against that. Objects put by a forked child are evicted when that child ends.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::Store;
/// use proxystore::patterns::process_lifetime;
/// let store = Store::open("memory://process-example")?;
/// let model = store.proxy_in(process_lifetime(), vec![0.5; 1000])?;
/// # Ok(()) }
/// ```
pub fn process() -> &'static ProcessLifetime {
    // What is to be freed by whoever holds `main` needs no more than a `ContextLifetime` there.
    // This one is for libraries that do not know `main`, and for programs that call `exit`.
    static REGISTERED: Once = Once::new();
    extern "C" fn end() {
        let _ = catch_unwind(AssertUnwindSafe(|| PROCESS.close())); // nobody is there to be told
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler does not unwind, and what it reaches from here are statics, which Rust
        // never drops. If it cannot be registered, objects stay until their channel is cleared.
        let _ = unsafe { libc::atexit(end) };
    });
    &PROCESS
}

/// See [`process`].
#[derive(Debug)]
pub struct ProcessLifetime(ContextLifetime);

impl Lifetime for ProcessLifetime {
    fn add_key(&self, store: &Store, key: Key) -> Result<()> {
        self.0.add_key(store, key)
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}
