//! Every connector, and every wrapper around one, keeps the contract.

use std::sync::Arc;

use proxystore::conformance;
use proxystore::connectors::file::FileConnector;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::{Connector, ConnectorConfig};
use proxystore::key::{Key, unique_id};
use proxystore::testkit::{Counting, Fixture, run_all, wrapped};

struct Memory;

impl Fixture for Memory {
    fn open(&self) -> Box<dyn Connector> {
        Box::new(MemoryConnector::new(&unique_id().unwrap()).unwrap())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        Some(Box::new(MemoryConnector::open(config).unwrap()))
    }
}

/// Each channel is a directory in a temporary one.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Fixture for Files {
    fn open(&self) -> Box<dyn Connector> {
        let directory = self.0.path().join(unique_id().unwrap());
        Box::new(FileConnector::new(directory).unwrap())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        Some(Box::new(FileConnector::open(config).unwrap()))
    }

    fn damage(&self, config: &ConnectorConfig, key: &Key) -> bool {
        let directory = config.url.strip_prefix("file://").unwrap();
        let file = std::path::Path::new(directory).join(key.id());
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        true
    }
}

conformance!(file, Files::new());
conformance!(file_counted, wrapped(Files::new(), |inner| Box::new(Counting::new(inner))));
conformance!(memory, Memory);
conformance!(memory_counted, wrapped(Memory, |inner| Box::new(Counting::new(inner))));
conformance!(
    memory_in_an_arc,
    wrapped(Memory, |inner| Box::new(Arc::<dyn Connector>::from(inner)))
);
conformance!(memory_in_two_boxes, wrapped(Memory, |inner| Box::new(inner)));

#[test]
fn the_report_has_one_row_per_line() {
    let report = run_all(&Memory);
    assert!(report.is_kept(), "{report}");
    assert_eq!(report.to_string().lines().count(), proxystore::testkit::LINES.len());
}
