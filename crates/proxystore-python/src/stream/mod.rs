//! Streams: brokers, the typeless ends of streams, and the format of messages.
//!
//! What moves, stores, waits for and frees bytes is here or below; filters, aggregation, batches and
//! iteration are in `proxystore_rs.stream`.

mod brokers;
mod events;
mod foreign;
mod inbox;
mod metadata;
mod outbox;
mod patience;

pub(crate) use brokers::{Broker, BrokerPublisher, BrokerSubscriber};
pub(crate) use events::{message_from_bytes, message_to_bytes};
pub(crate) use inbox::{StreamArrival, StreamInbox};
pub(crate) use outbox::{StreamOutbox, stored_size};
