//! A home of a test, the commands that run there, and a relay.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const PROXYSTORE: &str = env!("CARGO_BIN_EXE_proxystore");
pub(crate) const ENDPOINT: &str = env!("CARGO_BIN_EXE_proxystore-endpoint");
/// Longer than anything here takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A home of a test, whose daemons end with it.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn with(endpoint: &str) -> Self {
        let home = Self::new();
        home.succeeds(&["endpoint", "configure", endpoint, "--no-peers", "--disk", "0"]);
        home
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PROXYSTORE_HOME", self.0.path());
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(PROXYSTORE, args).output().unwrap()
    }

    pub(crate) fn succeeds(&self, args: &[&str]) -> String {
        told(&self.run(args), 0).0
    }

    /// What it says on standard error.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
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

pub(crate) fn told(output: &Output, code: i32) -> (String, String) {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

pub(crate) fn wait(child: &mut Child) -> i32 {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(started.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// A relay of a home, and what it prints.
pub(crate) struct Relay(pub(crate) Child, pub(crate) Vec<String>);

impl Relay {
    pub(crate) fn start(home: &Home) -> Self {
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
