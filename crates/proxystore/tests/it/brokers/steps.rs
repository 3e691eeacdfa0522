//! What tests of brokers with servers do again and again.

use std::time::{Duration, Instant};

use proxystore::brokers::{SubscribeOptions, Subscriber};

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
