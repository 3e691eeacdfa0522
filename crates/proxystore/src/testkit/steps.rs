//! Steps that the lines of the contract have in common.

use std::ops::Range;
use std::time::Duration;

use super::Verdict;
use crate::buffer::Buffer;
use crate::connectors::{Access, Connector, GetOptions, PutOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::Parts;

/// Sizes on both sides of what connectors treat differently: pages, pipes, mappings.
pub(super) const SIZES: [usize; 14] =
    [0, 1, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 262_143, 262_144, 262_145, 3_000_001];

/// Longer than any event takes, on a busy machine too.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that differ at every place and for every seed.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn put(connector: &dyn Connector, bytes: &[u8]) -> Key {
    connector.put(&Parts::from(bytes), &PutOptions::default()).expect("put stores the object")
}

pub(super) fn fill(connector: &dyn Connector, key: &Key, bytes: &[u8]) -> Key {
    let options = PutOptions { key: Some(key.clone()), ..PutOptions::default() };
    connector.put(&Parts::from(bytes), &options).expect("put fills the key")
}

pub(super) fn get(connector: &dyn Connector, key: &Key) -> Option<Buffer> {
    connector.get(key, &GetOptions::default()).expect("get answers")
}

pub(super) fn shared(range: Option<Range<u64>>) -> GetOptions {
    GetOptions { access: Access::ReadOnly, range, ..GetOptions::default() }
}

#[track_caller]
pub(super) fn assert_bytes(found: Option<&Buffer>, expected: &[u8], what: &str) {
    let found = found.unwrap_or_else(|| panic!("{what} is absent"));
    assert_eq!(found.len(), expected.len(), "length of {what}");
    let difference = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(difference, None, "first byte at which {what} differs");
}

#[track_caller]
pub(super) fn assert_kind<T>(result: Result<T>, kind: ErrorKind, what: &str) -> Error {
    match result {
        Ok(_) => panic!("{what} succeeds; it must be an error of kind {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "kind of the error of {what}: {error}");
            error
        }
    }
}

/// A deferred key, or the verdict on a connector that has none.
pub(super) fn deferred(connector: &dyn Connector) -> Result<Key, Verdict> {
    match connector.new_key() {
        Ok(key) => Ok(key),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            Err(Verdict::NotApplicable("the channel has no deferred keys"))
        }
        Err(error) => panic!("new_key makes a key: {error}"),
    }
}
