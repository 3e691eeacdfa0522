//! What a server or connection answers instead of a result: whether to try again, and as which
//! error to report it.

use std::sync::Arc;

use redis::{ErrorKind as Kind, RedisError, Value};

use super::place::{Node, Place};
use crate::error::{Error, ErrorKind};

/// What to do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Another server has the slot: that one, if it is named.
    Move(Option<Node>),
    /// Another server has this key already, while the slot moves.
    AskOnce(Node),
    /// The connection is of no use any more.
    Reconnect,
    /// The server is busy with itself: loading, failing over.
    Wait,
    /// Trying again would not help.
    GiveUp,
}

/// What to do about an error at a place.
pub(crate) fn remedy(error: &RedisError, place: &Place) -> Remedy {
    if error.is_timeout() || error.kind() == Kind::AuthenticationFailed {
        return Remedy::GiveUp;
    }
    match error.code() {
        Some("MOVED") if place.is_cluster => Remedy::Move(named_in(error)),
        Some("ASK") if place.is_cluster => {
            named_in(error).map_or(Remedy::Move(None), Remedy::AskOnce)
        }
        Some("CLUSTERDOWN") if !place.is_cluster => Remedy::GiveUp,
        Some("LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "BUSY") => Remedy::Wait,
        // A replica that was the primary: the name may lead to the new one by now.
        Some("READONLY") => Remedy::Reconnect,
        None if error.is_io_error() && !is_tls(error) => Remedy::Reconnect,
        _ => Remedy::GiveUp,
    }
}

/// The server that an error sends the client to.
fn named_in(error: &RedisError) -> Option<Node> {
    error.redirect_node().and_then(|(node, _)| Node::parse(node))
}

/// The first error among answers, those of transactions included.
pub(super) fn first_error(answers: &[Value]) -> Option<RedisError> {
    answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(error.clone().into()),
        Value::Array(answers) => first_error(answers),
        _ => None,
    })
}

/// The error to report; `node` is where it came from.
#[cold]
pub(crate) fn report(
    operation: &'static str,
    error: RedisError,
    place: &Place,
    node: Option<&Node>,
) -> Error {
    let text = error.to_string();
    let is_refused = error.kind() == Kind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
        || text.contains("Authentication required");
    let (kind, cause, hint) = match error.code() {
        _ if is_refused => (
            ErrorKind::Permission,
            "the server refuses user and password, or wants them".to_owned(),
            "give the options username and password, or set PROXYSTORE_REDIS_USERNAME and \
             PROXYSTORE_REDIS_PASSWORD; where PROXYSTORE_REDIS_HOSTS is set, it must name the server",
        ),
        _ if text.contains("switch database") => (
            ErrorKind::Config,
            "the server has no such database".to_owned(),
            "take one of those it has, by default 0 to 15",
        ),
        Some("NOPERM") => (
            ErrorKind::Permission,
            text,
            "the user needs the keys and channels proxystore:* and the commands listed in \
             docs/protocol-redis.md",
        ),
        Some("OOM") => (
            ErrorKind::Full,
            "the server's memory is full".to_owned(),
            "evict objects, give them a time to live, or raise maxmemory",
        ),
        Some("WRONGTYPE") => (
            ErrorKind::Corrupt,
            "the key holds something that is no object".to_owned(),
            "keep other programs from writing to keys that start with proxystore:",
        ),
        Some("MOVED" | "CROSSSLOT" | "CLUSTERDOWN") if !place.is_cluster => (
            ErrorKind::Config,
            "the server is part of a cluster".to_owned(),
            "write the URL as redis+cluster://HOST:PORT,HOST:PORT",
        ),
        Some("LOADING") => (
            ErrorKind::Io,
            "the server is still loading its data".to_owned(),
            "try again in a while",
        ),
        Some("READONLY") => (
            ErrorKind::Io,
            "the server is a replica, which takes no objects".to_owned(),
            "name the primary, or try again when it has taken over",
        ),
        Some(_) => (ErrorKind::Io, text, "look at the server's log"),
        None if error.is_timeout() => (
            ErrorKind::Timeout,
            "the server does not answer in time".to_owned(),
            "check that it is not stopped or overloaded, and the network; the option timeout \
             says how long to wait",
        ),
        None if is_tls(&error) => (
            ErrorKind::Permission,
            format!("no trusted connection can be made: {text}"),
            "give the server's certificate authority as ca_file, or set \
             PROXYSTORE_REDIS_CA_FILE; the certificate must name the host of the URL",
        ),
        None if error.is_io_error() => (
            ErrorKind::Io,
            format!("the server cannot be reached: {text}"),
            "start one (redis-server --port PORT), or check host, port, firewall, and whether it \
             wants TLS (rediss://)",
        ),
        None => (ErrorKind::Io, text, "check that this is a Redis server"),
    };
    let mut report = Error::new(kind, operation, cause).with("channel", place);
    if let Some(node) = node.filter(|_| place.is_cluster) {
        report = report.with("server", node);
    }
    report.with_hint(hint).with_source(error)
}

/// Whether the two sides do not agree on TLS.
fn is_tls(error: &RedisError) -> bool {
    // An error of the system is shared, and its own source what the TLS library said.
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>())
        .and_then(|shared| shared.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some()
}
