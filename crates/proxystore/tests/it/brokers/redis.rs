//! The brokers on Redis servers of their own.

use std::sync::{Mutex, PoisonError};

use proxystore::brokers::Broker;
use proxystore::brokers::redis::{ListBroker, PubSubBroker, StreamBroker};
use proxystore::testkit::brokers::BrokerFixture;

use crate::servers::{Kind, Redis, needs_redis};

/// Brokers of a kind on one server.
struct Server {
    kind: &'static str,
    redis: Mutex<Redis>,
}

impl Server {
    fn new(kind: &'static str) -> Self {
        Self { kind, redis: Mutex::new(Redis::start(Kind::default())) }
    }

    fn url(&self) -> String {
        let redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{}+{}", self.kind, redis.url())
    }
}

impl BrokerFixture for Server {
    fn open(&self) -> Box<dyn Broker> {
        match self.kind {
            "list" => Box::new(ListBroker::open(&self.url()).unwrap()),
            "pubsub" => Box::new(PubSubBroker::open(&self.url()).unwrap()),
            _ => Box::new(StreamBroker::open(&self.url()).unwrap()),
        }
    }

    fn restart(&self, _: &dyn Broker) -> bool {
        let mut redis = self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        redis.kill();
        redis.restart()
    }

    fn unreachable(&self) -> Option<Box<dyn Broker>> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner).kill();
        Some(self.open())
    }
}

macro_rules! conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;

            fn fixture() -> impl BrokerFixture {
                $fixture
            }

            proxystore::__with_broker_lines!(tests);
        }
    };
}

macro_rules! tests {
    ($($name:ident,)*) => {$(
        #[test]
        fn $name() {
            needs_redis!();
            proxystore::testkit::brokers::$name(&fixture());
        }
    )*};
}

conformance!(list, Server::new("list"));
conformance!(pubsub, Server::new("pubsub"));
conformance!(stream, Server::new("stream"));
