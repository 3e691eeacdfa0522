#![expect(unsafe_code, reason = "forks, and takes the lock that a stopped process would have")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::shm::ShmBroker;
use proxystore::brokers::{Broker, Publisher, SubscribeOptions, Subscriber};
use proxystore::connectors::shm::{ShmConnector, sweep};
use proxystore::key::unique_id;
use proxystore::testkit::brokers::BrokerFixture;
use tempfile::TempDir;

use crate::process;

struct Shm;

impl BrokerFixture for Shm {
    fn open(&self) -> Box<dyn Broker> {
        Box::new(ShmBroker::new(&unique_id().unwrap()).unwrap())
    }
}

proxystore::broker_conformance!(conformance, Shm);

const PATIENCE: Duration = Duration::from_secs(30);
const SMALL: u64 = 16 << 10;

fn soon() -> Option<Instant> {
    Instant::now().checked_add(PATIENCE)
}

fn own_root() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn broker(root: &Path) -> ShmBroker {
    let url = format!("shm://demo?root={}", root.display());
    ShmBroker::open(&url).unwrap().with_capacity(SMALL)
}

fn session(root: &Path) -> PathBuf {
    root.join(format!("proxystore-{}", rustix::process::geteuid().as_raw())).join("demo")
}

fn ring(root: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(session(root).join("t-numbers")).unwrap()
}

fn subscribe(broker: &ShmBroker, group: &str) -> Box<dyn Subscriber> {
    let mut options = SubscribeOptions::default();
    group.clone_into(&mut options.group);
    broker.subscriber(&["numbers"], &options).unwrap()
}

fn receive(subscriber: &dyn Subscriber) -> Vec<u8> {
    subscriber.receive(soon()).unwrap().expect("it comes in time").message
}

/// A message of which every byte says whether it is the right one.
fn numbered(number: u64) -> Vec<u8> {
    let len = 8 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % 6000;
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

#[track_caller]
fn number_of(message: &[u8]) -> u64 {
    let number = u64::from_le_bytes(*message.first_chunk().unwrap());
    assert!(message == numbered(number), "message {number} is as it was published");
    number
}

fn publish(publisher: &dyn Publisher, number: u64) {
    publisher.publish("numbers", &numbered(number), soon()).unwrap();
}

/// Tells the process that started this one.
fn say(word: &str) {
    std::io::stdout().write_all(format!("{word}\n").as_bytes()).unwrap();
}

/// Publishes for ever, from the number on that follows the directory in the argument.
#[test]
fn publisher_process() {
    let Some(argument) = process::argument() else { return };
    let (root, first) = argument.split_once(' ').unwrap();
    let publisher = broker(Path::new(root)).publisher().unwrap();
    for number in first.parse().unwrap().. {
        publish(&*publisher, number);
    }
}

/// Receives for ever, and says so.
#[test]
fn subscriber_process() {
    let Some(root) = process::argument() else { return };
    let subscriber = subscribe(&broker(Path::new(&root)), "a");
    say("ready");
    loop {
        number_of(&receive(&*subscriber));
        say("received");
    }
}

/// Has the lock of the ring until it is killed.
#[test]
fn stopped_process() {
    let Some(root) = process::argument() else { return };
    let file = ring(Path::new(&root));
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(libc::F_WRLCK).unwrap();
    (lock.l_start, lock.l_len) = (1 << 50, 1);
    // SAFETY: the descriptor is open, and the structure is filled in.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw mut lock) }, 0);
    say("ready");
    thread::sleep(PATIENCE);
}

fn start(role: &str, argument: &str) -> Child {
    process::command(&format!("brokers::shm::{role}"), argument).spawn().unwrap()
}

/// Kills a process that does not end by itself.
fn kill(mut child: Child) {
    assert_eq!(child.try_wait().unwrap(), None, "it lived until now");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[track_caller]
fn await_line(child: &mut BufReader<std::process::ChildStdout>, wanted: &str) {
    let mut line = String::new();
    while !line.ends_with(&format!("{wanted}\n")) {
        line.clear();
        assert_ne!(child.read_line(&mut line).unwrap(), 0, "the process says {wanted:?}");
    }
}

#[test]
fn a_killed_publisher_leaves_whole_messages_in_order() {
    let root = own_root();
    let broker = broker(root.path());
    let subscriber = subscribe(&broker, "a");
    let mut next = 0;
    for turn in 1..=8 {
        let child = start("publisher_process", &format!("{} {next}", root.path().display()));
        for _ in 0..40 * turn {
            assert_eq!(number_of(&receive(&*subscriber)), next);
            next += 1;
        }
        kill(child);
        while let Some(delivery) = subscriber.receive(Some(Instant::now())).unwrap() {
            assert_eq!(number_of(&delivery.message), next);
            next += 1;
        }
    }
    let publisher = broker.publisher().unwrap();
    publish(&*publisher, next);
    assert_eq!(number_of(&receive(&*subscriber)), next);
}

#[test]
fn what_a_killed_subscriber_did_not_take_is_for_the_next() {
    let root = own_root();
    let broker = broker(root.path());
    let publisher = broker.publisher().unwrap();
    let mut child = start("subscriber_process", root.path().to_str().unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    await_line(&mut lines, "ready");
    for number in 0..100 {
        publish(&*publisher, number);
    }
    await_line(&mut lines, "received");
    kill(child);
    // It may have taken all of them; one that is published now is there in any case.
    let next = subscribe(&broker, "a");
    let mut last = None;
    while let Some(delivery) = next.receive(Some(Instant::now())).unwrap() {
        let number = number_of(&delivery.message);
        assert!(last.is_none_or(|last| number == last + 1), "none is missing in between");
        last = Some(number);
    }
    assert!(last.is_none_or(|last| last == 99), "all are there that it did not take");
    publish(&*publisher, 100);
    assert_eq!(number_of(&receive(&*next)), 100);
}

#[test]
fn a_group_nobody_is_in_holds_back_nobody_who_lives() {
    let root = own_root();
    let broker = broker(root.path());
    let publisher = broker.publisher().unwrap();
    let mut child = start("subscriber_process", root.path().to_str().unwrap());
    await_line(&mut BufReader::new(child.stdout.take().unwrap()), "ready");
    let other = subscribe(&broker, "b");
    kill(child);
    for number in 0..100 {
        publish(&*publisher, number);
        assert_eq!(number_of(&receive(&*other)), number);
    }
    // It lives as far as it knows, and stays where it is.
    let silent = subscribe(&broker, "c");
    let brief = || Some(Instant::now() + Duration::from_millis(50));
    let filled = (100..).find_map(|number| {
        let refused = publisher.publish("numbers", &numbered(number), brief()).err()?;
        assert_eq!(refused.kind(), ErrorKind::Timeout, "{refused}");
        Some(number)
    });
    let filled = filled.unwrap();
    assert!(filled > 100);
    silent.close().unwrap();
    for number in 100..filled {
        assert_eq!(number_of(&receive(&*other)), number);
    }
    publish(&*publisher, filled);
    assert_eq!(number_of(&receive(&*other)), filled);
    // Forgotten: it begins with the next one.
    let silent = subscribe(&broker, "c");
    publish(&*publisher, filled + 1);
    assert_eq!(number_of(&receive(&*silent)), filled + 1);
}

#[test]
fn a_group_keeps_its_place_while_nobody_is_in_it() {
    let root = own_root();
    let broker = broker(root.path());
    let publisher = broker.publisher().unwrap();
    for number in 0..2 {
        publish(&*publisher, number); // before there is any group
    }
    let first = subscribe(&broker, "a");
    assert_eq!(number_of(&receive(&*first)), 0);
    drop(first);
    publish(&*publisher, 2);
    let again = subscribe(&broker, "a");
    assert_eq!([1, 2].map(|_| number_of(&receive(&*again))), [1, 2]);
}

#[test]
fn a_full_ring_makes_its_publishers_wait() {
    let root = own_root();
    let broker = broker(root.path());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
    let largest = vec![7; SMALL as usize / 2 - 8];
    let brief = || Some(Instant::now() + Duration::from_millis(50));
    for _ in 0..2 {
        publisher.publish("numbers", &largest, soon()).unwrap();
    }
    let error = publisher.publish("numbers", b"", brief()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    publisher.publish("others", b"", brief()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| publisher.publish("numbers", &largest, None));
        let second = scope.spawn(|| publisher.publish("numbers", b"x", None));
        for _ in 0..3 {
            receive(&*subscriber);
        }
        waiting.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    let mut too_large = largest;
    too_large.push(7);
    let error = publisher.publish("numbers", &too_large, soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    thread::scope(|scope| {
        while publisher.publish("numbers", &too_large[1..], brief()).is_ok() {}
        let waiting = scope.spawn(|| publisher.publish("numbers", &too_large[1..], None));
        thread::sleep(Duration::from_millis(50));
        publisher.close().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn messages_of_all_sizes_go_around_the_end_of_the_ring() {
    const COUNT: u64 = 3000;
    let root = own_root();
    let broker = broker(root.path());
    let groups = ["a", "b"].map(|group| subscribe(&broker, group));
    thread::scope(|scope| {
        scope.spawn(|| {
            let publisher = broker.publisher().unwrap();
            (0..COUNT).for_each(|number| publish(&*publisher, number));
        });
        for subscriber in &groups {
            scope.spawn(move || {
                for number in 0..COUNT {
                    assert_eq!(number_of(&receive(&**subscriber)), number);
                }
            });
        }
    });
}

#[test]
fn who_stops_with_the_lock_makes_others_wait_until_their_time_is_up() {
    let root = own_root();
    let broker = broker(root.path());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
    let mut child = start("stopped_process", root.path().to_str().unwrap());
    await_line(&mut BufReader::new(child.stdout.take().unwrap()), "ready");
    let brief = || Some(Instant::now() + Duration::from_millis(50));
    let error = publisher.publish("numbers", b"", brief()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(subscriber.receive(brief()).unwrap(), None);
    let other = broker.publisher().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| subscriber.receive(None));
        let also = scope.spawn(|| other.publish("numbers", b"", None));
        thread::sleep(Duration::from_millis(50));
        subscriber.close().unwrap();
        other.close().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(also.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    kill(child);
    publish(&*publisher, 1);
    assert_eq!(number_of(&receive(&*subscribe(&broker, "a"))), 1);
}

#[test]
fn forked_children_go_on_with_the_ends_of_their_parent() {
    let root = own_root();
    let child = start("forking_process", root.path().to_str().unwrap());
    process::finish(child);
}

/// Forks while it publishes; every child publishes and receives by what it inherited.
#[test]
fn forking_process() {
    const CHILDREN: u64 = 10;
    let Some(root) = process::argument() else { return };
    let broker = broker(Path::new(&root));
    let (publisher, shared) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
    let back = broker.subscriber(&["back"], &SubscribeOptions::default()).unwrap();
    let mut children = Vec::new();
    thread::scope(|scope| {
        let noise = scope.spawn(|| {
            for _ in 0..500 {
                publisher.publish("noise", b"", Some(Instant::now())).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        for _ in 0..CHILDREN {
            // SAFETY: the child uses the library, allocates, and leaves without unwinding.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let done = shared.receive(soon()).is_ok_and(|delivery| {
                    let delivery = delivery.expect("one for each");
                    publisher.publish("back", &delivery.message, soon()).is_ok()
                });
                // SAFETY: leaves without running anything of the parent's.
                unsafe { libc::_exit(i32::from(!done)) };
            }
            children.push(child);
        }
        noise.join().unwrap();
    });
    for number in 0..CHILDREN {
        publish(&*publisher, number);
    }
    for child in children {
        let mut status = 0;
        // SAFETY: waits for a child made above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child got its message and sent it back");
    }
    let mut got: Vec<u64> = (0..CHILDREN).map(|_| number_of(&receive(&*back))).collect();
    got.sort_unstable();
    assert_eq!(got, (0..CHILDREN).collect::<Vec<_>>());
    // What the children had is gone with them; the parent goes on.
    publish(&*publisher, 77);
    assert_eq!(number_of(&receive(&*shared)), 77);
}

#[test]
fn a_damaged_ring_is_an_error() {
    let header = [0, 8, 16, 27, 64, 80, 88];
    let record = [4096 + 2, 4096 + 7];
    for at in header.into_iter().chain(record) {
        let root = own_root();
        let broker = broker(root.path());
        let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
        publish(&*publisher, 1);
        let file = ring(root.path());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        drop(file);
        let error = subscriber.receive(soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
    }
    for len in [1, 2048, 4100] {
        let root = own_root();
        let broker = broker(root.path());
        let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
        publish(&*publisher, 1);
        ring(root.path()).set_len(len).unwrap();
        let error = subscriber.receive(soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len} bytes: {error}");
    }
}

#[test]
fn whatever_a_file_says_the_ends_go_on() {
    // Small numbers, of which the sequence is the same in every run.
    let mut state = 1_u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) % limit
    };
    let root = own_root();
    let broker = broker(root.path());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
    let mut whole = vec![0; 2048];
    ring(root.path()).read_exact_at(&mut whole, 0).unwrap();
    let mut refused = 0;
    for _ in 0..500 {
        let at = [below(40), 64 + below(32), below(2048), 4096 + below(64)][below(4) as usize];
        let edges = [0, 1, 8, 4096, u64::MAX, 1 << 31, 1 << 32, 1 << 61, below(1 << 20)];
        let edge = edges[below(9) as usize].to_le_bytes();
        ring(root.path()).write_all_at(&edge[..=below(8) as usize], at).unwrap();
        for _ in 0..3 {
            let now = Some(Instant::now());
            let results = [
                publisher.publish("numbers", b"message", now),
                subscriber.receive(now).map(drop),
                broker.subscriber(&["numbers"], &SubscribeOptions::default()).map(drop),
            ];
            for error in results.into_iter().filter_map(Result::err) {
                let kinds = [ErrorKind::Corrupt, ErrorKind::Timeout, ErrorKind::Config];
                assert!(kinds.contains(&error.kind()), "{error}");
                refused += 1;
            }
        }
        ring(root.path()).write_all_at(&whole, 0).unwrap();
    }
    assert!(refused > 100, "{refused} calls were refused");
    publish(&*publisher, 1);
    assert_eq!(number_of(&receive(&*subscriber)), 1);
}

#[test]
fn memory_is_given_back_when_all_is_taken() {
    let root = own_root();
    let broker = broker(root.path()).with_capacity(8 << 20);
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
    let message = vec![7; 1 << 20];
    for _ in 0..5 {
        publisher.publish("numbers", &message, soon()).unwrap();
    }
    assert!(ring(root.path()).metadata().unwrap().len() > 5 << 20);
    for _ in 0..5 {
        assert!(receive(&*subscriber) == message);
    }
    assert!(ring(root.path()).metadata().unwrap().len() <= 4096 + (1 << 20));
    publisher.publish("numbers", &message, soon()).unwrap();
    assert!(receive(&*subscriber) == message);
}

#[test]
fn a_topic_has_a_bounded_number_of_groups() {
    let root = own_root();
    let broker = broker(root.path());
    let mut all: Vec<_> = (0..62).map(|group| subscribe(&broker, &group.to_string())).collect();
    let options = SubscribeOptions::default();
    let error = broker.subscriber(&["numbers"], &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    drop(all.pop());
    let next = broker.subscriber(&["numbers"], &options).unwrap();
    publish(&*broker.publisher().unwrap(), 1);
    for subscriber in all.iter().chain([&next]) {
        assert_eq!(number_of(&receive(&**subscriber)), 1);
    }
}

#[test]
fn a_session_lives_as_long_as_its_last_end() {
    let root = own_root();
    let broker = broker(root.path());
    assert!(!session(root.path()).exists());
    let (publisher, subscriber) = (broker.publisher().unwrap(), subscribe(&broker, "a"));
    publish(&*publisher, 1);
    publisher.close().unwrap();
    assert_eq!(number_of(&receive(&*subscriber)), 1);
    // Objects of the connector of the same name live there too.
    let url = format!("shm://demo?root={}", root.path().display());
    let connector = ShmConnector::open(&proxystore::ConnectorConfig::new(url)).unwrap();
    drop(subscriber);
    assert!(session(root.path()).join("t-numbers").exists());
    proxystore::connectors::Connector::close(&connector, false).unwrap();
    assert!(!session(root.path()).exists());
    // What a killed process leaves is swept.
    let mut child = start("subscriber_process", root.path().to_str().unwrap());
    await_line(&mut BufReader::new(child.stdout.take().unwrap()), "ready");
    kill(child);
    assert!(session(root.path()).exists());
    assert_eq!(sweep(Some(root.path())).unwrap().removed, ["demo"]);
    assert!(fs::read_dir(session(root.path())).is_err());
}

#[test]
fn a_session_may_have_several_paths() {
    let root = own_root();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(root.path(), &link).unwrap();
    let subscriber = subscribe(&broker(root.path()), "a");
    let publishers = [root.path(), &link].map(|path| broker(path).publisher().unwrap());
    let each = 2000_u64;
    thread::scope(|scope| {
        for (publisher, first) in publishers.iter().zip([0, each]) {
            scope.spawn(move || {
                for number in first..first + each {
                    publisher.publish("numbers", &number.to_le_bytes(), soon()).unwrap();
                }
            });
        }
        let mut received: Vec<_> = (0..2 * each).map(|_| receive(&*subscriber)).collect();
        received.sort_by_key(|message| u64::from_le_bytes(message[..].try_into().unwrap()));
        let all = (0..2 * each).map(|number| number.to_le_bytes().to_vec());
        assert!(received.into_iter().eq(all), "each once");
    });
}

#[test]
fn a_publisher_has_a_bounded_number_of_files_open() {
    let root = own_root();
    let broker = broker(root.path());
    let publisher = broker.publisher().unwrap();
    let topics: Vec<String> = (0..200).map(|number| format!("topic-{number}")).collect();
    for round in [b"one", b"two"] {
        for topic in &topics {
            publisher.publish(topic, round, soon()).unwrap();
        }
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let ours = targets.filter(|target| target.starts_with(root.path())).count();
    assert!(ours < 100, "{ours} files are open");
    for topic in [&*topics[0], &*topics[199]] {
        let subscriber = broker.subscriber(&[topic], &SubscribeOptions::default()).unwrap();
        assert_eq!(receive(&*subscriber), b"one");
        assert_eq!(receive(&*subscriber), b"two");
    }
}
