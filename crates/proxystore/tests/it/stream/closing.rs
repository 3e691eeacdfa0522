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
