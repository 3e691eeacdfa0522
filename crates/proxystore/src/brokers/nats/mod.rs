//! A broker over NATS JetStream.
//!
//! A topic is a JetStream stream in files, made when it is first used, with one subject; a group is
//! a durable consumer of it. The server keeps a message until all groups have acknowledged it;
//! subscribers have it removed half a second later. Topics of letters, digits, `_` and `-` are subjects and streams of
//! that name; in others, `=` and two digits stand for a byte. A stream that exists is used as it is,
//! so that who wants replicas or limits makes it beforehand; acknowledged messages are removed from
//! it if its description is `topic` and the topic's name. With the retention `interest`, servers lose
//! what they confirm while they are being stopped (seen with 2.9.10).
//!
//! - A group exists until somebody removes its consumer (`nats consumer rm`): what it does not
//!   acknowledge fills the server.
//! - [`redeliver_after`](super::SubscribeOptions::redeliver_after) is the group's: that of its
//!   newest subscriber counts for all.
//! - What a subscriber has in hand while a server is started again, or while it changes to another
//!   server of a cluster, is delivered again, acknowledged or not.
//! - When the last subscriber of a topic is killed, what it acknowledged just before stays until a
//!   subscriber of the topic acknowledges something again.
//! - Of several topics, a subscriber fetches [`prefetch`](super::SubscribeOptions::prefetch)
//!   messages each.
//! - A subscriber closed while it waits for messages may be sent one in the next five seconds, which
//!   it gives back at once.
//! - Ends belong to the process that made them: a forked child makes its own of the same broker.

mod api;
mod link;
mod names;
mod publisher;
mod pull;
mod subscriber;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{
    Broker, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Traits, check_subscription,
};
use crate::connectors::{percent, without_credentials};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use link::Link;

/// Messages at a NATS server, or a cluster of them.
///
/// ```no_run
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::brokers::{SubscribeOptions, open};
///
/// let broker = open("nats://127.0.0.1:4222")?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// let publisher = broker.publisher()?;
/// publisher.publish("greetings", b"hello", None)?;
/// publisher.flush(None)?;
/// let delivery = subscriber.receive(None)?.expect("no time to be up");
/// subscriber.acknowledge(&[delivery.tag])?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct NatsBroker {
    place: Place,
    link: PerProcess<Mutex<Weak<Link>>>,
}

/// Where the servers are, and who asks.
#[derive(Debug, Clone)]
struct Place {
    /// Each as `nats://HOST:PORT` or `tls://HOST:PORT`.
    servers: Vec<String>,
    login: Login,
}

#[derive(Clone)]
enum Login {
    Nobody,
    Token(String),
    User(String, String),
}

impl NatsBroker {
    /// The broker that `nats://[USER:PASSWORD@]HOST:PORT` names, or `tls://…` of a server whose
    /// certificate the system trusts. More servers of a cluster may follow, after commas; a user
    /// without a password is a token. User and password are percent-encoded.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL.
    pub fn open(url: &str) -> Result<Self> {
        let wrong = |cause: &'static str| {
            Error::new(ErrorKind::Config, "open a broker", cause)
                .with("url", without_credentials(url))
                .with_hint("write nats://USER:PASSWORD@HOST:PORT, with %40 for '@' in a password")
        };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !["nats", "tls"].contains(&scheme) {
            return Err(wrong("its URL is not nats://HOST:PORT"));
        }
        let (login, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        if hosts.split(',').any(|host| host.is_empty() || host.contains(['/', '?', '#'])) {
            return Err(wrong("its URL names no host"));
        }
        let text = |part: &str| percent::decode(part).and_then(|part| String::from_utf8(part).ok());
        let login = match login.split_once(':') {
            _ if login.is_empty() => Some(Login::Nobody),
            None => text(login).map(Login::Token),
            Some((user, word)) => text(user).zip(text(word)).map(|(u, w)| Login::User(u, w)),
        };
        let login = login.ok_or_else(|| wrong("user or password are not percent-encoded UTF-8"))?;
        let servers = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
        Ok(Self { place: Place { servers, login }, link: PerProcess::new(Mutex::default) })
    }

    /// What the ends of this broker in this process share, while there are any.
    fn link(&self) -> Result<Arc<Link>> {
        let mut link = self.link.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = link.upgrade() {
            return Ok(link);
        }
        let made = Arc::new(Link::new(&self.place)?);
        *link = Arc::downgrade(&made);
        Ok(made)
    }
}

impl Broker for NatsBroker {
    fn traits(&self) -> Traits {
        Traits { guarantee: Guarantee::AtLeastOnce, sharing: Sharing::Groups, cross_process: true }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(publisher::NatsPublisher::new(self.link()?)?))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        let options = check_subscription(topics, options)?;
        Ok(Box::new(subscriber::NatsSubscriber::new(self.link()?, topics, options)?))
    }
}

impl Place {
    fn shown(&self) -> String {
        self.servers.join(",")
    }

    fn error(&self, kind: ErrorKind, cause: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, "connect to a NATS server", cause).with("servers", self.shown())
    }

    fn unreachable(&self, cause: &str) -> Error {
        self.error(ErrorKind::Io, format!("it cannot be reached: {cause}"))
            .with_hint("check that it runs, and that host and port are right")
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Nobody) { "Nobody" } else { "***" })
    }
}
