//! One endpoint: configured, started, looked at, stopped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
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
    // It has no peers, so nobody may believe that who is one was read again.
    assert!(home.fails(&["endpoint", "reload", "site-a"]).contains("`enabled = true`"));
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
    let error = home.fails(&["endpoint", "start", "site-a"]);
    assert!(error.contains("no size") && error.contains("line=2"), "{error}");
    // The line may have a secret in it.
    let unfinished = "[peers]\ngroup_secret = \"hush, hush\n";
    fs::write(home.file("site-a/config.toml"), unfinished).unwrap();
    fs::create_dir(home.file("relay")).unwrap();
    fs::write(home.file("relay/config.toml"), "[access]\ntokens = [\"hush, hush\n").unwrap();
    for command in [&["endpoint", "start", "site-a"][..], &["relay"]] {
        let error = home.fails(command);
        assert!(error.contains("config.toml") && !error.contains("hush"), "{error}");
    }
    assert!(!home.read("site-a/log.txt").contains("hush"));
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

#[test]
fn a_home_may_be_far_down() {
    let home = Home::new();
    let deep = home.file(&"far-down/".repeat(15));
    let run = |args: &[&str]| {
        let mut command = home.command(PROXYSTORE, args);
        told(&command.env("PROXYSTORE_HOME", &deep).output().unwrap(), 0).0
    };
    let id = run(&["endpoint", "configure", "deep", "--no-peers", "--disk", "0"]);
    let started = run(&["endpoint", "start", "deep"]);
    let socket = started.lines().find_map(|line| line.strip_prefix("socket")).unwrap().trim();
    assert!(socket.len() < 100 && socket.contains(&id[..10]), "{socket}");
    let parent = PathBuf::from(socket).parent().unwrap().metadata().unwrap();
    assert_eq!(parent.permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(run(&["endpoint", "ping", "deep", "-c", "1"]).contains("local"));
    run(&["doctor", "deep"]);
    run(&["endpoint", "stop", "deep"]);
    assert!(!PathBuf::from(socket).exists());
}

#[test]
fn who_says_nothing_takes_neither_all_places_nor_all_files() {
    let home = Home::new();
    let configure = ["endpoint", "configure", "a", "--no-peers", "--persist", "--web", ""];
    home.succeeds(&[&configure[..], &["--host", "127.0.0.1"]].concat());
    let start = |limit: &str| {
        let script = format!("ulimit {limit}; exec \"$0\" endpoint start a");
        let mut shell = home.command("/bin/sh", &["-c", &script, PROXYSTORE]);
        told(&shell.env("PROXYSTORE_ENDPOINT_CLIENTS_PATIENCE", "600").output().unwrap(), 0);
    };
    start("-Sn 100");
    let key = home.succeeds(&["endpoint", "test", "a", "put", "kept"]);
    let pid = home.read("a/daemon.pid").lines().next().unwrap().to_owned();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|at| files.split_whitespace().nth(at).unwrap());
    assert_eq!(soft, hard, "it has as many files as it may");
    home.succeeds(&["endpoint", "stop", "a"]);

    start("-n 128");
    let listed = json(&home.succeeds(&["endpoint", "list", "--json"]));
    let address = listed[0]["tcp"].as_str().unwrap();
    let _silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(home.succeeds(&["endpoint", "test", "a", "get", key.trim()]), "kept\n");
}
