//! Bytes that anybody may have written, given to everything that reads bytes.
//!
//! Each target parses what it is given and asserts what must hold of whatever is accepted. What has
//! a checksum is read twice, as it is and with the checksum made right. `make fuzz` drives the targets
//! guided by coverage, `make test` with a few mutations of known bytes.

use std::collections::BTreeMap;
use std::str::from_utf8;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Array, Decode, Element, Failure, MessagePack, array_meta, read_array_meta};
use crate::connectors::{Access, ConnectorConfig, PutOptions, Value, multi, without_credentials};
use crate::facts::Facts;
use crate::key::{Key, check_id};
use crate::patterns::stream::Message;
use crate::payload::{Head, PRELUDE, Parts, Received};
use crate::seal::Seal;
use crate::view::{LoadOptions, Selection};
use crate::{Buffer, Reference, Store, View};

/// Something to fuzz.
#[derive(Debug)]
pub struct Target {
    /// Its name, which is also that of its binary, and of the folder of its seeds.
    pub name: &'static str,
    /// Reads the bytes, and panics where something is wrong with the reader.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "payload", run: payload },
    Target { name: "object", run: object },
    Target { name: "view", run: view },
    Target { name: "reference", run: reference },
    Target { name: "text", run: text },
    Target { name: "meta", run: meta },
    Target { name: "names", run: names },
    Target { name: "event", run: event },
    Target { name: "file", run: crate::connectors::file::fuzz },
    Target { name: "shm", run: crate::connectors::shm::fuzz },
    Target { name: "ring", run: crate::brokers::shm::fuzz },
    #[cfg(feature = "zmq")]
    Target { name: "zmtp", run: crate::brokers::zmq::fuzz },
    #[cfg(feature = "endpoint")]
    Target { name: "wire", run: crate::wire::fuzz::run },
    #[cfg(feature = "redis")]
    Target { name: "redis", run: crate::connectors::redis::fuzz },
];

/// Runs the target of a name.
///
/// # Panics
/// When there is none, and when it finds something wrong.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").run)(data);
}

/// The bytes with the checksum of the head made right, if they are long enough to have one.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut mended = data.to_vec();
    if let Some(said) = data.get(16..20) {
        let said = u32::from_le_bytes([said[0], said[1], said[2], said[3]]) as usize;
        let len = said.min(data.len());
        if len >= PRELUDE {
            mended[56..64].fill(0);
            let checksum = xxh3_64(&mended[..len]).to_le_bytes();
            mended[56..64].copy_from_slice(&checksum);
        }
    }
    mended
}

/// A payload: its head alone, all of it, and what every codec makes of it.
fn payload(data: &[u8]) {
    for bytes in [data, &mended(data)] {
        let _ = Head::length(bytes);
        if let Ok(head) = Head::parse(bytes) {
            let mut end = PRELUDE as u64;
            for part in head.parts() {
                assert!(end <= part.start && part.start <= part.end, "{head:?}");
                end = part.end;
            }
            assert!(end <= head.len(), "{head:?}");
        }
        if let Ok(received) = Received::parse(Buffer::copy_of(bytes)) {
            decode_all(&received);
        }
    }
}

fn decode_all(received: &Received) {
    for index in 0..received.part_count() {
        assert!(received.part(index).is_some());
    }
    if let Ok(Some(failure)) = Failure::of(received) {
        let _ = failure.to_error().to_string();
    }
    let _ = (Vec::<u8>::decode(received), String::decode(received));
    let _ = MessagePack::<BTreeMap<String, Value>>::decode(received);
    let _ = MessagePack::<Vec<Value>>::decode(received);
    array::<u8>(received);
    array::<i32>(received);
    array::<f64>(received);
}

fn array<T: Element>(received: &Received) {
    if let Ok(array) = Array::<T>::decode(received) {
        assert_eq!(array.shape().iter().product::<usize>(), array.len());
    }
}

/// What lies in a channel, read by a store: whole, by ranges, and with the key of a sealed object.
fn object(data: &[u8]) {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| Store::open("memory://fuzz").expect("opens"));
    for bytes in [data, &mended(data)] {
        let put = store.connector().put(&Parts::from(bytes), &PutOptions::default());
        let key = put.expect("memory has room");
        for seal in [None, Some(Seal::new([7; 32], None))] {
            let key = key.clone().sealed(seal);
            let whole = store.get_payload(&key, Access::ReadOnly);
            if let Ok(Some(received)) = &whole {
                decode_all(received);
            }
            if let Ok(Some(reader)) = store.reader(&key) {
                for (index, part) in (0..).zip(reader.head().parts()) {
                    let len = part.end - part.start;
                    for range in [0..len, len / 2..len, 0..len.min(1)] {
                        let (start, end) = (range.start as usize, range.end as usize);
                        // What the store cannot check whole may still be read in part.
                        let Ok(piece) = reader.read(index, range) else { continue };
                        if let Ok(Some(received)) = &whole {
                            let part = received.part(index).expect("as in the head");
                            assert_eq!(piece[..], part[start..end]);
                        }
                    }
                    let _ = reader.read(index, 0..u64::MAX);
                }
            }
        }
        store.evict(&key).expect("it is there");
    }
}

/// How many bytes of the input choose the parts of an object that are viewed.
const RECIPE: usize = 13;

/// Parts of what lies in a channel, as the first bytes choose them: they are those of the whole.
fn view(data: &[u8]) {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| Store::open("memory://fuzz-views").expect("opens"));
    let Some((recipe, data)) = data.split_at_checked(RECIPE) else { return };
    let (dimensions, numbers) = (usize::from(recipe[0] % 4), recipe[1..].as_chunks::<4>().0);
    let selections: Vec<Selection> = numbers[..dimensions].iter().copied().map(selection).collect();
    for bytes in [data, &mended(data)] {
        let put = store.connector().put(&Parts::from(bytes), &PutOptions::default());
        let key = put.expect("memory has room");
        if let Ok(view) = store.view(&key) {
            let parts = viewed(&view, &selections);
            if let Ok(received) = Received::parse(Buffer::copy_of(bytes)) {
                let here = View::of(received).expect("as in the channel");
                assert_eq!(parts, viewed(&here, &selections));
                assert!(view.load_payload(Access::Private, LoadOptions::default()).is_ok());
            }
        }
        store.evict(&key).expect("it is there");
    }
}

/// What is wanted along one dimension.
fn selection(recipe: [u8; 4]) -> Selection {
    let [kind, numbers @ ..] = recipe;
    let [start, stop, step] = numbers.map(|byte| match byte {
        127 => i64::MAX,
        128 => i64::MIN,
        other => i64::from(other.cast_signed()),
    });
    match kind % 5 {
        0 => Selection::Index(start),
        1 => Selection::Positions(vec![start, stop, step, start]),
        2 => Selection::Slice { start: Some(start), stop: None, step },
        3 => Selection::Slice { start: None, stop: Some(stop), step },
        _ => Selection::Slice { start: Some(start), stop: Some(stop), step },
    }
}

/// The bytes of a selection, of a range and of a row, where they can be had.
fn viewed(view: &View, selections: &[Selection]) -> [Option<Vec<u8>>; 3] {
    let selected = view.select(selections, &mut |_| Ok(())).ok().map(|selected| {
        let bytes = selected.bytes.to_vec();
        if selected.shape.contains(&0) {
            assert!(bytes.is_empty());
        } else {
            let elements: u64 = selected.shape.iter().product();
            assert_eq!(bytes.len() as u64 % elements, 0, "{:?}", selected.shape);
        }
        bytes
    });
    let middle = view.nbytes() / 2;
    let range = view.bytes(middle..view.nbytes()).ok().map(|bytes| bytes.to_vec());
    let row = view.array::<u8>().and_then(|array| array.row(0)).ok().map(|row| row.to_vec());
    [selected, range, row]
}

/// A reference, by itself and as serde brings it.
fn reference(data: &[u8]) {
    if let Ok(reference) = Reference::decode(data) {
        let bytes = reference.encode().expect("it was bytes before");
        let again = Reference::decode(&bytes).expect("its own bytes");
        assert_eq!(again.encode().expect("as before"), bytes);
        let written = reference.to_text().expect("as before");
        let open = Reference::from_text(&written).expect("its own text");
        assert!(open.key.seal().is_none());
        let _ = format!("{reference:?} {:?}", open.check_complete());
        let _ = reference.store.check_same(&open.store);
        let _ = multi::split_key(&reference.key);
    }
    let _ = rmp_serde::from_slice::<Reference>(data);
}

/// A reference as text.
fn event(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    for event in &message.events {
        let _ = event.metadata.read::<BTreeMap<String, Value>>();
        let _ = event.metadata.get::<u64>("n");
    }
    let bytes = message.encode().expect("what was read can be written");
    assert_eq!(Message::decode(&bytes).expect("what was written can be read"), message);
}

fn text(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    if let Ok(reference) = Reference::from_text(text) {
        let written = reference.to_secret_text().expect("it was text before");
        Reference::from_text(&written).expect("its own text");
    }
}

/// MessagePack that is part of a format: of arrays, failures, facts and settings.
fn meta(data: &[u8]) {
    if let Ok((dtype, shape, order)) = read_array_meta(data) {
        let written = array_meta(&dtype, &shape, order).expect("plain data");
        assert_eq!(read_array_meta(&written).expect("its own"), (dtype, shape, order));
    }
    survives::<Failure>(data);
    survives::<Facts>(data);
    survives::<BTreeMap<String, Value>>(data);
}

fn survives<'a, T: Deserialize<'a> + Serialize>(data: &'a [u8]) {
    let Ok(value) = rmp_serde::from_slice::<T>(data) else { return };
    let written = rmp_serde::to_vec_named(&value).expect("plain data");
    // Not compared with `data`: MessagePack has several spellings of a number, and of a length.
    let read = rmp_serde::from_slice::<serde::de::IgnoredAny>(&written);
    assert!(read.is_ok(), "its own bytes");
}

/// URLs, keys and ids.
fn names(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    let shown = without_credentials(text);
    assert!(shown.len() <= text.len());
    let config = ConnectorConfig::new(text);
    let _ = config.same_channel(&ConnectorConfig::new(&*shown));
    if let Ok(parts) = multi::parts_of(&config) {
        let again = multi::parts_of(&multi::config_of(&parts));
        assert_eq!(again.expect("its own configuration"), parts);
    }
    if let Some((name, key)) = multi::split_key(&Key::latest(text)) {
        assert_eq!(multi::join_key(&name, &key), Key::latest(text));
    }
    if check_id(text).is_ok() {
        assert!(!text.contains(['/', '\0', '\n']));
    }
}
