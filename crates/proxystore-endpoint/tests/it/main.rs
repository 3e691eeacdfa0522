//! The integration tests of endpoints: one binary, one module per topic.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod connector;
mod exposition;
mod hostile;
mod leaving;
mod peers;
mod relay;
mod running;
mod sites;
mod storage;
mod transfers;
mod web;
