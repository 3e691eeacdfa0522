//! Errors of a server, told in terms of messages and topics.

use redis::RedisError;

use crate::connectors::redis::fault::{self, Remedy, remedy};
use crate::connectors::redis::place::Place;
use crate::error::{Error, ErrorKind};

/// Whether the same may succeed on another connection, or in a while.
pub(super) fn is_passing(error: &RedisError, place: &Place) -> bool {
    let is_gone = matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
        || error.to_string().contains("max number of clients");
    let remedy = remedy(error, place);
    is_gone || error.is_timeout() || matches!(remedy, Remedy::Reconnect | Remedy::Wait)
}

#[cold]
pub(super) fn report(operation: &'static str, error: RedisError, place: &Place) -> Error {
    let (kind, cause, hint) = match error.code() {
        Some("OOM") => (
            ErrorKind::Full,
            "the server's memory is full".to_owned(),
            "add subscribers, publish references to objects elsewhere, or raise maxmemory",
        ),
        Some("WRONGTYPE") => (
            ErrorKind::Config,
            "the key named like the topic holds something else".to_owned(),
            "use the topic with one kind of broker (list+, stream+), or take another database; \
             DEL removes the key",
        ),
        Some("NOPERM") => (
            ErrorKind::Permission,
            error.to_string(),
            "the user needs keys and channels named like the topics, and the commands listed in \
             the documentation of brokers::redis",
        ),
        Some("MOVED" | "CROSSSLOT" | "CLUSTERDOWN") => (
            ErrorKind::Config,
            "the server is part of a cluster".to_owned(),
            "name a single server for the messages, and the cluster for a store",
        ),
        Some("READONLY") => (
            ErrorKind::Io,
            "the server is a replica, which takes no messages".to_owned(),
            "name the primary, or try again when it has taken over",
        ),
        // Not of kind `Timeout`, which is said of brokers that are full.
        None if error.is_timeout() => (
            ErrorKind::Io,
            "the server does not answer in time".to_owned(),
            "check that it is not stopped or overloaded, and the network",
        ),
        _ => return fault::report(operation, error, place, None),
    };
    Error::new(kind, operation, cause).with("channel", place).with_hint(hint).with_source(error)
}
