//! The connector of the library against real daemons.

mod conformance;
mod failures;
mod patterns;
mod sharing;
mod site;

use proxystore::Key;
use proxystore::buffer::Buffer;
use proxystore::connectors::{Connector, GetOptions, PutOptions};
use proxystore::payload::Parts;

fn put(connector: &dyn Connector, bytes: &[u8]) -> Key {
    connector.put(&Parts::from(bytes), &PutOptions::default()).unwrap()
}

fn get(connector: &dyn Connector, key: &Key) -> Option<Buffer> {
    connector.get(key, &GetOptions::default()).unwrap()
}
