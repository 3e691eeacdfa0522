//! placeholder
pub mod buffer;
pub mod codec;
pub mod connectors;
pub mod error;
pub mod key;
pub mod payload;
pub use error::{Error, ErrorKind, Result};
pub use key::Key;
pub use connectors::Capabilities;
#[cfg(feature = "testkit")]
pub mod testkit;
