//! Compression of chunks: Zstandard (RFC 8878) and LZ4 blocks
//! (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// How the chunks of an object are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Zstandard at a fast level: small.
    Zstd,
    /// LZ4: fast.
    Lz4,
}

impl Compression {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Zstd => 1,
            Self::Lz4 => 2,
        }
    }

    pub(super) fn of_number(number: u8) -> Option<Self> {
        [Self::Zstd, Self::Lz4].into_iter().find(|known| known.number() == number)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        })
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "zstd" => Ok(Self::Zstd),
            "lz4" => Ok(Self::Lz4),
            _ => Err(Error::new(
                ErrorKind::Config,
                "choose a compression",
                "there is none of that name",
            )
            .with("name", format_args!("{name:?}"))
            .with_hint("use \"zstd\" (small) or \"lz4\" (fast)")),
        }
    }
}

#[cfg(feature = "compress")]
pub(super) use with_libraries::{Compressor, decompress};
#[cfg(not(feature = "compress"))]
pub(super) use without_libraries::{Compressor, decompress};

#[cfg(feature = "compress")]
mod with_libraries {
    use super::Compression;
    use crate::error::{Error, ErrorKind, Result};

    /// Compresses one chunk after the other.
    pub(in crate::payload) enum Compressor {
        Zstd(Box<zstd::bulk::Compressor<'static>>),
        Lz4,
    }

    impl Compressor {
        pub(in crate::payload) fn new(how: Compression) -> Result<Self> {
            Ok(match how {
                // The level that is still faster than most networks.
                Compression::Zstd => Self::Zstd(Box::new(
                    zstd::bulk::Compressor::new(1).map_err(|source| failed(&source))?,
                )),
                Compression::Lz4 => Self::Lz4,
            })
        }

        /// The compressed chunk, unless it would not be shorter.
        pub(in crate::payload) fn compress(&mut self, chunk: &[u8]) -> Result<Option<Vec<u8>>> {
            let compressed = match self {
                Self::Zstd(zstd) => zstd.compress(chunk).map_err(|source| failed(&source))?,
                Self::Lz4 => lz4_flex::block::compress(chunk),
            };
            Ok((compressed.len() < chunk.len()).then_some(compressed))
        }
    }

    fn failed(source: &dyn std::fmt::Display) -> Error {
        Error::new(ErrorKind::Encode, "compress an object", source.to_string())
    }

    /// Decompresses a chunk that fills `target`.
    pub(in crate::payload) fn decompress(
        how: Compression,
        chunk: &[u8],
        target: &mut [u8],
    ) -> Result<()> {
        let found = match how {
            Compression::Zstd => {
                zstd::bulk::decompress_to_buffer(chunk, target).map_err(|e| e.to_string())
            }
            Compression::Lz4 => {
                lz4_flex::block::decompress_into(chunk, target).map_err(|e| e.to_string())
            }
        };
        let error = |cause: String| Error::new(ErrorKind::Corrupt, "decompress an object", cause);
        match found.map_err(error)? {
            len if len == target.len() => Ok(()),
            len => Err(error("a chunk has another length than it must".to_owned())
                .with("found", len)
                .with("expected", target.len())),
        }
    }
}

#[cfg(not(feature = "compress"))]
mod without_libraries {
    use super::Compression;
    use crate::error::{Error, ErrorKind, Result};

    /// This build has no compression.
    pub(in crate::payload) enum Compressor {}

    impl Compressor {
        pub(in crate::payload) fn new(how: Compression) -> Result<Self> {
            Err(missing("compress an object", how))
        }

        pub(in crate::payload) fn compress(&mut self, _chunk: &[u8]) -> Result<Option<Vec<u8>>> {
            match *self {}
        }
    }

    pub(in crate::payload) fn decompress(
        how: Compression,
        _chunk: &[u8],
        _target: &mut [u8],
    ) -> Result<()> {
        Err(missing("decompress an object", how))
    }

    fn missing(operation: &'static str, how: Compression) -> Error {
        Error::new(ErrorKind::Unsupported, operation, "this build has no compression")
            .with("compression", how)
            .with_hint("build the crate with its feature `compress`")
    }
}
