//! Messages in lists: `list+redis://HOST:PORT/DATABASE`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::answer::Answer;
use super::link::Link;
use super::publisher::RedisPublisher;
use super::scripts::PUT_BACK;
use super::server::{Attempt, Server};
use super::socket::Limit;
use super::subscriber::{Aside, Fault, Look, RedisSubscriber, Source, Subscription};
use crate::brokers::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Tag, Traits,
};
use crate::connectors::ConnectorConfig;
use crate::error::{ErrorKind, Result};

/// So often, a server that is waited for has to say that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// So many messages are put back by one command.
const AT_ONCE: usize = 128;

/// A broker that keeps the messages of a topic in a list, of which each is taken by one subscriber.
///
/// What was taken and not received yet (see [`SubscribeOptions::prefetch`]) is put back when its
/// subscriber is closed (by a server whose memory is full, if it is Redis 7 or newer), and lost when
/// it is killed.
///
/// ```no_run
/// use proxystore::brokers::redis::ListBroker;
/// use proxystore::brokers::{Broker, SubscribeOptions};
///
/// let broker = ListBroker::open("list+redis://localhost:6379/0")?;
/// broker.publisher()?.publish("greetings", b"hello", None)?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// assert_eq!(subscriber.receive(None)?.expect("no time to be up").message, b"hello");
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ListBroker {
    server: Arc<Server>,
}

impl ListBroker {
    /// The broker of a URL `list+redis://HOST:PORT/DATABASE`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(&ConnectorConfig::new(url))
    }

    /// The same with options: `username`, `password`, `ca_file`, `cert_file`, `key_file` and
    /// `timeout` of the [connector](crate::connectors::redis::RedisConnector::open).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL or option.
    pub fn open_with(config: &ConnectorConfig) -> Result<Self> {
        Ok(Self { server: Arc::new(Server::open("list", config)?) })
    }
}

impl Broker for ListBroker {
    fn traits(&self) -> Traits {
        Traits { guarantee: Lists::GUARANTEE, sharing: Sharing::Queue, cross_process: true }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(RedisPublisher::new(
            &self.server,
            |topic, message| vec![b"RPUSH", topic, message],
            None,
        )))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(RedisSubscriber::<Lists>::new(&self.server, topics, options)?))
    }
}

#[derive(Debug, Default)]
struct Lists {
    link: Option<Link>,
    /// What was taken and not received, with its topic.
    ready: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Which topic is looked at first.
    turn: usize,
    /// The server is older than Redis 7 and gives one message at a time.
    gives_one: bool,
}

impl Source for Lists {
    type Notes = ();

    const GUARANTEE: Guarantee = Guarantee::AtMostOnce;

    fn pop(&mut self) -> Option<Delivery> {
        let (_, message) = self.ready.pop_front()?;
        Some(Delivery { message, tag: Tag::default(), attempts: 1 })
    }

    fn connect(&mut self, look: &Look<'_, Self>, limit: Limit<'_>) -> Result<(), Fault> {
        if self.link.is_none() {
            let server = &look.subscription.server;
            self.link = Some(Link::open(server, limit)?);
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        self.link = None;
    }

    fn fetch(&mut self, look: &Look<'_, Self>) -> Result<(), Fault> {
        self.connect(look, look.limit())?;
        let Some(link) = &mut self.link else { return Ok(()) };
        self.turn = self.turn.wrapping_add(1);
        let topics: Vec<&[u8]> =
            look.subscription.topics_from(self.turn).map(str::as_bytes).collect();
        let Some(wait) = look.wait(HEARTBEAT) else {
            for topic in topics {
                // Closing does not end it: what the server gave would be lost.
                let answer = link.call(&[b"LPOP", topic], Limit::at(look.until()))?.ok()?;
                if let Some(message) = answer.bytes() {
                    self.ready.push_back((topic.to_vec(), message));
                    break;
                }
            }
            return Ok(());
        };
        let seconds = format!("{:.3}", wait.as_secs_f64());
        let most = look.subscription.prefetch();
        if most > 1 && !self.gives_one {
            let (keys, most) = (topics.len().to_string(), most.to_string());
            let mut command: Vec<&[u8]> = vec![b"BLMPOP", seconds.as_bytes(), keys.as_bytes()];
            command.extend(&topics);
            command.extend([&b"LEFT"[..], b"COUNT", most.as_bytes()]);
            let mut answer = match look.answer_in(link, &command, wait)? {
                Answer::Failure(error) if error.to_string().contains("unknown command") => {
                    self.gives_one = true;
                    return Ok(());
                }
                answer => answer.ok()?.list().into_iter(),
            };
            let topic = answer.next().and_then(Answer::bytes).unwrap_or_default();
            let messages = answer.next().map(Answer::list).unwrap_or_default();
            let messages = messages.into_iter().filter_map(Answer::bytes);
            self.ready.extend(messages.map(|message| (topic.clone(), message)));
        } else {
            let mut command: Vec<&[u8]> = vec![b"BLPOP"];
            command.extend(&topics);
            command.push(seconds.as_bytes());
            let mut answer = look.answer_in(link, &command, wait)?.ok()?.list().into_iter();
            let pair = (answer.next(), answer.next());
            if let (Some(Answer::Bytes(topic)), Some(Answer::Bytes(message))) = pair {
                self.ready.push_back((topic, message));
            }
        }
        Ok(())
    }

    fn give_back(
        &mut self,
        _subscription: &Subscription,
        aside: &mut Aside<Self>,
        attempt: &mut Attempt<'_>,
    ) -> Result<()> {
        let ready = Vec::from(std::mem::take(&mut self.ready));
        let (mut lost, mut outcome) = (0, Ok(()));
        let of_one_topic: Vec<_> = ready.chunk_by(|one, next| one.0 == next.0).collect();
        for part in of_one_topic.into_iter().rev().flat_map(|run| run.rchunks(AT_ONCE)) {
            let topic: &[u8] = &part[0].0;
            let messages: Vec<_> = part.iter().rev().map(|(_, message)| &message[..]).collect();
            let mut put = |command: &[&[u8]]| {
                aside.pipeline.call(attempt, &[command, &messages].concat()).map(drop)
            };
            let put = put(&[b"LPUSH", topic]).or_else(|error| match error.kind() {
                // What it says on failure is less clear.
                ErrorKind::Full => put(&[b"EVAL", PUT_BACK, b"1", topic]).or(Err(error)),
                _ => Err(error),
            });
            if let Err(error) = put {
                lost += part.len();
                outcome = outcome.and(Err(error));
            }
        }
        outcome.map_err(|error| error.with("messages lost", lost))
    }
}
