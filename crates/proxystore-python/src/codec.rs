//! Which codecs a call, a store and this process ask for, and what `"data"` refuses.

use std::sync::OnceLock;

use proxystore::connectors::Value;
use proxystore::{Key, Reference, StoreConfig, connectors::multi};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::error::raise;
use crate::value::Settings;
use crate::{foreign, foreign_key};

/// Setting of a store, and keyword argument of its methods.
pub(crate) const SETTING: &str = "codec";

/// How objects are encoded; the later of two is the stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Codec {
    /// Whatever suits the object, pickle too.
    #[default]
    Any,
    /// `MessagePack`, or an error.
    MessagePack,
    /// What every language reads, or an error; and nothing else is read.
    Data,
}

/// The variable that sets a whole process to `"data"`.
const VARIABLE: &str = "PROXYSTORE_CODEC";

static PROCESS: OnceLock<Codec> = OnceLock::new();

impl Codec {
    /// The codec of a name; `None` stands for any.
    pub(crate) fn named(name: Option<&str>) -> PyResult<Self> {
        match name {
            None => Ok(Self::Any),
            Some("msgpack") => Ok(Self::MessagePack),
            Some("data") => Ok(Self::Data),
            Some(other) => Err(PyValueError::new_err(format!(
                "codec must be None, 'msgpack' or 'data', not {other:?}"
            ))),
        }
    }

    /// What the environment says, read when it is first needed.
    pub(crate) fn of_process(py: Python<'_>) -> PyResult<Self> {
        if let Some(codec) = PROCESS.get() {
            return Ok(*codec);
        }
        let environment = py.import(intern!(py, "os"))?.getattr(intern!(py, "environ"))?;
        let said = environment.call_method1(intern!(py, "get"), (VARIABLE, ""))?;
        let codec = match said.extract::<String>()?.as_str() {
            "" => Self::Any,
            "data" => Self::Data,
            other => {
                return Err(raise(
                    py,
                    "StoreConfigError",
                    &format!("{VARIABLE} must be 'data' or unset, not {other:?}"),
                ));
            }
        };
        Ok(*PROCESS.get_or_init(|| codec))
    }

    /// The codec among a store's settings.
    pub(crate) fn among(settings: &Settings) -> PyResult<Self> {
        match settings.get(SETTING) {
            Some(Value::Text(name)) => Self::named(Some(name)),
            Some(other) => Err(PyValueError::new_err(format!("codec must be text, not {other:?}"))),
            None => Ok(Self::Any),
        }
    }
}

/// The exception for something that would have to be unpickled.
pub(crate) fn refusal(py: Python<'_>, what: &str, remedy: &str) -> PyErr {
    raise(
        py,
        "UntrustedError",
        &format!(
            "{what}, which could run code; the store or this process (PROXYSTORE_CODEC) is set to \
             codec='data' and takes nothing that does. {remedy}"
        ),
    )
}

/// Refuses a reference that holds pickles, on its way in or out, where `data_only` says so; it is
/// asked only if there are any.
pub(crate) fn check_reference(
    py: Python<'_>,
    reference: &Reference,
    has_deserializer: bool,
    data_only: impl FnOnce() -> PyResult<bool>,
) -> PyResult<()> {
    let has_functions = reference.extension.is_some() || has_deserializer;
    let has_key = is_pickled(&reference.key);
    let has_config = reference.store.connector.options.iter().any(holds_pickle);
    if !(has_functions || has_key || has_config) || !data_only()? {
        return Ok(());
    }
    if has_functions {
        return Err(refusal(
            py,
            "the reference carries a pickled serializer or deserializer",
            "Give the functions to the store that each process registers under this name, or to \
             the call that reads the object",
        ));
    }
    check_config(py, &reference.store)?;
    Err(refusal(
        py,
        "the reference has a pickled key",
        "Let the connector's keys be named tuples of strings, integers and None",
    ))
}

/// Refuses the configuration of a connector that is a pickle.
pub(crate) fn check_config(py: Python<'_>, config: &StoreConfig) -> PyResult<()> {
    if config.connector.options.iter().any(holds_pickle) {
        return Err(pickled_config(py));
    }
    Ok(())
}

/// The exception for a configuration that only unpickling would tell.
pub(crate) fn pickled_config(py: Python<'_>) -> PyErr {
    refusal(
        py,
        "the connector's configuration is a pickle",
        "Let its config() return a dictionary of strings, numbers, bytes, lists and dictionaries",
    )
}

fn holds_pickle((name, value): (&String, &Value)) -> bool {
    name == foreign::PICKLED
        || match value {
            Value::Map(values) => values.iter().any(holds_pickle),
            _ => false,
        }
}

fn is_pickled(key: &Key) -> bool {
    match multi::split_key(key) {
        Some((_, own)) => is_pickled(&own),
        None => foreign_key::is_pickled(key),
    }
}

/// Whether a store with this setting, in this process, takes nothing but data.
#[pyfunction(name = "_takes_data_only")]
pub(crate) fn takes_data_only(py: Python<'_>, codec: Option<&str>) -> PyResult<bool> {
    Ok(Codec::named(codec)?.max(Codec::of_process(py)?) == Codec::Data)
}
