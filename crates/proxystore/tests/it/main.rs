//! The integration tests of the library: one binary, one module per topic.

mod conformance;
mod store;
