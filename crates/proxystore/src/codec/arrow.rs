//! Tables of the `arrow` crates (format in [`TableMeta`] and `docs/protocol.md`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamEncoder;
use arrow_schema::{ArrowError, FieldRef, Schema, SchemaRef};
use arrow_select::concat::{concat, concat_batches};

use crate::buffer::Buffer;
use crate::codec::{Decode, Encode, TABLE, TableMeta, expect};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{Bytes, Payload, Received};

/// A table: record batches of one schema, any number of them.
///
/// Putting one copies no column, and neither does getting it: the arrays lie where the channel put
/// them. A single [`RecordBatch`] can be stored by itself as well.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use std::sync::Arc;
/// use arrow_array::{ArrayRef, Float64Array, RecordBatch, cast::AsArray, types::Float64Type};
/// use proxystore::{Store, codec::Table};
///
/// let energy: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.5]));
/// let batch = RecordBatch::try_from_iter([("energy", energy)]).expect("columns of one length");
/// let store = Store::open("memory://tables")?;
/// let proxy = store.proxy(Table::from(batch))?;
///
/// let column = proxy.column("energy").expect("a column of that name").into_array()?;
/// assert_eq!(column.as_primitive::<Float64Type>().values(), &[1.5, 2.5]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// A table of batches, which may be none.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a batch has another schema.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        match batches.iter().position(|batch| batch.schema_ref() != &schema) {
            None => Ok(Self { schema, batches }),
            Some(index) => {
                Err(Error::new(ErrorKind::Config, "make a table", "a batch has another schema")
                    .with("batch", index)
                    .with_hint("give all batches the schema of the table"))
            }
        }
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batches.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The batches alone.
    pub fn into_batches(self) -> Vec<RecordBatch> {
        self.batches
    }

    /// The rows as one batch; several are copied together.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when they do not fit one batch, such as strings of more than 2 GB.
    pub fn into_batch(mut self) -> Result<RecordBatch> {
        match (self.batches.pop(), self.batches.is_empty()) {
            (None, _) => Ok(RecordBatch::new_empty(self.schema)),
            (Some(batch), true) => Ok(batch),
            (Some(last), false) => {
                self.batches.push(last);
                concat_batches(&self.schema, &self.batches).map_err(decode_error)
            }
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The first column of that name.
    pub fn column(&self, name: &str) -> Option<Column> {
        let (index, field) = self.schema.fields().find(name)?;
        let chunks = self.batches.iter().map(|batch| Arc::clone(batch.column(index))).collect();
        Some(Column { field: Arc::clone(field), chunks })
    }
}

impl From<RecordBatch> for Table {
    fn from(batch: RecordBatch) -> Self {
        Self { schema: batch.schema(), batches: vec![batch] }
    }
}

/// One column of a table, as many arrays as its writer made.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name and type.
    pub field: FieldRef,
    /// Its values, in order.
    pub chunks: Vec<ArrayRef>,
}

impl Column {
    /// The column that a part of the table codec holds: part `1 + i` is column `i`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is no Arrow stream of one column.
    pub fn read(part: Buffer) -> Result<Self> {
        let (schema, batches) = read_stream(part)?;
        let [field] = schema.fields().as_ref() else {
            return Err(corrupt("a part is not one column").with("fields", schema.fields().len()));
        };
        let chunks = batches.iter().map(|batch| Arc::clone(batch.column(0))).collect();
        Ok(Self { field: Arc::clone(field), chunks })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Array::len).sum()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as one array; several are copied together.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when they do not fit one array, such as strings of more than 2 GB.
    pub fn into_array(self) -> Result<ArrayRef> {
        match &self.chunks[..] {
            [] => Ok(new_empty_array(self.field.data_type())),
            [chunk] => Ok(Arc::clone(chunk)),
            chunks => {
                let chunks: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
                concat(&chunks).map_err(decode_error)
            }
        }
    }
}

impl Encode for Table {
    fn encode(&self) -> Result<Payload<'_>> {
        encode(&self.schema, &self.batches)
    }
}

impl Encode for RecordBatch {
    fn encode(&self) -> Result<Payload<'_>> {
        encode(self.schema_ref(), std::slice::from_ref(self))
    }
}

fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Payload<'static>> {
    let meta = TableMeta {
        kind: "rust".to_owned(),
        rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
    };
    let mut payload = Payload::new(TABLE, meta.write()?);
    let mut push = |schema: &Schema, batches: &mut dyn Iterator<Item = _>| {
        let pieces = write_stream(schema, batches).map_err(|source| {
            Error::new(ErrorKind::Encode, "encode table", source.to_string()).with_source(source)
        })?;
        payload.push_pieces(pieces.into_iter().map(|piece| Bytes::Owned(Buffer::of(piece))));
        Ok(())
    };
    push(schema, &mut std::iter::empty())?;
    for (index, field) in schema.fields().iter().enumerate() {
        let alone = Schema::new(vec![Arc::clone(field)]);
        push(&alone, &mut batches.iter().map(|batch| batch.project(&[index])))?;
    }
    Ok(payload)
}

/// The pieces of a stream; large ones are the memory of the arrays.
fn write_stream(
    schema: &Schema,
    batches: &mut dyn Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<Vec<arrow_buffer::Buffer>, ArrowError> {
    let mut encoder = StreamEncoder::try_new(schema)?;
    let mut pieces = Vec::new();
    for batch in batches {
        pieces.extend(encoder.encode(&batch?)?);
    }
    pieces.extend(encoder.finish()?);
    Ok(pieces)
}

impl Decode for Table {
    fn decode(received: &Received) -> Result<Self> {
        expect(received, TABLE)?;
        let meta = TableMeta::read(received.meta())?;
        let part = |index| received.part(index).ok_or_else(|| corrupt("a part is missing"));
        let (schema, _) = read_stream(part(0)?)?;
        let columns = (1..=schema.fields().len())
            .map(|index| Column::read(part(index)?))
            .collect::<Result<Vec<_>>>()?;
        let rows = usize::try_from(meta.rows).unwrap_or(usize::MAX);
        if let Some(column) = columns.iter().find(|column| column.len() != rows) {
            return Err(corrupt("a column has another length than the table")
                .with("column", column.field.name())
                .with("length", column.len())
                .with("rows", rows));
        }
        let columns: Vec<_> = columns.into_iter().map(|column| column.chunks).collect();
        let batches = batches(&schema, &columns, rows).map_err(decode_error)?;
        Ok(Self { schema, batches })
    }
}

impl Decode for RecordBatch {
    /// The rows as one batch; several are copied together.
    fn decode(received: &Received) -> Result<Self> {
        Table::decode(received)?.into_batch()
    }
}

/// Batches of columns, which may have been cut differently: a batch ends where a chunk does.
fn batches(
    schema: &SchemaRef,
    columns: &[Vec<ArrayRef>],
    rows: usize,
) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut ends: Vec<usize> = Vec::new();
    for chunks in columns {
        ends.extend(chunks.iter().scan(0, |end, chunk| {
            *end += chunk.len();
            Some(*end)
        }));
    }
    ends.push(rows);
    ends.sort_unstable();
    ends.dedup();
    let mut places = vec![(0, 0); columns.len()]; // of each column: chunk, and row in it
    let mut batches = Vec::with_capacity(ends.len());
    let mut start = 0;
    for end in ends.into_iter().filter(|end| *end > 0) {
        let len = end - start;
        let take = |(chunks, place): (&Vec<ArrayRef>, &mut (usize, usize))| {
            while place.1 == chunks[place.0].len() {
                *place = (place.0 + 1, 0);
            }
            let (chunk, from) = (&chunks[place.0], place.1);
            place.1 += len;
            if chunk.len() == len { Arc::clone(chunk) } else { chunk.slice(from, len) }
        };
        let arrays = columns.iter().zip(&mut places).map(take).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        batches.push(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?);
        start = end;
    }
    Ok(batches)
}

/// The batches of a stream, on the memory of the part.
fn read_stream(part: Buffer) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut rest = arrow_buffer::Buffer::from(bytes::Bytes::from_owner(part));
    let read = move || {
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while let Some(batch) = decoder.decode(&mut rest)? {
            batches.push(batch);
        }
        decoder.finish()?;
        Ok((decoder.schema(), batches))
    };
    // The decoder checks most of what it reads, and panics on some of what is damaged.
    let read = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ArrowError::IpcError("the stream is damaged".to_owned())));
    match read.map_err(decode_error)? {
        (Some(schema), batches) => Ok((schema, batches)),
        (None, _) => Err(corrupt("a part has no schema")),
    }
}

fn corrupt(cause: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "decode table", cause)
        .with_hint("whoever wrote it is at fault; store the table again")
}

fn decode_error(source: ArrowError) -> Error {
    Error::new(ErrorKind::Decode, "decode table", source.to_string()).with_source(source)
}
