//! One endpoint: configured, started, looked at, stopped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Instant;

use crate::home::{Home, PATIENCE, PROXYSTORE, json, signal, told, wait};

#[test]
fn the_life_of_an_endpoint() {
    let home = Home::with("site-a");
    let id = home.succeeds(&["endpoint", "show", "site-a", "--id"]);
    let stopped = home.succeeds(&["endpoint", "list"]);
    assert!(stopped.contains("stopped") && stopped.contains(id.trim()), "{stopped}");
    assert!(home.fails(&["endpoint", "status", "site-a"]).contains("does not run"));

    assert!(home.succeeds(&["endpoint", "start", "site-a"]).contains("socket"));
    let again = home.fails(&["endpoint", "start", "site-a"]);
    assert!(again.contains("runs already") && again.contains("remedy"), "{again}");
    assert!(home.succeeds(&["endpoint", "list"]).contains("running"));
    let status = json(&home.succeeds(&["endpoint", "status", "site-a", "--json"]));
    assert_eq!((status["name"].as_str(), status["id"].as_str()), (Some("site-a"), Some(id.trim())));
    assert!(
        home.succeeds(&["endpoint", "ping", id.trim(), "-c", "2", "-i", "0"]).contains("local")
    );
    assert!(home.fails(&["endpoint", "remove", "site-a", "--yes"]).contains("it runs"));
    assert!(home.read("site-a/log.txt").contains("the endpoint runs"));

    home.succeeds(&["endpoint", "restart", "site-a"]);
    let later = json(&home.succeeds(&["endpoint", "status", "site-a", "--json"]));
    assert_ne!(later["pid"], status["pid"]);
    home.succeeds(&["endpoint", "stop", "site-a"]);
    assert!(
        home.fails(&["endpoint", "ping", "site-a"]).contains("`proxystore endpoint start site-a`")
    );
    assert!(told(&home.run(&["endpoint", "stop", "site-a"]), 0).1.contains("does not run"));
    assert!(home.read("site-a/log.txt").contains("the endpoint stopped"));
    assert!(home.fails(&["endpoint", "remove", "site-a"]).contains("--yes"));
    home.succeeds(&["endpoint", "remove", "site-a", "--yes"]);
    assert!(!home.file("site-a").exists());
    assert!(home.fails(&["endpoint", "start", "site-a"]).contains("configure site-a"));
}

#[test]
fn a_killed_endpoint_starts_again() {
    let home = Home::with("site-a");
    home.succeeds(&["endpoint", "start", "site-a"]);
    let status = json(&home.succeeds(&["endpoint", "status", "site-a", "--json"]));
    signal(status["pid"].as_u64().unwrap().try_into().unwrap(), rustix::process::Signal::KILL);
    let started = Instant::now();
    while !home.succeeds(&["endpoint", "list"]).contains("killed") {
        assert!(started.elapsed() < PATIENCE, "it lives on");
    }
    assert!(home.fails(&["endpoint", "status", "site-a"]).contains("killed"));
    home.succeeds(&["endpoint", "start", "site-a"]);
    home.succeeds(&["endpoint", "ping", "site-a"]);
}

#[test]
fn in_the_foreground_it_logs_to_standard_error_and_ends_by_signal() {
    let home = Home::with("site-a");
    let mut child = home
        .command(PROXYSTORE, &["endpoint", "start", "site-a", "--no-detach", "--log-level", "info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the endpoint runs") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
    }
    home.succeeds(&["endpoint", "ping", "site-a"]);
    signal(child.id(), rustix::process::Signal::HUP);
    home.succeeds(&["endpoint", "ping", "site-a"]);
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(wait(&mut child), 0);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("the endpoint stopped"), "{rest}");
}

#[test]
fn objects_by_hand() {
    let home = Home::with("site-a");
    home.succeeds(&["endpoint", "start", "site-a"]);
    let key = home.succeeds(&["endpoint", "test", "site-a", "put", "hello"]);
    let key = key.trim();
    assert_eq!(home.succeeds(&["endpoint", "test", "site-a", "get", key]), "hello\n");
    assert_eq!(home.succeeds(&["endpoint", "test", "site-a", "exists", key]), "true\n");
    home.succeeds(&["endpoint", "test", "site-a", "evict", key]);
    assert_eq!(told(&home.run(&["endpoint", "test", "site-a", "exists", key]), 1).0, "false\n");
    assert!(home.fails(&["endpoint", "test", "site-a", "get", key]).contains(key));
    let table = home.succeeds(&[
        "endpoint", "bench", "site-a", "--size", "10KB", "--size", "3MB", "--count", "2",
    ]);
    assert_eq!(table.lines().count(), 5, "{table}");
}

#[test]
fn what_configure_is_told_is_in_the_file() {
    let home = Home::new();
    fs::write(home.file("secret"), "0123456789abcdef\n").unwrap();
    let secret = home.file("secret");
    let id = home.succeeds(&[
        "endpoint",
        "configure",
        "site-b",
        "--memory",
        "4 GB",
        "--persist",
        "--host",
        "127.0.0.1",
        "--port",
        "4711",
        "--relay",
        "https://relay:8443",
        "--relay-token",
        "very-secret",
        "--group-secret-file",
        secret.to_str().unwrap(),
        "--web",
        "",
        "--streams",
        "8",
    ]);
    let shown = home.succeeds(&["endpoint", "show", "site-b"]);
    for expected in [
        "memory = \"4 GB\"",
        "persist = true",
        "host = \"127.0.0.1\"",
        "port = 4711",
        "url = \"https://relay:8443\"",
        "address = \"\"",
        "streams = 8",
    ] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    assert!(!shown.contains("very-secret") && !shown.contains("0123456789abcdef"), "{shown}");
    assert!(home.read("site-b/config.toml").contains("0123456789abcdef"));
    assert_eq!(id, home.succeeds(&["endpoint", "show", "site-b", "--id"]));
    for wrong in [
        &["endpoint", "configure", "site-b"][..],
        &["endpoint", "configure", "../up"],
        &["endpoint", "configure", "site c"],
        &["endpoint", "configure", "site-c", "--web", "everywhere"],
    ] {
        assert!(home.fails(wrong).starts_with("error: "));
    }
    assert!(!home.file("site-c").exists());
    told(&home.run(&["endpoint", "configure", "site-c", "--memory", "lots"]), 2);
    for url in ["relay.example.org:8443", "http://relay.example.org", "8443"] {
        let refused = home.run(&["endpoint", "configure", "site-c", "--relay", url]);
        assert!(told(&refused, 2).1.contains("https://HOST:PORT"));
    }
    told(&home.run(&["endpoint"]), 2);
    told(&home.run(&["endpiont"]), 2);
}

#[test]
fn the_environment_is_over_the_file() {
    let home = Home::with("site-a");
    let start = ["endpoint", "start", "site-a"];
    let refused =
        home.command(PROXYSTORE, &start).env("PROXYSTORE_ENDPOINT_STORAGE_MEMROY", "1").output();
    let (_, refused) = told(&refused.unwrap(), 1);
    assert!(refused.contains("PROXYSTORE_ENDPOINT_STORAGE_MEMROY"), "{refused}");
    let started =
        home.command(PROXYSTORE, &start).env("PROXYSTORE_ENDPOINT_STORAGE_MEMORY", "7 MB").output();
    told(&started.unwrap(), 0);
    let status = json(&home.succeeds(&["endpoint", "status", "site-a", "--json"]));
    assert_eq!(status["storage"]["memory_limit"].as_u64(), Some(7_000_000));
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = Home::with("site-a");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web = taken.local_addr().unwrap().to_string();
    let output = home
        .command(PROXYSTORE, &["endpoint", "start", "site-a"])
        .env("PROXYSTORE_ENDPOINT_WEB_ADDRESS", &web)
        .output()
        .unwrap();
    let (_, error) = told(&output, 1);
    assert!(error.contains(&web), "{error}");
    assert!(home.read("site-a/log.txt").contains(&web));
    fs::write(home.file("site-a/config.toml"), "[storage]\nmemory = \"much\"\n").unwrap();
    assert!(home.fails(&["endpoint", "start", "site-a"]).contains("no size"));
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_helps() {
    let home = Home::with("site-a");
    home.succeeds(&["endpoint", "start", "site-a"]);
    home.succeeds(&["doctor", "site-a"]);
    let found = json(&home.succeeds(&["doctor", "--json"]));
    let daemon = found.as_array().unwrap().iter().find(|finding| finding["what"] == "daemon");
    assert_eq!(daemon.unwrap()["verdict"], "ok");
    let token = home.file("site-a/token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let (found, _) = told(&home.run(&["doctor", "site-a"]), 1);
    assert!(found.contains(&format!("chmod 600 {}", token.display())), "{found}");
}
