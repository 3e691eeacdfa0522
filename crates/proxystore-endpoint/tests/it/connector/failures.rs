//! Daemons that are not there, restart, do not know the token, or are none.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::connectors::endpoint::EndpointConnector;
use proxystore::connectors::endpoint::home::{Card, TOKEN};
use proxystore::connectors::{Connector, ConnectorConfig, PutOptions, Value};
use proxystore::payload::Parts;
use proxystore::wire::greeting::{Challenge, HELLO, Hello, Token};

use super::site::{Over, Site};
use super::{get, put};

/// Opens a connector whose home has no endpoints in a process that has this one as its usual home.
fn open_elsewhere(id: &str, given: &Path, usual: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "connector::failures::elsewhere", "--ignored", "--nocapture"])
        .env("PROXYSTORE_HOME", usual)
        .env("ELSEWHERE_ID", id)
        .env("ELSEWHERE_HOME", given)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "the other process of the tests below"]
fn elsewhere() {
    let Ok(id) = std::env::var("ELSEWHERE_ID") else { return };
    let mut config = ConnectorConfig::new(format!("endpoint:{id}"));
    config.options.insert("home".into(), Value::Text(std::env::var("ELSEWHERE_HOME").unwrap()));
    let told = match EndpointConnector::open(&config) {
        Ok(connector) => format!("asks {}", connector.home_endpoint().unwrap()),
        Err(error) => format!("{:?} {error}", error.kind()),
    };
    std::io::stdout().write_all(told.as_bytes()).unwrap();
}

#[test]
fn a_home_of_another_site_does_not_hide_that_of_this_one() {
    let (site, other) = (Site::start(Over::Unix, ""), Site::start(Over::Unix, ""));
    let id = site.card().id;
    for given in [Path::new("/nowhere"), tempfile::tempdir().unwrap().path()] {
        let told = open_elsewhere(&id, given, site.home());
        assert!(told.contains(&format!("asks {id}")), "{told}");
    }
    let told = open_elsewhere(&id, site.home(), other.home());
    assert!(told.contains(&format!("asks {id}")), "{told}");
}

#[test]
fn what_is_missing_is_said_with_its_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let id = Site::configure(Over::Unix, "").card().id;
    let told = open_elsewhere(&id, empty.path(), empty.path());
    let home = empty.path().to_str().unwrap();
    for part in ["Config", home, &id, "proxystore endpoint configure", "endpoint start"] {
        assert!(told.contains(part), "{part} in {told}");
    }

    let site = Site::configure(Over::Unix, "");
    let error = EndpointConnector::open(&site.config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("proxystore endpoint start site"), "{error}");
}

#[test]
fn who_does_not_know_the_token_is_refused() {
    for over in [Over::Unix, Over::Tcp] {
        let site = Site::start(over, "");
        fs::write(site.path().join(TOKEN), Token::random().unwrap().reveal()).unwrap();
        let error = EndpointConnector::open(&site.config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(error.to_string().contains("token"), "{error}");
    }
}

#[test]
fn another_endpoint_at_the_address_is_noticed() {
    let (site, other) = (Site::start(Over::Unix, ""), Site::start(Over::Unix, ""));
    let card = Card { socket: other.card().socket, tcp: None, ..site.card() };
    site.directory().write_card(&card).unwrap();
    let error = EndpointConnector::open(&site.config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(&other.card().id), "{error}");
}

#[test]
fn a_restart_in_the_middle_is_not_noticed() {
    for over in [Over::Unix, Over::Tcp] {
        let mut site = Site::start(over, "persist = true");
        let connector = site.open();
        let keys: Vec<_> = [10, 500_000].map(|len| put(&connector, &vec![7; len])).into();
        let deferred = connector.new_key().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| connector.wait(&deferred, None));
            site.stop();
            site.run();
            for key in &keys {
                assert_eq!(get(&connector, key).unwrap().len() as u64, key.size());
            }
            assert_eq!(get(&connector, &put(&connector, b"after")).as_deref(), Some(&b"after"[..]));
            let options = PutOptions { key: Some(deferred.clone()), ..PutOptions::default() };
            connector.put(&Parts::from(&b"late"[..]), &options).unwrap();
            assert!(waiter.join().unwrap().unwrap(), "a waiter outlives the restart");
        });
        site.stop();
        let error = connector.exists(&keys[0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("proxystore endpoint start site"), "{error}");
    }
}

/// What does not speak as an endpoint: answers a client, and says whether to go on reading.
type Pretender = fn(&mut std::os::unix::net::UnixStream, &Hello, &Site);

/// Opens a connector to something else than a daemon.
fn open_at(pretend: Pretender) -> proxystore::Result<EndpointConnector> {
    let site = Site::configure(Over::Unix, "");
    let socket = site.home().join("pretender");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    site.directory().write_card(&Card { socket: Some(socket), ..site.card() }).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let Ok((mut client, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                client.set_nonblocking(false).unwrap();
                let mut hello = [0; HELLO];
                client.read_exact(&mut hello).unwrap();
                pretend(&mut client, &Hello::decode(&hello).unwrap(), &site);
                held.push(client);
                if held.len() > 3 {
                    held.clear();
                }
            }
        });
        let opened = EndpointConnector::open(&site.impatient(0.5));
        done.store(true, Ordering::Relaxed);
        opened
    })
}

#[test]
fn what_is_no_endpoint_is_told_apart_within_the_timeout() {
    let start = Instant::now();
    let junk: Pretender = |client, _, _| client.write_all(&[b'x'; 1000]).unwrap();
    assert_eq!(open_at(junk).unwrap_err().kind(), ErrorKind::Corrupt);

    let closes: Pretender = |client, _, _| client.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(open_at(closes).unwrap_err().kind(), ErrorKind::Io);

    let hangs: Pretender = |_, _, _| {};
    assert_eq!(open_at(hangs).unwrap_err().kind(), ErrorKind::Timeout);

    // It says who it should be, but cannot prove that it knows the token.
    let pretends: Pretender = |client, hello, site| {
        let id = site.card().endpoint().unwrap();
        client.write_all(&Challenge::to(hello, id).unwrap().encode()).unwrap();
        let mut proof = [0; 32];
        client.read_exact(&mut proof).unwrap();
        let mut answer = [0; 32].to_vec();
        let welcome = proxystore::wire::Answer::Welcome(proxystore::wire::Welcome::default());
        proxystore::wire::encode_answer(&mut answer, 0, &welcome, 0, false).unwrap();
        client.write_all(&answer).unwrap();
    };
    assert_eq!(open_at(pretends).unwrap_err().kind(), ErrorKind::Permission);

    // It knows the token, and then talks nonsense.
    let raves: Pretender = |client, hello, site| {
        let id = site.card().endpoint().unwrap();
        let challenge = Challenge::to(hello, id).unwrap();
        client.write_all(&challenge.encode()).unwrap();
        let mut proof = [0; 32];
        client.read_exact(&mut proof).unwrap();
        let token = site.directory().token().unwrap();
        let role = proxystore::wire::greeting::Role::Daemon;
        let mut answer = token.proof(role, hello, &challenge).to_vec();
        answer.extend_from_slice(&[0xff; 64]);
        client.write_all(&answer).unwrap();
    };
    assert_eq!(open_at(raves).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(start.elapsed() < Duration::from_mins(1), "nothing hangs");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    let site = Site::start(Over::Unix, "max_object = \"1 KiB\"");
    let connector = site.open();
    let key = put(&connector, &[1; 1024]);
    let too_large = [2; 1025];
    let batch = [Parts::from(&b"small"[..]), Parts::from(&too_large[..])];
    for outcome in [
        connector.put(&batch[1], &PutOptions::default()).map(drop),
        connector.put_batch(&batch, &PutOptions::default()).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("max_object"), "{error}");
    }
    assert!(connector.exists(&key).unwrap());
}
