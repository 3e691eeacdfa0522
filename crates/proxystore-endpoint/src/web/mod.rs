//! Metrics, health and a page that shows what the endpoint does, over HTTP.
//!
//! There is no password, so it listens where only this host comes, unless told otherwise; and it answers
//! only who asks by a name of this host, so that pages of others in a browser here learn nothing.

mod answers;
mod listen;
pub mod metrics;

pub use answers::Site;
pub use listen::Web;
