//! The contract, line by line, by every way to a daemon and through wrappers.

use std::sync::Arc;

use proxystore::conformance;
use proxystore::connectors::endpoint::EndpointConnector;
use proxystore::connectors::{Connector, ConnectorConfig};
use proxystore::testkit::{Counting, Fixture, wrapped};

use super::site::{Over, Site};

impl Fixture for Site {
    fn open(&self) -> Box<dyn Connector> {
        Box::new(Self::open(self))
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        Some(Box::new(EndpointConnector::open(config).unwrap()))
    }
}

/// Little enough that objects of a few hundred kilobytes go to disk.
const LITTLE: &str = "memory = \"300 KiB\"\ndisk = \"1 GiB\"";

fn in_an_arc_of(site: Site) -> impl Fixture {
    wrapped(site, |inner| Box::new(Arc::<dyn Connector>::from(inner)))
}

conformance!(unix, Site::start(Over::Unix, ""));
conformance!(tcp, Site::start(Over::Tcp, ""));
conformance!(unix_with_little_memory, Site::start(Over::Unix, LITTLE));
conformance!(tcp_with_little_memory, Site::start(Over::Tcp, LITTLE));
conformance!(without_shared_memory, Site::start(Over::Unix, "shared_from = 0"));
conformance!(counted, wrapped(Site::start(Over::Unix, ""), |inner| Box::new(Counting::new(inner))));
conformance!(in_an_arc, in_an_arc_of(Site::start(Over::Unix, "")));
conformance!(in_two_boxes, wrapped(Site::start(Over::Unix, ""), |inner| Box::new(inner)));
