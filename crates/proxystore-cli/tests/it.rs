//! The commands as people run them, against real daemons.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PROXYSTORE: &str = env!("CARGO_BIN_EXE_proxystore");
const ENDPOINT: &str = env!("CARGO_BIN_EXE_proxystore-endpoint");
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_mins(1);

/// A home of a test, whose daemons end with it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(endpoint: &str) -> Self {
        let home = Self::new();
        home.succeeds(&["endpoint", "configure", endpoint, "--no-peers", "--disk", "0"]);
        home
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PROXYSTORE_HOME", self.0.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(PROXYSTORE, args).output().unwrap()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        told(&self.run(args), 0).0
    }

    /// What it says on standard error.
    fn fails(&self, args: &[&str]) -> String {
        told(&self.run(args), 1).1
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.0.path()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let _ = self.run(&["endpoint", "stop", name, "--force", "--timeout", "20"]);
        }
    }
}

fn told(output: &Output, code: i32) -> (String, String) {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn wait(child: &mut Child) -> i32 {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(started.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

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
fn peers_are_trusted_and_comments_stay() {
    let home = Home::with("site-a");
    home.succeeds(&["endpoint", "configure", "site-b", "--no-peers"]);
    let id = home.succeeds(&["endpoint", "show", "site-b", "--id"]);
    let id = id.trim();
    home.succeeds(&["endpoint", "trust", "site-a", id, "--as", "b", "--address", "127.0.0.1:4000"]);
    let list = home.succeeds(&["endpoint", "trust", "site-a", "--list"]);
    assert!(
        list.contains(id) && list.contains("127.0.0.1:4000") && list.contains("full"),
        "{list}"
    );
    home.succeeds(&["endpoint", "trust", "site-a", "b", "--read-only"]);
    let list = home.succeeds(&["endpoint", "trust", "site-a", "--list"]);
    assert!(list.contains("read") && list.contains("127.0.0.1:4000"), "{list}");
    assert_eq!(list.matches(id).count(), 1);
    let file = home.read("site-a/config.toml");
    assert!(file.contains("# Who may connect here, and where."), "{file}");
    home.succeeds(&["endpoint", "trust", "site-a", "b", "--remove"]);
    assert!(!home.succeeds(&["endpoint", "trust", "site-a", "--list"]).contains(id));
    assert!(home.fails(&["endpoint", "trust", "site-a", id, "--remove"]).contains("not admitted"));
    assert!(home.fails(&["endpoint", "trust", "site-a", "site-a"]).contains("itself"));
    assert!(home.fails(&["endpoint", "trust", "site-a", "nobody"]).contains("nobody"));
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

/// A relay of a home, and what it prints.
struct Relay(Child, Vec<String>);

impl Relay {
    fn start(home: &Home) -> Self {
        let args = ["relay", "--host", "127.0.0.1", "--port", "0", "--udp-port", "0"];
        let file = "web = \"\"\n[access]\ntokens = [\"of-the-test\"]\n";
        fs::create_dir_all(home.file("relay")).unwrap();
        fs::write(home.file("relay/config.toml"), file).unwrap();
        let mut command = home.command(PROXYSTORE, &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(2);
        let told = lines.map(|line| line.unwrap().split_whitespace().last().unwrap().into());
        let told = told.collect();
        Self(child, told)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sites_meet_at_a_relay() {
    let home = Home::new();
    let mut relay = Relay::start(&home);
    assert_eq!(home.succeeds(&["relay", "--token"]), "of-the-test\n");
    let [url, fingerprint] = relay.1.as_slice() else { panic!("{:?}", relay.1) };
    let url = format!("https://127.0.0.1:{}", url.rsplit(':').next().unwrap());
    for site in ["site-a", "site-b"] {
        home.succeeds(&[
            "endpoint",
            "configure",
            site,
            "--disk",
            "0",
            "--relay",
            &url,
            "--relay-token",
            "of-the-test",
            "--relay-fingerprint",
            fingerprint,
            "--relay-udp-port",
            "0",
        ]);
    }
    home.succeeds(&["endpoint", "trust", "site-a", "site-b", "--as", "b"]);
    assert!(home.succeeds(&["doctor", "site-a"]).contains("admitted after"));
    for site in ["site-a", "site-b"] {
        home.succeeds(&["endpoint", "start", site]);
    }
    assert!(home.fails(&["endpoint", "ping", "site-a", "b"]).contains("does not admit us"));
    let (_, words) = told(&home.run(&["endpoint", "trust", "site-b", "site-a", "--as", "a"]), 0);
    assert!(words.contains("at once"), "{words}");
    let pong = home.succeeds(&["endpoint", "ping", "site-a", "b"]);
    assert!(pong.contains("direct") || pong.contains("relayed"), "{pong}");
    let (found, _) = told(&home.run(&["doctor", "site-a", "--peer", "b"]), 0);
    assert!(found.contains("b answers") && found.contains("[site-a]"), "{found}");
    let key = home.succeeds(&["endpoint", "test", "site-a", "--remote", "b", "put", "far"]);
    assert_eq!(home.succeeds(&["endpoint", "test", "site-b", "get", key.trim()]), "far\n");

    home.succeeds(&["endpoint", "trust", "site-b", "a", "--remove"]);
    assert!(home.fails(&["endpoint", "ping", "site-a", "b"]).contains("does not admit us"));

    signal(relay.0.id(), rustix::process::Signal::TERM);
    assert_eq!(wait(&mut relay.0), 0);
    let (found, _) = told(&home.run(&["doctor", "site-a"]), 1);
    assert!(found.contains("PROBLEM"), "{found}");
}

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    let help = home.succeeds(&["endpoint", "--help"]);
    let verbs = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let verbs: Vec<&str> = verbs
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let help = home.succeeds(&["endpoint", verb, "--help"]);
        assert!(help.contains("Examples:"), "{verb}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.succeeds(&["completions", shell]).contains("configure"));
    }
    for command in ["relay", "doctor", "completions", "man"] {
        let help = home.succeeds(&[command, "--help"]);
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
    assert!(home.succeeds(&["man"]).contains(".TH proxystore"));
    let pages = home.file("man");
    home.succeeds(&["man", "--dir", pages.to_str().unwrap()]);
    assert!(home.read("man/proxystore-endpoint-configure.1").contains("group"));
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

#[test]
fn the_verbs_of_the_python_original() {
    let home = Home::new();
    let run = |args: &[&str]| home.command(ENDPOINT, args).output().unwrap();
    let configure =
        ["configure", "old", "--host", "127.0.0.1", "--relay-auth", "--no-relay-server"];
    let (_, note) = told(&run(&configure), 0);
    assert!(note.contains("--relay-auth has no effect"), "{note}");
    told(&run(&["--log-level", "WARNING", "start", "old"]), 0);
    assert!(told(&run(&["list"]), 0).0.contains("running"));
    let key = told(&run(&["test", "old", "put", "data"]), 0).0;
    assert_eq!(told(&run(&["test", "old", "get", key.trim()]), 0).0, "data\n");
    told(&run(&["stop", "old"]), 0);
    told(&run(&["remove", "old"]), 0);
    assert!(told(&run(&["version"]), 0).0.starts_with("ProxyStore v"));
    told(&run(&["help"]), 0);
    told(&run(&["stop"]), 2);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let home = Home::new();
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut child = home.command(PROXYSTORE, &["man"]).stdout(write).spawn().unwrap();
    assert_eq!(wait(&mut child), 0);
}
