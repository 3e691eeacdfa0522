//! What becomes of what is sent while a producer ends.

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
