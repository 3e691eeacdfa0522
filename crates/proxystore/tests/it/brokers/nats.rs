//! Brokers over nats-server; each test has a server of its own.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::brokers::Broker;
use proxystore::brokers::nats::NatsBroker;
use proxystore::testkit::brokers::BrokerFixture;
use rustix::process::{Pid, Signal, WaitOptions};

use super::steps::{PATIENCE, next, options, soon};
use crate::memory::in_forked_child;
use crate::ports::free_port;
use crate::process;

/// A server, killed when dropped.
struct Server {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Server {
    fn start() -> Self {
        Self::with(&["-js"])
    }

    fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        // Another process may take a free port before the server does.
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = run(&folder, port, &arguments) {
                return Self { process, folder, port, arguments };
            }
        }
        panic!("no server starts");
    }

    /// Kills it, as a crash would, and starts it again.
    fn restart(&mut self) {
        self.kill();
        let process = run(&self.folder, self.port, &self.arguments);
        self.process = process.expect("the server comes back");
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn broker(&self) -> NatsBroker {
        NatsBroker::open(&self.url()).unwrap()
    }

    /// What the server says to who connects.
    fn greeting(&self) -> String {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut greeting = String::new();
        BufReader::new(socket).read_line(&mut greeting).unwrap();
        greeting
    }

    /// What the API of JetStream answers, asked without a client.
    fn ask(&self, subject: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!("CONNECT {{}}\r\nSUB here 1\r\nPUB $JS.API.{subject} here 0\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(socket).lines().map(Result::unwrap);
        lines.find(|line| line.contains("_response")).unwrap()
    }

    /// Has it do nothing, without ending it.
    fn freeze(&self) {
        self.signal(Signal::STOP);
        let process = Some(Pid::from_child(&self.process));
        rustix::process::waitpid(process, WaitOptions::UNTRACED).unwrap(); // all its threads have stopped
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process, once it answers; `None` if it ends instead.
fn run(folder: &tempfile::TempDir, port: u16, arguments: &[String]) -> Option<Child> {
    let name = folder.path().to_str().unwrap();
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-n", name, "-sd", name]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < end && process.try_wait().unwrap().is_none() {
        // It greets who connects, once it is ready; the port may have become another server's.
        let mut greeting = String::new();
        if let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE)
            && BufReader::new(stream).read_line(&mut greeting).is_ok()
            && greeting.contains(name)
        {
            return Some(process);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = process.kill();
    let _ = process.wait();
    None
}

/// Whether servers can be started; without, a test has nothing to do at a desk, and fails on a
/// server.
fn has_nats() -> bool {
    let is_here = Command::new("nats-server").arg("--version").output().is_ok();
    let must_be = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(is_here || !must_be, "there is no nats-server here; run scripts/servers");
    is_here
}

/// Ends a test that needs a server where there is none.
macro_rules! needs_nats {
    () => {
        if !has_nats() {
            return;
        }
    };
}

struct Nats(Mutex<Server>);

impl BrokerFixture for Nats {
    fn open(&self) -> Box<dyn Broker> {
        Box::new(self.0.lock().unwrap().broker())
    }

    fn restart(&self, _broker: &dyn Broker) -> bool {
        self.0.lock().unwrap().restart();
        true
    }

    fn unreachable(&self) -> Option<Box<dyn Broker>> {
        Some(Box::new(NatsBroker::open(&format!("nats://127.0.0.1:{}", free_port())).unwrap()))
    }
}

macro_rules! lines {
    ($($name:ident,)*) => {$(
        #[test]
        fn $name() {
            needs_nats!();
            proxystore::testkit::brokers::$name(&Nats(Mutex::new(Server::start())));
        }
    )*};
}

mod conformance {
    use super::*;

    proxystore::__with_broker_lines!(lines);
}

#[test]
fn nothing_is_lost_when_the_server_restarts_in_mid_stream() {
    const COUNT: u32 = 3000;
    needs_nats!();
    let mut server = Server::start();
    let broker = server.broker();
    let mut some = options();
    some.prefetch = 16;
    let subscriber = broker.subscriber(&["numbers"], &some).unwrap();
    let publisher = broker.publisher().unwrap();
    let (has_begun, begun) = mpsc::channel();
    let (has_restarted, _restarted) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                publisher.publish("numbers", &number.to_le_bytes(), soon()).unwrap();
                if number == COUNT / 3 {
                    has_begun.send(()).unwrap();
                }
            }
            publisher.flush(soon()).unwrap();
        });
        scope.spawn(move || {
            begun.recv().unwrap();
            server.restart();
            has_restarted.send(server).unwrap(); // which ends when the test does
        });
        let mut came = vec![false; COUNT as usize];
        let mut highest = 0;
        while came.contains(&false) {
            let delivery = subscriber.receive(soon()).unwrap().expect("a message comes");
            let number = u32::from_le_bytes(delivery.message[..].try_into().unwrap());
            // What comes for the first time comes in order.
            assert!(came[number as usize] || number == highest, "{number} after {highest}");
            highest = highest.max(number + 1);
            came[number as usize] = true;
            subscriber.acknowledge(&[delivery.tag]).unwrap();
        }
    });
}

#[test]
fn what_a_dropped_subscriber_held_goes_to_the_others() {
    needs_nats!();
    let server = Server::start();
    let broker = server.broker();
    let mut some = options();
    some.prefetch = 10;
    let dropped = broker.subscriber(&["t"], &some).unwrap();
    let publisher = broker.publisher().unwrap();
    for number in 0..10 {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    assert_eq!(next(&*dropped), [0]);
    dropped.receive(soon()).unwrap().expect("one that is not acknowledged");
    drop(dropped);
    let other = broker.subscriber(&["t"], &options()).unwrap();
    let rest: Vec<u8> = (1..10).flat_map(|_| next(&*other)).collect();
    assert_eq!(rest, (1..10).collect::<Vec<u8>>());
}

#[test]
fn the_server_forgets_what_all_groups_acknowledged() {
    needs_nats!();
    let server = Server::start();
    let broker = server.broker();
    let publisher = broker.publisher().unwrap();
    publisher.publish("t", b"early", soon()).unwrap();
    let groups = ["a", "b"].map(|group| {
        let mut options = options();
        group.clone_into(&mut options.group);
        broker.subscriber(&["t"], &options).unwrap()
    });
    publisher.publish("t", b"late", soon()).unwrap();
    publisher.flush(soon()).unwrap();
    // The first group has what came before it, later ones have what comes after them.
    assert_eq!([next(&*groups[0]), next(&*groups[0])], [b"early".to_vec(), b"late".to_vec()]);
    assert_eq!(next(&*groups[1]), b"late");
    let end = soon();
    while !server.ask("STREAM.INFO.t").contains(r#""messages":0,"#) {
        assert!(Some(Instant::now()) < end, "messages stay at the server");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_task_of_another_runtime_publishes_for_as_long_as_it_likes() {
    needs_nats!();
    let server = Server::start();
    let publisher = server.broker().publisher().unwrap();
    let (has_ended, ended) = mpsc::channel();
    thread::spawn(move || {
        let task = async move {
            for _ in 0..500 {
                publisher.publish("t", b"", soon()).unwrap();
            }
            publisher.flush(soon()).unwrap();
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let handle = runtime.spawn(task);
        has_ended.send(runtime.block_on(handle).is_ok()).unwrap();
    });
    assert_eq!(ended.recv_timeout(PATIENCE * 2), Ok(true));
}

#[test]
fn many_use_a_new_topic_at_once() {
    const ENDS: usize = 8;
    const TOPICS: usize = 100;
    needs_nats!();
    let server = Server::start();
    let all_are_here = Barrier::new(ENDS);
    let publish = || {
        let publisher = server.broker().publisher().unwrap();
        // Nobody fails before the others are done, or they would wait for ever.
        let tries = (0..TOPICS).map(|number| {
            all_are_here.wait();
            publisher.publish(&format!("t{number}"), b"", soon())
        });
        let tries: Vec<_> = tries.collect();
        tries.into_iter().for_each(Result::unwrap);
        publisher.flush(soon()).unwrap();
    };
    thread::scope(|scope| {
        for _ in 0..ENDS {
            scope.spawn(publish);
        }
    });
}

#[test]
fn a_stream_that_was_deleted_is_made_again_and_sent_to_once() {
    const COUNT: u8 = 250;
    needs_nats!();
    let monitor = free_port();
    let server = Server::with(&["-js", "-m", &monitor.to_string()]);
    let publisher = server.broker().publisher().unwrap();
    publisher.publish("t", b"before", soon()).unwrap();
    publisher.flush(soon()).unwrap();
    assert!(server.ask("STREAM.DELETE.t").contains(r#""success":true"#));
    for number in 0..COUNT {
        publisher.publish("t", &[number], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    let about = server.ask("STREAM.INFO.t");
    assert!(about.contains(&format!(r#""messages":{COUNT},"#)), "{about}");
    let mut socket = TcpStream::connect(("127.0.0.1", monitor)).unwrap();
    socket.write_all(b"GET /varz HTTP/1.0\r\n\r\n").unwrap();
    let lines = BufReader::new(socket).lines().map(Result::unwrap);
    let came = lines.filter_map(|line| {
        line.trim().strip_prefix(r#""in_msgs": "#)?.strip_suffix(',')?.parse::<u32>().ok()
    });
    let came: Vec<_> = came.collect();
    assert!(came.len() == 1 && came[0] < 10 * u32::from(COUNT), "{came:?} messages were sent");
}

#[test]
fn a_new_topic_waits_for_a_silent_server_no_longer_than_it_may() {
    needs_nats!();
    let server = Server::start();
    let publisher = server.broker().publisher().unwrap();
    publisher.publish("old", b"", soon()).unwrap();
    publisher.flush(soon()).unwrap();
    server.freeze();
    let start = Instant::now();
    let error = publisher.publish("new", b"", Some(start + Duration::from_millis(50)));
    // The server itself is given up after five seconds.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);
    server.signal(Signal::CONT);
    publisher.publish("new", b"", soon()).unwrap();
    publisher.flush(soon()).unwrap();
}

#[test]
fn much_that_waits_does_not_come_faster_than_it_is_taken() {
    const COUNT: u8 = 150;
    needs_nats!();
    let server = Server::start();
    let broker = server.broker();
    let mut options = options();
    options.prefetch = usize::from(COUNT);
    let subscriber = broker.subscriber(&["t"], &options).unwrap();
    let publisher = broker.publisher().unwrap();
    let mut message = vec![0; 1_000_000];
    for number in 0..COUNT {
        message[0] = number;
        publisher.publish("t", &message, soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    // With more than 64 MB on their way, the server would cut the connection, and what was on its way
    // would come again, much later.
    for number in 0..COUNT {
        assert_eq!(next(&*subscriber)[0], number);
    }
}

#[test]
fn messages_larger_than_what_is_asked_for_at_once_come_one_by_one() {
    needs_nats!();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    std::fs::write(&config, "max_payload: 33554432").unwrap();
    let server = Server::with(&["-js", "-c", config.to_str().unwrap()]);
    let broker = server.broker();
    let mut options = options();
    options.prefetch = 8;
    let subscriber = broker.subscriber(&["t"], &options).unwrap();
    let publisher = broker.publisher().unwrap();
    let lens = [20_000_000, 1, 17_000_000, 18_000_000, 2];
    for len in lens {
        publisher.publish("t", &vec![0; len], soon()).unwrap();
    }
    publisher.flush(soon()).unwrap();
    let first = subscriber.receive(Some(Instant::now())).unwrap().expect("it is there");
    assert_eq!(first.message.len(), lens[0]);
    assert_eq!([(); 4].map(|()| next(&*subscriber).len()), lens[1..]);
    assert!(subscriber.receive(Some(Instant::now())).unwrap().is_none());
}

#[test]
fn a_message_too_large_is_refused_and_says_what_to_do() {
    needs_nats!();
    let server = Server::start();
    let publisher = server.broker().publisher().unwrap();
    let error = publisher.publish("t", &vec![0; 1 << 20], soon()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.hint().unwrap().contains("store"), "{error}");
    publisher.publish("t", b"small", soon()).unwrap();
    publisher.flush(soon()).unwrap();
}

#[test]
fn passwords_open_and_are_not_shown() {
    needs_nats!();
    let server = Server::with(&["-js", "--user", "grace", "--pass", "h@sh"]);
    let open = |login: &str| {
        NatsBroker::open(&format!("nats://{login}@127.0.0.1:{}", server.port)).unwrap()
    };
    let right = open("grace:h%40sh");
    let subscriber = right.subscriber(&["t"], &options()).unwrap();
    right.publisher().unwrap().publish("t", b"in", soon()).unwrap();
    assert_eq!(next(&*subscriber), b"in");
    let wrong = open("grace:guess");
    let errors = [
        wrong.subscriber(&["t"], &options()).unwrap_err(),
        wrong.publisher().unwrap().publish("t", b"out", soon()).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(!format!("{error:?}").contains("guess"), "{error:?}");
    }
    for shown in [format!("{wrong:?}"), format!("{right:?}")] {
        assert!(!shown.contains("guess") && !shown.contains("h@sh"), "{shown}");
    }
    let error = NatsBroker::open("nats://grace:hush%4@host").unwrap_err();
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[test]
fn what_takes_longer_than_the_call_is_done_for_the_next() {
    needs_nats!();
    let server = Server::start();
    let far = far_away(server.port);
    let publisher = NatsBroker::open(&format!("nats://{far}")).unwrap().publisher().unwrap();
    let end = soon();
    while let Err(error) = publisher.publish("t", b"", Some(Instant::now())) {
        assert!(error.kind().is_retryable() && Some(Instant::now()) < end, "{error}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where a server can be reached that takes its time to greet.
fn far_away(port: u16) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for caller in listener.incoming().map(Result::unwrap) {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(500));
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let ways = [(&caller, &server), (&server, &caller)];
                thread::scope(|scope| {
                    for (mut from, mut to) in ways {
                        scope.spawn(move || {
                            let _ = std::io::copy(&mut from, &mut to);
                            let _ = to.shutdown(Shutdown::Both);
                        });
                    }
                });
            });
        }
    });
    address
}

#[test]
fn a_server_that_greets_and_hangs_up_leaves_it_to_the_others() {
    needs_nats!();
    let server = Server::start();
    let greeting = server.greeting();
    let rude = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = rude.local_addr().unwrap();
    thread::spawn(move || {
        for caller in rude.incoming() {
            let _ = caller.unwrap().write_all(greeting.as_bytes());
        }
    });
    // Clients begin with any of the servers.
    for _ in 0..20 {
        let broker = NatsBroker::open(&format!("{},{address}", server.url())).unwrap();
        broker.publisher().unwrap().publish("t", b"", soon()).unwrap();
    }
}

#[test]
fn a_server_without_jetstream_is_an_error_that_says_so() {
    needs_nats!();
    let server = Server::with(&[]);
    let error = server.broker().subscriber(&["t"], &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("-js"), "{error}");
}

#[test]
fn a_forked_child_makes_ends_of_its_own() {
    process::finish(
        process::command("brokers::nats::role_forks_with_open_ends", "").spawn().unwrap(),
    );
}

#[test]
fn role_forks_with_open_ends() {
    if process::argument().is_none() {
        return;
    }
    needs_nats!();
    let server = Server::start();
    let broker = server.broker();
    let publisher = broker.publisher().unwrap();
    let subscriber = broker.subscriber(&["t"], &options()).unwrap();
    publisher.publish("t", b"parent", soon()).unwrap();
    let status = in_forked_child(|| {
        let inherited = publisher.publish("t", b"lost", soon()).unwrap_err();
        assert_eq!(inherited.kind(), ErrorKind::Unsupported, "{inherited}");
        assert_eq!(subscriber.receive(soon()).unwrap_err().kind(), ErrorKind::Unsupported);
        subscriber.close().unwrap(); // and takes nothing from the parent
        let own = broker.publisher().unwrap();
        own.publish("t", b"child", soon()).unwrap();
        own.close().unwrap();
    });
    assert_eq!(status, 0, "the child's wait status");
    publisher.publish("t", b"parent again", soon()).unwrap();
    let mut came = [next(&*subscriber), next(&*subscriber), next(&*subscriber)];
    came.sort();
    assert_eq!(came, [b"child".to_vec(), b"parent".to_vec(), b"parent again".to_vec()]);
}
impl crate::stream_kills::Server for Server {
    fn url(&self) -> String {
        Self::url(self)
    }

    /// It is told to stop, and started again.
    fn kill(&mut self) {
        self.signal(Signal::TERM);
        self.process.wait().unwrap();
        let process = run(&self.folder, self.port, &self.arguments);
        self.process = process.expect("the server comes back");
    }
}

#[test]
fn nothing_is_lost_whoever_is_killed() {
    needs_nats!();
    crate::stream_kills::run(&mut Server::start());
}
