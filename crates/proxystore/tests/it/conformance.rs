//! Every connector, and every wrapper around one, keeps the contract.

use std::sync::Arc;

use proxystore::conformance;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::{Connector, ConnectorConfig};
use proxystore::key::unique_id;
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
    assert_eq!(report.to_string().lines().count(), 18);
}
