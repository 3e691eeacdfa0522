//! Shared memory: what recycling, pins, sessions and allocations promise.

use std::path::PathBuf;

use proxystore::connectors::ConnectorConfig;

/// The directory of a session below the default root.
pub(crate) fn directory(config: &ConnectorConfig) -> PathBuf {
    let name = config.url.strip_prefix("shm://").expect("a URL of shared memory");
    PathBuf::from(format!("/dev/shm/proxystore-{}", rustix::process::geteuid().as_raw())).join(name)
}
