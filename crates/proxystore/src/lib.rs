//! Transparent object proxies that act as wide-area references, resolved just in time.
//!
//! A program that makes an object and a program that uses it are rarely in one process. Sending
//! the object through whatever sends the *task* (a queue, a scheduler, a cloud service) is slow and
//! often limited to a few megabytes. Here the object goes into a *channel*, and what travels is a
//! **proxy**: a reference of some hundred bytes that behaves like the object and fetches it
//! straight from the channel when it is first used.
//!
//! ```
//! # fn main() -> proxystore::Result<()> {
//! use proxystore::{Proxy, Store};
//!
//! // Here: any channel; "shm://run7" or "file:///scratch/run7" reach other processes.
//! let store = Store::open("memory://run7")?;
//! let proxy = store.proxy(vec![0.5; 1_000_000])?;
//! let message = rmp_serde::to_vec(&proxy).expect("a reference");
//! assert!(message.len() < 250); // not 8 MB
//!
//! // There: whoever gets the message uses the object as if it were local.
//! let received: Proxy<Vec<f64>> = rmp_serde::from_slice(&message).expect("a reference");
//! assert_eq!(received.iter().sum::<f64>(), 500_000.0);
//! # Ok(()) }
//! ```
//!
//! # The words
//!
//! - [`Store`]: a named pair of connector and codecs; puts objects in, hands out keys and proxies.
//! - [`Proxy`]: the lazy stand-in; dereferences to the target, fetched once for all threads.
//! - [`Reference`]: what a proxy becomes on the wire.
//! - [`Future`](patterns::Future): a key handed out before its object exists; its proxies wait.
//! - [`OwnedProxy`](patterns::OwnedProxy): the one reference responsible for freeing an object; it is
//!   borrowed, and lent to tasks. A [`Lifetime`](patterns::Lifetime) frees many at once.
//! - [`Connector`]: moves bytes to and from one kind of channel, under a written
//!   [contract](connectors).
//! - [`StreamProducer`](patterns::stream::StreamProducer) and
//!   [`StreamConsumer`](patterns::stream::StreamConsumer): the ends of a stream, whose events go by a
//!   [broker](brokers) and whose objects by a store.
//! - [`View`]: an object of which only the parts are read that are used.
//! - [`codec`]: how an object becomes a payload: raw bytes, text, MessagePack, arrays,
//!   tables.
//! - [`Error`]: one type that says what was attempted, what went wrong and what to do.
//!
//! # Channels
//!
//! | URL | where the bytes are | reached from |
//! | --- | --- | --- |
//! | `memory://NAME` | this process | this process |
//! | `file:///DIR` | files in a directory | wherever the directory is mounted |
//! | `shm://NAME` | shared memory, mapped and not copied | this host |
//! | `redis://HOST:PORT/DATABASE` | a Redis server or cluster (feature `redis`) | whoever reaches it |
//! | `endpoint:ID,ID` | daemons of sites that exchange objects (feature `endpoint`) | whoever reaches one of them |
//! | `multi:NAME=URL;NAME=URL` | several channels, chosen by [policies](connectors::multi) | as they are |
//!
//! # Features
//!
//! - `async`: consumers of streams as `futures_core::Stream`.
//! - `arrow`: tables and record batches of the `arrow` crates as objects.
//! - `ndarray`: `ndarray` arrays as objects.
//! - `redis`: objects in Redis.
//! - `endpoint`: objects at endpoints.
//! - `kafka`: streams over Kafka.
//! - `nats`: streams over NATS JetStream.
//! - `zmq`: streams over ZeroMQ.
//! - `seal`: sealed objects and signed references.
//! - `compress`: compressed objects.
//! - `testkit`: the conformance suite that every connector must pass.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("proxystore needs 64-bit Linux: it maps large objects and waits by inotify");

pub mod brokers;
pub mod buffer;
pub mod codec;
mod condition;
pub mod connectors;
pub mod error;
pub mod facts;
mod fields;
pub mod fork;
pub mod key;
pub mod patterns;
pub mod payload;
pub mod proxy;
pub mod reference;
pub mod seal;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod trust;
pub mod view;
#[cfg(feature = "endpoint")]
pub mod wire;

pub use buffer::Buffer;
pub use connectors::{Access, Capabilities, Connector, ConnectorConfig};
pub use error::{Error, ErrorKind, Result};
pub use facts::Facts;
pub use key::Key;
pub use proxy::{Factory, Locked, Proxy};
pub use reference::Reference;
pub use seal::Seal;
pub use store::{Store, StoreConfig};
pub use view::View;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/futures.md")]
#[doc = include_str!("../../../docs/guide/ownership.md")]
#[doc = include_str!("../../../docs/languages.md")]
#[doc = include_str!("../../../docs/guide/views.md")]
struct Guide;
