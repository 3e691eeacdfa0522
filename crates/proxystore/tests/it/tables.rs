//! Arrow tables: what is stored comes back, without copies, and a column by itself.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, MapBuilder, StringBuilder, StringDictionaryBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int8Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, NullArray,
    RecordBatch, RecordBatchOptions, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use proptest::collection::vec;
use proptest::prelude::*;
use proxystore::buffer::ALIGNMENT;
use proxystore::codec::{Column, Decode, Encode, TABLE, Table, TableMeta};
use proxystore::error::ErrorKind;
use proxystore::payload::{Payload, Received};
use proxystore::{Buffer, Store};

fn stored(object: &impl Encode) -> Received {
    received(object.encode().unwrap())
}

fn received(payload: Payload<'_>) -> Received {
    Received::parse(payload.frame().unwrap().parts().to_buffer()).unwrap()
}

/// Parts of a payload, to be put together in another way.
fn parts(object: &impl Encode) -> Vec<Buffer> {
    let received = stored(object);
    (0..received.part_count()).map(|index| received.part(index).unwrap()).collect()
}

fn from_parts(rows: u64, columns: &[&str], parts: &[Buffer]) -> Received {
    let columns = columns.iter().map(ToString::to_string).collect();
    let meta = TableMeta { kind: "pyarrow".to_owned(), rows, columns }.write().unwrap();
    received(parts.iter().fold(Payload::new(TABLE, meta), |all, part| all.with_part(part.clone())))
}

fn numbers(name: &str, values: &[i64]) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([(name, values)]).unwrap()
}

fn labels(values: &[Option<&str>]) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int8Type>::new();
    for value in values {
        builder.append_option(*value);
    }
    Arc::new(builder.finish())
}

/// Seven rows of every sort of type, with names, types and metadata of a schema.
fn every_type() -> RecordBatch {
    let some = |n: i64| (n % 3 != 1).then_some(n);
    let text = |n: i64| some(n).map(|n| format!("a text that is number {n}"));
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Float64Array::builder(7));
    for n in 0..7 {
        (0..n).for_each(|item| lists.values().append_option(text(item)));
        lists.append(n != 2);
        maps.keys().append_value(format!("key {n}"));
        maps.values().append_option(some(n).map(|_| 0.5));
        maps.append(true).unwrap();
    }
    let pair: StructArray = vec![
        (
            Arc::new(Field::new("x", DataType::Int64, true)),
            Arc::new((0..7).map(some).collect::<Int64Array>()) as ArrayRef,
        ),
        (
            Arc::new(Field::new("label", labels(&[]).data_type().clone(), true)),
            labels(&[Some("a"), None, Some("b"), Some("a"), Some("c"), None, Some("b")]),
        ),
    ]
    .into();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ints", Arc::new((0..7).map(some).collect::<Int64Array>())),
        (
            "floats",
            Arc::new((0..7).map(|n| f64::from(n) / 2.0).map(Some).collect::<Float64Array>()),
        ),
        ("bools", Arc::new((0..7).map(|n| some(n).map(|n| n > 3)).collect::<BooleanArray>())),
        ("texts", Arc::new((0..7).map(text).collect::<StringArray>())),
        ("views", Arc::new((0..7).map(text).collect::<StringViewArray>())),
        ("labels", labels(&[Some("x"), Some("y"), None, Some("x"), None, Some("z"), Some("y")])),
        ("lists", Arc::new(lists.finish())),
        ("maps", Arc::new(maps.finish())),
        ("pairs", Arc::new(pair)),
        (
            "times",
            Arc::new(
                (0..7).map(some).collect::<TimestampMicrosecondArray>().with_timezone("+02:00"),
            ),
        ),
        (
            "decimals",
            Arc::new(
                (0..7)
                    .map(|n| some(n).map(i128::from))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ),
        ("nothing", Arc::new(NullArray::new(7))),
    ];
    let marked = |field: &Field| {
        field.clone().with_metadata(HashMap::from([("unit".to_owned(), "m".to_owned())]))
    };
    let (names, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let fields = names.iter().zip(&arrays).map(|(name, array)| {
        marked(&Field::new(*name, array.data_type().clone(), array.is_nullable()))
    });
    let schema = Schema::new(fields.collect::<Vec<_>>())
        .with_metadata(HashMap::from([("made by".to_owned(), "a test".to_owned())]));
    RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
}

#[test]
fn every_type_comes_back() {
    let batch = every_type();
    let received = stored(&batch);
    assert_eq!(RecordBatch::decode(&received).unwrap(), batch);
    assert_eq!(Table::decode(&received).unwrap(), Table::from(batch.clone()));
    let meta = TableMeta::read(received.meta()).unwrap();
    assert_eq!((meta.kind.as_str(), meta.rows), ("rust", 7));
    assert_eq!(meta.columns[..3], ["ints", "floats", "bools"]);
    assert_eq!(received.part_count(), 1 + batch.num_columns());
}

#[test]
fn a_column_is_read_from_its_part() {
    let batch = every_type();
    let received = stored(&batch);
    let meta = TableMeta::read(received.meta()).unwrap();
    for (name, expected) in meta.columns.iter().zip(batch.columns()) {
        let part = received.part(meta.part_of(name).unwrap()).unwrap();
        let column = Column::read(part).unwrap();
        assert_eq!(column.field.name(), name);
        assert_eq!(column.field.metadata()["unit"], "m");
        assert_eq!(&column.into_array().unwrap(), expected);
    }
    let schema = Column::read(received.part(0).unwrap()).unwrap_err();
    assert_eq!(schema.kind(), ErrorKind::Corrupt);
}

#[test]
fn slices_store_their_rows_alone() {
    let long = numbers("n", &(0..100_000).collect::<Vec<_>>());
    let slice = long.slice(50_000, 10);
    let received = stored(&slice);
    assert!(received.len() < 2000, "{} bytes", received.len());
    assert_eq!(RecordBatch::decode(&received).unwrap(), slice);
    let every = every_type();
    for (start, len) in [(0, 3), (2, 5), (3, 0)] {
        let slice = every.slice(start, len);
        assert_eq!(RecordBatch::decode(&stored(&slice)).unwrap(), slice);
    }
}

#[test]
fn batches_may_have_dictionaries_of_their_own() {
    let batch = |values: &[Option<&str>]| {
        RecordBatch::try_from_iter_with_nullable([("label", labels(values), true)]).unwrap()
    };
    let batches = vec![batch(&[Some("a"), Some("b")]), batch(&[Some("c"), None]), batch(&[None])];
    let table = Table::new(batches[0].schema(), batches).unwrap();
    assert_eq!(Table::decode(&stored(&table)).unwrap(), table);
    let column = table.column("label").unwrap().into_array().unwrap();
    let texts = column.as_dictionary::<Int8Type>().downcast_dict::<StringArray>().unwrap();
    let texts: Vec<_> = texts.into_iter().collect();
    assert_eq!(texts, [Some("a"), Some("b"), Some("c"), None, None]);
}

#[test]
fn tables_without_rows_or_columns_come_back() {
    let schema = every_type().schema();
    let empty = Table::new(schema, Vec::new()).unwrap();
    let received = stored(&empty);
    assert_eq!(Table::decode(&received).unwrap(), empty);
    assert_eq!(RecordBatch::decode(&received).unwrap().num_rows(), 0);
    assert!(empty.column("ints").unwrap().into_array().unwrap().is_empty());

    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let none: SchemaRef = Arc::new(Schema::empty());
    let rows_alone = RecordBatch::try_new_with_options(none, Vec::new(), &options).unwrap();
    assert_eq!(RecordBatch::decode(&stored(&rows_alone)).unwrap(), rows_alone);
}

#[test]
fn nothing_is_copied_on_either_side() {
    let batch = numbers("n", &(0..10_000).collect::<Vec<_>>());
    let place = |batch: &RecordBatch| {
        batch.column(0).as_primitive::<Int64Type>().values().as_ptr().cast::<u8>()
    };
    let framed = batch.encode().unwrap().frame().unwrap();
    let parts = framed.parts();
    assert!(parts.slices().iter().any(|slice| slice.as_ptr() == place(&batch)));

    let bytes = parts.to_buffer();
    let received = Received::parse(bytes.clone()).unwrap();
    let read = RecordBatch::decode(&received).unwrap();
    assert!(bytes.as_ptr_range().contains(&place(&read)));
    assert_eq!((place(&read) as usize - bytes.as_ptr() as usize) % ALIGNMENT, 0);
}

#[test]
fn proxies_of_tables_resolve() {
    let store = Store::open("memory://proxies-of-tables").unwrap();
    let proxy = store.proxy(every_type()).unwrap();
    let reference = rmp_serde::to_vec(&proxy).unwrap();
    let arrived: proxystore::Proxy<Table> = rmp_serde::from_slice(&reference).unwrap();
    assert_eq!(arrived.num_rows(), 7);
    let floats = arrived.column("floats").unwrap().into_array().unwrap();
    assert_eq!(floats.as_primitive::<Float64Type>().values()[..3], [0.0, 0.5, 1.0]);
}

#[test]
fn batches_of_another_schema_are_refused() {
    let error = Table::new(numbers("a", &[]).schema(), vec![numbers("b", &[1])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn what_is_no_table_says_so() {
    let text = stored(&"text".to_owned());
    assert_eq!(Table::decode(&text).unwrap_err().kind(), ErrorKind::Incompatible);
    assert_eq!(
        Vec::<f64>::decode(&stored(&every_type())).unwrap_err().kind(),
        ErrorKind::Incompatible
    );

    let parts = parts(&numbers("a", &[1, 2]));
    let kind = |received: &Received| Table::decode(received).unwrap_err().kind();
    assert_eq!(kind(&from_parts(2, &["a"], &parts[..1])), ErrorKind::Corrupt);
    assert_eq!(kind(&from_parts(3, &["a"], &parts)), ErrorKind::Corrupt);
    let swapped = [parts[0].clone(), stored(&every_type()).part(0).unwrap()];
    assert_eq!(kind(&from_parts(2, &["a"], &swapped)), ErrorKind::Corrupt);
    let other = stored(&every_type());
    let other = [parts[0].clone(), other.part(2).unwrap()];
    assert_eq!(kind(&from_parts(7, &["a"], &other)), ErrorKind::Decode);
}

/// Batches of `values` that end at `ends`.
fn cut(name: &str, values: &[i64], ends: &[prop::sample::Index]) -> Table {
    let mut ends: Vec<usize> = ends.iter().map(|end| end.index(values.len() + 1)).collect();
    ends.push(values.len());
    ends.sort_unstable();
    let mut start = 0;
    let batches = ends.iter().map(|end| {
        let batch = numbers(name, &values[start..*end]);
        start = *end;
        batch
    });
    Table::new(numbers(name, &[]).schema(), batches.collect()).unwrap()
}

proptest! {
    #[test]
    fn columns_may_be_cut_differently(
        values in vec(any::<(i64, i64)>(), 0..50),
        ends in any::<[Vec<prop::sample::Index>; 2]>(),
    ) {
        let (a, b): (Vec<i64>, Vec<i64>) = values.into_iter().unzip();
        let (first, second) = (cut("a", &a, &ends[0]), cut("b", &b, &ends[1]));
        let whole = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(a.clone())) as ArrayRef),
            ("b", Arc::new(Int64Array::from(b))),
        ]).unwrap();
        let together =
            [parts(&whole)[0].clone(), parts(&first)[1].clone(), parts(&second)[1].clone()];
        let received = from_parts(a.len() as u64, &["a", "b"], &together);
        let table = Table::decode(&received).unwrap();
        prop_assert!(table.batches().iter().all(|batch| batch.num_rows() > 0));
        prop_assert_eq!(table.into_batch().unwrap(), whole);
    }

    #[test]
    fn damaged_streams_are_errors_or_tables(
        changes in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut parts: Vec<Vec<u8>> =
            parts(&every_type()).iter().map(|part| part.to_vec()).collect();
        for (part, at, byte) in changes {
            let count = parts.len();
            let part = &mut parts[part.index(count)];
            let at = at.index(part.len());
            part[at] = byte;
        }
        if let Some(cut) = cut {
            let part = &mut parts[1];
            part.truncate(cut.index(part.len()));
        }
        let parts: Vec<Buffer> = parts.into_iter().map(Buffer::from).collect();
        if let Ok(table) = Table::decode(&from_parts(7, &[], &parts)) {
            prop_assert_eq!(table.num_rows(), 7);
        }
    }
}
