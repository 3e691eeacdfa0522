//! The command `proxystore`.
