//! The line of the contract on times to live, in three sentences.
#![expect(clippy::missing_panics_doc, reason = "a panic is the verdict that a line is broken")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::steps::{
    PATIENCE, assert_bytes, assert_kind, deferred, fill, get, pattern, put, shared,
};
use super::{Fixture, Verdict};
use crate::connectors::{Connector, GetOptions, PutOptions};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::payload::Parts;

/// Soon over, and long enough for a channel that counts in milliseconds.
const SHORT: Duration = Duration::from_millis(60);
/// Longer than any test.
const LONG: Duration = Duration::from_hours(1);

fn with_ttl(ttl: Duration) -> PutOptions {
    PutOptions { ttl: Some(ttl), ..PutOptions::default() }
}

fn put_for(connector: &dyn Connector, bytes: &[u8], ttl: Duration) -> Key {
    connector.put(&Parts::from(bytes), &with_ttl(ttl)).expect("put stores with a time to live")
}

fn expire(connector: &dyn Connector, key: &Key, ttl: Option<Duration>) {
    connector.expire(std::slice::from_ref(key), ttl).expect("expire succeeds");
}

/// Waits until there is no object under the key.
#[track_caller]
fn await_absence(connector: &dyn Connector, key: &Key) {
    let start = Instant::now();
    while connector.exists(key).expect("exists answers") {
        assert!(start.elapsed() < PATIENCE, "the object does not vanish");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(get(connector, key).is_none(), "get of an expired object");
    assert!(connector.get(key, &shared(Some(0..1))).expect("get answers").is_none());
    assert!(!connector.get_into(key, None, &mut [0; 10]).expect("get_into answers"));
    assert!(!connector.wait(key, Some(Instant::now())).expect("wait answers"));
    let batch = connector.get_batch(std::slice::from_ref(key), &GetOptions::default());
    assert!(matches!(batch.expect("get_batch answers")[..], [None]));
}

/// The verdict on a connector without times to live, which must refuse them.
fn refused(connector: &dyn Connector) -> Option<Verdict> {
    if connector.capabilities().ttl {
        return None;
    }
    let (parts, kind) = (Parts::from(&b"x"[..]), ErrorKind::Unsupported);
    assert_kind(connector.put(&parts, &with_ttl(LONG)), kind, "put with a time to live");
    let batch = connector.put_batch(std::slice::from_ref(&parts), &with_ttl(LONG));
    assert_kind(batch, kind, "put_batch with a time to live");
    let key = put(connector, b"x");
    for ttl in [Some(LONG), None] {
        assert_kind(connector.expire(std::slice::from_ref(&key), ttl), kind, "expire");
    }
    Some(Verdict::NotApplicable("the channel has no times to live"))
}

/// Line 19.
pub fn an_object_vanishes_when_its_time_has_passed(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    if let Some(verdict) = refused(&*connector) {
        return verdict;
    }
    let other = fixture.reopen(&connector.config());
    let other = other.as_deref().unwrap_or(&*connector);
    for size in [0, 1000, 100_000, 500_000] {
        let bytes = pattern(19, size);
        let start = Instant::now();
        let key = put_for(&*connector, &bytes, SHORT);
        while connector.exists(&key).expect("exists answers") {
            assert!(start.elapsed() < PATIENCE, "the object does not vanish");
        }
        assert!(start.elapsed() >= SHORT / 2, "the object vanishes long before its time");
        await_absence(other, &key);
        await_absence(&*connector, &Key::latest(key.id()));
        expire(&*connector, &key, None);
        await_absence(&*connector, &key); // it does not come back
        connector.evict(&key).expect("evict of an expired object is no error");

        let gone = put_for(other, &bytes, Duration::ZERO);
        await_absence(&*connector, &gone);
        for lasting in [LONG, Duration::MAX] {
            let key = put_for(other, &bytes, lasting);
            let held = get(&*connector, &key);
            assert_bytes(held.as_ref(), &bytes, "an object with time left");
            connector.evict(&key).expect("evict removes");
            assert!(get(&*connector, &key).is_none(), "evicted before its time");
            let next = put(&*connector, &pattern(20, size)); // may recycle what was evicted
            let stays = get(other, &next);
            assert_bytes(stays.as_ref(), &pattern(20, size), "an object without an end");
            assert_bytes(held.as_ref(), &bytes, "an object evicted since");
        }
    }
    let stored = [pattern(1, 10), pattern(2, 200_000)];
    let batch = [Parts::from(&stored[0][..]), Parts::from(&stored[1][..])];
    let keys = connector.put_batch(&batch, &with_ttl(LONG)).expect("put_batch stores");
    for (key, bytes) in keys.iter().zip(&stored) {
        assert_bytes(get(other, key).as_ref(), bytes, "one of a batch with time left");
    }
    for key in connector.put_batch(&batch, &with_ttl(SHORT)).expect("put_batch stores") {
        await_absence(other, &key);
    }
    for (key, bytes) in keys.iter().zip(&stored) {
        assert_bytes(get(&*connector, key).as_ref(), bytes, "one of the other batch");
    }
    Verdict::Kept
}

/// Line 19.
pub fn expire_renews_shortens_and_ends_times_to_live(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    if let Some(verdict) = refused(&*connector) {
        return verdict;
    }
    let other = fixture.reopen(&connector.config());
    let other = other.as_deref().unwrap_or(&*connector);
    connector.expire(&[], Some(LONG)).expect("no keys are fine");
    connector.expire(&[fixture.absent_key()], Some(LONG)).expect("absent ones are passed over");
    connector.expire(&[fixture.absent_key()], None).expect("absent ones are passed over");

    for size in [100, 300_000] {
        let bytes = pattern(19, size);
        let held = |key: &Key| connector.get(key, &shared(None)).expect("get answers");
        // Shortened, whether or not it had an end, from anywhere, and by its id alone.
        let keys = [put(&*connector, &bytes), put_for(&*connector, &bytes, LONG)];
        let views = keys.each_ref().map(held);
        other.expire(&keys, Some(SHORT)).expect("expire succeeds");
        for key in &keys {
            await_absence(&*connector, key);
        }
        let key = put(&*connector, &bytes);
        expire(other, &Key::latest(key.id()), Some(SHORT));
        await_absence(&*connector, &key);
        for view in &views {
            assert_bytes(view.as_ref(), &bytes, "what was got before it expired");
        }
        // Renewed, and made to last. A machine that stops for half a second gets another chance.
        let (end, mut attempts) = (Duration::from_millis(500), 0);
        let (start, renewed, lasting) = loop {
            let start = Instant::now();
            let keys = [0, 1].map(|_| put_for(&*connector, &bytes, end));
            expire(other, &keys[0], Some(LONG));
            expire(other, &keys[1], None);
            attempts += 1;
            if start.elapsed() < end || attempts > 20 {
                let [renewed, lasting] = keys;
                break (start, renewed, lasting);
            }
        };
        thread::sleep((end + SHORT).saturating_sub(start.elapsed()));
        assert_bytes(get(&*connector, &renewed).as_ref(), &bytes, "a renewed object");
        assert_bytes(get(&*connector, &lasting).as_ref(), &bytes, "an object made to last");
    }
    let Ok(key) = deferred(&*connector) else {
        return Verdict::Kept;
    };
    // The end belongs to the generation.
    let (old, new) = (pattern(1, 90_000), pattern(2, 90_000));
    let short = PutOptions { key: Some(key.clone()), ..with_ttl(SHORT) };
    let first = connector.put(&Parts::from(&old[..]), &short).expect("put fills the key");
    await_absence(other, &key);
    let second = fill(&*connector, &key, &new);
    expire(&*connector, &key, Some(LONG));
    if first.generation() != 0 {
        expire(&*connector, &first, Some(Duration::ZERO));
    }
    assert_bytes(get(other, &key).as_ref(), &new, "the newer object");
    expire(&*connector, &second, Some(Duration::ZERO));
    await_absence(other, &key);
    connector.put(&Parts::from(&old[..]), &short).expect("put fills the key");
    fill(&*connector, &key, &new);
    thread::sleep(SHORT * 2);
    assert_bytes(get(other, &key).as_ref(), &new, "a newer object without an end");
    Verdict::Kept
}

/// Line 19.
pub fn times_to_live_may_change_while_readers_read(fixture: &dyn Fixture) -> Verdict {
    let connector = fixture.open();
    if let Some(verdict) = refused(&*connector) {
        return verdict;
    }
    let stored = [500, 150_000].map(|size| pattern(19, size));
    let keys = stored.each_ref().map(|bytes| put_for(&*connector, bytes, LONG));
    let done = AtomicBool::new(false);
    let read = || {
        while !done.load(Ordering::Relaxed) {
            for (key, bytes) in keys.iter().zip(&stored) {
                assert_bytes(get(&*connector, key).as_ref(), bytes, "a renewed object");
                assert!(connector.exists(key).expect("exists answers"));
            }
        }
    };
    let renew = |ttl| {
        for _ in 0..100 {
            connector.expire(&keys, ttl).expect("expire succeeds");
        }
    };
    let vanish = || {
        for _ in 0..50 {
            let gone = put_for(&*connector, &stored[1], Duration::ZERO);
            await_absence(&*connector, &gone);
        }
    };
    thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        let writers =
            [scope.spawn(|| renew(Some(LONG))), scope.spawn(|| renew(None)), scope.spawn(vanish)];
        let written = writers.map(thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        for outcome in written.into_iter().chain(readers.map(thread::ScopedJoinHandle::join)) {
            outcome.expect("what is written is read");
        }
    });
    Verdict::Kept
}
