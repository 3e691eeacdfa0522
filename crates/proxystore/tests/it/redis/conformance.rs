//! The contract, line by line, on every kind of server and through wrappers.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use proxystore::connectors::redis::RedisConnector;
use proxystore::connectors::{Connector, ConnectorConfig, Value};
use proxystore::key::Key;
use proxystore::testkit::{Counting, Fixture, wrapped};
use redis::cmd;

use crate::servers::{Cluster, Kind, Redis, needs_redis};

/// Channels on one server: each connector has a namespace of its own.
struct Server {
    redis: Redis,
    url: String,
    options: &'static [(&'static str, i64)],
}

impl Server {
    fn new(kind: Kind) -> Self {
        let server = Redis::start(kind);
        Self { url: server.url(), redis: server, options: &[] }
    }

    fn with(self, options: &'static [(&'static str, i64)]) -> Self {
        Self { options, ..self }
    }

    fn on_a_socket() -> Self {
        let server = Redis::start(Kind::default());
        Self {
            url: format!("redis+unix://{}", server.socket().display()),
            redis: server,
            options: &[],
        }
    }
}

impl Fixture for Server {
    fn open(&self) -> Box<dyn Connector> {
        let mut config = self.redis.admitted(ConnectorConfig::new(&self.url));
        for (name, value) in self.options {
            config.options.insert((*name).to_owned(), Value::Int(*value));
        }
        Box::new(RedisConnector::open(&config).unwrap())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        // The password is not in the configuration.
        Some(Box::new(RedisConnector::open(&self.redis.admitted(config.clone())).unwrap()))
    }

    fn damage(&self, _: &ConnectorConfig, key: &Key) -> bool {
        let mut connection = self.redis.connect();
        let name = format!("proxystore:{{{}}}", key.id());
        let bytes: Vec<u8> = cmd("GET").arg(&name).query(&mut connection).unwrap();
        cmd("SET").arg(&name).arg(&bytes[..bytes.len() / 2]).exec(&mut connection).unwrap();
        true
    }
}

/// A cluster that the tests which run at one time share: it takes a while to come together.
struct Shared(Arc<Cluster>);

impl Shared {
    fn new() -> Self {
        static LATEST: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = latest.upgrade().unwrap_or_else(|| Arc::new(Cluster::start()));
        *latest = Arc::downgrade(&cluster);
        Self(cluster)
    }
}

impl Fixture for Shared {
    fn open(&self) -> Box<dyn Connector> {
        Box::new(RedisConnector::new(&self.0.url()).unwrap())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        Some(Box::new(RedisConnector::open(config).unwrap()))
    }
}

macro_rules! conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;

            fn fixture() -> impl Fixture {
                $fixture
            }

            proxystore::__with_contract_lines!(tests);
        }
    };
}

macro_rules! tests {
    ($($number:literal $name:ident,)*) => {$(
        #[test]
        fn $name() {
            needs_redis!();
            let _ = proxystore::testkit::$name(&fixture());
        }
    )*};
}

conformance!(plain, Server::new(Kind::default()));
conformance!(
    counted,
    wrapped(Server::new(Kind::default()), |inner| Box::new(Counting::new(inner)))
);
conformance!(
    in_an_arc,
    wrapped(Server::new(Kind::default()), |inner| Box::new(Arc::<dyn Connector>::from(inner)))
);
conformance!(in_two_boxes, wrapped(Server::new(Kind::default()), |inner| Box::new(inner)));
conformance!(
    tls_and_password,
    Server::new(Kind { tls: true, password: Some("a secret"), ..Kind::default() })
);
conformance!(socket, Server::on_a_socket());
conformance!(
    in_parts,
    Server::new(Kind::default()).with(&[("whole_bytes", 4096), ("part_bytes", 50_000)])
);
conformance!(cluster, Shared::new());
