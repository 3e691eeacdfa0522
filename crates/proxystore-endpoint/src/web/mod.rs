//! Metrics, health and a page that shows what the endpoint does, over HTTP. The relay shows itself in the same way.
//!
//! There is no password, so it listens where only this host comes, unless told otherwise; and it answers
//! only who asks by a name of this host, so that pages of others in a browser here learn nothing.

mod answers;
mod exposition;
mod guard;
mod listen;
pub mod metrics;

pub(crate) use answers::BASE_CSS;
pub use answers::site;
pub(crate) use exposition::Exposition;
pub(crate) use guard::{CSS, HTML, METRICS, SCRIPT, TEXT, file, typed};
pub use listen::Web;
