//! The commands of the Python original, with its verbs and options: `proxystore-endpoint`, `proxystore-relay`.
//! What has no meaning here is accepted, with a line that says so.

mod endpoint;
mod relay;

pub(crate) use endpoint::run as endpoint;
pub(crate) use relay::run as relay;

use std::fmt::Display;

use crate::output;

/// Says that an option changes nothing.
fn without_meaning(option: &str, why: impl Display) {
    output::note(format!("note: {option} has no effect: {why}"));
}
