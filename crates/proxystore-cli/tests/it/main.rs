//! The commands as people run them, against real daemons.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod endpoint;
mod home;
mod invitations;
mod sites;
mod words;
