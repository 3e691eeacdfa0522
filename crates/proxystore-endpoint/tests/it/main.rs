//! The daemon as a whole, in one test binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod hostile;
mod peers;
mod sites;
mod transfers;
