//! A broker over Kafka, by librdkafka.
//!
//! A topic is a Kafka topic, which the brokers make when it is first used (their setting
//! `auto.create.topics.enable`) or somebody made before. Messages of one publisher go to one
//! partition, so that they stay in order; several publishers may go to several. Subscribers of a
//! group divide the partitions among themselves: one that comes is given some, and one that is
//! closed, dies or falls silent leaves its own to the others.
//!
//! Where Kafka differs from other brokers:
//!
//! - It keeps messages for as long as the topic's retention says, acknowledged or not. A group that
//!   is new begins with the oldest that is kept.
//! - It hands over partitions, not messages. A subscriber that did not acknowledge a message
//!   [in time](super::SubscribeOptions::redeliver_after) and does not ask for another leaves the
//!   group until it does, so that others get all that it holds; one that asks is delivered the
//!   message again itself. What belongs to a killed subscriber goes to others after Kafka's
//!   [session timeout](KafkaBroker::with_session_timeout).
//! - What is acknowledged out of order is told in the text that Kafka keeps with a group's offset.
//!   Other programs of the same group go by the offset alone, and get some of that again. After a
//!   kill, the last few hundredths of a second of it are lost, and with them the count of attempts.
//! - Names of letters, digits, `.`, `_` and `-` stay as they are, unless they begin with `__`, as
//!   those of Kafka's own do; other topics begin with `x--`. Of two topics that differ in `.` and
//!   `_` alone, Kafka refuses the second.
//! - `flush` waits until nothing is under way, also of what other threads publish meanwhile: give it a deadline
//!   where they never stop.
//! - Connections are neither encrypted nor authenticated.
//! - Ends belong to the process that made them: a forked child makes its own of the same broker.
//!
//! It is tested against the mock cluster that librdkafka has for its own tests: a process that
//! speaks Kafka's protocol over TCP, but is no Kafka.

mod feeder;
mod names;
mod progress;
mod publisher;
mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{
    Broker, Guarantee, PATIENCE, Publisher, Sharing, SubscribeOptions, Subscriber, Traits,
    check_subscription,
};
use crate::connectors::without_credentials;
use crate::error::{Error, ErrorKind, Result};

/// The session timeout, at least and at most.
const SESSION: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(45));
/// Threads look this often whether their end was closed.
const SLICE: Duration = Duration::from_millis(50);

/// Messages at a Kafka cluster.
///
/// ```no_run
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::brokers::{SubscribeOptions, open};
///
/// let broker = open("kafka://127.0.0.1:9092")?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// let publisher = broker.publisher()?;
/// publisher.publish("greetings", b"hello", None)?;
/// publisher.flush(None)?;
/// let delivery = subscriber.receive(None)?.expect("no time to be up");
/// subscriber.acknowledge(&[delivery.tag])?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct KafkaBroker {
    servers: Arc<str>,
    session: Option<Duration>,
}

impl KafkaBroker {
    /// The broker that `kafka://HOST:PORT` names; more servers of the cluster may follow, after
    /// commas.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL.
    pub fn open(url: &str) -> Result<Self> {
        let wrong = |cause: &'static str| {
            Error::new(ErrorKind::Config, "open a broker", cause)
                .with("url", without_credentials(url))
                .with_hint("write kafka://HOST:PORT, or more of these after commas")
        };
        let servers = url.strip_prefix("kafka://");
        let servers = servers.ok_or_else(|| wrong("its URL is not kafka://HOST:PORT"))?;
        if servers.contains('@') {
            return Err(wrong("users and passwords are not supported with Kafka"));
        }
        let servers = servers.strip_suffix('/').unwrap_or(servers);
        if servers.split(',').any(|host| host.is_empty() || host.contains(['/', '?', '#', ' '])) {
            return Err(wrong("its URL names no host"));
        }
        Ok(Self { servers: servers.into(), session: None })
    }

    /// How long a subscriber may be silent, because it was killed or cut off, before its partitions
    /// go to others. Otherwise that is [`SubscribeOptions::redeliver_after`], but 6 seconds at least,
    /// as brokers take no less unless they are told to, and 45 seconds at most.
    #[must_use]
    pub fn with_session_timeout(self, session: Duration) -> Self {
        Self { session: Some(session), ..self }
    }
}

impl Broker for KafkaBroker {
    fn traits(&self) -> Traits {
        Traits { guarantee: Guarantee::AtLeastOnce, sharing: Sharing::Groups, cross_process: true }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(publisher::KafkaPublisher::new(&self.servers)?))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        let options = check_subscription(topics, options)?;
        let session =
            self.session.unwrap_or_else(|| options.redeliver_after.clamp(SESSION.0, SESSION.1));
        Ok(Box::new(subscriber::KafkaSubscriber::new(&self.servers, session, topics, options)?))
    }
}

/// The settings of all clients.
fn settings(servers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", servers)
        .set("client.id", "proxystore")
        .set("allow.auto.create.topics", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.fast.interval.ms", "50");
    settings
}

/// An error of librdkafka.
fn error(operation: &'static str, servers: &str, error: &KafkaError) -> Error {
    use RDKafkaErrorCode as Code;
    let (kind, hint) = match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => {
            (ErrorKind::Config, "lower the size from which objects go to the store instead")
        }
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
            (ErrorKind::Permission, "have the cluster's operator allow it")
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
            (ErrorKind::Config, "create the topic, or set auto.create.topics.enable at the brokers")
        }
        Some(Code::InvalidTopic) => (ErrorKind::Config, "use another name for the topic"),
        _ => (ErrorKind::Io, "check that the brokers run, and that host and port are right"),
    };
    Error::new(kind, operation, error.to_string()).with("servers", servers).with_hint(hint)
}

fn unreachable(operation: &'static str, servers: &str, cause: &str) -> Error {
    Error::new(ErrorKind::Io, operation, format!("no broker can be reached: {cause}"))
        .with("servers", servers)
        .with_hint("check that they run, and that host and port are right")
}
