//! Streams: objects through a store, and events of them through a broker.
//!
//! A [`StreamProducer`] puts objects into a store and publishes an event of each, or of a batch, by
//! a [broker](crate::brokers); a [`StreamConsumer`] gets proxies of the objects, with what the
//! producer says of them. Whoever only decides what becomes of an object never touches its bytes.
//! Small objects travel inside their events. What travels is specified in `docs/protocol-stream.md`.

#[cfg(feature = "async")]
mod asynchronous;
mod builder;
mod claim;
mod consumer;
mod event;
mod flusher;
mod inbox;
mod metrics;
mod outbox;
mod producer;
mod topic;
mod window;

#[cfg(feature = "async")]
pub use asynchronous::ItemStream;
pub use builder::{Batch, SendOptions, StreamProducerBuilder};
pub use claim::Claim;
pub use consumer::{Item, Items, Next, StreamConsumer};
pub use event::{Body, Event, Message, Metadata};
pub use inbox::{Arrival, Inbox, Receipt};
pub use metrics::StreamMetrics;
pub use outbox::{Outbox, OutboxOptions};
pub use producer::StreamProducer;
pub use window::{Bound, WhenFull};
