//! Requests as they travel: heads packed into one buffer, large bytes sent from where they are.

use std::io::IoSlice;

use crate::error::Result;
use crate::wire::{Request, encode_request};

/// Bytes from this many on are not copied into the buffer.
const BORROWED_FROM: usize = 16 << 10;

/// Requests that are sent in one go.
#[derive(Debug, Default)]
pub(super) struct Outgoing<'a> {
    packed: Vec<u8>,
    /// Slices that come in after so many bytes of `packed`.
    borrowed: Vec<(usize, &'a [u8])>,
}

impl<'a> Outgoing<'a> {
    /// Adds a request with its body.
    pub(super) fn add(&mut self, number: u32, request: &Request, body: &[&'a [u8]]) -> Result<()> {
        let len = body.iter().map(|slice| slice.len() as u64).sum();
        encode_request(&mut self.packed, number, request, len, false)?;
        for slice in body {
            if slice.len() < BORROWED_FROM {
                self.packed.extend_from_slice(slice);
            } else {
                self.borrowed.push((self.packed.len(), slice));
            }
        }
        Ok(())
    }

    /// All of it, for a vectored write.
    pub(super) fn io_slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.borrowed.len() + 1);
        let mut packed = 0;
        for (at, slice) in &self.borrowed {
            if packed < *at {
                slices.push(IoSlice::new(&self.packed[packed..*at]));
                packed = *at;
            }
            slices.push(IoSlice::new(slice));
        }
        if packed < self.packed.len() {
            slices.push(IoSlice::new(&self.packed[packed..]));
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FRAME_HEAD, FrameHead};

    #[test]
    fn small_bodies_are_packed_and_large_ones_stay_where_they_are() {
        let large = vec![7; BORROWED_FROM];
        let mut outgoing = Outgoing::default();
        outgoing.add(1, &Request::Status, &[]).unwrap();
        outgoing.add(2, &Request::Stop, &[b"ab", &large, b"c"]).unwrap();
        let slices = outgoing.io_slices();
        assert_eq!(slices.len(), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        assert!(all.ends_with(b"c"));
        let first = FrameHead::decode(all.first_chunk().unwrap()).unwrap();
        let second = &all[FRAME_HEAD + usize::from(first.head)..];
        let second = FrameHead::decode(second.first_chunk().unwrap()).unwrap();
        assert_eq!((second.number, second.body), (2, 3 + BORROWED_FROM as u64));
    }
}
