//! Several channels as one keep the connector contract, wrapped or not.

use std::sync::Arc;

use proxystore::conformance;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::multi::{MultiConnector, Policy, parts_of, split_key};
use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Connector, ConnectorConfig, open};
use proxystore::key::{Key, unique_id};
use proxystore::testkit::{Counting, Fixture, run_all, wrapped};

use super::conformance::Files;

/// Sizes of objects of the conformance suite lie on both sides.
const SMALL: u64 = 70_000;

/// Small objects in files and others in memory, or in memory and in shared memory.
struct Multi {
    files: Option<Files>,
}

impl Multi {
    fn with_files() -> Self {
        Self { files: Some(Files::new()) }
    }

    fn with_shm() -> Self {
        Self { files: None }
    }
}

impl Fixture for Multi {
    fn open(&self) -> Box<dyn Connector> {
        let memory = Arc::new(MemoryConnector::new(&unique_id().unwrap()).unwrap());
        let (first, second): (Arc<dyn Connector>, Arc<dyn Connector>) = match &self.files {
            Some(files) => (Arc::from(files.open()), memory),
            None => (memory, Arc::new(ShmConnector::new(&unique_id().unwrap()).unwrap())),
        };
        let small = Policy { priority: 1, max_size_bytes: SMALL, ..Policy::default() };
        let parts = vec![
            ("small".to_owned(), first, small),
            ("large ones".to_owned(), second, Policy::default()),
        ];
        Box::new(MultiConnector::new(parts).unwrap())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        Some(Box::new(open(config).unwrap()))
    }

    fn absent_key(&self) -> Key {
        Key::latest("small:never-stored")
    }

    fn damage(&self, config: &ConnectorConfig, key: &Key) -> bool {
        let (name, own) = split_key(key).unwrap();
        let part = parts_of(config).unwrap().into_iter().find(|part| part.name == name).unwrap();
        match &self.files {
            Some(files) if name == "small" => files.damage(&part.channel, &own),
            _ => false,
        }
    }
}

conformance!(multi, Multi::with_files());
conformance!(multi_counted, wrapped(Multi::with_files(), |inner| Box::new(Counting::new(inner))));
conformance!(multi_shm, Multi::with_shm());
conformance!(
    multi_shm_in_an_arc,
    wrapped(Multi::with_shm(), |inner| Box::new(Arc::<dyn Connector>::from(inner)))
);

/// As a part of another, under a name that has to be encoded.
fn nested() -> impl Fixture {
    struct Nested(Multi);

    impl Fixture for Nested {
        fn open(&self) -> Box<dyn Connector> {
            let inner = Arc::from(self.0.open());
            let parts = vec![("in: 50%".to_owned(), inner, Policy::default())];
            Box::new(MultiConnector::new(parts).unwrap())
        }

        fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
            self.0.reopen(config)
        }

        fn absent_key(&self) -> Key {
            Key::latest("in%3A%2050%25:small:never-stored")
        }
    }

    Nested(Multi::with_files())
}

conformance!(multi_nested, nested());

#[test]
fn every_line_is_kept() {
    let report = run_all(&Multi::with_files());
    assert!(report.is_kept(), "{report}");
}
