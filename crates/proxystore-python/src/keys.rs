//! Keys of the library and their Python faces: named tuples, which depend on the channel.

use std::sync::Arc;

use proxystore::connectors::multi;
use proxystore::{ConnectorConfig, Key, Seal};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::error::{IntoPython, raise};
use crate::{foreign, foreign_key, value};

/// What the keys of a channel look like in Python.
pub(crate) enum Keys {
    /// Id, generation and size; of this class.
    Native(Py<PyAny>),
    /// Id, endpoint, generation and size; of this class.
    Endpoint(Py<PyAny>),
    /// Whatever the connector, which is written in Python, makes.
    Foreign,
    /// The name of a part and the part's own key; of this class.
    Multi { class: Py<PyAny>, parts: Vec<(String, Arc<Keys>)> },
}

impl Keys {
    /// The keys of a channel that need not be open.
    pub(crate) fn of_channel(py: Python<'_>, channel: &ConnectorConfig) -> PyResult<Self> {
        if channel.kind() == foreign::KIND {
            return Ok(Self::Foreign);
        }
        let kinds = py.import(intern!(py, "proxystore_rs.store._kinds"))?;
        let class = kinds.getattr(intern!(py, "key_type"))?.call1((channel.kind(),))?.unbind();
        if channel.kind() != multi::KIND {
            return Ok(Self::native(channel.kind(), class));
        }
        let parts = multi::parts_of(channel).py(py)?.into_iter();
        let parts = parts.map(|part| Ok((part.name, Self::of_channel(py, &part.channel)?.into())));
        Ok(Self::Multi { class, parts: parts.collect::<PyResult<_>>()? })
    }

    /// The keys of a native channel of this kind, which are of this class.
    pub(crate) fn native(kind: &str, class: Py<PyAny>) -> Self {
        if kind == "endpoint" { Self::Endpoint(class) } else { Self::Native(class) }
    }

    /// Whether keys may be of a connector written in Python.
    pub(crate) fn has_foreign(&self) -> bool {
        match self {
            Self::Native(_) | Self::Endpoint(_) => false,
            Self::Foreign => true,
            Self::Multi { parts, .. } => parts.iter().any(|(_, keys)| keys.has_foreign()),
        }
    }

    /// The library's key.
    pub(crate) fn key_of(&self, key: &Bound<'_, PyAny>) -> PyResult<Key> {
        match opened(key)? {
            Some((own, seal)) => Ok(self.own_key_of(&own)?.sealed(Some(seal))),
            None => self.own_key_of(key),
        }
    }

    /// The Python face of a key.
    pub(crate) fn face_of<'py>(&self, py: Python<'py>, key: &Key) -> PyResult<Bound<'py, PyAny>> {
        let own = self.own_face_of(py, key)?;
        let Some(seal) = key.seal() else { return Ok(own) };
        let secret = PyBytes::new(py, seal.secret());
        let digest = seal.digest().map(|digest| PyBytes::new(py, digest));
        sealed_key(py)?.call1((own, secret, digest))
    }

    /// The connector's own key, for exceptions: they travel and are kept, and nobody means to hand
    /// the object over with them.
    pub(crate) fn face_without_seal<'py>(
        &self,
        py: Python<'py>,
        key: &Key,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.own_face_of(py, key)
    }

    fn own_key_of(&self, key: &Bound<'_, PyAny>) -> PyResult<Key> {
        match self {
            Self::Foreign => foreign_key::from_python(key, 0),
            Self::Native(_) => native_from_python(key),
            Self::Endpoint(_) => endpoint_from_python(key),
            Self::Multi { parts, .. } => {
                let tuple = key.cast::<PyTuple>().map_err(|_| bad_key(key))?;
                let [name, own] = tuple.as_slice() else { return Err(bad_key(key)) };
                let name = name.cast::<PyString>().map_err(|_| bad_key(key))?.to_str()?;
                if name.is_empty() {
                    return Ok(Key::latest(own.extract::<String>().map_err(|_| bad_key(key))?));
                }
                let keys = keys_of_part(key.py(), parts, name)?;
                Ok(multi::join_key(name, &keys.key_of(own)?))
            }
        }
    }

    fn own_face_of<'py>(&self, py: Python<'py>, key: &Key) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Foreign => foreign_key::to_python(py, key),
            Self::Native(class) => {
                let items = (key.id(), key.generation(), key.size()).into_pyobject(py)?;
                value::tuple_of(class.bind(py), &items)
            }
            Self::Endpoint(class) => {
                let (id, endpoint) = match key.id().rsplit_once('.') {
                    Some((id, endpoint)) => (id, Some(endpoint)),
                    None => (key.id(), None), // an object inside its reference
                };
                let items = (id, endpoint, key.generation(), key.size()).into_pyobject(py)?;
                value::tuple_of(class.bind(py), &items)
            }
            Self::Multi { class, parts } => {
                // An object inside its reference is in no channel.
                let (name, own) = match multi::split_key(key) {
                    None => (String::new(), PyString::new(py, key.id()).into_any()),
                    Some((name, own)) => {
                        let own = keys_of_part(py, parts, &name)?.face_of(py, &own)?;
                        (name, own)
                    }
                };
                value::tuple_of(class.bind(py), &(name, own).into_pyobject(py)?)
            }
        }
    }

    /// The key as the connector's users know it.
    pub(crate) fn text(&self, py: Python<'_>, key: &Key) -> String {
        match self {
            Self::Native(_) | Self::Endpoint(_) => key.to_string(),
            _ => {
                self.own_face_of(py, key).map_or_else(|_| key.to_string(), |face| face.to_string())
            }
        }
    }
}

static SEALED_KEY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn sealed_key(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    SEALED_KEY.import(py, "proxystore_rs.store.keys", "SealedKey")
}

/// The connector's own key and the seal of the key of a sealed object.
fn opened<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyAny>, Seal)>> {
    if !key.get_type().is(sealed_key(key.py())?) {
        return Ok(None);
    }
    let (own, secret, digest): (Bound<'py, PyAny>, [u8; 32], Option<[u8; 32]>) =
        key.extract().map_err(|_| bad_key(key))?;
    Ok(Some((own, Seal::new(secret, digest))))
}

fn keys_of_part<'a>(
    py: Python<'_>,
    parts: &'a [(String, Arc<Keys>)],
    name: &str,
) -> PyResult<&'a Keys> {
    if let Some((_, keys)) = parts.iter().find(|(known, _)| known == name) {
        return Ok(keys);
    }
    let names: Vec<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
    Err(raise(
        py,
        "MultiConnectorError",
        &format!(
            "the key belongs to a part that the multi connector does not have [part={name:?}]; its \
             parts are {}",
            names.join(", ")
        ),
    ))
}

fn native_from_python(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    let tuple = key.cast::<PyTuple>().map_err(|_| bad_key(key))?;
    let id = tuple.get_item(0).and_then(|id| id.extract::<String>()).map_err(|_| bad_key(key))?;
    numbered(id, tuple, 1)
}

fn endpoint_from_python(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    let tuple = key.cast::<PyTuple>().map_err(|_| bad_key(key))?;
    let texts = tuple.get_item(0).and_then(|id| Ok((id, tuple.get_item(1)?)));
    let texts = texts.and_then(|(id, endpoint)| {
        Ok((id.extract::<String>()?, endpoint.extract::<Option<String>>()?))
    });
    let (mut id, endpoint) = texts.map_err(|_| bad_key(key))?;
    if let Some(endpoint) = endpoint {
        id.push('.');
        id.push_str(&endpoint);
    }
    numbered(id, tuple, 2)
}

/// The key of this id whose generation and size are items `at` and `at + 1`.
fn numbered(id: String, tuple: &Bound<'_, PyTuple>, at: usize) -> PyResult<Key> {
    let number = |index| match tuple.get_item(index) {
        Ok(number) => number.extract::<u64>().map_err(|_| bad_key(tuple)),
        Err(_) => Ok(0), // as in FileKey("name")
    };
    Ok(Key::new(id, number(at)?, number(at + 1)?))
}

fn bad_key(key: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("not a key of this connector: {key:?}"))
}
