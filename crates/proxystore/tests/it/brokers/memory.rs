use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::memory::MemoryBroker;
use proxystore::brokers::{Broker, SubscribeOptions, open};
use proxystore::key::unique_id;
use proxystore::testkit::brokers::BrokerFixture;

struct Memory;

impl BrokerFixture for Memory {
    fn open(&self) -> Box<dyn Broker> {
        Box::new(MemoryBroker::new(&unique_id().unwrap()))
    }
}

proxystore::broker_conformance!(conformance, Memory);

#[test]
fn a_full_topic_makes_its_publishers_wait() {
    let broker = MemoryBroker::bounded(2);
    let publisher = broker.publisher().unwrap();
    let subscriber = broker.subscriber(&["t"], &SubscribeOptions::default()).unwrap();
    let soon = || Some(Instant::now() + Duration::from_millis(50));
    for message in [b"1", b"2"] {
        publisher.publish("t", message, soon()).unwrap();
    }
    assert_eq!(publisher.publish("t", b"3", soon()).unwrap_err().kind(), ErrorKind::Timeout);
    let delivery = subscriber.receive(None).unwrap().unwrap();
    // What is dealt with at the moment still counts.
    assert_eq!(publisher.publish("t", b"3", soon()).unwrap_err().kind(), ErrorKind::Timeout);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| publisher.publish("t", b"3", None));
        subscriber.acknowledge(&[delivery.tag]).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_busy_topic_hides_no_other() {
    let broker = MemoryBroker::bounded(0);
    let publisher = broker.publisher().unwrap();
    let subscriber = broker.subscriber(&["busy", "quiet"], &SubscribeOptions::default()).unwrap();
    publisher.publish("quiet", b"quiet", None).unwrap();
    let mut messages = std::iter::repeat_with(|| {
        publisher.publish("busy", b"busy", None).unwrap();
        subscriber.receive(None).unwrap().unwrap().message
    });
    assert!(messages.by_ref().take(10).any(|message| message == b"quiet"));
}

#[test]
fn urls_name_brokers() {
    let (one, same) = (open("memory://urls").unwrap(), open("memory://urls").unwrap());
    let subscriber = one.subscriber(&["t"], &SubscribeOptions::default()).unwrap();
    same.publisher().unwrap().publish("t", b"here", None).unwrap();
    assert_eq!(subscriber.receive(None).unwrap().unwrap().message, b"here");
    for url in ["memory://", "memory", "pigeon://loft"] {
        assert_eq!(open(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
}
