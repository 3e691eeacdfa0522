//! The integration tests of endpoints: one binary, one module per topic.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer to a surprise")]

mod exposition;
mod relay;
mod running;
mod web;
