//! Streams over the broker in memory: what holds whatever the broker.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

#[cfg(feature = "async")]
mod asynchronous;
mod batches;
mod bounds;
mod closing;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use proxystore::brokers::memory::MemoryBroker;
use proxystore::brokers::{Broker, SubscribeOptions, open};
use proxystore::connectors::PutOptions;
use proxystore::patterns::stream::{
    Batch, Bound, Inbox, Item, Metadata, Next, SendOptions, StreamConsumer, StreamProducer,
    StreamProducerBuilder, WhenFull,
};
use proxystore::payload::Parts;
use proxystore::{ErrorKind, Key, Proxy, Result, Store};

const LARGE: usize = 20_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

type Bytes = Vec<u8>;

/// A store of files, which can be counted.
struct Place {
    store: Store,
    folder: tempfile::TempDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("file://{}", folder.path().display())).unwrap();
    Place { store, folder }
}

impl Place {
    /// How many files there are: objects and marks.
    fn files(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let is_hidden = |name: std::ffi::OsString| name.to_string_lossy().starts_with('.');
        files.filter(|file| !is_hidden(file.as_ref().unwrap().file_name())).count()
    }
}

fn group(name: &str) -> SubscribeOptions {
    let mut options = SubscribeOptions::default();
    name.clone_into(&mut options.group);
    options
}

fn consumer(broker: &MemoryBroker, name: &str) -> StreamConsumer {
    StreamConsumer::new(broker.subscriber(&["t"], &group(name)).unwrap())
}

fn producer(broker: &MemoryBroker, store: &Store) -> StreamProducerBuilder<Bytes> {
    StreamProducer::builder(broker.publisher().unwrap()).store(store)
}

fn broker() -> MemoryBroker {
    MemoryBroker::bounded(0)
}

fn next(consumer: &StreamConsumer) -> Item<Bytes> {
    match consumer.next(PATIENCE).unwrap().expect("an event") {
        Next::Item(item) => item,
        Next::End(topic) => panic!("{topic} ended"),
    }
}

fn all(consumer: &StreamConsumer) -> Vec<Bytes> {
    consumer.objects().collect::<Result<_>>().unwrap()
}

#[test]
fn objects_arrive_in_order_as_they_were_sent_and_are_freed() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store).build().unwrap();
    for number in 0..20_u8 {
        producer.send("t", vec![number; if number % 2 == 0 { 1 } else { LARGE }]).unwrap();
    }
    producer.close_topic("t").unwrap();
    assert_eq!(place.files(), 10, "small ones are in their events");
    let expected: Vec<Bytes> =
        (0..20_u8).map(|n| vec![n; if n % 2 == 0 { 1 } else { LARGE }]).collect();
    assert_eq!(all(&consumer), expected);
    assert_eq!(place.files(), 0);
    assert_eq!(producer.metrics().get("inline"), 10.0);
    assert_eq!(producer.metrics().get("sent"), 21.0);
    assert_eq!(consumer.metrics().get("acknowledged"), 21.0);
    let text = producer.metrics().to_prometheus("a \"b\"");
    assert!(text.contains("proxystore_stream_sent_total{stream=\"a \\\"b\\\"\"} 21\n"), "{text}");
}

#[test]
fn what_was_not_acknowledged_comes_again_with_its_object() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    let first = consumer(&broker, "a");
    let item = next(&first);
    assert_eq!(item.proxy.resolve().unwrap().len(), LARGE);
    assert_eq!((item.attempts, place.files()), (1, 1));
    drop((item, first)); // it died in mid-item
    let second = consumer(&broker, "a");
    let item = next(&second);
    assert_eq!((item.proxy.resolve().unwrap().len(), item.attempts), (LARGE, 2));
    item.acknowledge().unwrap();
    item.acknowledge().unwrap();
    assert_eq!(place.files(), 0);
    assert!(second.next::<Bytes>(Some(Duration::ZERO)).unwrap().is_none());
}

#[test]
fn what_died_between_freeing_and_acknowledging_is_passed_over() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    producer.send("t", vec![2; LARGE]).unwrap();
    let first = consumer(&broker, "a");
    let key = next(&first).proxy.reference().unwrap().key;
    place.store.evict(&key).unwrap();
    drop(first);
    let second = consumer(&broker, "a");
    assert_eq!(next(&second).proxy[0], 2);
    assert_eq!(second.metrics().get("skipped"), 1.0);
}

#[test]
fn a_proxy_that_was_kept_or_sent_frees_its_object_itself() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store).build().unwrap();
    for number in 0..4 {
        producer.send("t", vec![number; LARGE]).unwrap();
    }
    let kept = next(&consumer);
    kept.acknowledge().unwrap();
    assert_eq!(place.files(), 4);
    assert_eq!(kept.proxy.resolve().unwrap()[0], 0);
    assert_eq!(place.files(), 3);

    let sent = next(&consumer);
    let bytes = rmp_serde::to_vec(&sent.proxy).unwrap();
    assert_eq!(sent.proxy.resolve().unwrap()[0], 1);
    sent.acknowledge().unwrap();
    drop(sent);
    assert_eq!(place.files(), 3, "whoever gets it needs it still");
    let received: Proxy<Bytes> = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(received.resolve().unwrap()[0], 1);
    assert_eq!(place.files(), 2);

    let ignored = next(&consumer);
    let Item { proxy, receipt, .. } = ignored;
    drop(proxy);
    receipt.acknowledge().unwrap();
    assert_eq!(place.files(), 1);

    let Item { proxy, receipt, .. } = next(&consumer);
    receipt.acknowledge().unwrap();
    drop(proxy.clone());
    assert_eq!(place.files(), 1);
    drop(proxy);
    assert_eq!(place.files(), 0);
}

#[test]
fn looking_at_facts_sends_nothing() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    let consumer = consumer(&broker, "a");
    let item = next(&consumer);
    assert_eq!(item.proxy.facts().len, Some(LARGE as u64));
    item.proxy.resolve().unwrap();
    item.acknowledge().unwrap();
    assert_eq!(place.files(), 0);
}

#[test]
fn a_forked_child_leaves_its_parents_items_alone() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    let consumer = consumer(&broker, "a");
    let item = next(&consumer);
    item.proxy.resolve().unwrap();
    let status = crate::memory::in_forked_child(|| {
        let error = consumer.next::<Bytes>(PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = item.acknowledge().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!item.receipt.is_acknowledged());
        consumer.close().unwrap();
        // What it inherited takes no lock of its parent's.
        broker
            .publisher()
            .unwrap()
            .publish("t", b"its own", PATIENCE.map(|p| Instant::now() + p))
            .unwrap();
    });
    assert_eq!((status, place.files()), (0, 1));
    item.acknowledge().unwrap();
    assert_eq!(place.files(), 0);
}

#[test]
fn a_lent_proxy_leaves_its_object_until_the_item_is_acknowledged() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    let first = consumer(&broker, "a");
    let work = |item: &Item<Bytes>| {
        let sent = rmp_serde::to_vec(&item.lend().unwrap()).unwrap();
        let received: Proxy<Bytes> = rmp_serde::from_slice(&sent).unwrap();
        assert_eq!(received.resolve().unwrap().len(), LARGE);
    };
    work(&next(&first));
    drop(first); // its worker died
    let second = consumer(&broker, "a");
    let item = next(&second);
    work(&item);
    assert_eq!(place.files(), 1);
    item.acknowledge().unwrap();
    assert_eq!(place.files(), 0);
}

#[test]
fn where_events_come_once_what_is_held_is_freed_by_acknowledging() {
    let place = place();
    let broker = open(&format!("shm://held-{}", std::process::id())).unwrap();
    let subscriber = broker.subscriber(&["t"], &SubscribeOptions::default()).unwrap();
    let inbox = Inbox::new(subscriber.into());
    let producer = StreamProducer::builder(broker.publisher().unwrap()).store(&place.store);
    producer.build().unwrap().send("t", vec![1_u8; LARGE]).unwrap();
    let arrival = inbox.next(PATIENCE.map(|patience| Instant::now() + patience)).unwrap().unwrap();
    assert!(arrival.receipt.claim().is_none());
    assert!(arrival.hold() && !arrival.hold());
    assert!(!arrival.receipt.claim().unwrap().lend().unwrap().evict);
    assert_eq!(place.files(), 1);
    arrival.receipt.acknowledge().unwrap();
    assert_eq!(place.files(), 0);
}

#[test]
fn the_last_of_the_expected_consumers_frees_an_object() {
    let (place, broker) = (place(), broker());
    let groups = ["a", "b", "c"];
    let consumers = groups.map(|group| consumer(&broker, group));
    let guest = consumer(&broker, "guest");
    let producer = producer(&broker, &place.store).consumers(&groups).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    producer.close_topic("t").unwrap();
    assert_eq!(all(&guest).len(), 1);
    assert_eq!(place.files(), 1, "it is not kept for the guest, and not freed by it");
    for (done, consumer) in consumers.iter().enumerate() {
        assert_eq!(place.files(), 1 + done, "the object, and a mark of each that is done");
        assert_eq!(all(consumer), [vec![1; LARGE]]);
    }
    assert_eq!(place.files(), 0);
}

#[test]
fn a_share_given_back_twice_counts_once() {
    let (place, broker) = (place(), broker());
    let groups = ["a", "b"];
    let [first, other] = groups.map(|group| consumer(&broker, group));
    let producer = producer(&broker, &place.store).consumers(&groups).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    let item = next(&first);
    let reference = item.proxy.reference().unwrap();
    place.store.free(&reference).unwrap(); // done with it, and died before it could say so
    place.store.free(&reference).unwrap();
    drop((item, first));
    let again = consumer(&broker, "a");
    assert!(again.next::<Bytes>(Some(Duration::from_millis(50))).unwrap().is_none());
    assert_eq!(again.metrics().get("skipped"), 1.0);
    assert_eq!(next(&other).proxy.resolve().unwrap().len(), LARGE);
    place.store.free(&other_share(&reference)).unwrap();
    assert_eq!(place.files(), 0);
    place.store.free(&reference).unwrap();
    assert_eq!(place.files(), 0, "late ones leave nothing");
}

#[test]
fn the_last_holder_that_died_while_it_freed_an_object_leaves_nothing() {
    let groups = ["a", "b"];
    for dies_after_evicting in [false, true] {
        let (place, broker) = (place(), broker());
        let [first, other] = groups.map(|group| consumer(&broker, group));
        let producer = producer(&broker, &place.store).consumers(&groups).build().unwrap();
        producer.send("t", vec![1; LARGE]).unwrap();
        next(&other).acknowledge().unwrap();
        assert_eq!(place.files(), 2, "the object and a mark");
        let key = next(&first).proxy.reference().unwrap().key;
        // It left its mark, and came perhaps as far as evicting the object.
        let mark = Some(Key::latest(format!("{}.done0", key.id())));
        let options = PutOptions { key: mark, ..PutOptions::default() };
        place.store.connector().put(&Parts::from(&b"given back"[..]), &options).unwrap();
        if dies_after_evicting {
            place.store.evict(&key).unwrap();
        }
        drop(first);
        let again = consumer(&broker, "a");
        assert!(again.next::<Bytes>(Some(Duration::from_millis(50))).unwrap().is_none());
        assert_eq!(again.metrics().get("skipped"), 1.0);
        assert_eq!(place.files(), 0);
    }
}

fn other_share(reference: &proxystore::Reference) -> proxystore::Reference {
    let mut other = reference.clone();
    other.share =
        other.share.map(|share| proxystore::reference::Share { number: 1 - share.number, ..share });
    other
}

#[test]
fn objects_that_nobody_frees_stay_or_vanish_in_time() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let ttl = Duration::from_millis(200);
    let producer = producer(&broker, &place.store).ttl(ttl).build().unwrap();
    let kept = SendOptions { evict: false, ..SendOptions::default() };
    producer.send_with("t", vec![1], kept).unwrap(); // in the store, small as it is
    assert_eq!(place.files(), 1);
    let item = next(&consumer);
    item.proxy.resolve().unwrap();
    let key = item.proxy.reference().unwrap().key;
    item.acknowledge().unwrap();
    drop(item);
    let end = Instant::now() + Duration::from_secs(20);
    while place.store.connector().exists(&key).unwrap() {
        assert!(Instant::now() < end, "its time to live has passed");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_failed_send_leaves_nothing_and_loses_nothing_else() {
    let (place, broker) = (place(), MemoryBroker::bounded(1));
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store)
        .batch(Batch { count: 2, ..Batch::default() })
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    for number in 0..3 {
        producer.send("t", vec![number; LARGE]).unwrap();
    }
    // The topic is full: it is not taken, and the one before it waits still.
    let error = producer.send("t", vec![3; LARGE]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(place.files(), 2);
    let mut items = consumer.iter::<Bytes>();
    assert_eq!(items.next().unwrap().unwrap().proxy[0], 0);
    assert_eq!(items.next().unwrap().unwrap().proxy[0], 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = producer.send("t", vec![4; LARGE]);
            while let Err(error) = sent {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                sent = producer.send("t", vec![4; LARGE]);
            }
        });
        for number in [2, 4] {
            assert_eq!(items.next().unwrap().unwrap().proxy[0], number);
        }
    });
    drop(items);
}

#[test]
fn foreign_messages_are_an_error_once() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    broker.publisher().unwrap().publish("t", b"not ours", None).unwrap();
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1]).unwrap();
    let error = consumer.next::<Bytes>(PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(next(&consumer).proxy[0], 1);
}

#[test]
fn iterators_give_up_in_time_and_end_when_closed() {
    let (place, broker) = (place(), broker());
    drop(place);
    let brief = consumer(&broker, "a").timeout(Duration::from_millis(20));
    let error = brief.iter::<Bytes>().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let consumer = consumer(&broker, "a");
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| consumer.iter::<Bytes>().next().unwrap().unwrap_err()))
            .collect();
        thread::sleep(Duration::from_millis(50));
        consumer.close().unwrap();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Closed);
        }
    });
}

#[test]
fn threads_share_producers_and_consumers() {
    const EACH: u32 = 200;
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let batch = Batch { count: 7, ..Batch::default() };
    let producer: StreamProducer<Vec<u32>> = StreamProducer::builder(broker.publisher().unwrap())
        .store(&place.store)
        .batch(batch)
        .build()
        .unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let producer = &producer;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let len = if number % 10 == 0 { 5000 } else { 1 };
                        producer.send("t", vec![sender * EACH + number; len]).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            scope.spawn(|| {
                for item in consumer.iter::<Vec<u32>>() {
                    seen.lock().unwrap().push(item.unwrap().proxy[0]);
                }
            });
        }
        for sender in senders {
            sender.join().unwrap();
        }
        producer.close_topic_for("t", 4).unwrap();
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..4 * EACH).collect::<Vec<_>>());
    assert_eq!(place.files(), 0);
}
