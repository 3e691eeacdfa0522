//! The brokers on Redis servers of their own.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::redis::{ListBroker, PubSubBroker, StreamBroker};
use proxystore::brokers::{
    Broker, Delivery, Publisher, SubscribeOptions, Subscriber, Traits, open,
};
use proxystore::connectors::{ConnectorConfig, Value};
use proxystore::testkit::brokers::BrokerFixture;
use redis::cmd;

use super::steps::{PATIENCE, next, soon};
use crate::servers::{Kind, Redis, needs_redis};

mod full;

const KINDS: [&str; 3] = ["list", "pubsub", "stream"];

/// Brokers of a kind on one server.
struct Server {
    kind: &'static str,
    redis: Mutex<Redis>,
    prefetch: usize,
}

impl Server {
    fn new(kind: &'static str) -> Self {
        Self { kind, redis: Mutex::new(Redis::start(Kind::default())), prefetch: 1 }
    }

    fn with_prefetch(self, prefetch: usize) -> Self {
        Self { prefetch, ..self }
    }

    fn url(&self) -> String {
        let redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{}+{}", self.kind, redis.url())
    }
}

/// A broker whose subscribers all fetch so many messages ahead.
#[derive(Debug)]
struct Prefetching {
    inner: Box<dyn Broker>,
    prefetch: usize,
}

impl Broker for Prefetching {
    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn publisher(&self) -> proxystore::Result<Box<dyn Publisher>> {
        self.inner.publisher()
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> proxystore::Result<Box<dyn Subscriber>> {
        let mut options = options.clone();
        options.prefetch = self.prefetch;
        self.inner.subscriber(topics, &options)
    }
}

impl BrokerFixture for Server {
    fn open(&self) -> Box<dyn Broker> {
        let inner = configured(self.kind, &ConnectorConfig::new(self.url()));
        match self.prefetch {
            1 => inner,
            prefetch => Box::new(Prefetching { inner, prefetch }),
        }
    }

    fn restart(&self, _: &dyn Broker) -> bool {
        let mut redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        redis.kill();
        redis.restart()
    }

    fn unreachable(&self) -> Option<Box<dyn Broker>> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner).kill();
        Some(self.open())
    }
}

macro_rules! conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;

            fn fixture() -> impl BrokerFixture {
                $fixture
            }

            proxystore::__with_broker_lines!(tests);
        }
    };
}

macro_rules! tests {
    ($($name:ident,)*) => {$(
        #[test]
        fn $name() {
            needs_redis!();
            proxystore::testkit::brokers::$name(&fixture());
        }
    )*};
}

conformance!(list, Server::new("list"));
conformance!(pubsub, Server::new("pubsub"));
conformance!(stream, Server::new("stream"));

/// The lines that messages which were fetched ahead could break.
mod stream_with_prefetch {
    use super::*;

    fn fixture() -> impl BrokerFixture {
        Server::new("stream").with_prefetch(10)
    }

    tests! {
        messages_arrive_in_order,
        what_was_not_acknowledged_comes_again_after_close,
        what_was_not_acknowledged_comes_again_in_time,
        what_others_dealt_with_is_not_delivered_late,
        all_calls_may_come_from_many_threads_at_once,
        a_closed_end_refuses_every_call,
        a_broker_that_comes_back_is_used_again,
    }
}

fn configured(kind: &str, config: &ConnectorConfig) -> Box<dyn Broker> {
    match kind {
        "list" => Box::new(ListBroker::open_with(config).unwrap()),
        "pubsub" => Box::new(PubSubBroker::open_with(config).unwrap()),
        _ => Box::new(StreamBroker::open_with(config).unwrap()),
    }
}

/// A broker of a kind on a server.
fn broker(kind: &str, server: &Redis) -> Box<dyn Broker> {
    let mut config = server.config();
    config.url = format!("{kind}+{}", config.url);
    configured(kind, &config)
}

fn brief() -> Option<Instant> {
    Instant::now().checked_add(Duration::from_millis(100))
}

fn options(redeliver_after: Duration, prefetch: usize) -> SubscribeOptions {
    let mut options = SubscribeOptions::default();
    (options.redeliver_after, options.prefetch) = (redeliver_after, prefetch);
    options
}

fn receive(subscriber: &dyn Subscriber) -> Delivery {
    subscriber.receive(soon()).unwrap().expect("a message comes in time")
}

#[test]
fn servers_are_reached_by_all_kinds_of_connections() {
    needs_redis!();
    let kind = Kind { tls: true, password: Some("a secret"), ..Kind::default() };
    let (closed, plain) = (Redis::start(kind), Redis::start(Kind::default()));
    for kind in KINDS {
        let socket = format!("{kind}+redis+unix://{}?db=1", plain.socket().display());
        for broker in [broker(kind, &closed), configured(kind, &ConnectorConfig::new(socket))] {
            let subscriber = broker.subscriber(&["t"], &SubscribeOptions::default()).unwrap();
            let publisher = broker.publisher().unwrap();
            let large = vec![7; 3_000_000];
            publisher.publish("t", &large, soon()).unwrap();
            assert!(receive(&*subscriber).message == large);
            subscriber.close().unwrap();
            publisher.close().unwrap();
        }
        let unknown = configured(kind, &ConnectorConfig::new(format!("{kind}+{}", closed.url())));
        let error = unknown.publisher().unwrap().publish("t", b"", soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        let error = unknown.subscriber(&[], &SubscribeOptions::default()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

#[test]
fn urls_name_brokers_of_redis() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    for kind in KINDS {
        let broker = open(&format!("{kind}+{}", server.url())).unwrap();
        // As long as it gets.
        let mut config = ConnectorConfig::new(format!("{kind}+{}", server.url()));
        config.options.insert("timeout".to_owned(), Value::Float(1e18));
        let patient = configured(kind, &config);
        let subscriber = patient.subscriber(&["t"], &options(Duration::MAX, usize::MAX)).unwrap();
        assert_eq!(subscriber.receive(brief()).unwrap(), None);
        assert_eq!(broker.traits(), self::broker(kind, &server).traits());
        for wrong in ["redis", "redis+cluster://a:1,b:2", "redis://:hush@a:1/x", "http://hush"] {
            let error = open(&format!("{kind}+{wrong}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    needs_redis!();
    let kind = Kind { password: Some("right"), ..Kind::default() };
    let server = Redis::start(kind);
    for kind in KINDS {
        let url = server.url().replace("redis://", &format!("{kind}+redis://:wrongword@"));
        for url in [url, format!("{kind}+{}", server.url())] {
            let broker = open(&url).unwrap();
            let publisher = broker.publisher().unwrap();
            for error in [
                broker.subscriber(&["t"], &SubscribeOptions::default()).map(drop).unwrap_err(),
                publisher.publish("t", b"", soon()).unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
                let shown = format!("{error} {error:?} {broker:?} {publisher:?}");
                assert!(!shown.contains("wrongword"), "{shown}");
            }
        }
    }
}

#[test]
fn other_programs_find_the_messages() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let mut other = server.connect();
    let list = broker("list", &server);
    let publisher = list.publisher().unwrap();
    publisher.publish("a topic", b"one", soon()).unwrap();
    publisher.flush(soon()).unwrap();
    let (_, message): (String, String) =
        cmd("BLPOP").arg("a topic").arg(1).query(&mut other).unwrap();
    assert_eq!(message, "one");
    cmd("RPUSH").arg("a topic").arg("two").exec(&mut other).unwrap();
    let subscriber = list.subscriber(&["a topic"], &SubscribeOptions::default()).unwrap();
    assert_eq!(receive(&*subscriber).message, b"two");

    let channel = broker("pubsub", &server);
    let subscriber = channel.subscriber(&["a topic"], &SubscribeOptions::default()).unwrap();
    let heard: u32 = cmd("PUBLISH").arg("a topic").arg("three").query(&mut other).unwrap();
    assert_eq!(heard, 1);
    assert_eq!(receive(&*subscriber).message, b"three");

    let stream = broker("stream", &server);
    cmd("XADD").arg("s").arg("*").arg("field").arg("four").exec(&mut other).unwrap();
    let subscriber = stream.subscriber(&["s"], &SubscribeOptions::default()).unwrap();
    assert_eq!(receive(&*subscriber).message, b"four");
}

#[test]
fn a_key_of_another_type_is_told() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    cmd("SET").arg("t").arg("text").exec(&mut server.connect()).unwrap();
    for kind in ["list", "stream"] {
        let broker = broker(kind, &server);
        let publisher = broker.publisher().unwrap();
        let published = publisher.publish("t", b"message", soon());
        let published = published.and_then(|()| publisher.flush(soon()));
        let received = broker.subscriber(&["t"], &SubscribeOptions::default());
        let received = received.and_then(|subscriber| subscriber.receive(soon()));
        for error in [published.unwrap_err(), received.map(drop).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            assert!(error.to_string().contains("something else"), "{error}");
            assert!(error.to_string().contains("redis://127.0.0.1"), "{error}");
        }
    }
}

#[test]
fn a_closed_subscriber_puts_back_what_it_fetched_from_a_list() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("list", &server);
    let publisher = broker.publisher().unwrap();
    for number in 0..10_u8 {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    let subscriber = broker.subscriber(&["t"], &options(PATIENCE, 8)).unwrap();
    for number in 0..3_u8 {
        assert_eq!(receive(&*subscriber).message, [number]);
    }
    let length = || cmd("LLEN").arg("t").query::<usize>(&mut server.connect()).unwrap();
    assert_eq!(length(), 2, "it has fetched eight");
    subscriber.close().unwrap();
    let subscriber = broker.subscriber(&["t"], &options(PATIENCE, 1)).unwrap();
    for number in 3..10_u8 {
        assert_eq!(receive(&*subscriber).message, [number]);
    }
}

#[test]
fn a_wait_that_is_over_takes_no_message() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    for kind in ["list", "stream"] {
        let broker = broker(kind, &server);
        let publisher = broker.publisher().unwrap();
        let first = broker.subscriber(&["t"], &options(PATIENCE, 1)).unwrap();
        let second = broker.subscriber(&["t"], &options(PATIENCE, 1)).unwrap();
        for round in 0..20_u8 {
            let until = Instant::now() + Duration::from_millis(3);
            assert_eq!(first.receive(Some(until)).unwrap(), None);
            publisher.publish("t", &[round], soon()).unwrap();
            let delivery = receive(&*second);
            assert_eq!(delivery.message, [round]);
            second.acknowledge(&[delivery.tag]).unwrap();
        }
        for end in [first, second] {
            end.close().unwrap();
        }
        cmd("DEL").arg("t").exec(&mut server.connect()).unwrap();
    }
}

#[test]
fn what_a_killed_consumer_had_comes_again_and_it_is_forgotten() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let publisher = broker.publisher().unwrap();
    let brief_options = options(Duration::from_millis(300), 4);
    let subscriber = broker.subscriber(&["t"], &brief_options).unwrap();
    for number in 0..10_u8 {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg(&brief_options.group).arg("killed").arg("COUNT").arg(6);
    read.arg("STREAMS").arg("t").arg(">").exec(&mut server.connect()).unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 10 {
        let delivery = receive(&*subscriber);
        assert_eq!(delivery.attempts >= 2, delivery.message[0] < 6, "{delivery:?}");
        seen.insert(delivery.message[0]);
        subscriber.acknowledge(&[delivery.tag]).unwrap();
    }
    let consumers = || {
        let mut info = cmd("XINFO");
        let info = info.arg("CONSUMERS").arg("t").arg(&brief_options.group);
        info.query::<Vec<redis::Value>>(&mut server.connect()).unwrap().len()
    };
    let end = Instant::now() + PATIENCE;
    while consumers() > 1 {
        assert!(Instant::now() < end, "the dead consumer is removed");
        assert_eq!(subscriber.receive(brief()).unwrap(), None);
    }
    subscriber.close().unwrap();
    assert_eq!(consumers(), 0);
}

#[test]
fn an_answer_that_is_lost_with_its_connection_is_asked_for_again() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let publisher = broker.publisher().unwrap();
    let options = options(PATIENCE, 1);
    let subscriber = broker.subscriber(&["t"], &options).unwrap();
    for message in [b"first", b"other"] {
        publisher.publish("t", message, soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    let first = receive(&*subscriber);
    let mut connection = server.connect();
    let mut info = cmd("XINFO");
    let info = info.arg("CONSUMERS").arg("t").arg(&options.group);
    let consumers: Vec<std::collections::BTreeMap<String, redis::Value>> =
        info.query(&mut connection).unwrap();
    let name: String = redis::from_redis_value(consumers[0]["name"].clone()).unwrap();
    // What the server hands out in its name does not arrive.
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg(&options.group).arg(name).arg("STREAMS").arg("t").arg(">");
    read.exec(&mut connection).unwrap();
    let mut kill = cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
    kill.exec(&mut connection).unwrap();
    let other = receive(&*subscriber);
    assert_eq!((&other.message[..], other.attempts), (&b"other"[..], 2));
    subscriber.acknowledge(&[first.tag, other.tag]).unwrap();
    assert_eq!(subscriber.receive(brief()).unwrap(), None);
}

#[test]
fn a_stream_does_not_grow() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let publisher = broker.publisher().unwrap();
    let length = || cmd("XLEN").arg("t").query::<usize>(&mut server.connect()).unwrap();
    let subscribe = |group: &str| {
        let mut options = options(PATIENCE, 16);
        group.clone_into(&mut options.group);
        broker.subscriber(&["t"], &options).unwrap()
    };
    let exchange = |count: u32, subscribers: &[&dyn Subscriber]| {
        for number in 0..count {
            publisher.publish("t", &number.to_le_bytes(), soon()).unwrap();
        }
        for subscriber in subscribers {
            for _ in 0..count {
                subscriber.acknowledge(&[receive(*subscriber).tag]).unwrap();
            }
        }
    };
    let first = subscribe("a");
    // One message stays unacknowledged, and keeps no other.
    publisher.publish("t", b"slow", soon()).unwrap();
    let slow = receive(&*first);
    exchange(500, &[&*first]);
    assert!(length() <= 65, "{} entries are left", length());
    let second = subscribe("b");
    while second.receive(brief()).unwrap().map(|other| second.acknowledge(&[other.tag])).is_some() {
    }
    first.acknowledge(&[slow.tag]).unwrap();
    exchange(500, &[&*first, &*second]);
    assert!(length() <= 65, "{} entries are left", length());
    first.close().unwrap();
    second.close().unwrap();
    assert_eq!(length(), 0);
}

#[test]
fn a_group_that_was_removed_takes_nothing_from_others() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let publisher = broker.publisher().unwrap();
    let [removed, other] = ["a", "b"].map(|group| {
        let mut options = options(PATIENCE, 1);
        group.clone_into(&mut options.group);
        broker.subscriber(&["t"], &options).unwrap()
    });
    for number in 0..10_u8 {
        publisher.publish("t", &[number], soon()).unwrap();
        removed.acknowledge(&[receive(&*removed).tag]).unwrap();
    }
    cmd("XGROUP").arg("DESTROY").arg("t").arg("a").exec(&mut server.connect()).unwrap();
    removed.close().unwrap();
    for number in 0..10_u8 {
        assert_eq!(receive(&*other).message, [number]);
    }
}

#[test]
fn what_is_given_back_comes_again_in_order_however_patient_subscribers_are() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let subscribe = || broker.subscriber(&["t"], &options(Duration::MAX, 2)).unwrap();
    let first = subscribe();
    for id in ["1000-10", "1001-1"] {
        let mut add = cmd("XADD");
        add.arg("t").arg(id).arg("m").arg(id).exec(&mut server.connect()).unwrap();
    }
    assert_eq!(receive(&*first).message, b"1000-10");
    first.close().unwrap();
    let second = subscribe();
    for id in ["1000-10", "1001-1"] {
        let delivery = receive(&*second);
        assert_eq!((&delivery.message[..], delivery.attempts), (id.as_bytes(), 2));
    }
}

#[test]
fn nothing_is_lost_when_a_server_that_persists_restarts() {
    const COUNT: u32 = 3000;
    needs_redis!();
    let arguments = &["--appendonly", "yes", "--appendfsync", "always"];
    let mut server = Redis::start(Kind { arguments, ..Kind::default() });
    let broker = broker("stream", &server);
    let publisher = broker.publisher().unwrap();
    let subscribers: Vec<_> =
        (0..2).map(|_| broker.subscriber(&["t"], &options(PATIENCE, 8)).unwrap()).collect();
    let seen = Mutex::new(BTreeSet::new());
    let count = || seen.lock().unwrap().len();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                publisher.publish("t", &number.to_le_bytes(), soon()).unwrap();
            }
            publisher.flush(soon()).unwrap();
        });
        for subscriber in &subscribers {
            let (seen, count) = (&seen, &count);
            scope.spawn(move || {
                let end = Instant::now() + PATIENCE;
                while count() < COUNT as usize && Instant::now() < end {
                    let until = Instant::now() + Duration::from_millis(50);
                    match subscriber.receive(Some(until)) {
                        Ok(Some(delivery)) => {
                            let number = delivery.message[..].try_into().unwrap();
                            seen.lock().unwrap().insert(u32::from_le_bytes(number));
                            subscriber.acknowledge(&[delivery.tag]).unwrap();
                        }
                        Ok(None) => {}
                        Err(error) => assert!(error.kind().is_retryable(), "{error}"),
                    }
                }
            });
        }
        for part in [4, 2] {
            let end = Instant::now() + PATIENCE;
            while count() < (COUNT / part) as usize && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            server.kill();
            assert!(server.restart());
        }
    });
    assert_eq!(count(), COUNT as usize, "all messages came");
}

#[test]
fn a_publisher_that_waits_for_a_silent_server_is_ended_by_close() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let publisher = broker("list", &server).publisher().unwrap();
    publisher.publish("t", b"first", soon()).unwrap();
    publisher.flush(soon()).unwrap();
    server.freeze();
    let error = publisher.publish("t", b"", brief()).and_then(|()| publisher.flush(brief()));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            loop {
                // At some time, no more messages may be under way.
                publisher.publish("t", b"more", None)?;
            }
        });
        thread::sleep(Duration::from_millis(100));
        let closing = scope.spawn(|| publisher.close());
        let ended: proxystore::Result<()> = waiting.join().unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
        server.thaw();
        closing.join().unwrap().unwrap();
    });
}

#[test]
fn a_server_with_too_many_clients_is_tried_again() {
    needs_redis!();
    let arguments = &["--maxclients", "1"];
    let server = Redis::start(Kind { arguments, password: Some("secret"), ..Kind::default() });
    let url = format!("list+redis://:secret@127.0.0.1:{}", server.port);
    let broker = ListBroker::open(&url).unwrap();
    let only = broker.subscriber(&["t"], &SubscribeOptions::default()).unwrap();
    let publisher = broker.publisher().unwrap();
    let error = publisher.publish("t", b"", brief()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("max number of clients"), "{error}");
    drop(only);
    publisher.publish("t", b"", soon()).unwrap();
    publisher.flush(soon()).unwrap();
}

#[test]
fn a_silent_server_does_not_hold_up_who_receives() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let broker = broker("stream", &server);
    let subscriber = broker.subscriber(&["t"], &SubscribeOptions::default()).unwrap();
    server.freeze();
    match subscriber.receive(brief()) {
        Ok(delivery) => assert_eq!(delivery, None),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
    }
    server.thaw();
    broker.publisher().unwrap().publish("t", b"awake", soon()).unwrap();
    assert_eq!(next(&*subscriber), b"awake");
}
