//! The tables.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt16Array,
};
use proxystore::Result;
use proxystore::codec::Table;

use crate::commands::unknown;
use crate::samples::{Of, Sample};

/// The table of a name.
pub(crate) fn find(name: &str) -> Result<Box<dyn Sample>> {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("M 31"), None, Some("ß")]));
    let counts: ArrayRef = Arc::new(UInt16Array::from(vec![0, 1, u16::MAX]));
    let flux: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-0.5)]));
    let seen: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
    let (y, x): (ArrayRef, ArrayRef) = (
        Arc::new(Int64Array::from_iter_values(0..1000)),
        Arc::new(Float64Array::from_iter_values((0..1000).map(|n| f64::from(n) / 8.0))),
    );
    Ok(match name {
        "table" => {
            let batch =
                batch(&[("name", names), ("count", counts), ("flux", flux), ("seen", seen)])?;
            Box::new(Of { value: Table::from(batch), same: have_same_columns })
        }
        "table-of-numbers" => Box::new(Of {
            value: Table::from(batch(&[("y", y), ("x", x)])?),
            same: have_same_columns,
        }),
        "record-batch" => {
            let same = |found: &RecordBatch, value: &RecordBatch| found == value;
            Box::new(Of { value: batch(&[("name", names), ("count", counts)])?, same })
        }
        _ => return Err(unknown("a type", name)),
    })
}

fn batch(columns: &[(&str, ArrayRef)]) -> Result<RecordBatch> {
    let columns = columns.iter().map(|(name, column)| (*name, Arc::clone(column), true));
    RecordBatch::try_from_iter_with_nullable(columns)
        .or(Err(unknown("columns of one length", "others")))
}

/// Libraries cut tables into batches as they like, and add metadata of their own.
fn have_same_columns(found: &Table, value: &Table) -> bool {
    let batches = (found.clone().into_batch(), value.clone().into_batch());
    let (Ok(found), Ok(value)) = batches else { return false };
    found.schema().fields() == value.schema().fields() && found.columns() == value.columns()
}
