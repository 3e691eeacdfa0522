//! The lines of the contract; each is named as the sentence it proves.
#![expect(clippy::missing_panics_doc, reason = "a panic is the verdict that a line is broken")]
#![expect(clippy::cast_possible_truncation, reason = "sizes and seeds of tests are small")]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::steps::{
    PATIENCE, SIZES, assert_bytes, assert_kind, deferred, fill, get, pattern, put, shared,
};
use super::{Fixture, Verdict};
use crate::buffer::Buffer;
use crate::connectors::{Access, Connector, GetOptions, PutOptions};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::payload::Parts;

/// Line 1.
pub fn what_was_put_is_got_back(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for (seed, size) in (1..).zip(SIZES) {
        let bytes = pattern(seed, size);
        let key = put(&*connector, &bytes);
        assert!([0, size as u64].contains(&key.size()), "the key has the size, or none");
        assert!(connector.exists(&key).expect("exists answers"), "an object of {size} bytes");
        assert_bytes(get(&*connector, &key).as_ref(), &bytes, "the object");
        let found = connector.get(&key, &shared(None)).expect("get answers");
        assert_bytes(found.as_ref(), &bytes, "the object, read-only");
        let latest = get(&*connector, &Key::latest(key.id()));
        assert_bytes(latest.as_ref(), &bytes, "the object by its id alone");
    }
    // Scatter lists: none, empty ones, one byte each, more than the system takes in one call.
    for (count, len) in [(0, 0), (3, 0), (1, 1), (2, 300_000), (100, 1), (5000, 7)] {
        let bytes = pattern(count as u64, count * len);
        let mut parts = Parts::default();
        for index in 0..count {
            parts.push(&bytes[index * len..(index + 1) * len]);
        }
        let key = connector.put(&parts, &PutOptions::default()).expect("put stores the parts");
        assert_bytes(get(&*connector, &key).as_ref(), &bytes, "an object of many parts");
    }
    Verdict::Kept
}

/// Line 2.
pub fn every_put_makes_a_key_of_its_own(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let keys: Vec<Key> = (0..200).map(|_| put(&*connector, b"the same bytes")).collect();
    let mut ids: Vec<&str> = keys.iter().map(Key::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), keys.len(), "every put has its own id");
    Verdict::Kept
}

/// Line 3.
pub fn an_absent_key_is_none_false_and_no_error(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let gone = put(&*connector, &[0; 10]);
    connector.evict(&gone).expect("evict removes");
    let never = fixture.absent_key();
    for key in [Key::new(never.id(), 1, 10), never.clone(), gone] {
        assert!(get(&*connector, &key).is_none(), "get of an absent key");
        assert!(connector.get(&key, &shared(Some(3..7))).expect("get answers").is_none());
        assert!(!connector.exists(&key).expect("exists answers"), "exists of an absent key");
        assert!(!connector.get_into(&key, None, &mut [0; 10]).expect("get_into answers"));
        connector.evict(&key).expect("evict of an absent key is no error");
        assert!(!connector.wait(&key, Some(Instant::now())).expect("wait answers"));
    }
    let found = connector.get_batch(&[never], &GetOptions::default());
    assert!(matches!(found.expect("get_batch answers")[..], [None]));
    Verdict::Kept
}

/// Line 4.
pub fn evict_removes_that_object_and_no_other(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for size in [0, 1000, 500_000] {
        let kept = pattern(1, size);
        let (gone, stays) = (put(&*connector, &kept), put(&*connector, &kept));
        connector.evict(&gone).expect("evict removes");
        assert!(get(&*connector, &gone).is_none(), "an evicted object is absent");
        assert!(get(&*connector, &Key::latest(gone.id())).is_none());
        assert!(!connector.exists(&gone).expect("exists answers"));
        connector.evict(&gone).expect("evicting again is no error");
        assert_bytes(get(&*connector, &stays).as_ref(), &kept, "the other object");
        connector.evict(&Key::latest(stays.id())).expect("evict by id alone");
        assert!(get(&*connector, &stays).is_none(), "evicted by its id alone");
    }
    Verdict::Kept
}

/// Line 5.
pub fn got_bytes_are_private_to_the_caller(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for size in SIZES {
        let bytes = pattern(3, size);
        let key = put(&*connector, &bytes);
        let (mut mine, other) =
            (get(&*connector, &key).expect("it is there"), get(&*connector, &key));
        let read_only = connector.get(&key, &shared(None)).expect("get answers");
        let memory = mine.as_mut().expect("private bytes can be written to");
        for byte in memory.iter_mut() {
            *byte = !*byte;
        }
        assert_bytes(other.as_ref(), &bytes, "what another caller holds");
        assert_bytes(read_only.as_ref(), &bytes, "what a reader holds");
        assert_bytes(get(&*connector, &key).as_ref(), &bytes, "the stored object");
        assert!(mine.iter().zip(&bytes).all(|(a, b)| *a == !*b), "the caller keeps its own");
        let mut read_only = read_only.expect("checked above");
        assert!(read_only.as_mut().is_none(), "read-only memory cannot be written to");
    }
    Verdict::Kept
}

/// Line 6.
pub fn got_bytes_outlive_eviction_and_close(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let mut held = Vec::new();
    for (seed, size) in (1..).zip(SIZES) {
        let bytes = pattern(seed, size);
        let key = put(&*connector, &bytes);
        let private = get(&*connector, &key).expect("it is there");
        let read_only = connector.get(&key, &shared(None)).expect("get answers");
        connector.evict(&key).expect("evict removes");
        held.push((bytes, private, read_only.expect("it is there")));
    }
    for (seed, size) in (100..).zip(SIZES) {
        put(&*connector, &pattern(seed, size)); // may recycle what was evicted
    }
    for (bytes, private, read_only) in &held {
        assert_bytes(Some(private), bytes, "an object evicted since");
        assert_bytes(Some(read_only), bytes, "an object evicted since, read-only");
    }
    connector.close(true).expect("close succeeds");
    drop(connector);
    for (bytes, private, read_only) in &held {
        assert_bytes(Some(private), bytes, "an object of a closed connector");
        assert_bytes(Some(read_only), bytes, "an object of a closed connector, read-only");
    }
    Verdict::Kept
}

/// Line 7.
pub fn a_stored_object_never_changes(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for size in SIZES {
        let mut bytes = pattern(5, size);
        let stored = bytes.clone();
        let key = put(&*connector, &bytes);
        let early = connector.get(&key, &shared(None)).expect("get answers");
        bytes.fill(0xEE);
        assert_bytes(early.as_ref(), &stored, "an object got before");
        assert_bytes(get(&*connector, &key).as_ref(), &stored, "an object got after");
    }
    if connector.capabilities().allocate {
        let stored = pattern(6, 300_000);
        let mut inside = connector.allocate(stored.len()).expect("allocate gives memory");
        inside.as_mut().expect("memory to write to").copy_from_slice(&stored);
        let key = put(&*connector, &inside);
        if let Some(memory) = inside.as_mut() {
            memory.fill(0xEE);
        }
        assert_bytes(get(&*connector, &key).as_ref(), &stored, "an object made in the channel");
    }
    Verdict::Kept
}

/// Line 8.
pub fn a_reader_never_sees_half_an_object(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let batch = [Parts::from(&b"fits"[..]), Parts::from(&b"does not"[..])];
    let refused = PutOptions { key: Some(Key::latest("../outside")), ..PutOptions::default() };
    assert_kind(connector.put_batch(&batch, &refused), ErrorKind::Config, "an unusable key");

    let Ok(key) = deferred(&*connector) else {
        return Verdict::Kept;
    };
    let deadline = Some(Instant::now());
    let late = PutOptions { key: Some(key.clone()), deadline, ..PutOptions::default() };
    let bytes = pattern(1, 1000);
    match connector.put(&Parts::from(&bytes[..]), &late) {
        Ok(_) => connector.evict(&key).expect("evict removes"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
    }
    assert!(get(&*connector, &key).is_none(), "a put that failed leaves nothing behind");

    // One object written again and again, each time all of one byte and of that byte's size.
    let size_of = |fill: u8| usize::from(fill) * 4000;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut target = vec![0; 8000];
                while !done.load(Ordering::Relaxed) {
                    for access in [Access::Private, Access::ReadOnly] {
                        let options = GetOptions { access, ..GetOptions::default() };
                        let Some(bytes) = connector.get(&key, &options).expect("get answers")
                        else {
                            continue;
                        };
                        let fill = *bytes.first().expect("no object here is empty");
                        assert_eq!(bytes.len(), size_of(fill), "length of an object of {fill}s");
                        assert!(bytes.iter().all(|byte| *byte == fill), "a mixed object");
                    }
                    let range = Some(0..target.len() as u64);
                    if connector.get_into(&key, range, &mut target).expect("get_into answers") {
                        assert!(target.iter().all(|byte| *byte == target[0]), "a mixed range");
                    }
                }
            });
        }
        let writer = scope.spawn(|| {
            for round in 0_u8..200 {
                let byte = 2 + round.wrapping_mul(31) % 90;
                fill(&*connector, &key, &vec![byte; size_of(byte)]);
            }
        });
        let outcome = writer.join();
        done.store(true, Ordering::Relaxed);
        outcome.expect("the writer fills the key");
    });
    Verdict::Kept
}

/// Line 9.
pub fn a_cut_object_is_an_error(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for size in [1000, 600_000] {
        let key = put(&*connector, &pattern(9, size));
        if !fixture.damage(&connector.config(), &key) {
            return Verdict::NotApplicable("the fixture cannot damage objects");
        }
        for key in [key.clone(), Key::latest(key.id())] {
            let private = connector.get(&key, &GetOptions::default());
            assert_kind(private, ErrorKind::Corrupt, "get of a cut object");
            assert_kind(connector.get(&key, &shared(None)), ErrorKind::Corrupt, "a shared get");
            let range = connector.get(&key, &shared(Some(0..10)));
            assert_kind(range, ErrorKind::Corrupt, "get of a part of a cut object");
            let target = connector.get_into(&key, None, &mut vec![0; size]);
            assert_kind(target, ErrorKind::Corrupt, "get_into of a cut object");
        }
        connector.evict(&Key::latest(key.id())).expect("a cut object can be evicted");
        assert!(get(&*connector, &key).is_none(), "an evicted object is absent");
    }
    Verdict::Kept
}

/// Line 10.
pub fn a_range_returns_exactly_those_bytes(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for size in [0_u64, 1, 5000, 700_001] {
        let bytes = pattern(10, size as usize);
        let key = put(&*connector, &bytes);
        let (third, half) = (size / 3, size / 2);
        for range in [0..size, 0..0, size..size, 0..third, third..half, half..size, third..third] {
            let expected = &bytes[range.start as usize..range.end as usize];
            let what = format!("the range {range:?} of {size} bytes");
            let options = GetOptions { range: Some(range.clone()), ..GetOptions::default() };
            let mut private = connector.get(&key, &options).expect("get answers");
            assert_bytes(private.as_ref(), expected, &what);
            let read_only = connector.get(&key, &shared(Some(range))).expect("get answers");
            assert_bytes(read_only.as_ref(), expected, &what);
            let memory = private.as_mut().and_then(Buffer::as_mut).expect("writable");
            memory.fill(0);
            assert_bytes(read_only.as_ref(), expected, &what);
        }
        for (start, end) in [(0, size + 1), (size + 1, size + 2), (1, 0), (0, u64::MAX)] {
            let answer = connector.get(&key, &shared(Some(Range { start, end })));
            assert_kind(answer, ErrorKind::Config, "a range that is not within the object");
        }
        assert_bytes(get(&*connector, &key).as_ref(), &bytes, "the whole object");
    }
    Verdict::Kept
}

/// Line 11.
pub fn get_into_fills_the_callers_memory(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    for size in SIZES {
        let bytes = pattern(11, size);
        let key = put(&*connector, &bytes);
        let mut target = vec![0; size];
        assert!(connector.get_into(&key, None, &mut target).expect("get_into answers"));
        assert!(target == bytes, "all {size} bytes");
        let (from, to) = (size / 4, size / 2);
        let mut target = vec![0xAA; to - from];
        let range = Some(from as u64..to as u64);
        assert!(connector.get_into(&key, range, &mut target).expect("get_into answers"));
        assert!(target == bytes[from..to], "a range of {size} bytes");
        for wrong in [size + 1, size.saturating_sub(1)] {
            if wrong != size {
                let answer = connector.get_into(&key, None, &mut vec![0; wrong]);
                assert_kind(answer, ErrorKind::Config, "a destination of another length");
            }
        }
        let past = Some(0..size as u64 + 1);
        let answer = connector.get_into(&key, past, &mut vec![0; size + 1]);
        assert_kind(answer, ErrorKind::Config, "a range past the end");
    }
    Verdict::Kept
}

/// Line 12.
pub fn a_batch_does_what_the_single_calls_do(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let stored: Vec<Vec<u8>> = (1..).zip(SIZES).map(|(seed, len)| pattern(seed, len)).collect();
    let objects: Vec<Parts<'_>> = stored.iter().map(|bytes| Parts::from(&bytes[..])).collect();
    let put_options = PutOptions::default();
    let mut keys = connector.put_batch(&objects, &put_options).expect("put_batch stores");
    assert_eq!(keys.len(), stored.len());
    for (key, bytes) in keys.iter().zip(&stored) {
        assert_bytes(get(&*connector, key).as_ref(), bytes, "an object of a batch");
    }
    keys.insert(1, fixture.absent_key());
    keys.push(keys[0].clone());
    let found = connector.get_batch(&keys, &GetOptions::default()).expect("get_batch answers");
    assert_eq!(found.len(), keys.len(), "one answer per key");
    assert!(found[1].is_none(), "an absent key in a batch is None");
    assert_bytes(found[0].as_ref(), &stored[0], "the first of a batch");
    for (index, bytes) in stored.iter().enumerate().skip(1) {
        assert_bytes(found[index + 1].as_ref(), bytes, "one of a batch, in order");
    }
    assert_bytes(found[keys.len() - 1].as_ref(), &stored[0], "a key that is asked for twice");
    assert!(connector.put_batch(&[], &put_options).expect("an empty batch").is_empty());
    assert!(connector.get_batch(&[], &GetOptions::default()).expect("an empty batch").is_empty());
    Verdict::Kept
}

/// Line 13.
pub fn a_deferred_key_is_filled_again_and_again(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let key = match deferred(&*connector) {
        Ok(key) => key,
        Err(verdict) => return verdict,
    };
    assert_ne!(key.id(), connector.new_key().expect("new_key makes a key").id());
    assert_eq!(key.generation(), 0, "a key without an object means whichever comes");
    assert!(!connector.exists(&key).expect("exists answers"), "absent until it is filled");
    assert!(get(&*connector, &key).is_none());

    for size in [100, 400_000] {
        let (old, new) = (pattern(1, size), pattern(2, size / 2));
        let first = fill(&*connector, &key, &old);
        assert_eq!(first.id(), key.id(), "the key of the object");
        assert_bytes(get(&*connector, &key).as_ref(), &old, "the object by its deferred key");
        if first.generation() == 0 {
            return Verdict::NotApplicable("filled once; the channel has no generations");
        }
        let held = (get(&*connector, &first), connector.get(&key, &shared(None)));

        let second = fill(&*connector, &key, &new);
        assert_ne!(first, second, "filling again makes a new generation");
        assert_bytes(get(&*connector, &key).as_ref(), &new, "the newer object");
        assert_bytes(get(&*connector, &second).as_ref(), &new, "the newer object by its key");
        assert!(get(&*connector, &first).is_none(), "the older generation is absent");
        assert!(!connector.exists(&first).expect("exists answers"));
        let range = connector.get(&first, &shared(Some(0..1))).expect("get answers");
        assert!(range.is_none(), "a range of the older generation is absent");
        let into = connector.get_into(&first, None, &mut vec![0; size]);
        assert!(!into.expect("get_into answers"), "the older generation is absent");
        assert!(!connector.wait(&first, Some(Instant::now())).expect("wait answers"));
        assert_bytes(held.0.as_ref(), &old, "what was got before");
        assert_bytes(held.1.expect("get answers").as_ref(), &old, "what was shared before");

        connector.evict(&first).expect("evicting the older generation is no error");
        assert_bytes(get(&*connector, &key).as_ref(), &new, "the newer object");
        connector.evict(&second).expect("evict removes");
        assert!(get(&*connector, &key).is_none(), "absent after its eviction");

        let third = fill(&*connector, &key, &old);
        assert!(third != first && third != second, "no generation comes back");
        assert!(get(&*connector, &first).is_none() && get(&*connector, &second).is_none());
        connector.evict(&key).expect("evict by the deferred key");
        assert!(!connector.exists(&third).expect("exists answers"), "evicted");
    }
    Verdict::Kept
}

/// Line 14.
pub fn wait_returns_when_the_object_is_there(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let there = put(&*connector, b"x");
    assert!(connector.wait(&there, None).expect("wait answers"), "an object that is there");
    let past = Some(Instant::now());
    assert!(connector.wait(&there, past).expect("wait answers"), "it looks at least once");

    let key = match deferred(&*connector) {
        Ok(key) => key,
        Err(verdict) => return verdict,
    };
    let (start, pause) = (Instant::now(), Duration::from_millis(60));
    assert!(!connector.wait(&key, Some(start + pause)).expect("wait answers"));
    assert!(start.elapsed() >= pause, "wait gives up before the time is up");
    assert!(start.elapsed() < pause + PATIENCE, "wait goes on after the time is up");

    let other = fixture.reopen(&connector.config());
    let writer = other.as_deref().unwrap_or(&*connector);
    for deadline in [None, Some(PATIENCE * 2)] {
        let key = connector.new_key().expect("new_key makes a key");
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let until = deadline.map(|time| Instant::now() + time);
                        let found = connector.wait(&key, until).expect("wait answers");
                        assert!(found, "a waiter is woken by the put");
                        assert_bytes(get(&*connector, &key).as_ref(), b"late", "the object");
                        Instant::now()
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(40));
            put(writer, b"something else");
            thread::sleep(Duration::from_millis(20));
            let filled = Instant::now();
            fill(writer, &key, b"late");
            for waiter in waiting {
                let woken = waiter.join().expect("the waiter sees the object");
                assert!(woken >= filled, "a waiter is woken before the object is there");
                assert!(woken - filled < PATIENCE, "a waiter is woken soon");
            }
        });
    }
    let never = connector.new_key().expect("new_key makes a key");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| connector.wait(&never, None));
        thread::sleep(Duration::from_millis(50));
        connector.close(false).expect("close succeeds");
        let outcome = waiter.join().expect("wait does not panic");
        assert_kind(outcome, ErrorKind::Closed, "a wait that close ends");
    });
    Verdict::Kept
}

/// Line 15.
pub fn config_reaches_the_same_objects(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let config = connector.config();
    assert_eq!(config, connector.config(), "the configuration stays as it is");
    let Some(other) = fixture.reopen(&config) else {
        return Verdict::NotApplicable("the channel cannot be opened a second time");
    };
    assert!(config.same_channel(&other.config()), "both lead to the same channel");
    for size in [0, 100, 300_000] {
        let (left, right) = (pattern(1, size), pattern(2, size));
        let from_left = put(&*connector, &left);
        let from_right = put(&*other, &right);
        assert_bytes(get(&*other, &from_left).as_ref(), &left, "what the first stored");
        assert_bytes(get(&*connector, &from_right).as_ref(), &right, "what the second stored");
        other.evict(&from_left).expect("evict removes");
        assert!(!connector.exists(&from_left).expect("exists answers"), "evicted by the other");
    }
    let separate = fixture.open();
    let key = put(&*connector, b"here");
    if !config.same_channel(&separate.config()) {
        assert!(!separate.exists(&key).expect("exists answers"), "channels are separate");
    }
    Verdict::Kept
}

/// Line 16.
pub fn a_closed_connector_refuses_every_call(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let key = put(&*connector, b"x");
    let config = connector.config();
    let other = fixture.reopen(&config);
    connector.close(false).expect("close succeeds");
    connector.close(false).expect("closing again is fine");

    let (parts, closed) = (Parts::from(&b"x"[..]), ErrorKind::Closed);
    let (puts, gets) = (PutOptions::default(), GetOptions::default());
    assert_kind(connector.put(&parts, &puts), closed, "put");
    assert_kind(connector.get(&key, &gets), closed, "get");
    assert_kind(connector.exists(&key), closed, "exists");
    assert_kind(connector.evict(&key), closed, "evict");
    assert_kind(connector.wait(&key, Some(Instant::now())), closed, "wait");
    assert_kind(connector.get_into(&key, None, &mut [0]), closed, "get_into");
    assert_kind(connector.put_batch(std::slice::from_ref(&parts), &puts), closed, "put_batch");
    assert_kind(connector.get_batch(std::slice::from_ref(&key), &gets), closed, "get_batch");
    if let Err(error) = connector.new_key() {
        assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unsupported), "{error}");
    } else {
        panic!("new_key succeeds; it must be an error of kind {closed:?}");
    }
    if connector.capabilities().allocate {
        assert_kind(connector.allocate(10), closed, "allocate");
    }
    if connector.capabilities().ttl {
        assert_kind(connector.expire(std::slice::from_ref(&key), None), closed, "expire");
    }
    assert_eq!(connector.config(), config, "the configuration is still known");
    connector.close(true).expect("closing again is fine");

    if let Some(other) = other {
        assert_bytes(get(&*other, &key).as_ref(), b"x", "an object of another connector");
        let more: Vec<Key> = (0..20).map(|seed| put(&*other, &pattern(seed, 50_000))).collect();
        let witness = fixture.reopen(&config).expect("it was reopened before");
        other.close(true).expect("close succeeds");
        for key in more.iter().chain([&key]) {
            assert!(!witness.exists(key).expect("exists answers"), "clear removes the objects");
        }
        let again = put(&*witness, b"after");
        assert_bytes(get(&*witness, &again).as_ref(), b"after", "an object stored after");
    }
    Verdict::Kept
}

/// Line 17.
pub fn all_calls_may_come_from_many_threads(fixture: &dyn Fixture) -> Verdict {
    const THREADS: u64 = 12;
    const ROUNDS: u64 = 40;
    let connector = fixture.open();
    let common = put(&*connector, &pattern(77, 300_000));
    let deferred = deferred(&*connector).ok();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (connector, common, deferred) = (&*connector, &common, deferred.as_ref());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let seed = thread * ROUNDS + round;
                    let size = SIZES[(seed % 11) as usize];
                    let bytes = pattern(seed, size);
                    let key = put(connector, &bytes);
                    assert!(connector.exists(&key).expect("exists answers"));
                    assert_bytes(get(connector, &key).as_ref(), &bytes, "a thread's own object");
                    let options = shared(Some(1000..2000));
                    let part = connector.get(common, &options).expect("get answers");
                    let expected = &pattern(77, 2000)[1000..];
                    assert_bytes(part.as_ref(), expected, "an object of all threads");
                    if let Some(deferred) = deferred {
                        let filled = fill(connector, deferred, &[thread as u8; 100]);
                        let found = get(connector, deferred).expect("it stays filled");
                        assert!(found.len() == 100 && found.iter().all(|b| *b == found[0]));
                        if let Some(found) = get(connector, &filled) {
                            assert_eq!(found[0], thread as u8, "one generation, one object");
                        }
                        assert!(connector.wait(deferred, None).expect("wait answers"));
                    }
                    let mut target = vec![0; size];
                    assert!(connector.get_into(&key, None, &mut target).expect("it is there"));
                    assert!(target == bytes, "a thread's own object, into its own memory");
                    connector.evict(&key).expect("evict removes");
                    assert!(get(connector, &key).is_none(), "evicted");
                }
            });
        }
    });
    Verdict::Kept
}

/// Line 18.
pub fn an_unusable_id_is_refused(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    let long = "x".repeat(201);
    let ids =
        ["", ".", "..", ".hidden", "../up", "a/b", "/etc", "a b", "a\nb", "nul\0", "é", &long];
    for id in ids {
        let (key, config) = (Key::new(id, 1, 1), ErrorKind::Config);
        assert_kind(connector.get(&key, &GetOptions::default()), config, "get");
        assert_kind(connector.exists(&key), config, "exists");
        assert_kind(connector.evict(&key), config, "evict");
        assert_kind(connector.wait(&key, Some(Instant::now())), config, "wait");
        assert_kind(connector.get_into(&key, None, &mut [0]), config, "get_into");
        let keys = [key.clone()];
        assert_kind(connector.get_batch(&keys, &GetOptions::default()), config, "get_batch");
        if connector.capabilities().ttl {
            assert_kind(connector.expire(&keys, None), config, "expire");
        }
        let options = PutOptions { key: Some(key), ..PutOptions::default() };
        let answer = connector.put(&Parts::from(&b"x"[..]), &options);
        assert_kind(answer, config, "put");
    }
    Verdict::Kept
}
