//! The integration tests of the endpoint: one binary, one module per topic.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer to a surprise")]

mod storage;
