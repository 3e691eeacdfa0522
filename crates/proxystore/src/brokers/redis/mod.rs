//! Messages in Redis.
mod answer;
mod fault;
mod gate;
mod link;
mod list;
mod pipeline;
mod publisher;
mod pubsub;
mod scripts;
mod server;
mod socket;
mod stream;
mod subscriber;

pub use list::ListBroker;
pub use pubsub::PubSubBroker;
pub use stream::StreamBroker;
