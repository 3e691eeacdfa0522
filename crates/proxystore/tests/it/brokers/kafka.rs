//! Brokers over librdkafka's mock cluster: it speaks the protocol, and is no Kafka.
#![expect(unsafe_code, reason = "the delay with which the mock lets groups begin has no safe name")]

use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::Broker;
use proxystore::brokers::kafka::KafkaBroker;
use proxystore::testkit::brokers::BrokerFixture;
use rdkafka::ClientConfig;
use rdkafka::bindings::{
    rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms,
};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::steps::{next, options, soon};
use crate::memory::in_forked_child;
use crate::ports::free_port;
use crate::process;

/// A cluster of one broker, in this process.
struct Cluster(BaseProducer);

impl Cluster {
    fn start() -> Self {
        let owner: BaseProducer =
            ClientConfig::new().set("test.mock.num.brokers", "1").create().unwrap();
        let native = owner.client().native_ptr();
        // SAFETY: the client and its cluster exist, and the cluster is not used yet.
        unsafe {
            rd_kafka_mock_group_initial_rebalance_delay_ms(
                rd_kafka_handle_mock_cluster(native),
                100,
            );
        }
        Self(owner)
    }

    fn mock(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.0.client().mock_cluster().unwrap()
    }

    fn broker(&self) -> KafkaBroker {
        let broker = KafkaBroker::open(&format!("kafka://{}", self.mock().bootstrap_servers()));
        // The mock has members wait that come later, for a second less than this.
        broker.unwrap().with_session_timeout(Duration::from_millis(1500))
    }
}

impl BrokerFixture for Cluster {
    fn open(&self) -> Box<dyn Broker> {
        Box::new(self.broker())
    }

    fn restart(&self, _broker: &dyn Broker) -> bool {
        self.mock().broker_down(1).unwrap();
        thread::sleep(Duration::from_millis(100));
        self.mock().broker_up(1).unwrap();
        true
    }

    /// On the client's own cluster a partition may come back to the one who fell silent, who then
    /// only gives it up when its session ends.
    fn minds_silence(&self) -> bool {
        false
    }

    fn unreachable(&self) -> Option<Box<dyn Broker>> {
        Some(Box::new(KafkaBroker::open(&format!("kafka://127.0.0.1:{}", free_port())).unwrap()))
    }
}

proxystore::broker_conformance!(conformance, Cluster::start());

#[test]
fn what_a_dropped_subscriber_held_goes_to_the_others() {
    let cluster = Cluster::start();
    let broker = cluster.broker();
    let mut some = options();
    some.prefetch = 10;
    let dropped = broker.subscriber(&["t"], &some).unwrap();
    let publisher = broker.publisher().unwrap();
    for number in 0..10 {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    assert_eq!(next(&*dropped), [0]);
    dropped.receive(soon()).unwrap().expect("one that is not acknowledged");
    drop(dropped);
    let other = broker.subscriber(&["t"], &options()).unwrap();
    let again = other.receive(soon()).unwrap().expect("what was delivered before");
    assert_eq!((&again.message[..], again.attempts), (&[1][..], 2));
    let fresh = other.receive(soon()).unwrap().expect("what was not");
    assert_eq!((&fresh.message[..], fresh.attempts), (&[2][..], 1));
    let rest: Vec<u8> = (3..10).flat_map(|_| next(&*other)).collect();
    assert_eq!(rest, (3..10).collect::<Vec<u8>>());
}

#[test]
fn who_asks_for_more_is_delivered_again_what_it_did_not_acknowledge_in_time() {
    let cluster = Cluster::start();
    let broker = cluster.broker();
    let mut brief = options();
    brief.redeliver_after = Duration::from_millis(200);
    let subscriber = broker.subscriber(&["t"], &brief).unwrap();
    let publisher = broker.publisher().unwrap();
    publisher.publish("t", b"again", soon()).unwrap();
    for attempts in 1..4 {
        let delivery = subscriber.receive(soon()).unwrap().expect("it comes again");
        assert_eq!((&delivery.message[..], delivery.attempts), (&b"again"[..], attempts));
    }
}

#[test]
fn a_message_too_large_is_refused_and_says_what_to_do() {
    let cluster = Cluster::start();
    let publisher = cluster.broker().publisher().unwrap();
    let error = publisher.publish("t", &vec![0; 1 << 20], soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.hint().unwrap().contains("store"), "{error}");
    publisher.publish("t", b"small", soon()).unwrap();
    publisher.flush(soon()).unwrap();
}

#[test]
fn nothing_is_lost_when_the_broker_goes_away_in_mid_stream() {
    const COUNT: u32 = 2000;
    let cluster = Cluster::start();
    let broker = cluster.broker();
    let mut some = options();
    some.prefetch = 16;
    let subscriber = broker.subscriber(&["numbers"], &some).unwrap();
    let publisher = broker.publisher().unwrap();
    for number in 0..COUNT {
        publisher.publish("numbers", &number.to_le_bytes(), soon()).unwrap();
        if number == COUNT / 2 {
            assert!(cluster.restart(&broker));
        }
    }
    publisher.flush(soon()).unwrap();
    let mut came = vec![false; COUNT as usize];
    while came.contains(&false) {
        let number = u32::from_le_bytes(next(&*subscriber)[..].try_into().unwrap());
        came[number as usize] = true;
    }
}

#[test]
fn what_a_group_has_done_is_asked_again_when_the_answer_is_an_error() {
    let cluster = Cluster::start();
    let broker = cluster.broker();
    let first = broker.subscriber(&["t"], &options()).unwrap();
    let publisher = broker.publisher().unwrap();
    for number in 0..4 {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    assert_eq!([next(&*first), next(&*first)], [[0], [1]]);
    drop(first);
    // Errors of single partitions; later versions of the request have one of all of them, too.
    let (api, error) = (RDKafkaApiKey::OffsetFetch, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN);
    cluster.mock().apiversion(api, Some(1), Some(1)).unwrap();
    cluster.mock().request_errors(api, &[error; 2]);
    let last = broker.subscriber(&["t"], &options()).unwrap();
    assert_eq!([next(&*last), next(&*last)], [[2], [3]]);
}

#[test]
fn a_receiver_hears_that_the_broker_is_gone_and_goes_on_when_it_is_back() {
    let cluster = Cluster::start();
    let broker = cluster.broker();
    let subscriber = broker.subscriber(&["t"], &options()).unwrap();
    let publisher = broker.publisher().unwrap();
    publisher.publish("t", b"before", soon()).unwrap();
    assert_eq!(next(&*subscriber), b"before");
    cluster.mock().broker_down(1).unwrap();
    let end = soon();
    let error = loop {
        let brief = Some(Instant::now() + Duration::from_millis(50));
        match subscriber.receive(brief) {
            Ok(delivery) => assert!(delivery.is_none() && Some(Instant::now()) < end),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "it says which: {error}");
    cluster.mock().broker_up(1).unwrap();
    publisher.publish("t", b"after", soon()).unwrap();
    assert_eq!(next(&*subscriber), b"after");
}

#[test]
fn urls_that_are_none_of_kafka_are_refused_and_show_no_password() {
    for url in ["kafka://", "kafka:host", "kafka://a,,b", "kafka://user:hush@host", "kafka://h/x"] {
        let error = KafkaBroker::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[test]
fn a_forked_child_makes_ends_of_its_own() {
    process::finish(
        process::command("brokers::kafka::role_forks_with_open_ends", "").spawn().unwrap(),
    );
}

#[test]
fn role_forks_with_open_ends() {
    if process::argument().is_none() {
        return;
    }
    let cluster = Cluster::start();
    let broker = cluster.broker();
    let publisher = broker.publisher().unwrap();
    let subscriber = broker.subscriber(&["t"], &options()).unwrap();
    publisher.publish("t", b"parent", soon()).unwrap();
    assert_eq!(next(&*subscriber), b"parent");
    let status = in_forked_child(|| {
        let inherited = publisher.publish("t", b"lost", soon()).unwrap_err();
        assert_eq!(inherited.kind(), ErrorKind::Unsupported, "{inherited}");
        assert_eq!(subscriber.receive(soon()).unwrap_err().kind(), ErrorKind::Unsupported);
        subscriber.close().unwrap(); // and takes nothing from the parent
        let own = broker.publisher().unwrap();
        own.publish("t", b"child", soon()).unwrap();
        own.close().unwrap();
    });
    assert_eq!(status, 0, "the child's wait status");
    assert_eq!(next(&*subscriber), b"child");
}
