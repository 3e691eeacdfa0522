//! Batches, filters, topics and their ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proxystore::patterns::stream::{Body, Event, Message, Outbox, OutboxOptions};

use super::*;

#[test]
fn batches_are_sent_by_count_by_bytes_and_by_age() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let messages = || consumer.metrics().get("messages");
    let batch = Batch { count: 3, bytes: Some(2 * LARGE), age: Some(Duration::from_millis(50)) };
    let producer = producer(&broker, &place.store).batch(batch).build().unwrap();
    for number in 0..3 {
        producer.send("t", vec![number]).unwrap();
    }
    for number in 0..3 {
        assert_eq!(*next(&consumer).proxy, [number]);
    }
    assert_eq!(messages(), 1.0);
    producer.send("t", vec![3; LARGE]).unwrap();
    producer.send("t", vec![4; LARGE]).unwrap();
    assert_eq!([next(&consumer).proxy[0], next(&consumer).proxy[0]], [3, 4]);
    assert_eq!(messages(), 2.0);
    producer.send("t", vec![5]).unwrap(); // alone, until it is old enough
    assert_eq!(next(&consumer).proxy[0], 5);
    producer.send("t", vec![6]).unwrap();
    assert_eq!(next(&consumer).proxy[0], 6);
    producer.send("t", vec![7]).unwrap();
    producer.close().unwrap(); // loses nothing
    assert_eq!(next(&consumer).proxy[0], 7);
    assert_eq!(messages(), 5.0);
}

#[test]
fn small_objects_of_a_large_batch_do_not_all_travel_inside() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let batch = Batch { count: 100, ..Batch::default() };
    let producer = producer(&broker, &place.store).batch(batch).build().unwrap();
    for number in 0..100 {
        producer.send("t", vec![number; 10_000]).unwrap();
    }
    let inline = producer.metrics().get("inline");
    assert!((50.0..53.0).contains(&inline), "{inline}"); // 512 KiB
    for number in 0..100 {
        assert_eq!(next(&consumer).proxy.resolve().unwrap()[..], [number; 10_000]);
    }
    assert_eq!(consumer.metrics().get("messages"), 1.0);
}

#[test]
fn more_events_than_a_message_may_have_become_several() {
    let broker = broker();
    let consumer = consumer(&broker, "a").ends(Message::MOST + 1);
    let publisher = Arc::from(broker.publisher().unwrap());
    let outbox = Outbox::new(publisher, OutboxOptions::default()).unwrap();
    outbox.publish("t", None, vec![Event::new(Body::End); Message::MOST + 1], None).unwrap();
    assert_eq!(all(&consumer).len(), 0);
    assert_eq!(consumer.metrics().get("messages"), 2.0);
    assert_eq!(consumer.metrics().get("received"), 65537.0);
}

#[test]
fn a_batch_is_acknowledged_as_a_whole() {
    let (place, broker) = (place(), broker());
    let first = consumer(&broker, "a");
    let batch = Batch { count: 2, ..Batch::default() };
    let producer = producer(&broker, &place.store).batch(batch).build().unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    producer.send("t", vec![2; LARGE]).unwrap();
    let item = next(&first);
    item.proxy.resolve().unwrap();
    item.acknowledge().unwrap();
    assert_eq!(place.files(), 1);
    drop((item, first));
    let second = consumer(&broker, "a");
    let item = next(&second); // the other is passed over: its object is gone
    assert_eq!((item.proxy[0], item.attempts), (2, 2));
    item.acknowledge().unwrap();
    assert_eq!(place.files(), 0);
    drop(second);
    let third = consumer(&broker, "a");
    assert!(third.next::<Bytes>(Some(Duration::ZERO)).unwrap().is_none());
}

#[test]
fn filters_see_metadata_and_fetch_nothing() {
    let (place, broker) = (place(), broker());
    let odd = |metadata: &Metadata| metadata.get::<u8>("n").unwrap().is_some_and(|n| n % 2 == 1);
    let three = |metadata: &Metadata| metadata.get::<u8>("n").unwrap() == Some(4);
    let subscriber = broker.subscriber(&["t"], &group("a")).unwrap();
    let consumer = StreamConsumer::new(subscriber).drop_if(three);
    let producer = producer(&broker, &place.store).drop_if(odd).build().unwrap();
    for number in 0..8_u8 {
        let metadata = Metadata::new(&BTreeMap::from([("n", number)])).unwrap();
        let options = SendOptions { metadata, ..SendOptions::default() };
        producer.send_with("t", vec![number; LARGE], options).unwrap();
    }
    producer.close_topic("t").unwrap();
    let numbers: Vec<u8> = all(&consumer).iter().map(|object| object[0]).collect();
    assert_eq!(numbers, [0, 2, 6]);
    assert_eq!(place.files(), 0, "what was passed over is freed");
    assert_eq!(producer.metrics().get("filtered"), 4.0);
    assert_eq!(consumer.metrics().get("filtered"), 1.0);
}

#[test]
fn a_batch_becomes_one_object() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store)
        .batch(Batch { count: 3, ..Batch::default() })
        .aggregate(|objects| {
            let last = objects.last().expect("a batch is not empty").1.clone();
            Ok((objects.iter().flat_map(|(object, _)| object.clone()).collect(), last))
        })
        .build()
        .unwrap();
    for number in 0..7_u8 {
        let metadata = Metadata::new(&BTreeMap::from([("n", number)])).unwrap();
        producer.send_with("t", vec![number], SendOptions { metadata, evict: true }).unwrap();
    }
    producer.close_topic("t").unwrap();
    let items: Vec<_> = consumer.iter::<Bytes>().map(Result::unwrap).collect();
    let found: Vec<_> = items
        .iter()
        .map(|item| ((*item.proxy).clone(), item.metadata.get::<u8>("n").unwrap().unwrap()))
        .collect();
    assert_eq!(found, [(vec![0, 1, 2], 2), (vec![3, 4, 5], 5), (vec![6], 6)]);
}

#[test]
fn a_batch_of_which_nothing_can_be_made_is_not_lost() {
    let (place, broker) = (place(), broker());
    let attempts = AtomicUsize::new(0);
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store)
        .batch(Batch { count: 2, ..Batch::default() })
        .aggregate(move |objects| match attempts.fetch_add(1, Ordering::Relaxed) {
            0 => Err(proxystore::Error::new(ErrorKind::Encode, "add", "not yet")),
            _ => Ok((
                objects.iter().flat_map(|(object, _)| object.clone()).collect(),
                Metadata::default(),
            )),
        })
        .build()
        .unwrap();
    producer.send("t", vec![1]).unwrap();
    assert_eq!(producer.send("t", vec![2]).unwrap_err().kind(), ErrorKind::Encode);
    producer.send("t", vec![2]).unwrap(); // it was not taken before
    producer.close_topic("t").unwrap();
    assert_eq!(all(&consumer), [[1, 2]]);
}

#[test]
fn what_fails_behind_the_callers_back_is_told_to_who_sends_next() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let attempts = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&attempts);
    let producer = producer(&broker, &place.store)
        .batch(Batch { count: 10, age: Some(Duration::from_millis(10)), bytes: None })
        .aggregate(move |objects| match theirs.fetch_add(1, Ordering::Relaxed) {
            0 => Err(proxystore::Error::new(ErrorKind::Encode, "add", "not yet")),
            _ => Ok((
                objects.iter().flat_map(|(object, _)| object.clone()).collect(),
                objects[0].1.clone(),
            )),
        })
        .build()
        .unwrap();
    producer.send("t", vec![1]).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while attempts.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < end, "it is old enough");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(producer.send("t", vec![2]).unwrap_err().kind(), ErrorKind::Encode);
    producer.send("t", vec![3]).unwrap();
    producer.close_topic("t").unwrap();
    assert_eq!(all(&consumer).concat(), [1, 3], "what was not taken is not sent");
}

#[test]
fn topics_have_stores_of_their_own_or_none() {
    let (first, second, broker) = (place(), place(), broker());
    let producer = producer(&broker, &first.store)
        .topic_store("own", Some(&second.store))
        .topic_store("none", None)
        .build()
        .unwrap();
    let topics = ["t", "own", "none"];
    let subscriber = broker.subscriber(&topics, &group("a")).unwrap();
    let consumer = StreamConsumer::new(subscriber).ends(3);
    for topic in topics {
        producer.send(topic, vec![9; LARGE]).unwrap();
        producer.close_topic(topic).unwrap();
    }
    assert_eq!((first.files(), second.files()), (1, 1));
    let mut seen = Vec::new();
    for item in consumer.iter::<Bytes>() {
        let item = item.unwrap();
        assert_eq!(*item.proxy.resolve().unwrap(), vec![9; LARGE]);
        seen.push(item.topic.to_string());
    }
    seen.sort();
    assert_eq!(seen, ["none", "own", "t"]);
    assert_eq!((first.files(), second.files()), (0, 0));
}

#[test]
fn a_closed_topic_takes_nothing_and_ends_all_who_share_it() {
    let (place, broker) = (place(), broker());
    let consumers = [consumer(&broker, "a"), consumer(&broker, "a")];
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1]).unwrap();
    producer.close_topic_for("t", 2).unwrap();
    producer.close_topic("t").unwrap(); // again is fine
    let error = producer.send("t", vec![2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    producer.send("other", vec![2]).unwrap();
    let counts = consumers.map(|consumer| all(&consumer).len());
    assert_eq!(counts.iter().sum::<usize>(), 1);
}
