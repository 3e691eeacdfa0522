//! What tests of brokers with servers do again and again.

use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::{Broker, SubscribeOptions, Subscriber};

/// Longer than anything takes, on a busy machine too.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn soon() -> Option<Instant> {
    Instant::now().checked_add(PATIENCE)
}

/// Nothing is delivered again because time passed.
pub(super) fn options() -> SubscribeOptions {
    let mut options = SubscribeOptions::default();
    options.redeliver_after = PATIENCE * 10;
    options
}

/// The next message, acknowledged.
pub(super) fn next(subscriber: &dyn Subscriber) -> Vec<u8> {
    let delivery = subscriber.receive(soon()).unwrap().expect("a message comes");
    subscriber.acknowledge(&[delivery.tag]).unwrap();
    delivery.message
}

/// Subscriptions that make no sense are refused, and those that ask for too much get what there is.
pub(super) fn check_subscriptions(broker: &dyn Broker) {
    let mut nameless = options();
    nameless.group.clear();
    for (topics, options) in [(&[][..], options()), (&["t"], nameless)] {
        let error = broker.subscriber(topics, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let mut greedy = options();
    (greedy.prefetch, greedy.redeliver_after) = (usize::MAX, Duration::MAX);
    let subscriber = broker.subscriber(&["t"], &greedy).unwrap();
    broker.publisher().unwrap().publish("t", b"once", soon()).unwrap();
    assert_eq!(next(&*subscriber), b"once");
}
