//! The integration tests of endpoints: one binary, one module per topic.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

<<<<<<< HEAD
=======
mod connector;
>>>>>>> main
mod exposition;
mod hostile;
mod peers;
mod relay;
mod running;
mod sites;
<<<<<<< HEAD
=======
mod storage;
>>>>>>> main
mod transfers;
mod web;
