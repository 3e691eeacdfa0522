//! Patterns on top of proxies: futures, ownership, leases, lifetimes, streams.

mod future;
mod lease;
mod lifetime;
mod ownership;
mod schedule;
pub mod stream;

pub use future::{Future, FutureOptions};
pub use lease::Lease;
pub use lifetime::process as process_lifetime;
pub use lifetime::{ContextLifetime, LeaseLifetime, Lifetime, ProcessLifetime};
pub use ownership::{LentProxy, OwnedProxy, RefMutProxy, RefProxy};
