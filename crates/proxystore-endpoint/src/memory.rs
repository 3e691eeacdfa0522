//! Memory that objects have left goes back to the system, for others on the host to use.
//!
//! The C library keeps what was freed for later, in the middle of what it has: after a gigabyte of objects was evicted,
//! most of it would stay with the daemon.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "calls the C library"))]

use std::time::Duration;

use tokio::time::sleep;

use crate::storage::Storage;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(10);
/// How much more than after the last time has to be there for nothing, bytes.
const WORTH: u64 = 32 << 20;

/// Looks after it for ever.
pub(crate) async fn give_back(storage: &Storage) {
    let unused = || own_memory().saturating_sub(storage.usage().memory);
    let mut before = 0;
    loop {
        sleep(EVERY).await;
        if unused() < before + WORTH {
            continue;
        }
        let _ = tokio::task::spawn_blocking(trim).await; // it does not panic
        before = unused();
    }
}

/// Bytes in memory that are neither shared nor of files.
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
