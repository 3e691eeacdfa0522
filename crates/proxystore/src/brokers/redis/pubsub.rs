//! Messages over channels: `pubsub+redis://HOST:PORT/DATABASE`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisResult;

use super::answer::Answer;
use super::link::{Link, packed, too_late};
use super::publisher::RedisPublisher;
use super::server::Server;
use super::socket::Limit;
use super::subscriber::{Fault, Look, RedisSubscriber, Source};
use crate::brokers::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Tag, Traits,
};
use crate::connectors::ConnectorConfig;
use crate::error::Result;

/// After so long a silence, the server is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A broker that hands the messages of a topic to all who listen at the time, and keeps none.
///
/// What is published while a subscriber's connection is broken passes it by. Servers disconnect
/// subscribers that are much too slow (`client-output-buffer-limit pubsub`).
///
/// ```no_run
/// use proxystore::brokers::redis::PubSubBroker;
/// use proxystore::brokers::{Broker, SubscribeOptions};
///
/// let broker = PubSubBroker::open("pubsub+redis://localhost:6379/0")?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// broker.publisher()?.publish("greetings", b"hello", None)?;
/// assert_eq!(subscriber.receive(None)?.expect("no time to be up").message, b"hello");
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PubSubBroker {
    server: Arc<Server>,
}

impl PubSubBroker {
    /// The broker of a URL `pubsub+redis://HOST:PORT/DATABASE`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(&ConnectorConfig::new(url))
    }

    /// The same with options: those of [`ListBroker::open_with`](super::ListBroker::open_with).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL or option.
    pub fn open_with(config: &ConnectorConfig) -> Result<Self> {
        Ok(Self { server: Arc::new(Server::open("pubsub", config)?) })
    }
}

impl Broker for PubSubBroker {
    fn traits(&self) -> Traits {
        let sharing = Sharing::Broadcast;
        Traits { guarantee: Channels::GUARANTEE, sharing, cross_process: true }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(RedisPublisher::new(
            &self.server,
            |topic, message| vec![b"PUBLISH", topic, message],
            None,
        )))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(RedisSubscriber::<Channels>::new(&self.server, topics, options)?))
    }
}

#[derive(Debug, Default)]
struct Channels {
    link: Option<Link>,
    ready: VecDeque<Vec<u8>>,
    /// A silence had the server asked, which did not answer yet.
    has_asked: bool,
}

impl Channels {
    /// Takes what the server pushes: the kind, the channel, and what it is about.
    fn take(&mut self, answer: Answer) -> RedisResult<()> {
        let mut parts = answer.ok()?.list().into_iter().map(Answer::bytes);
        let (kind, _, message) = (parts.next(), parts.next(), parts.next());
        if let (Some(Some(kind)), Some(Some(message))) = (kind, message)
            && kind == b"message"
        {
            self.ready.push_back(message);
        }
        Ok(())
    }
}

impl Source for Channels {
    type Notes = ();

    const GUARANTEE: Guarantee = Guarantee::AtMostOnce;

    fn pop(&mut self) -> Option<Delivery> {
        let message = self.ready.pop_front()?;
        Some(Delivery { message, tag: Tag::default(), attempts: 1 })
    }

    fn connect(&mut self, look: &Look<'_, Self>, limit: Limit<'_>) -> Result<(), Fault> {
        if self.link.is_some() {
            return Ok(());
        }
        let mut link = Link::open(&look.subscription.server, limit)?;
        let topics: Vec<&[u8]> = look.subscription.topics_from(0).map(str::as_bytes).collect();
        link.send(&packed(&[&[&b"SUBSCRIBE"[..]], &*topics].concat()), limit)?;
        let mut confirmed = 0;
        while confirmed < topics.len() {
            let answer = link.receive(limit)?.ok_or_else(too_late)?;
            // A message of a topic that was confirmed may come between.
            let before = self.ready.len();
            self.take(answer)?;
            confirmed += usize::from(self.ready.len() == before);
        }
        self.link = Some(link);
        Ok(())
    }

    fn disconnect(&mut self) {
        self.link = None;
        self.has_asked = false;
    }

    fn fetch(&mut self, look: &Look<'_, Self>) -> Result<(), Fault> {
        self.connect(look, look.limit())?;
        let Some(link) = &mut self.link else { return Ok(()) };
        let patience =
            if self.has_asked { look.subscription.server.settings.timeout } else { HEARTBEAT };
        let wait = look.wait(patience).unwrap_or_default();
        match link.receive(look.limit_at(Instant::now() + wait))? {
            Some(answer) => {
                self.has_asked = false;
                self.take(answer)?;
            }
            None if wait < patience || look.waker.is_woken() => {}
            None if self.has_asked => return Err(too_late().into()),
            None => {
                self.has_asked = true;
                link.send(&packed(&[b"PING"]), look.limit())?;
            }
        }
        Ok(())
    }
}
