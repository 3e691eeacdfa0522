//! What travels through a broker (format in `docs/protocol-stream.md`).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, ErrorKind, Result};
use crate::fields::{CRITICAL, Format, field};
use crate::reference::{Reference, Share};

/// First bytes of every message: three letters and the version.
const MAGIC: [u8; 4] = *b"PXE\x01";

const FORMAT: Format = Format {
    magic: MAGIC,
    operation: "read the message of a stream",
    hint: "it was damaged on the way, or something else than a stream publishes to this topic",
};

// Of a message.
const TOPIC: u8 = CRITICAL | 1;
const CONSUMERS: u8 = CRITICAL | 2;
const EVENT: u8 = CRITICAL | 3;
// Of an event.
const OBJECT: u8 = CRITICAL | 1;
const VALUE: u8 = CRITICAL | 2;
const END: u8 = CRITICAL | 3;
const METADATA: u8 = 4;
const FOREIGN_METADATA: u8 = 5;
const DROPPABLE: u8 = 6;

/// The events of one topic that were published together.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The groups of consumers that objects are kept for; each frees its share. If none are named,
    /// whoever is the first to be done with an object frees it.
    pub consumers: Vec<String>,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// One notice: of an object, or that there will be no more.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub body: Body,
    /// What the producer says of the object.
    pub metadata: Metadata,
    /// The producer may have dropped the object since, for want of room.
    pub droppable: bool,
}

/// What an event tells of.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// An object of a store, small ones inside the reference.
    Object(Box<Reference>),
    /// An object that is in no store: its payload.
    Value(Arc<[u8]>),
    /// The end of the topic, as far as this producer is concerned.
    End,
}

impl Event {
    /// An event without metadata.
    pub fn new(body: Body) -> Self {
        Self { body, metadata: Metadata::default(), droppable: false }
    }
}

/// What a producer says of an object, by names; consumers' filters decide by it, before anything is
/// fetched.
#[derive(Clone, Default, PartialEq)]
pub struct Metadata {
    /// A map in MessagePack; empty for none.
    pub(crate) map: Vec<u8>,
    /// In the producer's own language, where MessagePack cannot say it.
    pub(crate) foreign: Vec<u8>,
}

impl Metadata {
    /// Of a map or a struct with named fields.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] for what MessagePack cannot say.
    pub fn new(values: &impl Serialize) -> Result<Self> {
        let map = rmp_serde::to_vec_named(values).map_err(|source| {
            Error::new(ErrorKind::Encode, "write the metadata of an event", source.to_string())
                .with_source(source)
        })?;
        Ok(Self { map, foreign: Vec::new() })
    }

    /// Of what a bridge wrote: a map in MessagePack, or bytes of its language.
    pub fn from_parts(map: Vec<u8>, foreign: Vec<u8>) -> Self {
        Self { map, foreign }
    }

    /// The map in MessagePack, empty for none, and what is in the producer's own language.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.map, &self.foreign)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty() && self.foreign.is_empty()
    }

    /// All of it, as a map or a struct with the same names.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when it says something else; [`ErrorKind::Unsupported`] when it is in a
    /// form of Python's.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        rmp_serde::from_slice(self.map()?).map_err(unreadable)
    }

    /// One value, if there is one of that name.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        struct Named<'a, T>(&'a str, PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for Named<'_, T> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
                let mut found = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == self.0 {
                        found = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }

        let mut map = rmp_serde::Deserializer::new(self.map()?);
        map.deserialize_map(Named(name, PhantomData)).map_err(unreadable)
    }

    fn map(&self) -> Result<&[u8]> {
        if !self.foreign.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, READ, "Python pickled it")
                .with_hint("let its values be numbers, text, bytes, lists and dictionaries"));
        }
        Ok(if self.map.is_empty() { &[0x80] } else { &self.map }) // an empty map
    }
}

const READ: &str = "read the metadata of an event";

fn unreadable(source: rmp_serde::decode::Error) -> Error {
    Error::new(ErrorKind::Decode, READ, source.to_string()).with_source(source)
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} bytes)", self.map.len() + self.foreign.len())
    }
}

impl Message {
    /// How many events a message may have: small ones take much more memory than they do on the wire.
    pub const MOST: usize = 1 << 16;

    /// The serialized form.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when a store's configuration cannot be represented;
    /// [`ErrorKind::Config`] for more than [`MOST`](Self::MOST) events.
    pub fn encode(&self) -> Result<Vec<u8>> {
        if self.events.len() > Self::MOST {
            let cause = "it has more events than a message may have";
            return Err(Error::new(ErrorKind::Config, "write the message of a stream", cause)
                .with("events", self.events.len())
                .with("most", Self::MOST)
                .with_hint("let batches be smaller"));
        }
        let mut out = Vec::with_capacity(64 + 256 * self.events.len());
        out.extend_from_slice(&MAGIC);
        field(&mut out, TOPIC, self.topic.as_bytes());
        for consumer in &self.consumers {
            field(&mut out, CONSUMERS, consumer.as_bytes());
        }
        let mut bytes = Vec::with_capacity(256);
        for event in &self.events {
            bytes.clear();
            event.encode(&mut bytes)?;
            field(&mut out, EVENT, &bytes);
        }
        Ok(out)
    }

    /// Reads the serialized form; nothing is opened or fetched.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for bytes that are no message; [`ErrorKind::Incompatible`] for a newer
    /// version or a critical field this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = FORMAT.begin(bytes)?;
        let (mut topic, mut consumers, mut events) = (None, Vec::new(), Vec::new());
        while let Some((tag, value, after)) = FORMAT.next(rest)? {
            rest = after;
            match tag {
                TOPIC if topic.is_some() => return Err(FORMAT.corrupt("it has two topics")),
                TOPIC => topic = Some(FORMAT.text(value)?),
                CONSUMERS if consumers.len() >= Share::MOST as usize => {
                    return Err(FORMAT.corrupt("it has more consumers than there may be"));
                }
                CONSUMERS => consumers.push(FORMAT.text(value)?),
                EVENT if events.len() >= Self::MOST => {
                    return Err(FORMAT.corrupt("it has more events than there may be"));
                }
                EVENT => events.push(Event::decode(value)?),
                critical if critical & CRITICAL != 0 => {
                    return Err(FORMAT.newer("field", critical));
                }
                _ => {}
            }
        }
        let topic = topic.ok_or_else(|| FORMAT.corrupt("it has no topic"))?;
        Ok(Self { topic, consumers, events })
    }
}

impl Event {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        match &self.body {
            Body::Object(reference) => field(out, OBJECT, &reference.encode()?),
            Body::Value(payload) => field(out, VALUE, payload),
            Body::End => field(out, END, &[]),
        }
        for (tag, metadata) in
            [(METADATA, &self.metadata.map), (FOREIGN_METADATA, &self.metadata.foreign)]
        {
            if !metadata.is_empty() {
                field(out, tag, metadata);
            }
        }
        if self.droppable {
            field(out, DROPPABLE, &[]);
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut rest, mut body, mut event) = (bytes, None, Self::new(Body::End));
        while let Some((tag, value, after)) = FORMAT.next(rest)? {
            rest = after;
            let found = match tag {
                OBJECT => Body::Object(Box::new(Reference::decode(value)?)),
                VALUE => Body::Value(Arc::from(value)),
                END => Body::End,
                METADATA => {
                    event.metadata.map = value.to_vec();
                    continue;
                }
                FOREIGN_METADATA => {
                    event.metadata.foreign = value.to_vec();
                    continue;
                }
                DROPPABLE => {
                    event.droppable = true;
                    continue;
                }
                critical if critical & CRITICAL != 0 => {
                    return Err(FORMAT.newer("field of an event", critical));
                }
                _ => continue,
            };
            if body.replace(found).is_some() {
                return Err(FORMAT.corrupt("an event tells of two things"));
            }
        }
        let body = body.ok_or_else(|| FORMAT.corrupt("an event tells of nothing"))?;
        Ok(Self { body, ..event })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ConnectorConfig, Key, StoreConfig};

    fn sample() -> Message {
        let store = StoreConfig::new("shm://a", ConnectorConfig::new("shm://a"));
        let mut object =
            Event::new(Body::Object(Box::new(Reference::new(store, Key::latest("k")))));
        object.metadata = Metadata::new(&std::collections::BTreeMap::from([("n", 1)])).unwrap();
        object.droppable = true;
        let mut value = Event::new(Body::Value(Arc::from(*b"xyz")));
        value.metadata = Metadata::from_parts(Vec::new(), b"p".to_vec());
        Message {
            topic: "t".to_owned(),
            consumers: vec!["a".to_owned(), "b".to_owned()],
            events: vec![object, value, Event::new(Body::End)],
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let expected = [
            b"PXE\x01".as_slice(),
            b"\x81\x01t",
            b"\x82\x01a\x82\x01b",
            b"\x83\x1a\x81\x10PXR\x01\x81\x07shm://a\x85\x01k\x04\x04\x81\xa1n\x01\x06\x00",
            b"\x83\x08\x82\x03xyz\x05\x01p",
            b"\x83\x02\x83\x00",
        ]
        .concat();
        assert_eq!(sample().encode().unwrap(), expected);
        assert_eq!(Message::decode(&expected).unwrap(), sample());
    }

    #[test]
    fn metadata_is_read_by_name_and_as_a_whole() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Shot {
            beam: String,
            number: u32,
        }
        let shot = Shot { beam: "left".to_owned(), number: 7 };
        let metadata = Metadata::new(&shot).unwrap();
        assert_eq!(metadata.read::<Shot>().unwrap(), shot);
        assert_eq!(metadata.get::<u32>("number").unwrap(), Some(7));
        assert_eq!(metadata.get::<u32>("none").unwrap(), None);
        assert_eq!(metadata.get::<u32>("beam").unwrap_err().kind(), ErrorKind::Decode);
        assert_eq!(Metadata::default().get::<u32>("beam").unwrap(), None);
        let pickled = Metadata::from_parts(Vec::new(), vec![1]);
        assert_eq!(pickled.read::<Shot>().unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn unknown_fields_are_skipped_unless_critical() {
        let mut bytes = sample().encode().unwrap();
        bytes.extend_from_slice(b"\x7e\x02hi");
        assert_eq!(Message::decode(&bytes).unwrap(), sample());
        bytes.extend_from_slice(b"\xfe\x00");
        assert_eq!(Message::decode(&bytes).unwrap_err().kind(), ErrorKind::Incompatible);
    }

    #[test]
    fn a_message_has_so_many_events_and_no_more() {
        let mut message = sample();
        message.events = vec![Event::new(Body::End); Message::MOST];
        let mut bytes = message.encode().unwrap();
        assert_eq!(Message::decode(&bytes).unwrap().events.len(), Message::MOST);
        bytes.extend_from_slice(b"\x83\x02\x83\x00");
        assert_eq!(Message::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        message.events.push(Event::new(Body::End));
        assert_eq!(message.encode().unwrap_err().kind(), ErrorKind::Config);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&[&MAGIC[..], &bytes[..]].concat());
        }

        #[test]
        fn truncation_never_panics(len in 0_usize..60) {
            let bytes = sample().encode().unwrap();
            let _ = Message::decode(&bytes[..len.min(bytes.len())]);
        }
    }
}
