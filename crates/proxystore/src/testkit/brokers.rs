//! The broker contract as tests, one per numbered line of [`brokers`](crate::brokers).
//!
//! A [`BrokerFixture`] opens a broker; [`broker_conformance!`](crate::broker_conformance) makes a
//! `#[test]` of every line. The lines panic when they are broken.

#![expect(clippy::missing_panics_doc, reason = "a panic is the verdict that a line is broken")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::steps::{PATIENCE, pattern};
use crate::brokers::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber,
};
use crate::error::ErrorKind;

/// Opens the broker under test.
pub trait BrokerFixture: Send + Sync {
    /// A broker; topics of other tests may be on it.
    fn open(&self) -> Box<dyn Broker>;

    /// The largest message that the tests try.
    fn largest(&self) -> usize {
        1_000_000
    }

    /// Stops what `broker` talks to and starts it again, as it was; false where that cannot be done.
    fn restart(&self, broker: &dyn Broker) -> bool {
        let _ = broker;
        false
    }

    /// Whether the tests may count on it that what a silent subscriber has comes again in time, and
    /// that its attempts are counted.
    fn minds_silence(&self) -> bool {
        true
    }

    /// A broker of the kind that nothing answers for; `None` where that cannot be.
    fn unreachable(&self) -> Option<Box<dyn Broker>> {
        None
    }
}

/// Long enough for what comes, had it been sent.
const A_WHILE: Duration = Duration::from_millis(150);

fn unique(name: &str) -> String {
    format!("{name}-{}", crate::key::unique_id().expect("random bytes"))
}

fn within(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

fn soon() -> Option<Instant> {
    within(PATIENCE)
}

fn at_most_once(broker: &dyn Broker) -> bool {
    broker.traits().guarantee == Guarantee::AtMostOnce
}

fn options() -> SubscribeOptions {
    SubscribeOptions { redeliver_after: PATIENCE, ..SubscribeOptions::default() }
}

fn receive(subscriber: &dyn Subscriber) -> Delivery {
    let delivery = subscriber.receive(soon()).expect("receive answers");
    delivery.expect("a message comes before the time is up")
}

fn take(subscriber: &dyn Subscriber) -> Vec<u8> {
    let delivery = receive(subscriber);
    subscriber.acknowledge(&[delivery.tag]).expect("acknowledge answers");
    delivery.message
}

#[track_caller]
fn assert_nothing_comes(subscriber: &dyn Subscriber) {
    let delivery = subscriber.receive(within(A_WHILE)).expect("receive answers");
    assert_eq!(delivery.map(|delivery| delivery.message.len()), None, "nothing was to come");
}

fn publish(publisher: &dyn Publisher, topic: &str, message: &[u8]) {
    publisher.publish(topic, message, soon()).expect("publish takes the message");
}

/// Both ends, joined: where messages go to who is there alone, that may take a moment.
fn joined(
    broker: &dyn Broker,
    topics: &[&str],
    group: &str,
) -> (Box<dyn Publisher>, Box<dyn Subscriber>) {
    let publisher = broker.publisher().expect("a publisher");
    let options = SubscribeOptions { group: group.to_owned(), ..options() };
    let subscriber = broker.subscriber(topics, &options).expect("a subscriber");
    join(broker, &*publisher, &[&*subscriber], topics);
    (publisher, subscriber)
}

fn join(
    broker: &dyn Broker,
    publisher: &dyn Publisher,
    subscribers: &[&dyn Subscriber],
    topics: &[&str],
) {
    if broker.traits().sharing != Sharing::Broadcast {
        return;
    }
    for topic in topics {
        let mut count = 0_u32;
        for subscriber in subscribers {
            let end = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < end, "a subscriber hears nothing of its topic");
                count += 1;
                publish(publisher, topic, &count.to_le_bytes());
                publisher.flush(soon()).expect("flush answers");
                let until = Instant::now() + Duration::from_millis(20);
                if subscriber.receive(Some(until)).expect("receive answers").is_some() {
                    break;
                }
            }
        }
        for subscriber in subscribers {
            publish(publisher, topic, b"the last");
            while take(*subscriber) != b"the last" {}
        }
        // Those before it also got the last ones of those after.
        for subscriber in subscribers {
            let brief = || within(Duration::from_millis(50));
            while subscriber.receive(brief()).expect("receive answers").is_some() {}
        }
    }
}

/// Line 1.
pub fn messages_arrive_byte_for_byte(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("bytes"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    for (seed, len) in [0, 1, 255, 4096, 70_000, fixture.largest()].into_iter().enumerate() {
        let message = pattern(seed as u64, len);
        publish(&*publisher, &topic, &message);
        let taken = take(&*subscriber);
        assert!(taken == message, "{len} bytes arrive as they were published");
    }
}

/// Line 2.
pub fn messages_arrive_in_order(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("order"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    for number in 0..500_u32 {
        publish(&*publisher, &topic, &number.to_le_bytes());
    }
    for number in 0..500_u32 {
        assert_eq!(take(&*subscriber), number.to_le_bytes());
    }
}

/// Line 3.
pub fn subscribers_get_their_topics_alone(fixture: &dyn BrokerFixture) {
    let broker = fixture.open();
    let [one, two, other] = ["one", "two", "one.more"].map(unique);
    let (publisher, both) = joined(&*broker, &[&one, &two], "a");
    let longer = format!("{one}-longer"); // of which another topic's name is the beginning
    for topic in [&other, &one, &longer, &two] {
        publish(&*publisher, topic, topic.as_bytes());
    }
    let mut got = [take(&*both), take(&*both)];
    got.sort();
    let mut expected = [one.into_bytes(), two.into_bytes()];
    expected.sort();
    assert_eq!(got, expected);
    assert_nothing_comes(&*both);
}

/// Line 4.
pub fn receive_returns_as_soon_as_there_is_a_message(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("wait"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    assert_nothing_comes(&*subscriber);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| subscriber.receive(soon()).expect("receive answers"));
        thread::sleep(A_WHILE);
        publish(&*publisher, &topic, b"late");
        let delivery = waiting.join().expect("no panic").expect("it came in time");
        assert_eq!(delivery.message, b"late");
        subscriber.acknowledge(&[delivery.tag]).expect("acknowledge answers");
    });
    publish(&*publisher, &topic, b"there already");
    publisher.flush(soon()).expect("flush answers");
    let end = Instant::now() + PATIENCE;
    // It looks at least once; until the message arrived there, once finds nothing.
    while subscriber.receive(Some(Instant::now())).expect("receive answers").is_none() {
        assert!(Instant::now() < end, "a look finds what is there");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Line 5.
pub fn flushed_messages_outlive_their_publisher(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("flush"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    for number in 0..100_u32 {
        publish(&*publisher, &topic, &number.to_le_bytes());
    }
    publisher.flush(soon()).expect("flush answers");
    Box::leak(publisher); // as if it were killed: dropping it would flush
    for number in 0..100_u32 {
        assert_eq!(take(&*subscriber), number.to_le_bytes());
    }
}

/// Line 6.
pub fn subscribers_share_as_the_broker_says(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("share"));
    let publisher = broker.publisher().expect("a publisher");
    let subscribe = |group: &str| {
        let options = SubscribeOptions { group: group.to_owned(), ..options() };
        broker.subscriber(&[&topic], &options).expect("a subscriber")
    };
    let (first, second, other) = (subscribe("a"), subscribe("a"), subscribe("b"));
    join(&*broker, &*publisher, &[&*first, &*second, &*other], &[&topic]);
    let all: Vec<Vec<u8>> = (0..60_u32).map(|number| number.to_le_bytes().to_vec()).collect();
    for message in &all {
        publish(&*publisher, &topic, message);
    }
    let quiet = || within(Duration::from_millis(300));
    // In turns, until none of them has heard anything for a while.
    let mut got: [Vec<Vec<u8>>; 3] = Default::default();
    let (wanted, end) = (
        match broker.traits().sharing {
            Sharing::Broadcast => 180,
            Sharing::Queue => 60,
            Sharing::Groups => 120,
        },
        Instant::now() + PATIENCE,
    );
    while got.iter().map(Vec::len).sum::<usize>() < wanted {
        assert!(Instant::now() < end, "messages are missing: {:?}", got.each_ref().map(Vec::len));
        for (subscriber, got) in [&first, &second, &other].into_iter().zip(&mut got) {
            let until = within(Duration::from_millis(20));
            if let Some(delivery) = subscriber.receive(until).expect("receive answers") {
                subscriber.acknowledge(&[delivery.tag]).expect("acknowledge answers");
                got.push(delivery.message);
            }
        }
    }
    for subscriber in [&first, &second, &other] {
        assert!(subscriber.receive(quiet()).expect("receive answers").is_none(), "one too many");
    }
    let sorted = |mut messages: Vec<Vec<u8>>| {
        messages.sort_by_key(|message| u32::from_le_bytes(message[..].try_into().expect("four")));
        messages
    };
    let [first, second, other] = got;
    match broker.traits().sharing {
        Sharing::Broadcast => assert_eq!([first, second, other], [(); 3].map(|()| all.clone())),
        Sharing::Queue => assert_eq!(sorted([first, second, other].concat()), all),
        Sharing::Groups => {
            assert_eq!(sorted([first, second].concat()), all);
            assert_eq!(sorted(other), all);
        }
    }
}

/// Line 7.
pub fn early_messages_wait_for_the_first_subscriber(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("early"));
    if at_most_once(&*broker) {
        return;
    }
    let publisher = broker.publisher().expect("a publisher");
    publish(&*publisher, &topic, b"early");
    publisher.flush(soon()).expect("flush answers");
    let subscriber = broker.subscriber(&[&topic], &options()).expect("a subscriber");
    assert_eq!(take(&*subscriber), b"early");
}

/// Line 8, when a subscriber is closed.
pub fn what_was_not_acknowledged_comes_again_after_close(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("again"));
    if at_most_once(&*broker) {
        return;
    }
    let (publisher, first) = joined(&*broker, &[&topic], "a");
    for number in 0..10_u8 {
        publish(&*publisher, &topic, &[number]);
    }
    for number in 0..10_u8 {
        let delivery = receive(&*first);
        assert_eq!((&delivery.message[..], delivery.attempts), (&[number][..], 1));
        if number % 2 == 0 {
            first.acknowledge(std::slice::from_ref(&delivery.tag)).expect("acknowledge answers");
            first.acknowledge(&[delivery.tag]).expect("acknowledging again is fine");
        }
    }
    first.close().expect("close answers");
    let options = SubscribeOptions { group: "a".to_owned(), ..options() };
    let second = broker.subscriber(&[&topic], &options).expect("a subscriber");
    let mut again = Vec::new();
    for _ in 0..5 {
        let delivery = receive(&*second);
        assert!(delivery.attempts >= 2, "{delivery:?} is a repetition");
        again.extend_from_slice(&delivery.message);
        second.acknowledge(&[delivery.tag]).expect("acknowledge answers");
    }
    again.sort_unstable();
    assert_eq!(again, [1, 3, 5, 7, 9]);
    assert_nothing_comes(&*second);
}

/// Line 8, when a subscriber falls silent.
pub fn what_was_not_acknowledged_comes_again_in_time(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("silent"));
    if at_most_once(&*broker) || !fixture.minds_silence() {
        return;
    }
    let publisher = broker.publisher().expect("a publisher");
    let brief = SubscribeOptions { redeliver_after: Duration::from_millis(300), ..options() };
    let silent = broker.subscriber(&[&topic], &brief).expect("a subscriber");
    publish(&*publisher, &topic, b"again");
    let delivery = receive(&*silent);
    let other = broker.subscriber(&[&topic], &brief).expect("a subscriber");
    let again = receive(&*other);
    assert_eq!(again.message, delivery.message);
    assert!(again.attempts >= 2, "{again:?} is a repetition");
    other.acknowledge(&[again.tag]).expect("acknowledge answers");
}

/// Line 8, for what was fetched and not asked for in time.
pub fn what_others_dealt_with_is_not_delivered_late(fixture: &dyn BrokerFixture) {
    const COUNT: usize = 4;
    let (broker, topic) = (fixture.open(), unique("late"));
    if at_most_once(&*broker) || !fixture.minds_silence() {
        return;
    }
    let redeliver_after = Duration::from_millis(300);
    let brief = SubscribeOptions { redeliver_after, prefetch: COUNT, ..options() };
    let publisher = broker.publisher().expect("a publisher");
    let slow = broker.subscriber(&[&topic], &brief).expect("a subscriber");
    let began = Instant::now();
    for number in 0..COUNT as u8 {
        publish(&*publisher, &topic, &[number]);
    }
    publisher.flush(soon()).expect("flush answers");
    let first = receive(&*slow);
    let fetched = Instant::now();
    let other = broker.subscriber(&[&topic], &brief).expect("a subscriber");
    let (mut got, mut done) = (vec![first.clone()], Vec::new());
    while Instant::now() < fetched + 2 * redeliver_after {
        let until = within(Duration::from_millis(20));
        if let Some(delivery) = other.receive(until).expect("receive answers") {
            let is_early = Instant::now() < began + redeliver_after;
            assert!(!is_early || delivery.message != first.message, "{delivery:?} is too early");
            other.acknowledge(std::slice::from_ref(&delivery.tag)).expect("acknowledge answers");
            done.push(delivery.message.clone());
            got.push(delivery);
        }
    }
    other.close().expect("close answers");
    let end = Instant::now() + PATIENCE;
    let is_missing = |got: &[Delivery]| {
        (0..COUNT as u8).any(|number| got.iter().all(|delivery| delivery.message != [number]))
    };
    loop {
        match slow.receive(within(A_WHILE)).expect("receive answers") {
            Some(delivery) => {
                assert!(!done.contains(&delivery.message), "{delivery:?} was acknowledged");
                slow.acknowledge(std::slice::from_ref(&delivery.tag)).expect("acknowledge answers");
                got.push(delivery);
            }
            None if is_missing(&got) => assert!(Instant::now() < end, "messages are missing"),
            None => break,
        }
    }
    for number in 0..COUNT as u8 {
        let firsts = got.iter().filter(|d| d.message == [number] && d.attempts == 1).count();
        assert!(firsts <= 1, "{number} is told to be new {firsts} times");
    }
}

/// Line 9.
pub fn a_closed_end_refuses_every_call(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("close"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    assert_nothing_comes(&*subscriber); // a wait that found nothing changes nothing
    thread::scope(|scope| {
        let waiting = scope.spawn(|| subscriber.receive(None));
        thread::sleep(A_WHILE);
        subscriber.close().expect("close answers");
        let error = waiting.join().expect("no panic").expect_err("receive was ended");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    });
    subscriber.close().expect("closing again is fine");
    publisher.close().expect("close answers");
    publisher.close().expect("closing again is fine");
    let results = [
        subscriber.receive(soon()).map(drop),
        subscriber.acknowledge(&[]),
        publisher.publish(&topic, b"late", soon()),
        publisher.flush(soon()),
    ];
    for result in results {
        let error = result.expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
}

/// Line 10.
pub fn all_calls_may_come_from_many_threads_at_once(fixture: &dyn BrokerFixture) {
    const EACH: usize = 100;
    let (broker, topic) = (fixture.open(), unique("threads"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    let seen: Vec<AtomicUsize> = (0..4 * EACH).map(|_| AtomicUsize::new(0)).collect();
    let left = AtomicUsize::new(4 * EACH);
    thread::scope(|scope| {
        for start in 0..4 {
            let (publisher, topic) = (&publisher, &topic);
            scope.spawn(move || {
                for number in start * EACH..(start + 1) * EACH {
                    publish(&**publisher, topic, &(number as u32).to_le_bytes());
                }
            });
            let (subscriber, seen, left) = (&subscriber, &seen, &left);
            scope.spawn(move || {
                let end = Instant::now() + PATIENCE;
                while left.load(Ordering::Acquire) > 0 && Instant::now() < end {
                    let until = within(Duration::from_millis(50));
                    let Some(delivery) = subscriber.receive(until).expect("receive answers") else {
                        continue;
                    };
                    let number = u32::from_le_bytes(delivery.message[..].try_into().expect("four"));
                    subscriber.acknowledge(&[delivery.tag]).expect("acknowledge answers");
                    if seen[number as usize].fetch_add(1, Ordering::AcqRel) == 0 {
                        left.fetch_sub(1, Ordering::AcqRel);
                    }
                }
            });
        }
    });
    let counts: Vec<usize> = seen.iter().map(|count| count.load(Ordering::Acquire)).collect();
    assert_eq!(counts, vec![1; 4 * EACH], "every message came once");
}

/// Line 11.
pub fn unusable_topics_are_refused(fixture: &dyn BrokerFixture) {
    let broker = fixture.open();
    let publisher = broker.publisher().expect("a publisher");
    for topic in ["", "a\nb", "\0", &"x".repeat(201)] {
        for result in [
            publisher.publish(topic, b"", soon()),
            broker.subscriber(&[topic], &options()).map(drop),
        ] {
            let error = result.expect_err("the topic is unusable");
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
    }
    let long = format!("{}{}", unique("x"), "y".repeat(200));
    for topic in [unique("a b.c>*/ä%"), long[..200].to_owned()] {
        let (publisher, subscriber) = joined(&*broker, &[&topic], "a b.*");
        publish(&*publisher, &topic, b"usable");
        assert_eq!(take(&*subscriber), b"usable");
    }
}

/// Line 11, of subscriptions: those that ask for too much get what there is.
pub fn unusable_subscriptions_are_refused(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("greedy"));
    let nameless = SubscribeOptions { group: String::new(), ..options() };
    for result in [broker.subscriber(&[], &options()), broker.subscriber(&[&topic], &nameless)] {
        let error = result.map(drop).expect_err("there is nothing to subscribe to, or as");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let greedy =
        SubscribeOptions { prefetch: usize::MAX, redeliver_after: Duration::MAX, ..options() };
    let subscriber = broker.subscriber(&[&topic], &greedy).expect("a subscriber");
    let publisher = broker.publisher().expect("a publisher");
    join(&*broker, &*publisher, &[&*subscriber], &[&topic]);
    publish(&*publisher, &topic, b"once");
    assert_eq!(take(&*subscriber), b"once");
}

/// Line 12, when nothing answers.
pub fn an_unreachable_broker_is_an_error_in_time(fixture: &dyn BrokerFixture) {
    let Some(broker) = fixture.unreachable() else { return };
    let started = Instant::now();
    let brief = || within(Duration::from_millis(300));
    let result = broker.publisher().and_then(|publisher| {
        publisher.publish("topic", b"message", brief())?;
        publisher.flush(brief())
    });
    let error = result.expect_err("nobody takes the message");
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout), "{error}");
    let shown = error.to_string();
    assert!(shown.contains("127.0.0.1"), "it says which broker: {shown}");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

/// Line 12, when the broker comes back.
pub fn a_broker_that_comes_back_is_used_again(fixture: &dyn BrokerFixture) {
    let (broker, topic) = (fixture.open(), unique("restart"));
    let (publisher, subscriber) = joined(&*broker, &[&topic], "a");
    publish(&*publisher, &topic, b"before");
    assert_eq!(take(&*subscriber), b"before");
    if !fixture.restart(&*broker) {
        return;
    }
    join(&*broker, &*publisher, &[&*subscriber], &[&topic]);
    publish(&*publisher, &topic, b"after");
    publisher.flush(soon()).expect("flush answers");
    while take(&*subscriber) != b"after" {}
}

/// The contract, line by line: hands the list to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __with_broker_lines {
    ($then:path) => {
        $then! {
            messages_arrive_byte_for_byte,
            messages_arrive_in_order,
            subscribers_get_their_topics_alone,
            receive_returns_as_soon_as_there_is_a_message,
            flushed_messages_outlive_their_publisher,
            subscribers_share_as_the_broker_says,
            early_messages_wait_for_the_first_subscriber,
            what_was_not_acknowledged_comes_again_after_close,
            what_was_not_acknowledged_comes_again_in_time,
            what_others_dealt_with_is_not_delivered_late,
            a_closed_end_refuses_every_call,
            all_calls_may_come_from_many_threads_at_once,
            unusable_topics_are_refused,
            unusable_subscriptions_are_refused,
            an_unreachable_broker_is_an_error_in_time,
            a_broker_that_comes_back_is_used_again,
        }
    };
}

/// Makes a module of tests, one per line of the contract of brokers.
///
/// The fixture expression is evaluated for each test.
///
/// ```ignore
/// proxystore::broker_conformance!(memory, MemoryFixture);
/// ```
#[macro_export]
macro_rules! broker_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            #[expect(unused_imports, reason = "the fixture may need none of them")]
            use super::*;

            fn fixture() -> impl $crate::testkit::brokers::BrokerFixture {
                $fixture
            }

            $crate::__with_broker_lines!($crate::__broker_conformance_tests);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __broker_conformance_tests {
    ($($name:ident,)*) => {$(
        #[test]
        fn $name() {
            $crate::testkit::brokers::$name(&fixture());
        }
    )*};
}
