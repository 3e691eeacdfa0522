//! References: the serialized form of a proxy (format in `docs/protocol.md`).

mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::connectors::{ConnectorConfig, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::Facts;
use crate::fields::{CRITICAL, Format, field, number, varint};
use crate::key::Key;
use crate::seal::Seal;
use crate::store::StoreConfig;

pub use text::{LeftOut, PREFIX};

/// First bytes of every reference: three letters and the version.
pub const MAGIC: [u8; 4] = *b"PXR\x01";

const FORMAT: Format = Format {
    magic: MAGIC,
    operation: "read a reference",
    hint: "it was damaged on the way, or is something else than a pickled proxy",
};

const STORE: u8 = CRITICAL | 1;
const CHANNEL: u8 = CRITICAL | 2;
const CHANNEL_OPTIONS: u8 = 3;
const STORE_SETTINGS: u8 = 4;
const KEY: u8 = CRITICAL | 5;
const GENERATION: u8 = CRITICAL | 6;
const SIZE: u8 = 7;
const EVICT: u8 = CRITICAL | 8;
const CLASS: u8 = 9;
const EXTENSION: u8 = CRITICAL | 0x0a;
const WAIT: u8 = CRITICAL | 0x0b;
const INLINE: u8 = CRITICAL | 0x0c;
const FACTS: u8 = 0x0d;
const SECRET: u8 = CRITICAL | 0x0e;
const DIGEST: u8 = CRITICAL | 0x0f;
const SIGNATURE: u8 = CRITICAL | 0x10;
const LEFT_OUT: u8 = 0x11;
const SHARE: u8 = CRITICAL | 0x12;

/// Everything needed to resolve a proxy anywhere: which store, which key, what to do after.
#[derive(Clone, PartialEq)]
pub struct Reference {
    /// How to open the store; shared by the references of one store.
    pub store: Arc<StoreConfig>,
    /// The object.
    pub key: Key,
    /// Evict the object when it is first resolved.
    pub evict: bool,
    /// Several have to be done with the object before it is evicted, and this is one of them.
    pub share: Option<Share>,
    /// Class of the target in the language that made it, as `module:qualified.name`.
    pub class: Option<String>,
    /// What only the language that made it understands, such as a deserializer function.
    pub extension: Option<Vec<u8>>,
    /// The object may not exist yet: wait for it.
    pub wait: Option<Wait>,
    /// The payload itself, of an object too small to be worth a channel.
    pub inline: Option<Arc<[u8]>>,
    /// What is known of the object without fetching it.
    pub facts: Facts,
    /// Who made it, if it is signed.
    pub signature: Option<Signature>,
    /// Secrets that it was written without.
    pub left_out: LeftOut,
    /// Fields of a later version, as they came: they travel on, and are signed with the others.
    pub unknown: Vec<u8>,
}

impl fmt::Debug for Reference {
    /// Shows neither secrets nor the bytes that travel inside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |bytes: Option<usize>| bytes.map(|len| format!("{len} bytes"));
        f.debug_struct("Reference")
            .field("store", &self.store)
            .field("key", &self.key)
            .field("evict", &self.evict)
            .field("share", &self.share)
            .field("class", &self.class)
            .field("extension", &bytes(self.extension.as_ref().map(Vec::len)))
            .field("wait", &self.wait)
            .field("inline", &bytes(self.inline.as_ref().map(|payload| payload.len())))
            .field("facts", &self.facts)
            .field("signature", &self.signature)
            .field("left_out", &self.left_out)
            .field("unknown", &format_args!("{} bytes", self.unknown.len()))
            .finish()
    }
}

/// A signature of Ed25519 (RFC 8032) and the public key that checks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The producer's public key.
    pub producer: [u8; 32],
    /// The signature.
    pub bytes: [u8; 64],
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(by ")?;
        self.producer.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// One of several holders of an object, all of whom have to be done with it before it is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which one, from 0 on.
    pub number: u32,
    /// Of how many.
    pub of: u32,
}

/// How to wait for the object of a future.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wait {
    /// How long at most, in whole milliseconds; as long as it takes when `None`.
    pub timeout: Option<Duration>,
    /// The producer renews a lease of this length, in whole milliseconds; when it ends, waiting does.
    pub lease: Option<Duration>,
}

impl Reference {
    /// A reference to an object of a store.
    pub fn new(store: impl Into<Arc<StoreConfig>>, key: Key) -> Self {
        Self {
            store: store.into(),
            key,
            evict: false,
            share: None,
            class: None,
            extension: None,
            wait: None,
            inline: None,
            facts: Facts::default(),
            signature: None,
            left_out: LeftOut::default(),
            unknown: Vec::new(),
        }
    }

    /// The same with what is known of its object. A key that may mean another object tomorrow,
    /// for want of a generation, gets no facts.
    #[must_use]
    pub fn with_facts(mut self, facts: Facts) -> Self {
        if self.key.generation() != 0 || self.inline.is_some() {
            self.facts = facts;
        }
        self
    }

    /// The serialized form, some hundred bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the configuration cannot be represented.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(&MAGIC);
        field(&mut out, STORE, self.store.name.as_bytes());
        // A store named after its channel needs to say so only once.
        if self.store.connector.url != self.store.name {
            field(&mut out, CHANNEL, self.store.connector.url.as_bytes());
        }
        for (tag, map) in [
            (CHANNEL_OPTIONS, &self.store.connector.options),
            (STORE_SETTINGS, &self.store.settings),
        ] {
            if !map.is_empty() {
                let bytes = rmp_serde::to_vec(map).map_err(|source| {
                    Error::new(ErrorKind::Encode, "write a reference", source.to_string())
                        .with("store", &self.store.name)
                        .with_source(source)
                })?;
                field(&mut out, tag, &bytes);
            }
        }
        field(&mut out, KEY, self.key.id().as_bytes());
        if self.key.generation() != 0 {
            number(&mut out, GENERATION, self.key.generation());
        }
        if self.key.size() != 0 {
            number(&mut out, SIZE, self.key.size());
        }
        if self.evict {
            field(&mut out, EVICT, &[]);
        }
        if let Some(class) = &self.class {
            field(&mut out, CLASS, class.as_bytes());
        }
        if let Some(extension) = &self.extension {
            field(&mut out, EXTENSION, extension);
        }
        if let Some(wait) = &self.wait {
            let mut bytes = Vec::with_capacity(8);
            varint(&mut bytes, wait.timeout.map_or(0, |time| milliseconds(time).saturating_add(1)));
            varint(&mut bytes, wait.lease.map_or(0, milliseconds));
            field(&mut out, WAIT, &bytes);
        }
        if let Some(payload) = &self.inline {
            field(&mut out, INLINE, payload);
        }
        if !self.facts.is_empty() {
            let bytes = rmp_serde::to_vec(&self.facts).map_err(|source| {
                Error::new(ErrorKind::Encode, "write a reference", source.to_string())
                    .with_source(source)
            })?;
            field(&mut out, FACTS, &bytes);
        }
        if let Some(seal) = self.key.seal() {
            field(&mut out, SECRET, seal.secret());
            if let Some(digest) = seal.digest() {
                field(&mut out, DIGEST, digest);
            }
        }
        if let Some(Share { number, of }) = self.share {
            let mut bytes = Vec::with_capacity(4);
            varint(&mut bytes, number.into());
            varint(&mut bytes, of.into());
            field(&mut out, SHARE, &bytes);
        }
        if self.left_out != LeftOut::default() {
            number(&mut out, LEFT_OUT, self.left_out.bits());
        }
        out.extend_from_slice(&self.unknown);
        if let Some(Signature { producer, bytes }) = &self.signature {
            field(&mut out, SIGNATURE, &[producer.as_slice(), bytes].concat());
        }
        Ok(out)
    }

    /// Reads the serialized form; nothing is opened or fetched.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for bytes that are no reference; [`ErrorKind::Incompatible`] for a
    /// newer version or a critical field this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = FORMAT.begin(bytes)?;
        let (mut name, mut url, mut id) = (None, None, None);
        let (mut generation, mut size, mut evict) = (0, 0, false);
        let (mut class, mut extension, mut wait, mut inline) = (None, None, None, None);
        let (mut options, mut settings) = (BTreeMap::new(), BTreeMap::new());
        let (mut facts, mut secret, mut digest) = (Facts::default(), None, None);
        let (mut signature, mut left_out, mut share) = (None, LeftOut::default(), None);
        let (mut unknown, mut seen) = (Vec::new(), [false; 256]);
        while let Some((tag, value, after)) = FORMAT.next(rest)? {
            let field = rest;
            rest = after;
            if std::mem::replace(&mut seen[usize::from(tag)], true) {
                return Err(FORMAT.corrupt("a field comes twice"));
            }
            match tag {
                STORE => name = Some(FORMAT.text(value)?),
                CHANNEL => url = Some(FORMAT.text(value)?),
                CHANNEL_OPTIONS => options = map(value)?,
                STORE_SETTINGS => settings = map(value)?,
                KEY => id = Some(FORMAT.text(value)?),
                GENERATION => generation = FORMAT.whole_varint(value)?,
                SIZE => size = FORMAT.whole_varint(value)?,
                EVICT => evict = true,
                CLASS => class = Some(FORMAT.text(value)?),
                EXTENSION => extension = Some(value.to_vec()),
                WAIT => wait = Some(Wait::decode(value)?),
                INLINE => inline = Some(Arc::from(value)),
                FACTS => facts = rmp_serde::from_slice(value).unwrap_or_default(), // a newer form
                SECRET => secret = Some(FORMAT.exactly(value)?),
                DIGEST => digest = Some(FORMAT.exactly(value)?),
                SIGNATURE => {
                    let (producer, bytes) = value.split_at(value.len().min(32));
                    let (producer, bytes) = (FORMAT.exactly(producer)?, FORMAT.exactly(bytes)?);
                    signature = Some(Signature { producer, bytes });
                }
                SHARE => share = Some(Share::decode(value)?),
                LEFT_OUT => left_out = LeftOut::decode(value)?,
                critical if critical & CRITICAL != 0 => return Err(FORMAT.newer("field", critical)),
                // A newer version's field that older readers may ignore.
                _ => unknown.extend_from_slice(&field[..field.len() - rest.len()]),
            }
        }
        let (Some(name), Some(id)) = (name, id) else {
            return Err(FORMAT.corrupt("it names no store or no key"));
        };
        if inline.is_some() && secret.is_some() || digest.is_some() && secret.is_none() {
            // Nobody writes these, and who believed one half would not look at the other.
            return Err(FORMAT.corrupt("its secret belongs to nothing"));
        }
        let url = url.unwrap_or_else(|| name.clone());
        Ok(Self {
            store: Arc::new(StoreConfig {
                name,
                connector: ConnectorConfig { url, options },
                settings,
            }),
            key: Key::new(id, generation, size)
                .sealed(secret.map(|secret| Seal::new(secret, digest))),
            evict,
            share,
            class,
            extension,
            wait,
            inline,
            facts,
            signature,
            left_out,
            unknown,
        })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Share {
    /// How many shares an object may have.
    pub const MOST: u32 = 1024;

    fn decode(value: &[u8]) -> Result<Self> {
        let (number, rest) = FORMAT.take_varint(value)?;
        let whole = |number| u32::try_from(number).ok();
        match (whole(number), whole(FORMAT.whole_varint(rest)?)) {
            (Some(number), Some(of)) if number < of && of <= Self::MOST => Ok(Self { number, of }),
            _ => Err(FORMAT.corrupt("it is a share of another object")),
        }
    }
}

impl Wait {
    fn decode(value: &[u8]) -> Result<Self> {
        let (timeout, rest) = FORMAT.take_varint(value)?;
        let lease = Some(FORMAT.whole_varint(rest)?).filter(|lease| *lease != 0);
        let timeout = timeout.checked_sub(1).map(Duration::from_millis);
        Ok(Self { timeout, lease: lease.map(Duration::from_millis) })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.encode().map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = from.deserialize_byte_buf(BytesVisitor)?;
        Self::decode(&bytes).map_err(de::Error::custom)
    }
}

struct BytesVisitor;

impl<'de> de::Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a reference")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    // Formats without bytes of their own, such as JSON, write a list of numbers.
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

fn map(bytes: &[u8]) -> Result<BTreeMap<String, Value>> {
    rmp_serde::from_slice(bytes)
        .map_err(|source| FORMAT.corrupt("a table of options is damaged").with_source(source))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use proptest::prelude::*;

    fn sample() -> Reference {
        let mut reference = Reference::new(
            StoreConfig::new("demo", ConnectorConfig::new("shm://demo")),
            Key::new("0123456789abcdef0123456789abcdef", 3, 1000),
        );
        reference.evict = true;
        reference.class = Some("numpy:ndarray".to_owned());
        reference
    }

    #[test]
    fn waiting_and_inline_payloads_are_as_documented() {
        let mut reference = Reference::new(
            StoreConfig::new("memory://a", ConnectorConfig::new("memory://a")),
            Key::latest("k"),
        );
        reference.wait = Some(Wait {
            timeout: Some(Duration::from_millis(300)),
            lease: Some(Duration::from_secs(10)),
        });
        reference.inline = Some(Arc::from(*b"xyz"));
        let expected = b"PXR\x01\x81\x0amemory://a\x85\x01k\x8b\x04\xad\x02\x90\x4e\x8c\x03xyz";
        assert_eq!(reference.encode().unwrap(), expected);
        assert_eq!(Reference::decode(expected).unwrap(), reference);
    }

    #[test]
    fn bytes_are_as_documented() {
        let expected = [
            b"PXR\x01".as_slice(),
            b"\x81\x04demo",
            b"\x82\x0ashm://demo",
            b"\x85\x200123456789abcdef0123456789abcdef",
            b"\x86\x01\x03",
            b"\x07\x02\xe8\x07",
            b"\x88\x00",
            b"\x09\x0dnumpy:ndarray",
        ]
        .concat();
        assert_eq!(sample().encode().unwrap(), expected);
        assert_eq!(Reference::decode(&expected).unwrap(), sample());
    }

    #[test]
    fn unknown_fields_are_skipped_unless_critical() {
        let mut bytes = sample().encode().unwrap();
        bytes.extend_from_slice(b"\x7e\x02hi");
        let unknown = b"\x7e\x02hi".to_vec();
        assert_eq!(Reference::decode(&bytes).unwrap(), Reference { unknown, ..sample() });
        bytes.extend_from_slice(b"\xfe\x00");
        assert_eq!(Reference::decode(&bytes).unwrap_err().kind(), ErrorKind::Incompatible);
    }

    #[test]
    fn a_newer_version_is_named() {
        let error = Reference::decode(b"PXR\x02").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("version=2"), "{error}");
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            "[a-z]{0,8}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
        ]
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let number = any::<Option<u64>>();
        let shape = proptest::option::of(proptest::collection::vec(any::<u64>(), 0..5));
        let text = proptest::option::of(".{0,20}".prop_map(Cow::Owned));
        (number.clone(), shape, text.clone(), number.clone(), number, text).prop_map(
            |(len, shape, dtype, nbytes, created, origin)| Facts {
                len,
                shape,
                dtype,
                nbytes,
                created,
                origin,
            },
        )
    }

    proptest! {
        #[test]
        fn every_reference_survives_the_trip(
            (name, url, id) in (".{0,20}", ".{0,30}", ".{0,40}"),
            (generation, size, evict) in (any::<u64>(), any::<u64>(), any::<bool>()),
            class in proptest::option::of(".{0,20}"),
            extension in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            wait in proptest::option::of((
                proptest::option::of(0_u64..1 << 50), proptest::option::of(1_u64..1 << 50),
            )),
            inline in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            facts in facts(),
            share in proptest::option::of((any::<u32>(), 1_u32..9)),
            seal in proptest::option::of((any::<[u8; 32]>(), any::<Option<[u8; 32]>>())),
            signature in proptest::option::of((any::<[u8; 32]>(), any::<[[u8; 32]; 2]>())),
            (secret, credentials) in any::<(bool, bool)>(),
            options in proptest::collection::btree_map("[a-z]{1,5}", value(), 0..4),
            settings in proptest::collection::btree_map("[a-z]{1,5}", value(), 0..4),
        ) {
            let connector = ConnectorConfig { url, options };
            let store = Arc::new(StoreConfig { name, connector, settings });
            let seal = seal.map(|(secret, digest)| Seal::new(secret, digest));
            let key = Key::new(id, generation, size).sealed(seal);
            let signature = signature.map(|(producer, halves)| {
                Signature { producer, bytes: halves.concat().try_into().unwrap() }
            });
            let wait = wait.map(|(timeout, lease)| Wait {
                timeout: timeout.map(Duration::from_millis),
                lease: lease.map(Duration::from_millis),
            });
            let inline = inline.filter(|_| key.seal().is_none()).map(Arc::from);
            let left_out = LeftOut { secret, credentials };
            let share = share.map(|(number, of)| Share { number: number % of, of });
            let reference = Reference {
                store, key, evict, share, class, extension, wait, inline, facts, signature, left_out,
                unknown: vec![0x7e, 1, 7],
            };
            let read = Reference::decode(&reference.encode().unwrap()).unwrap();
            prop_assert_eq!(read.key.size(), reference.key.size());
            prop_assert_eq!(read.key.seal(), reference.key.seal());
            prop_assert_eq!(read, reference);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reference::decode(&bytes);
            let _ = Reference::decode(&[&MAGIC[..], &bytes[..]].concat());
        }

        #[test]
        fn truncation_never_panics(len in 0_usize..90) {
            let bytes = sample().encode().unwrap();
            let _ = Reference::decode(&bytes[..len.min(bytes.len())]);
        }
    }
}
