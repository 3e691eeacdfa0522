//! A broker without a server: ZeroMQ's publish and subscribe.
//!
//! `zmq+tcp://HOST:PORT` is where publishers bind and subscribers connect. Publishers of one process share
//! the port; there can be one such process at a time. Messages have two frames, topic and message, as those of the
//! Python library `proxystore`; programs that use ZeroMQ itself can be either end.
//!
//! - Everyone who is subscribed to a topic gets what is published to it. What is published before a subscriber has
//!   connected, which takes a moment even where all is there, is not for it. Groups are not looked at.
//! - Topics are compared as a whole, although ZeroMQ compares their beginnings: subscribers leave aside what is for
//!   longer topics.
//! - The high-water marks: a publisher keeps up to 1000 messages or 64 MiB for each subscriber, and a subscriber as
//!   many that were not received yet, besides what sockets hold. When one that is subscribed has fallen so far
//!   behind, `publish` waits for it, where ZeroMQ would drop messages; when the time is up, nobody gets the message.
//!   Programs of ZeroMQ that subscribe are waited for in the same way.
//! - So messages are lost with connections alone: what is under way when one breaks, or either end is killed, and what is
//!   published until it is made again. Subscribers try that for ever, 20 times a second. A host that vanishes without a
//!   word is noticed after about a minute by subscribers; by publishers that have something for it, when the system gives
//!   up, after some 15 minutes.
//! - `flush` returns when the system has all that was published before, `close` after a few seconds at most.
//! - In a forked child, a subscriber connects anew. A publisher cannot bind the port its parent has: its calls are errors,
//!   until the parent has closed its own. When a publisher is killed, its port stays taken as long as children live that it
//!   forked; when a subscriber is, publishers wait for it, as for one that fell behind, as long as such children live.
//! - A publisher takes 1024 connections of up to 1000 topics each. Whoever comes then is disconnected, and tries again.
//! - Whoever reaches the port can read what is published. There is no encryption: seal the objects, or use networks that
//!   are trusted.

mod publisher;
mod subscriber;
mod wire;

#[cfg(feature = "testkit")]
pub(crate) use wire::fuzz;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use self::publisher::Bound;
use self::subscriber::Inbox;
use super::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Tag, Traits,
    check_subscription, check_topic, closed, full, is_past,
};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

const PUBLISH: &str = "publish a message";
const SUBSCRIBE: &str = "subscribe to topics";

/// How many messages wait for each subscriber, and as many with it.
const CAPACITY: usize = 1000;
/// How many bytes, or one message more.
const CAPACITY_BYTES: usize = 64 << 20;
/// The largest message.
const LARGEST: usize = 1 << 30;

/// To how many topics one may subscribe.
const MOST_WANTED: usize = 1000;

/// How long `close` waits for what was published.
const LINGER: Duration = Duration::from_secs(5);
/// How long the other end of a connection may take for its next word when it is to say one.
const SILENCE: Duration = Duration::from_secs(10);

/// ZeroMQ's publish and subscribe over TCP.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use std::time::{Duration, Instant};
///
/// use proxystore::brokers::zmq::ZmqBroker;
/// use proxystore::brokers::{Broker, SubscribeOptions};
///
/// # let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
/// # let url = format!("zmq+tcp://127.0.0.1:{port}");
/// let broker = ZmqBroker::open(&url)?; // such as zmq+tcp://node7:5555
/// let publisher = broker.publisher()?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// // Who has just subscribed may miss what is published first.
/// let delivery = loop {
///     publisher.publish("greetings", b"hello", None)?;
///     let soon = Instant::now() + Duration::from_millis(50);
///     if let Some(delivery) = subscriber.receive(Some(soon))? {
///         break delivery;
///     }
/// };
/// assert_eq!(delivery.message, b"hello");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ZmqBroker {
    address: Address,
}

/// Where publishers bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// A name or an address without brackets.
    fn host(&self) -> &str {
        match self.host.as_str() {
            "*" => "0.0.0.0",
            host => host,
        }
    }
}

impl ZmqBroker {
    /// The broker that `zmq+tcp://HOST:PORT` names; as a host, `*` binds all addresses of a machine.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another URL.
    pub fn open(url: &str) -> Result<Self> {
        let address = url.strip_prefix("zmq+tcp://").and_then(|rest| {
            let (host, port) = rest.rsplit_once(':')?;
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let host = bracketed.unwrap_or(host);
            let is_host = !host.is_empty() && !host.contains(['/', '@', '[', ']', '?']);
            let port = port.parse().ok().filter(|port| *port != 0 && is_host)?;
            Some(Address { host: host.to_owned(), port })
        });
        let address = address.ok_or_else(|| {
            let url = crate::connectors::without_credentials(url);
            Error::new(ErrorKind::Config, "open a broker", "its URL is not zmq+tcp://HOST:PORT")
                .with("url", url)
        })?;
        Ok(Self { address })
    }

    /// Begins to connect, and receives whatever is published, to any topic.
    ///
    /// # Errors
    /// As [`subscriber`](Broker::subscriber).
    pub fn subscriber_of_all(&self) -> Result<Box<dyn Subscriber>> {
        self.listen(vec![String::new()], &SubscribeOptions::default())
    }

    fn listen(
        &self,
        topics: Vec<String>,
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        let end = ReceivingEnd {
            broker: self.clone(),
            topics,
            group: options.group.clone(),
            is_closed: AtomicBool::new(false),
            inbox: fresh(),
        };
        end.inbox()?;
        Ok(Box::new(end))
    }

    fn failed(&self, operation: &'static str, error: std::io::Error) -> Error {
        let (host, port) = (&self.address.host, self.address.port);
        let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let error = Error::io(operation, error).with("address", format_args!("{host}:{port}"));
        if is_taken {
            error.with_hint(
                "one process publishes at an address: take another port, or end the other one",
            )
        } else {
            error
        }
    }
}

impl Broker for ZmqBroker {
    fn traits(&self) -> Traits {
        Traits {
            guarantee: Guarantee::AtMostOnce,
            sharing: Sharing::Broadcast,
            cross_process: true,
        }
    }

    /// Binds the port.
    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        let broker = self.clone();
        let end = PublishingEnd { broker, is_closed: AtomicBool::new(false), bound: fresh() };
        end.bound()?;
        Ok(Box::new(end))
    }

    /// Begins to connect; there may be no publisher yet. More than 1000 topics are refused.
    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        let options = &check_subscription(topics, options)?;
        if topics.len() > MOST_WANTED {
            return Err(Error::new(
                ErrorKind::Config,
                SUBSCRIBE,
                "there are more than 1000 topics",
            )
            .with_hint("take several subscribers, or one of all topics"));
        }
        self.listen(topics.iter().map(|topic| (*topic).to_owned()).collect(), options)
    }
}

/// What a process has of an end; a forked child starts over.
type Attached<T> = PerProcess<Mutex<Option<Arc<T>>>>;

fn fresh<T: Send + Sync>() -> Attached<T> {
    PerProcess::new(|| Mutex::new(None))
}

fn lock<T>(attached: &Attached<T>) -> MutexGuard<'_, Option<Arc<T>>>
where
    T: Send + Sync,
{
    attached.get().lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct PublishingEnd {
    broker: ZmqBroker,
    is_closed: AtomicBool,
    bound: Attached<Bound>,
}

impl PublishingEnd {
    fn bound(&self) -> Result<Arc<Bound>> {
        let mut place = lock(&self.bound);
        // Looked at under the lock, or else a call could bind again after `close`.
        self.check_open(PUBLISH)?;
        if let Some(bound) = &*place {
            return Ok(Arc::clone(bound));
        }
        let bound = Bound::get(&self.broker.address);
        let bound = bound.map_err(|error| self.broker.failed("publish at an address", error))?;
        *place = Some(Arc::clone(&bound));
        Ok(bound)
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.is_closed.load(Ordering::SeqCst) { Err(closed(operation)) } else { Ok(()) }
    }

    fn release(&self) {
        let mut place = lock(&self.bound);
        let Some(bound) = place.take() else {
            self.is_closed.store(true, Ordering::SeqCst);
            return;
        };
        let mut state = bound.lock(); // under which it is looked at, or a waiter could miss it
        self.is_closed.store(true, Ordering::SeqCst);
        drop(place);
        bound.room.notify_all();
        let end = Instant::now() + LINGER;
        let under_way = state.under_way();
        while !state.is_written(&under_way) && Instant::now() < end {
            state = bound.room.wait(state, Some(end));
        }
    }
}

impl Publisher for PublishingEnd {
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        check_topic(topic)?;
        let bound = self.bound()?;
        if message.len() > LARGEST {
            return Err(Error::new(ErrorKind::Config, PUBLISH, "the message is larger than 1 GiB")
                .with("topic", topic)
                .with_hint("store the object and publish its key"));
        }
        let frames = Arc::from(wire::message(topic, message));
        let mut state = bound.lock();
        loop {
            self.check_open(PUBLISH)?;
            if state.has_room(topic) {
                bound.push(&mut state, topic, &frames);
                return Ok(());
            }
            if is_past(deadline) {
                return Err(full(topic, "a subscriber has as many messages as are kept for it"));
            }
            state = bound.room.wait(state, deadline);
        }
    }

    fn flush(&self, deadline: Option<Instant>) -> Result<()> {
        const FLUSH: &str = "flush a publisher";
        self.check_open(FLUSH)?;
        let bound = self.bound()?;
        let mut state = bound.lock();
        let under_way = state.under_way();
        while !state.is_written(&under_way) {
            if is_past(deadline) {
                let cause = "a subscriber does not take what is published";
                return Err(Error::new(ErrorKind::Timeout, FLUSH, cause)
                    .with_hint("wait longer, or end subscribers that have stopped"));
            }
            state = bound.room.wait(state, deadline);
            self.check_open(FLUSH)?;
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.release();
        Ok(())
    }
}

impl Drop for PublishingEnd {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Debug)]
struct ReceivingEnd {
    broker: ZmqBroker,
    topics: Vec<String>,
    group: String,
    is_closed: AtomicBool,
    inbox: Attached<Inbox>,
}

impl ReceivingEnd {
    fn inbox(&self) -> Result<Arc<Inbox>> {
        let mut place = lock(&self.inbox);
        self.check_open(SUBSCRIBE)?;
        if let Some(inbox) = &*place {
            return Ok(Arc::clone(inbox));
        }
        let inbox = Inbox::open(&self.broker.address, &self.topics);
        let inbox = inbox.map_err(|error| self.broker.failed(SUBSCRIBE, error))?;
        *place = Some(Arc::clone(&inbox));
        Ok(inbox)
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.is_closed.load(Ordering::SeqCst) { Err(closed(operation)) } else { Ok(()) }
    }

    fn release(&self) {
        let mut place = lock(&self.inbox);
        self.is_closed.store(true, Ordering::SeqCst);
        let inbox = place.take();
        drop(place);
        inbox.inspect(|inbox| inbox.close());
    }
}

impl Subscriber for ReceivingEnd {
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        const RECEIVE: &str = "receive a message";
        self.check_open(RECEIVE)?;
        let message = self.inbox()?.next(deadline);
        if message.is_none() {
            self.check_open(RECEIVE)?;
        }
        Ok(message.map(|message| Delivery { message, tag: Tag::default(), attempts: 1 }))
    }

    fn acknowledge(&self, _tags: &[Tag]) -> Result<()> {
        self.check_open("acknowledge a message")
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn close(&self) -> Result<()> {
        self.release();
        Ok(())
    }
}

impl Drop for ReceivingEnd {
    fn drop(&mut self) {
        self.release();
    }
}

/// Small messages go at once, a silent greeting ends, and so do connections to hosts that are gone.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}
