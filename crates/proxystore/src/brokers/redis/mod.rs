//! Messages in a Redis server: in lists, over channels, or in streams.
//!
//! | URL | who gets a message | when a subscriber dies |
//! | --- | --- | --- |
//! | `list+redis://HOST:PORT/DATABASE` | one of all subscribers | what it fetched is lost |
//! | `pubsub+redis://…` | all who listen at the time | it missed what came meanwhile |
//! | `stream+redis://…` | one of each group | others get what it did not acknowledge |
//!
//! What follows the `+` is any URL of the [connector](crate::connectors::redis), but for those of
//! clusters. User, password and certificates come from the URL, from options, or from the
//! environment, as they do there.
//!
//! # What lies on the server
//!
//! Names are those of the topics, and values the bytes of the messages, so that other programs find
//! both.
//!
//! - A list is a key named like its topic: `RPUSH` publishes, `BLPOP` and `BLMPOP` (Redis 7, with
//!   [`prefetch`](super::SubscribeOptions::prefetch)) receive. A closed subscriber puts back what it
//!   fetched and did not deliver (`LPUSH`).
//! - A channel is named like its topic: `PUBLISH` and `SUBSCRIBE`. Channels are common to all
//!   databases of a server.
//! - A stream (Redis 6.2) is a key named like its topic. An entry has one field, `m`; of the entries
//!   of other programs that have no such field, the first is the message. Groups are made by their
//!   first subscriber, and get all that is there. Every subscriber is a consumer with a random name,
//!   which goes when it is closed; what it had goes to a consumer `returned`, as idle since 1970, and
//!   is claimed at the others' next look, within a second. Of killed ones, it is claimed when it has
//!   been idle for [`redeliver_after`](super::SubscribeOptions::redeliver_after); consumers that have
//!   nothing and were silent for as long are removed.
//!
//! Entries that all groups have acknowledged are removed, some dozens at once: those below the first
//! that any group has left to do, and where there is one group, those above it too. A group that
//! nobody is subscribed to any more keeps all entries that it did not get: `XGROUP DESTROY TOPIC
//! GROUP` ends that.
//!
//! # Publishing
//!
//! Up to 128 messages, or about 1 MiB of them, are on their way before an answer is waited for. They
//! are sent again when the connection breaks, so some may be published twice. An error of the server
//! surfaces in a later `publish`, which then publishes nothing, or in `flush`.
//!
//! # Permissions
//!
//! Where users are restricted (`ACL`), these take the keys and channels named like the topics, and
//! the commands `AUTH`, `SELECT`, `CLIENT|ID`, `CLIENT|UNBLOCK`, and
//!
//! - lists: `RPUSH`, `LPUSH`, `LPOP`, `BLPOP`, `BLMPOP`, and `EVAL` for a server
//!   whose memory is full;
//! - channels: `PUBLISH`, `SUBSCRIBE`, `PING`;
//! - streams: `XADD`, `XGROUP`, `XREADGROUP`, `XACK`, `XPENDING`, `XCLAIM`, `XINFO`, `XDEL`, `XTRIM`
//!   and `EVAL`.

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
