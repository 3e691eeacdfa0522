//! What becomes of producers whose consumers are slow.

use super::*;

fn bound(when_full: WhenFull) -> Bound {
    Bound { bytes: 3 * LARGE as u64, when_full }
}

#[test]
fn a_full_stream_refuses_by_choice() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store).bound(bound(WhenFull::Refuse)).build().unwrap();
    for _ in 0..2 {
        producer.send("t", vec![0; LARGE]).unwrap();
    }
    let error = producer.send("t", vec![0; LARGE]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(producer.metrics().get("refused"), 1.0);
    let in_flight = producer.metrics().get("in_flight_bytes");
    assert!((40_000.0..60_000.0).contains(&in_flight), "{in_flight}");
    let item = next(&consumer);
    item.proxy.resolve().unwrap();
    item.acknowledge().unwrap();
    producer.send("t", vec![0; LARGE]).unwrap();
}

#[test]
fn a_full_stream_makes_its_producer_wait_by_choice() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store)
        .bound(bound(WhenFull::Wait))
        .timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    producer.send("t", vec![0; LARGE]).unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    let error = producer.send("t", vec![2; LARGE]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(producer.metrics().get("waited_seconds") > 0.0);
    let patient: StreamProducer<Bytes> = StreamProducer::builder(broker.publisher().unwrap())
        .store(&place.store)
        .bound(bound(WhenFull::Wait))
        .build()
        .unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for number in 2..30 {
                patient.send("t", vec![number; LARGE]).unwrap();
            }
            patient.close_topic("t").unwrap();
        });
        let mut most = 0;
        for (number, item) in consumer.iter::<Bytes>().enumerate() {
            assert_eq!(usize::from(item.unwrap().proxy[0]), number);
            most = most.max(place.files());
        }
        sending.join().unwrap();
        assert!(most <= 4, "{most} objects at once: two of either producer");
    });
    assert_eq!(place.files(), 0);
}

#[test]
fn closing_a_producer_ends_its_waiting() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).bound(bound(WhenFull::Wait)).build().unwrap();
    producer.send("t", vec![0; LARGE]).unwrap();
    producer.send("t", vec![1; LARGE]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| producer.send("t", vec![2; LARGE]));
        thread::sleep(Duration::from_millis(50));
        producer.close().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    assert_eq!(place.files(), 2);
}

#[test]
fn a_full_stream_drops_the_oldest_by_choice() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer =
        producer(&broker, &place.store).bound(bound(WhenFull::DropOldest)).build().unwrap();
    for number in 0..10 {
        producer.send("t", vec![number; LARGE]).unwrap();
    }
    producer.close_topic("t").unwrap();
    assert_eq!(place.files(), 2);
    let numbers: Vec<u8> = all(&consumer).iter().map(|object| object[0]).collect();
    assert_eq!(numbers, [8, 9]);
    assert_eq!(producer.metrics().get("dropped"), 8.0);
    assert_eq!(consumer.metrics().get("skipped"), 8.0);
    assert_eq!(place.files(), 0);
}

#[test]
fn only_what_was_dropped_for_want_of_room_is_passed_over() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store).bound(bound(WhenFull::Wait)).build().unwrap();
    producer.send("t", vec![0; LARGE]).unwrap();
    for file in std::fs::read_dir(place.folder.path()).unwrap() {
        let _ = std::fs::remove_file(file.unwrap().path()); // as its time to live would
    }
    let item = next(&consumer);
    assert_eq!(item.proxy.resolve().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_dropped_from_a_batch_in_hand_is_passed_over() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store)
        .batch(Batch { count: 2, ..Batch::default() })
        .bound(Bound { bytes: 5 * LARGE as u64, when_full: WhenFull::DropOldest })
        .build()
        .unwrap();
    for number in 0..2 {
        producer.send("t", vec![number; LARGE]).unwrap();
    }
    let first = next(&consumer);
    assert_eq!(first.proxy.resolve().unwrap()[0], 0);
    for number in 2..6 {
        producer.send("t", vec![number; LARGE]).unwrap();
    }
    assert_eq!(next(&consumer).proxy.resolve().unwrap()[0], 2, "1 was dropped meanwhile");
}

#[test]
fn a_full_stream_is_closed_without_loss_once_there_is_room() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store)
        .batch(Batch { count: 2, ..Batch::default() })
        .bound(bound(WhenFull::Wait))
        .build()
        .unwrap();
    for number in 0..3 {
        producer.send("t", vec![number; LARGE]).unwrap(); // the third waits for its batch
    }
    thread::scope(|scope| {
        let closing = scope.spawn(|| producer.close());
        let mut items = consumer.iter::<Bytes>();
        for number in 0..3 {
            assert_eq!(items.next().unwrap().unwrap().proxy[0], number);
        }
        closing.join().unwrap().unwrap();
    });
}

#[test]
fn closing_ends_a_wait_for_a_full_broker() {
    let (place, broker) = (place(), MemoryBroker::bounded(1));
    let _consumer = consumer(&broker, "a");
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![1]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| producer.send("t", vec![2]));
        thread::sleep(Duration::from_millis(50));
        producer.close().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn consumers_are_named_where_shares_can_be_kept() {
    let (place, broker) = (place(), broker());
    for groups in [&["a", "a"][..], &vec!["a"; 2000]] {
        let twice = producer(&broker, &place.store).consumers(groups).build();
        assert_eq!(twice.unwrap_err().kind(), ErrorKind::Config);
    }
}

#[test]
fn objects_larger_than_the_bound_travel_alone() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).bound(bound(WhenFull::Refuse)).build().unwrap();
    producer.send("t", vec![0; 10 * LARGE]).unwrap();
    assert_eq!(producer.send("t", vec![0; 1]).unwrap_err().kind(), ErrorKind::Full);
}

#[test]
fn a_forked_child_does_not_wait_for_its_parents_objects() {
    let (place, broker) = (place(), broker());
    let producer = producer(&broker, &place.store).bound(bound(WhenFull::Refuse)).build().unwrap();
    for _ in 0..2 {
        producer.send("t", vec![0; LARGE]).unwrap();
    }
    let status = crate::memory::in_forked_child(|| {
        for _ in 0..2 {
            producer.send("t", vec![1; LARGE]).unwrap();
        }
        assert_eq!(producer.send("t", vec![1; LARGE]).unwrap_err().kind(), ErrorKind::Full);
    });
    assert_eq!(status, 0);
    assert_eq!(producer.send("t", vec![0; LARGE]).unwrap_err().kind(), ErrorKind::Full);
}
