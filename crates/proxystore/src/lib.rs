//! placeholder
pub mod buffer;
pub mod codec;
pub mod connectors;
pub mod error;
pub mod fork;
pub mod key;
pub mod payload;
pub mod proxy;
pub mod reference;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub use buffer::Buffer;
pub use connectors::{Access, Capabilities, Connector, ConnectorConfig};
pub use error::{Error, ErrorKind, Result};
pub use key::Key;
pub use proxy::{Factory, Locked, Proxy};
pub use reference::Reference;
pub use store::{Store, StoreConfig};
