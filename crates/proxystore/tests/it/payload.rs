//! The payload format: what is written is read, and nothing else is.

use proptest::collection::vec;
use proptest::prelude::*;
use proxystore::Buffer;
use proxystore::buffer::ALIGNMENT;
use proxystore::error::ErrorKind;
use proxystore::payload::{Bytes, PAGE, PRELUDE, Part, Payload, Received};

fn written(payload: Payload<'_>) -> Buffer {
    payload.frame().unwrap().parts().to_buffer()
}

fn example() -> Buffer {
    written(Payload::new(4, &b"meta"[..]).with_part(&b"hello"[..]).with_part(&b"wide world"[..]))
}

#[test]
fn the_bytes_of_a_payload_stay_as_they_are() {
    let hex: Vec<String> = example().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = include_str!("payload.hex").split_whitespace().collect::<String>();
    assert_eq!(hex.concat(), expected);
}

#[test]
fn every_flipped_bit_of_the_head_is_refused() {
    let bytes = example();
    let head = PRELUDE + 2 * 16 + b"meta".len();
    for bit in 0..head * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = Received::parse(damaged.into()).unwrap_err();
        let expected = [ErrorKind::Corrupt, ErrorKind::Incompatible];
        assert!(expected.contains(&error.kind()), "bit {bit}: {error}");
    }
}

#[test]
fn another_length_is_refused() {
    let bytes = example();
    for len in 0..bytes.len() {
        let error = Received::parse(bytes.slice(0..len)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut to {len} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Received::parse(longer.into()).unwrap_err().kind(), ErrorKind::Corrupt);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        codec: u16,
        meta in vec(any::<u8>(), 0..300),
        parts in vec((vec(any::<u8>(), 0..9000), any::<bool>()), 0..8),
    ) {
        let mut payload = Payload::new(codec, &meta[..]);
        for (bytes, allocated) in &parts {
            payload.push(Part { bytes: bytes.into(), allocated: *allocated, continues: false });
        }
        let bytes = written(payload);
        let received = Received::parse(bytes.clone()).unwrap();
        prop_assert_eq!(received.codec(), codec);
        prop_assert_eq!(received.meta(), &meta[..]);
        prop_assert_eq!(received.part_count(), parts.len());
        prop_assert_eq!(received.len(), bytes.len());
        for (index, (expected, allocated)) in parts.iter().enumerate() {
            let part = received.part(index).unwrap();
            prop_assert_eq!(&part[..], &expected[..]);
            let offset = part.as_ptr() as usize - bytes.as_ptr() as usize;
            prop_assert_eq!(offset % if *allocated { PAGE } else { ALIGNMENT }, 0);
        }
        prop_assert!(received.part(parts.len()).is_none());
    }

    #[test]
    fn a_part_in_pieces_is_a_part(
        parts in vec(vec(vec(any::<u8>(), 0..200), 0..5), 0..5),
        own: bool,
    ) {
        let mut in_pieces = Payload::new(1, &[][..]);
        let mut whole = Payload::new(1, &[][..]);
        for pieces in &parts {
            in_pieces.push_pieces(pieces.iter().map(Bytes::from));
            whole = whole.with_part(pieces.concat());
        }
        let in_pieces = if own { in_pieces.into_owned() } else { in_pieces };
        prop_assert_eq!(&written(in_pieces)[..], &written(whole)[..]);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..500)) {
        prop_assert!(Received::parse(bytes.into()).is_err());
    }

    #[test]
    fn mutations_never_panic(
        meta in vec(any::<u8>(), 0..50),
        parts in vec(vec(any::<u8>(), 0..200), 0..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        fix_checksum: bool,
    ) {
        let payload = parts.iter().fold(Payload::new(1, meta), |payload, part| {
            payload.with_part(&part[..])
        });
        let mut bytes = written(payload).to_vec();
        for (at, byte) in changes {
            // Mostly the prelude and the part table, where the lengths are.
            let at = at.index(bytes.len().min(PRELUDE + 64));
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() * 2));
        if fix_checksum && bytes.len() >= PRELUDE {
            let head = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]) as usize;
            if (PRELUDE..=bytes.len()).contains(&head) {
                bytes[56..64].fill(0);
                let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..head]);
                bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        if let Ok(received) = Received::parse(bytes.into()) {
            let parts = (0..received.part_count()).map(|index| received.part(index).unwrap());
            let total: usize = parts.map(|part| part.len()).sum();
            prop_assert!(total + received.meta().len() <= received.len());
        }
    }
}
