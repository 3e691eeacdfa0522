//! Servers that tests start for themselves, and that end with them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::ConnectorConfig;
use proxystore::connectors::Value;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use redis::{Client, Connection, cmd};

use crate::ports::free_port;

/// Longer than any server takes to start, on a busy machine too.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether Redis servers can be started; without, a test has nothing to do at a desk, and fails
/// on a server.
pub(crate) fn has_redis() -> bool {
    let is_here = Command::new("redis-server").arg("--version").output().is_ok();
    let must_be = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(is_here || !must_be, "there is no redis-server here; run scripts/servers");
    is_here
}

/// Ends a test that needs a Redis server where there is none.
macro_rules! needs_redis {
    () => {
        if !$crate::servers::has_redis() {
            return;
        }
    };
}
pub(crate) use needs_redis;

/// What a server is like.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kind {
    pub(crate) password: Option<&'static str>,
    pub(crate) tls: bool,
    pub(crate) is_cluster: bool,
    /// More of its command line.
    pub(crate) arguments: &'static [&'static str],
}

/// A Redis server without persistence, killed when dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Option<Child>,
    folder: tempfile::TempDir,
    kind: Kind,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if kind.tls {
            make_certificates(folder.path());
        }
        let mut server = Self { process: None, folder, kind, port: 0 };
        // Another process may take a free port before the server does.
        for _ in 0..10 {
            server.port = free_port();
            if server.restart() {
                return server;
            }
        }
        panic!("no server starts");
    }

    /// Starts the server again on its port; false when it does not come up.
    pub(crate) fn restart(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir"]);
        command.arg(self.folder.path()).args(["--unixsocket", "socket"]);
        command.args([if self.kind.tls { "--tls-port" } else { "--port" }, &port]);
        if self.kind.tls {
            command.args(["--port", "0", "--tls-ca-cert-file", "ca.pem"]);
            command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]);
        }
        if let Some(password) = self.kind.password {
            command.args(["--requirepass", password]);
        }
        if self.kind.is_cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"]);
            command.args(["--cluster-port", &free_port().to_string()]);
        }
        command.args(self.kind.arguments).stdout(Stdio::null()).stdin(Stdio::null());
        let _ = fs::remove_file(self.socket());
        let mut process = command.spawn().unwrap();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && process.try_wait().unwrap().is_none() {
            if self.socket().exists() && self.try_connect().is_some() {
                self.process = Some(process);
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }

    /// Ends the server at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops the server without ending it: it takes connections, and does not answer.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(self.process.as_ref().unwrap());
        rustix::process::kill_process(process, signal).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.kind.tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}/0", self.port)
    }

    /// With what it takes to be let in.
    pub(crate) fn config(&self) -> ConnectorConfig {
        self.admitted(ConnectorConfig::new(self.url()))
    }

    /// The configuration with what it takes to be let in.
    pub(crate) fn admitted(&self, mut config: ConnectorConfig) -> ConnectorConfig {
        let mut give = |name: &str, value: String| {
            config.options.insert(name.to_owned(), Value::Text(value));
        };
        if let Some(password) = self.kind.password {
            give("password", password.to_owned());
        }
        if self.kind.tls {
            give("ca_file", self.file("ca.pem"));
            give("cert_file", self.file("cert.pem"));
            give("key_file", self.file("key.pem"));
        }
        config
    }

    /// A connection for the test itself, past all connectors.
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> Option<Connection> {
        let password = self.kind.password.map(|word| format!("?pass={word}")).unwrap_or_default();
        let client = Client::open(format!("unix://{}{password}", self.socket().display())).ok()?;
        let mut connection = client.get_connection_with_timeout(PATIENCE).ok()?;
        cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Three servers that share the slots.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Redis>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let kind = Kind { is_cluster: true, ..Kind::default() };
        let servers: Vec<_> = (0..3).map(|_| Redis::start(kind.clone())).collect();
        for (server, slots) in servers.iter().zip([(0, 5460), (5461, 10922), (10923, 16383)]) {
            let mut connection = server.connect();
            let mut cluster = cmd("CLUSTER");
            let add = cluster.arg("ADDSLOTSRANGE").arg(slots.0).arg(slots.1);
            add.exec(&mut connection).unwrap();
            for other in &servers {
                let mut config = cmd("CONFIG");
                let bus: Vec<String> =
                    config.arg("GET").arg("cluster-port").query(&mut other.connect()).unwrap();
                let mut meet = cmd("CLUSTER");
                let meet = meet.arg("MEET").arg("127.0.0.1").arg(other.port).arg(&bus[1]);
                meet.exec(&mut connection).unwrap();
            }
        }
        let end = Instant::now() + PATIENCE;
        for server in &servers {
            while !sees_all(&mut server.connect()) {
                assert!(Instant::now() < end, "the servers do not find each other");
                thread::sleep(Duration::from_millis(20));
            }
        }
        Self { servers }
    }

    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.servers.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }
}

/// Whether a server of a cluster of three knows all slots.
fn sees_all(connection: &mut Connection) -> bool {
    let info: String = cmd("CLUSTER").arg("INFO").query(connection).unwrap();
    let slots: Vec<redis::Value> = cmd("CLUSTER").arg("SLOTS").query(connection).unwrap();
    info.contains("cluster_state:ok") && slots.len() == 3
}

/// A certificate authority, and one certificate of it for servers and clients on this host.
fn make_certificates(folder: &Path) {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority of a test");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}
