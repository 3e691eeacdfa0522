//! Objects at endpoints, daemons that exchange them across sites: `endpoint:ID` or `endpoint:ID,ID`.
//!
//! - `home`: where the endpoints of this user are, and how their daemons are reached.

pub mod home;
