//! Tables of pyarrow, pandas and polars in the table codec; pyarrow reads and writes the columns.

use proxystore::codec::{TABLE, TableMeta};
use proxystore::payload::Received;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use crate::buffer::{PyStoredBytes, View};
use crate::error::{is_untrusted, to_python};
use crate::pickle::{Encoded, Memory, undecodable};

const MODULE: &str = "proxystore_rs._tables";
static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static DECODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What classes of tables are called.
const NAMES: [&str; 3] = ["Table", "RecordBatch", "DataFrame"];

/// Kind, number of rows, names of the columns, and the pieces of each part.
type Streams<'py> = (String, u64, Vec<String>, Vec<Vec<Bound<'py, PyAny>>>);

/// A table in the table codec; `None` for anything else, and for what pickle keeps better, unless
/// other languages shall read it (`neutral`).
pub(crate) fn encode(object: &Bound<'_, PyAny>, neutral: bool) -> PyResult<Option<Encoded>> {
    let py = object.py();
    if !NAMES.contains(&object.get_type().name()?.to_str()?) {
        return Ok(None); // the usual case, without a call of Python
    }
    let encoded = ENCODE.import(py, MODULE, "encode")?.call1((object, neutral))?;
    let Some((kind, rows, columns, parts)) = encoded.extract::<Option<Streams<'_>>>()? else {
        return Ok(None);
    };
    let meta = TableMeta { kind, rows, columns }.write().map_err(|error| to_python(py, error))?;
    let views = |pieces: Vec<_>| pieces.iter().map(View::of).collect::<PyResult<_>>();
    let parts = parts.into_iter().map(|pieces| Ok(Memory::Pieces(views(pieces)?)));
    Ok(Some(Encoded::new(TABLE, meta, parts.collect::<PyResult<_>>()?)))
}

/// The table that was stored.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    received: &Received,
    writable: bool,
    data_only: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let meta = TableMeta::read(received.meta()).map_err(|error| to_python(py, error))?;
    let parts = PyList::empty(py);
    for part in (0..received.part_count()).filter_map(|index| received.part(index)) {
        parts.append(Bound::new(py, PyStoredBytes::new(part, writable))?)?;
    }
    DECODE.import(py, MODULE, "decode")?.call1((meta.kind, meta.rows, parts, data_only)).map_err(
        |error| {
            if is_untrusted(&error, py) { error } else { undecodable(py, "table", error) }
        },
    )
}
