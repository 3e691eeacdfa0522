//! Shared memory keeps the connector contract, wrapped or not.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;

use proxystore::conformance;
use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Connector, ConnectorConfig};
use proxystore::key::{Key, unique_id};
use proxystore::testkit::{Counting, Fixture, run_all, wrapped};

struct Shm;

impl Fixture for Shm {
    fn open(&self) -> Box<dyn Connector> {
        Box::new(ShmConnector::new(&unique_id().unwrap()).unwrap())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        Some(Box::new(ShmConnector::open(config).unwrap()))
    }

    fn damage(&self, config: &ConnectorConfig, key: &Key) -> bool {
        let directory = super::shm::directory(config);
        let path = |id: &str| -> Option<PathBuf> {
            let id = id.to_owned();
            let file = id.strip_prefix("s-").map_or(id.clone(), |rest| {
                format!("s-{}", rest.rsplit_once('-').map_or(rest, |(file, _)| file))
            });
            Some(directory.join(file)).filter(|path| path.exists())
        };
        let linked = || {
            let link = fs::read_link(directory.join("keys").join(key.id())).ok()?;
            path(link.to_str()?.split_once('.')?.1)
        };
        let path = path(key.id()).or_else(linked).expect("the object's file");
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        true
    }
}

conformance!(shm, Shm);
conformance!(shm_counted, wrapped(Shm, |inner| Box::new(Counting::new(inner))));
conformance!(shm_in_an_arc, wrapped(Shm, |inner| Box::new(Arc::<dyn Connector>::from(inner))));

#[test]
fn every_line_is_kept() {
    let report = run_all(&Shm);
    assert!(report.is_kept(), "{report}");
}
