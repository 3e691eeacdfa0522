use proxystore::brokers::Broker;
use proxystore::brokers::shm::ShmBroker;
use proxystore::key::unique_id;
use proxystore::testkit::brokers::BrokerFixture;

struct Shm;

impl BrokerFixture for Shm {
    fn open(&self) -> Box<dyn Broker> {
        Box::new(ShmBroker::new(&unique_id().unwrap()).unwrap())
    }
}

proxystore::broker_conformance!(conformance, Shm);
