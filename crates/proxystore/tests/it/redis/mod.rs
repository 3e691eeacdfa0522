//! The Redis connector on servers of every kind.

mod cluster;
mod conformance;
mod credentials;
mod failures;
mod objects;
mod waiting;

use proxystore::buffer::Buffer;
use proxystore::connectors::redis::RedisConnector;
use proxystore::connectors::{Connector, ConnectorConfig, GetOptions, PutOptions, Value};
use proxystore::payload::Parts;
use proxystore::{Error, Key, Result};

use crate::servers::Redis;

fn open(server: &Redis, options: &[(&str, Value)]) -> RedisConnector {
    RedisConnector::open(&configured(server, options)).unwrap()
}

fn configured(server: &Redis, options: &[(&str, Value)]) -> ConnectorConfig {
    let mut config = server.config();
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    config.options.extend(options);
    config
}

/// Options that put objects of a hundred bytes in parts of ten.
fn small_parts() -> [(&'static str, Value); 2] {
    [("whole_bytes", Value::Int(50)), ("part_bytes", Value::Int(10))]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn try_put(connector: &RedisConnector, bytes: &[u8]) -> Result<Key> {
    connector.put(&Parts::from(bytes), &PutOptions::default())
}

fn put(connector: &RedisConnector, bytes: &[u8]) -> Key {
    try_put(connector, bytes).unwrap()
}

fn fill(connector: &RedisConnector, key: &Key, bytes: &[u8]) -> Key {
    let options = PutOptions { key: Some(key.clone()), ..PutOptions::default() };
    connector.put(&Parts::from(bytes), &options).unwrap()
}

fn get(connector: &RedisConnector, key: &Key) -> Option<Buffer> {
    connector.get(key, &GetOptions::default()).unwrap()
}

fn shown(error: &Error) -> String {
    format!("{error} {error:?}")
}

/// All keys of the server.
fn keys(server: &Redis) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query(&mut server.connect()).unwrap()
}
