//! What becomes of what is sent while a producer ends.

use std::sync::{Arc, Mutex, mpsc};

use proxystore::codec::Encode;
use proxystore::patterns::stream::{Body, Event, Outbox, OutboxOptions};

use super::*;

#[test]
fn a_closed_producer_takes_nothing() {
    let (place, broker) = (place(), broker());
    let batch = Batch { count: 10, age: Some(Duration::from_mins(1)), bytes: None };
    let producer = producer(&broker, &place.store).batch(batch).build().unwrap();
    producer.close().unwrap();
    for topic in ["t", "new"] {
        assert_eq!(producer.send(topic, vec![1]).unwrap_err().kind(), ErrorKind::Closed);
    }
    producer.close().unwrap(); // again is fine
}

#[test]
fn what_was_taken_while_a_producer_closed_is_sent() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let batch = Batch { count: 10, ..Batch::default() };
    let producer = producer(&broker, &place.store).batch(batch).build().unwrap();
    let taken: usize = thread::scope(|scope| {
        let send = || (0..1_000_000).take_while(|_| producer.send("t", vec![1]).is_ok()).count();
        let sending: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        thread::sleep(Duration::from_millis(10));
        producer.close().unwrap();
        sending.into_iter().map(|sending| sending.join().unwrap()).sum()
    });
    for _ in 0..taken {
        next(&consumer).acknowledge().unwrap();
    }
    assert!(consumer.next::<Bytes>(Some(Duration::ZERO)).unwrap().is_none());
}

#[test]
fn a_dropped_producer_sends_what_is_being_sent_behind_its_back() {
    let (place, broker) = (place(), MemoryBroker::bounded(1));
    let consumer = consumer(&broker, "a");
    let batch = Batch { count: 10, age: Some(Duration::from_millis(10)), bytes: None };
    let producer = producer(&broker, &place.store).batch(batch).build().unwrap();
    producer.send("t", vec![0]).unwrap();
    producer.flush().unwrap(); // the broker is full now
    producer.send("t", vec![1]).unwrap();
    thread::sleep(Duration::from_millis(50)); // it is old enough, and waits
    thread::scope(|scope| {
        let dropping = scope.spawn(|| drop(producer));
        thread::sleep(Duration::from_millis(50));
        assert!(!dropping.is_finished(), "it has something to send");
        next(&consumer).acknowledge().unwrap();
        dropping.join().unwrap();
    });
    assert_eq!(next(&consumer).proxy[0], 1);
}

#[test]
fn a_closed_outbox_makes_nobody_wait() {
    let (place, broker) = (place(), broker());
    let mut options = OutboxOptions::default();
    options.bound = Some(Bound { bytes: LARGE as u64, when_full: WhenFull::Wait });
    options.timeout = PATIENCE;
    let outbox = Outbox::new(Arc::from(broker.publisher().unwrap()), options).unwrap();
    let object = vec![0_u8; LARGE];
    let refer = || {
        let framed = [object.encode()?.frame()?];
        outbox.refer(&place.store, &framed, &[true], outbox.deadline())
    };
    refer().unwrap(); // it is full now
    thread::scope(|scope| {
        let waiting = scope.spawn(refer);
        while !waiting.is_finished() {
            thread::sleep(Duration::from_millis(10));
            outbox.stop_waiting(); // perhaps it has not begun before
        }
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    outbox.publish("t", None, vec![Event::new(Body::End)], outbox.deadline()).unwrap();
    outbox.close().unwrap();
    assert_eq!(refer().unwrap_err().kind(), ErrorKind::Closed);
    let late = outbox.publish("t", None, vec![Event::new(Body::End)], outbox.deadline());
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
}

/// Makes an object of a batch; if its first byte is 0, that takes until the other end of `until` is
/// gone.
fn slow(
    begun: mpsc::Sender<()>,
    until: mpsc::Receiver<()>,
) -> impl Fn(&[(Bytes, Metadata)]) -> Result<(Bytes, Metadata)> {
    let until = Mutex::new(until);
    move |objects| {
        if objects[0].0[0] == 0 {
            let _ = begun.send(());
            let _ = until.lock().unwrap().recv_timeout(PATIENCE.unwrap());
        }
        Ok((objects.iter().flat_map(|(object, _)| object.clone()).collect(), objects[0].1.clone()))
    }
}

#[test]
fn nobody_waits_for_longer_than_told_for_whoever_sends() {
    let (place, broker) = (place(), broker());
    let ((begun, at_it), (done, until)) = (mpsc::channel(), mpsc::channel());
    let producer = producer(&broker, &place.store)
        .aggregate(slow(begun, until))
        .timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| producer.send("t", vec![0]));
        at_it.recv_timeout(PATIENCE.unwrap()).unwrap();
        for late in [producer.send("t", vec![1]), producer.flush(), producer.close()] {
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
        }
        drop(done);
        assert_eq!(sending.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_topic_that_is_held_up_stops_no_other() {
    let (place, broker) = (place(), broker());
    let subscriber = broker.subscriber(&["t", "u"], &group("a")).unwrap();
    let consumer = StreamConsumer::new(subscriber);
    let ((begun, at_it), (done, until)) = (mpsc::channel(), mpsc::channel());
    let producer = producer(&broker, &place.store)
        .aggregate(slow(begun, until))
        .batch(Batch { count: 10, age: Some(Duration::from_millis(10)), bytes: None })
        .build()
        .unwrap();
    producer.send("t", vec![0]).unwrap();
    at_it.recv_timeout(PATIENCE.unwrap()).unwrap(); // it is old enough
    for number in 1..3 {
        producer.send("u", vec![number]).unwrap();
        let item = next(&consumer);
        assert_eq!((&*item.topic, item.proxy[0]), ("u", number));
    }
    drop(done);
    assert_eq!(&*next(&consumer).topic, "t");
}
