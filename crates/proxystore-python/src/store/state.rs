//! What a store holds, and how objects go in and come out.

use std::sync::Arc;
use std::time::Instant;

use proxystore::codec::Failure;
use proxystore::payload::{Framed, Parts};
use proxystore::store::{Operation, Wrapped};
use proxystore::{Access, Error, Key, Reference, Store};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::future;
use super::metrics::Recorder;
use crate::codec::Codec;
use crate::error::{IntoPython, to_python};
use crate::keys::Keys;
use crate::pickle::{self, Decoding, Encoding};
use crate::{connector, foreign, foreign_key, message_pack, value};

/// What `_setup` fills in.
pub(crate) struct State {
    pub(crate) store: Store,
    /// The connector as the user gave it.
    pub(super) connector: Py<PyAny>,
    pub(super) foreign: bool,
    pub(crate) keys: Arc<Keys>,
    pub(super) serializer: Option<Py<PyAny>>,
    pub(super) deserializer: Option<Py<PyAny>>,
    pub(super) populate_target: bool,
    pub(super) access: Access,
    pub(super) codec: Codec,
    pub(super) metrics: Recorder,
    /// Pickled settings that only Python understands; travels in references.
    pub(super) extension: Option<Vec<u8>>,
}

/// How one call wants an object encoded.
#[derive(Default)]
pub(super) struct PutWish<'a, 'py> {
    serializer: Option<&'a Bound<'py, PyAny>>,
    codec: Option<Codec>,
}

impl<'a, 'py> PutWish<'a, 'py> {
    pub(super) fn new(
        serializer: Option<&'a Bound<'py, PyAny>>,
        codec: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self { serializer, codec: codec.map(|name| Codec::named(Some(name))).transpose()? })
    }
}

/// How one call wants an object decoded.
#[derive(Default)]
pub(super) struct GetWish<'a, 'py> {
    pub(super) deserializer: Option<&'a Bound<'py, PyAny>>,
    pub(super) codec: Codec,
    /// What the object shall be an instance of.
    pub(super) class: Option<&'a Bound<'py, PyAny>>,
}

/// A cached object.
struct Cached(Py<PyAny>);

impl State {
    /// The library's key for a Python key.
    pub(crate) fn key(&self, key: &Bound<'_, PyAny>) -> PyResult<Key> {
        self.keys.key_of(key)
    }

    /// The Python face of a key.
    pub(crate) fn key_to_python<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.keys.face_of(py, key)
    }

    /// The stricter of the codecs of the store and of the process.
    pub(crate) fn codec(&self, py: Python<'_>) -> PyResult<Codec> {
        Ok(self.codec.max(Codec::of_process(py)?))
    }

    pub(super) fn encode(
        &self,
        object: &Bound<'_, PyAny>,
        wish: &PutWish<'_, '_>,
    ) -> PyResult<pickle::Encoded> {
        let py = object.py();
        let codec = match (wish.serializer, wish.codec) {
            // Neither writes pickle, so that a call may choose either even where "data" is set.
            (None, Some(codec)) => {
                return pickle::encode(object, Encoding { serializer: None, codec });
            }
            (Some(_), Some(_)) => {
                return Err(PyValueError::new_err(
                    "serializer and codec both say how to encode the object; pass one of them",
                ));
            }
            (_, None) => self.codec(py)?,
        };
        let own = self.serializer.as_ref().map(|serializer| serializer.bind(py));
        pickle::encode(object, Encoding { serializer: wish.serializer.or(own), codec })
    }

    /// Name of the class as which an object arrives, if a codec makes it another one than its own.
    pub(super) fn class_elsewhere(
        &self,
        object: &Bound<'_, PyAny>,
        wish: &PutWish<'_, '_>,
    ) -> PyResult<Option<String>> {
        let codec = wish.codec.map_or_else(|| self.codec(object.py()), Ok)?;
        let is_serialized = wish.codec.is_none() && self.serializer.is_some();
        if codec == Codec::Any || wish.serializer.is_some() || is_serialized {
            return Ok(None);
        }
        Ok(message_pack::class_read(object)?.as_ref().and_then(value::class_name))
    }

    /// A reference to an object of this store.
    pub(super) fn reference(&self, key: Key) -> Reference {
        Reference::new(Arc::clone(self.store.config()), key)
    }

    pub(super) fn put(
        &self,
        object: &Bound<'_, PyAny>,
        wish: &PutWish<'_, '_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Key> {
        let store = |framed: &Framed<'_>| self.put_framed(object.py(), framed, options);
        self.timed_put(object, wish, "put", store, Key::clone)
    }

    /// `put`, or the payload inside the reference if it is small enough.
    pub(super) fn refer(
        &self,
        object: &Bound<'_, PyAny>,
        wish: &PutWish<'_, '_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Reference> {
        let py = object.py();
        let store = |framed: &Framed<'_>| {
            if self.foreign_options(options).is_some() {
                return self.put_framed(py, framed, options).map(|key| self.reference(key));
            }
            let options = connector::put_options(self.connector.bind(py), options)?;
            py.detach(|| self.store.refer(framed, &options)).py(py)
        };
        self.timed_put(object, wish, "put", store, |reference| reference.key.clone())
    }

    /// Sets a future, or replaces the object under a key.
    pub(super) fn set(
        &self,
        reference: &Reference,
        object: &Bound<'_, PyAny>,
        wish: &PutWish<'_, '_>,
    ) -> PyResult<()> {
        let py = object.py();
        let store =
            |framed: &Framed<'_>| py.detach(|| self.store.settle_framed(reference, framed)).py(py);
        self.timed_put(object, wish, "set", store, |()| reference.key.clone())
    }

    /// Encodes an object and hands it to `store`, measuring both under the name of `operation`.
    fn timed_put<R>(
        &self,
        object: &Bound<'_, PyAny>,
        wish: &PutWish<'_, '_>,
        operation: &str,
        store: impl FnOnce(&Framed<'_>) -> PyResult<R>,
        key_of: impl FnOnce(&R) -> Key,
    ) -> PyResult<R> {
        let py = object.py();
        let total = self.metrics.start();
        let encoded = self.encode(object, wish)?;
        let serialized = self.metrics.start();
        self.record(Operation::Encode, total, 0);
        let framed = encoded.payload(py)?.frame().py(py)?;
        let size = framed.len();
        let stored = store(&framed)?;
        encoded.was_put(object)?;
        if self.metrics.is_on() {
            let face = self.key_to_python(py, &key_of(&stored))?;
            let name = |step| format!("store.{operation}{step}");
            self.metrics.time_between(py, &name(".serialize"), &face, total, serialized)?;
            self.metrics.time(py, &name(".connector"), &face, serialized)?;
            self.metrics.time(py, &name(""), &face, total)?;
            self.metrics.attribute(py, &name(".object_size"), &face, size)?;
        }
        Ok(stored)
    }

    /// `put` with options; those of a connector written in Python are its own.
    fn put_framed(
        &self,
        py: Python<'_>,
        framed: &Framed<'_>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Key> {
        if let Some(options) = self.foreign_options(options) {
            let started = self.metrics.start();
            let wrapped = self.store.wrap(framed, None).py(py)?;
            let bytes = foreign::joined(py, &wrapped.parts())?;
            let key = self.connector.bind(py).call_method("put", (bytes,), Some(options))?;
            self.record(Operation::Put, started, framed.len());
            return Ok(wrapped.key(foreign_key::from_python(&key, framed.len())?));
        }
        let options = connector::put_options(self.connector.bind(py), options)?;
        py.detach(|| self.store.put_framed(framed, &options)).py(py)
    }

    /// `put` for many objects, with options as `put_framed` has them.
    pub(super) fn put_batch(
        &self,
        py: Python<'_>,
        framed: &[Framed<'_>],
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Key>> {
        if let Some(options) = self.foreign_options(options) {
            let wrap = |framed| self.store.wrap(framed, None);
            let wrapped: Vec<_> = framed.iter().map(wrap).collect::<Result<_, _>>().py(py)?;
            let parts: Vec<Parts<'_>> = wrapped.iter().map(Wrapped::parts).collect();
            let started = self.metrics.start();
            let keys = foreign::put_batch(self.connector.bind(py), &parts, Some(options))?;
            self.record(Operation::Put, started, parts.iter().map(Parts::len).sum());
            let sealed = wrapped.iter().zip(keys).map(|(wrapped, key)| wrapped.key(key));
            return Ok(sealed.collect());
        }
        let options = connector::put_options(self.connector.bind(py), options)?;
        py.detach(|| self.store.put_framed_batch(framed, &options)).py(py)
    }

    /// Adds an operation that began at `started` and ends now to the totals.
    pub(super) fn record(&self, operation: Operation, started: Option<Instant>, bytes: usize) {
        if let (Some(metrics), Some(started)) = (self.store.metrics(), started) {
            metrics.record(operation, started.elapsed(), bytes);
        }
    }

    fn foreign_options<'a, 'py>(
        &self,
        options: Option<&'a Bound<'py, PyDict>>,
    ) -> Option<&'a Bound<'py, PyDict>> {
        options.filter(|options| self.foreign && !options.is_empty())
    }

    /// The object under a key, from the cache or the channel.
    pub(super) fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        wish: &GetWish<'_, 'py>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.store.permit().py(py)?;
        let total = self.metrics.start();
        // What is cached was decoded as others wished.
        let as_stored = wish.class.is_none() && wish.codec <= self.codec;
        let cached = if as_stored { self.cached(py, key) } else { None };
        if cached.is_some() {
            self.record(Operation::CacheHit, total, 0);
        }
        if self.metrics.is_on() {
            let face = self.key_to_python(py, key)?;
            let hit = if cached.is_some() { "cache_hits" } else { "cache_misses" };
            self.metrics.counter(py, &format!("store.get.{hit}"), &face)?;
            if cached.is_some() {
                self.metrics.time(py, "store.get", &face, total)?;
            }
        }
        if cached.is_some() {
            return Ok(cached);
        }
        let fetching = self.metrics.start();
        let received = py
            .detach(|| self.store.get_payload(key, self.access))
            .map_err(|error| self.with_readable_key(py, error, key))?;
        let fetched = self.metrics.start();
        let Some(received) = received else {
            if self.metrics.is_on() {
                let face = self.key_to_python(py, key)?;
                self.metrics.time_between(py, "store.get.connector", &face, fetching, fetched)?;
                self.metrics.time(py, "store.get", &face, total)?;
            }
            return Ok(None);
        };
        let object = self.decode_as(py, key, &received, wish)?;
        if self.metrics.is_on() {
            let face = self.key_to_python(py, key)?;
            self.metrics.time_between(py, "store.get.connector", &face, fetching, fetched)?;
            self.metrics.time(py, "store.get.deserialize", &face, fetched)?;
            self.metrics.time(py, "store.get", &face, total)?;
            self.metrics.attribute(py, "store.get.object_size", &face, received.len())?;
        }
        Ok(Some(object))
    }

    /// Decodes what was fetched, and caches it.
    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        received: &proxystore::payload::Received,
        deserializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.decode_as(py, key, received, &GetWish { deserializer, ..GetWish::default() })
    }

    fn decode_as<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
        received: &proxystore::payload::Received,
        wish: &GetWish<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let own_codec = self.codec(py)?;
        let codec = own_codec.max(wish.codec);
        if let Some(failure) = Failure::of(received).py(py)? {
            return Err(future::raised(py, &failure, codec));
        }
        // The store's own function may have come in a reference, unless the store takes no such.
        let own = self.deserializer.as_ref().filter(|_| codec == own_codec || codec < Codec::Data);
        let deserializer = wish.deserializer.or(own.map(|deserializer| deserializer.bind(py)));
        let how = Decoding { access: self.access, deserializer, codec, class: wish.class };
        let started = self.metrics.start();
        let object = pickle::decode(py, received, how)
            .map_err(|error| self.describe(py, error, key, deserializer))?;
        self.record(Operation::Decode, started, 0);
        if wish.class.is_none() {
            self.keep(key, &object, received.len());
        }
        Ok(object)
    }

    /// The cached object of a key.
    pub(super) fn cached<'py>(&self, py: Python<'py>, key: &Key) -> Option<Bound<'py, PyAny>> {
        self.store.cache().get::<Cached>(key).map(|cached| cached.0.bind(py).clone())
    }

    /// Caches an object that takes `bytes`.
    pub(super) fn keep(&self, key: &Key, object: &Bound<'_, PyAny>, bytes: usize) {
        // A key without generation may mean a newer object tomorrow.
        if key.generation() != 0 {
            let cached = Arc::new(Cached(object.clone().unbind()));
            self.store.cache().insert(key.clone(), cached, bytes);
        }
    }

    /// The exception for an error; its text shows the key itself and not the key's pickle.
    pub(super) fn with_readable_key(&self, py: Python<'_>, error: Error, key: &Key) -> PyErr {
        let raised = to_python(py, error);
        if !self.keys.has_foreign() {
            return raised;
        }
        let readable = |raised: &Bound<'_, PyAny>| -> PyResult<()> {
            let text = raised.str()?.to_string();
            let pickled = key.to_string();
            if text.contains(&pickled) {
                let text = text.replace(&pickled, &self.keys.text(py, key));
                raised.setattr(intern!(py, "args"), (text,))?;
            }
            Ok(())
        };
        let _ = readable(raised.value(py).as_any()); // else the text stays as it is
        raised
    }

    /// Adds store and key to an error of decoding.
    fn describe(
        &self,
        py: Python<'_>,
        error: PyErr,
        key: &Key,
        deserializer: Option<&Bound<'_, PyAny>>,
    ) -> PyErr {
        let key = self.keys.text(py, key);
        let note = match deserializer {
            Some(deserializer) => format!(
                "Failed to deserialize object (deserializer={deserializer:?}, key={key}, store={})",
                self.store.name()
            ),
            None => format!("while decoding key={key} of store={}", self.store.name()),
        };
        let _ = error.value(py).call_method1(intern!(py, "add_note"), (note,));
        error
    }

    pub(crate) fn evict(&self, py: Python<'_>, key: &Key) -> PyResult<()> {
        let started = self.metrics.start();
        py.detach(|| self.store.evict(key)).py(py)?;
        if self.metrics.is_on() {
            let face = self.key_to_python(py, key)?;
            self.metrics.time(py, "store.evict.connector", &face, started)?;
            self.metrics.time(py, "store.evict", &face, started)?;
        }
        Ok(())
    }
}
