//! Patterns on top of proxies: futures, ownership, leases.

mod future;
mod lease;
mod ownership;
mod schedule;

pub use future::{Future, FutureOptions};
pub use lease::Lease;
pub use ownership::{LentProxy, OwnedProxy, RefMutProxy, RefProxy};
pub use schedule::{Scheduled, at};
