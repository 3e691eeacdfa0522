#![expect(unsafe_code, reason = "forks")]

use std::net::TcpListener;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::zmq::ZmqBroker;
use proxystore::brokers::{Broker, Publisher, SubscribeOptions, Subscriber, open};
use proxystore::testkit::brokers::BrokerFixture;

use crate::ports::free_port;
use crate::process;

fn broker(port: u16) -> ZmqBroker {
    ZmqBroker::open(&format!("zmq+tcp://127.0.0.1:{port}")).unwrap()
}

struct Zmq;

impl BrokerFixture for Zmq {
    fn open(&self) -> Box<dyn Broker> {
        Box::new(broker(free_port()))
    }

    /// One whose port somebody else has.
    fn unreachable(&self) -> Option<Box<dyn Broker>> {
        let taken = Box::leak(Box::new(TcpListener::bind(("127.0.0.1", 0)).unwrap()));
        Some(Box::new(broker(taken.local_addr().unwrap().port())))
    }
}

proxystore::broker_conformance!(conformance, Zmq);

const PATIENCE: Duration = Duration::from_secs(30);

fn soon() -> Option<Instant> {
    Instant::now().checked_add(PATIENCE)
}

fn brief() -> Option<Instant> {
    Instant::now().checked_add(Duration::from_millis(50))
}

fn subscribe(broker: &ZmqBroker, topic: &str) -> Box<dyn Subscriber> {
    broker.subscriber(&[topic], &SubscribeOptions::default()).unwrap()
}

fn receive(subscriber: &dyn Subscriber) -> Vec<u8> {
    subscriber.receive(soon()).unwrap().expect("it comes in time").message
}

/// Publishes until the subscriber hears it.
fn join(publisher: &dyn Publisher, subscriber: &dyn Subscriber, topic: &str) {
    loop {
        publisher.publish(topic, b"join", soon()).unwrap();
        if subscriber.receive(brief()).unwrap().is_some() {
            break;
        }
    }
    publisher.publish(topic, b"joined", soon()).unwrap();
    while receive(subscriber) != b"joined" {}
}

/// Publishes its number for ever.
#[test]
fn publisher_process() {
    let Some(argument) = process::argument() else { return };
    let (port, number) = argument.split_once(' ').unwrap();
    let publisher = broker(port.parse().unwrap()).publisher().unwrap();
    loop {
        publisher.publish("numbers", number.as_bytes(), soon()).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
}

fn start_publisher(port: u16, number: u32) -> Child {
    process::command("brokers::zmq::publisher_process", &format!("{port} {number}"))
        .spawn()
        .unwrap()
}

#[test]
fn a_publisher_that_is_started_again_is_heard_again() {
    let port = free_port();
    let subscriber = subscribe(&broker(port), "numbers"); // before there is any
    for number in 0..3_u32 {
        let mut child = start_publisher(port, number);
        while receive(&*subscriber) != number.to_string().as_bytes() {}
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn publishers_of_a_process_share_their_port() {
    let broker = broker(free_port());
    let subscriber = subscribe(&broker, "t");
    let (one, two) = (broker.publisher().unwrap(), broker.publisher().unwrap());
    join(&*one, &*subscriber, "t");
    two.publish("t", b"two", soon()).unwrap();
    assert_eq!(receive(&*subscriber), b"two");
    one.close().unwrap();
    two.publish("t", b"still", soon()).unwrap();
    assert_eq!(receive(&*subscriber), b"still");
    two.close().unwrap();
    // The port is free, and the connection is made again.
    let three = broker.publisher().unwrap();
    join(&*three, &*subscriber, "t");
}

#[test]
fn a_publisher_waits_for_a_subscriber_that_is_behind() {
    let broker = broker(free_port());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "t"));
    join(&*publisher, &*subscriber, "t");
    let mut message = vec![0; 1 << 20];
    let mut count = 0_u32;
    let refused = loop {
        message[..4].copy_from_slice(&count.to_le_bytes());
        match publisher.publish("t", &message, brief()) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Timeout, "{refused}");
    assert_eq!(publisher.flush(brief()).unwrap_err().kind(), ErrorKind::Timeout);
    publisher.publish("other", b"", brief()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| publisher.publish("t", b"last", None));
        for number in 0..count {
            let message = receive(&*subscriber);
            assert!(message.len() == 1 << 20 && message.starts_with(&number.to_le_bytes()));
        }
        waiting.join().unwrap().unwrap();
        assert_eq!(receive(&*subscriber), b"last");
    });
    publisher.flush(soon()).unwrap();
    // Who is gone holds nobody back.
    while publisher.publish("t", &message, brief()).is_ok() {}
    subscriber.close().unwrap();
    publisher.publish("t", &message, soon()).unwrap();
}

#[test]
fn close_waits_until_all_is_sent() {
    let broker = broker(free_port());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "t"));
    join(&*publisher, &*subscriber, "t");
    for number in 0..500_u32 {
        publisher.publish("t", &number.to_le_bytes().repeat(1000), soon()).unwrap();
    }
    publisher.close().unwrap();
    for number in 0..500_u32 {
        assert!(receive(&*subscriber) == number.to_le_bytes().repeat(1000), "message {number}");
    }
}

#[test]
fn forked_children_connect_anew() {
    let port = free_port().to_string();
    process::finish(process::command("brokers::zmq::forking_process", &port).spawn().unwrap());
}

#[test]
fn forking_process() {
    let Some(port) = process::argument() else { return };
    let broker = broker(port.parse().unwrap());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "t"));
    join(&*publisher, &*subscriber, "t");
    // SAFETY: the child uses the library, allocates, and leaves without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let heard = subscriber.receive(soon()).is_ok_and(|delivery| delivery.is_some());
        // The port is the parent's.
        let refused = publisher.publish("t", b"", soon()).is_err_and(|e| e.kind() == ErrorKind::Io);
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!(heard && refused))) };
    }
    let mut status = 0;
    // SAFETY: looks for a child made above.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        publisher.publish("t", b"for both", soon()).unwrap();
        assert_eq!(receive(&*subscriber), b"for both");
    }
    assert_eq!(status, 0, "the child heard its parent");
}

#[test]
fn a_taken_port_is_an_error_that_says_so() {
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let error = broker(other.local_addr().unwrap().port()).publisher().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("one process publishes at an address"), "{error}");
}

#[test]
fn urls_name_addresses() {
    for url in ["zmq+tcp://localhost:5555", "zmq+tcp://*:1", "zmq+tcp://[::1]:5555"] {
        open(url).unwrap();
    }
    for url in [
        "zmq+tcp://",
        "zmq+tcp://localhost",
        "zmq+tcp://:5555",
        "zmq+tcp://a:0",
        "zmq+tcp://a:70000",
        "zmq+tcp://a:1/b",
    ] {
        assert_eq!(open(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
}

#[test]
fn more_topics_than_publishers_take_are_refused() {
    let topics = vec!["t"; 1001];
    let refused = broker(free_port()).subscriber(&topics, &SubscribeOptions::default());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
}
