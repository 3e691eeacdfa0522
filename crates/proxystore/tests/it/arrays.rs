//! Arrays of every element type, shape and order, typed and untyped; and other neutral objects.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proxystore::codec::{AnyArray, Array, Bool, Element, MessagePack, Order, array_meta};
use proxystore::payload::{Payload, Received};
use proxystore::{ErrorKind, Store, codec};

fn open(name: &str) -> Store {
    Store::open(&format!("memory://it-arrays-{name}")).unwrap()
}

/// An array as another language writes it.
struct Written {
    dtype: &'static str,
    shape: Vec<u64>,
    order: Order,
    bytes: Vec<u8>,
}

impl codec::Encode for Written {
    fn encode(&self) -> proxystore::Result<Payload<'_>> {
        let meta = array_meta(self.dtype, &self.shape, self.order)?;
        Ok(Payload::new(codec::ARRAY, meta).with_part(&self.bytes[..]))
    }
}

fn received(written: &Written) -> Received {
    let framed = codec::Encode::encode(written).unwrap().frame().unwrap();
    Received::parse(framed.parts().to_buffer()).unwrap()
}

/// What every array must do, whatever its elements are.
fn check<T: Element>(shape: &[usize], order: Order, seed: u8) {
    let count: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..count * size_of::<T>())
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed))
        .collect();
    let shape_on_wire = shape.iter().map(|n| *n as u64).collect();
    let written = Written { dtype: T::DTYPE, shape: shape_on_wire, order, bytes };
    let store = open("property");
    let key = store.put(&written).unwrap();

    let any: AnyArray = store.get(&key).unwrap().unwrap();
    assert_eq!((any.dtype(), any.shape(), any.order()), (T::DTYPE, shape, order));
    assert_eq!(any.bytes(), written.bytes);
    let array: Array<T> = store.get(&key).unwrap().unwrap();
    assert_eq!((array.shape(), array.order(), array.len()), (shape, order, count));
    assert_eq!(bytes_of(&array), written.bytes);
    let same = any.typed::<T>().unwrap();
    assert_eq!(bytes_of(&same), written.bytes);
    if count > 0 {
        assert_eq!(same.as_ptr().cast(), any.bytes().as_ptr(), "nothing is copied");
    }

    let again: AnyArray = store.get(&store.put(&any).unwrap()).unwrap().unwrap();
    assert_eq!((again.shape(), again.order(), again.bytes()), (shape, order, any.bytes()));
    let typed: AnyArray = store.get(&store.put(&array).unwrap()).unwrap().unwrap();
    assert_eq!((typed.shape(), typed.order(), typed.bytes()), (shape, order, any.bytes()));
    with_ndarray::check(&array, &any);
    store.evict(&key).unwrap();
}

fn bytes_of<T: Element>(array: &[T]) -> &[u8] {
    bytemuck::cast_slice(array)
}

#[cfg(feature = "ndarray")]
mod with_ndarray {
    use ndarray::{ArrayD, ArrayViewD, IxDyn};

    use super::*;

    /// The element at an index, counted by hand.
    fn at(shape: &[usize], order: Order, index: &[usize]) -> usize {
        let pairs: Vec<_> = shape.iter().zip(index).collect();
        let step = |position: usize, (side, index): &(&usize, &usize)| position * **side + **index;
        match order {
            Order::C => pairs.iter().fold(0, step),
            Order::F => pairs.iter().rev().fold(0, step),
        }
    }

    pub(super) fn check<T: Element>(array: &Array<T>, any: &AnyArray) {
        let store = open("ndarray");
        let view: ArrayViewD<'_, T> = array.view().unwrap();
        assert_eq!(view.shape(), array.shape());
        if !array.is_empty() {
            assert_eq!(view.as_ptr(), array.as_ptr(), "a view copies nothing");
        }
        let key = store.put(any).unwrap();
        let owned: ArrayD<T> = store.get(&key).unwrap().unwrap();
        // The bytes are where they were: neither reading nor writing transposes them.
        let in_memory = owned.as_slice_memory_order().unwrap();
        assert_eq!(bytes_of(in_memory), any.bytes());
        for index in ndarray::indices(IxDyn(array.shape())) {
            let position = at(array.shape(), array.order(), ndarray::Dimension::slice(&index));
            let expected = bytes_of(&array[position..=position]);
            assert_eq!(bytes_of(&[owned[&index]]), expected);
            assert_eq!(bytes_of(&[view[&index]]), expected);
        }
        let again: AnyArray = store.get(&store.put(&owned).unwrap()).unwrap().unwrap();
        assert_eq!((again.shape(), again.bytes()), (any.shape(), any.bytes()));
        store.evict(&key).unwrap();
    }
}

#[cfg(not(feature = "ndarray"))]
mod with_ndarray {
    use super::*;

    pub(super) fn check<T: Element>(_: &Array<T>, _: &AnyArray) {}
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..4, 0..4)
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::C), Just(Order::F)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn arrays_of_every_element_come_back(shape in shapes(), order in orders(), seed: u8) {
        check::<Bool>(&shape, order, seed);
        check::<i8>(&shape, order, seed);
        check::<u8>(&shape, order, seed);
        check::<i16>(&shape, order, seed);
        check::<u16>(&shape, order, seed);
        check::<i32>(&shape, order, seed);
        check::<u32>(&shape, order, seed);
        check::<i64>(&shape, order, seed);
        check::<u64>(&shape, order, seed);
        check::<f32>(&shape, order, seed);
        check::<f64>(&shape, order, seed);
        #[cfg(feature = "half")]
        check::<half::f16>(&shape, order, seed);
        #[cfg(feature = "num-complex")]
        {
            check::<num_complex::Complex<f32>>(&shape, order, seed);
            check::<num_complex::Complex<f64>>(&shape, order, seed);
        }
    }

    #[test]
    fn an_array_that_lies_about_its_shape_is_damaged(
        shape in proptest::collection::vec(0_u64..5, 1..4),
        len in 0_usize..600,
    ) {
        prop_assume!(shape.iter().product::<u64>() * 8 != len as u64);
        let lie = Written { dtype: "<f8", shape, order: Order::C, bytes: vec![0; len] };
        let error = <AnyArray as codec::Decode>::decode(&received(&lie)).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn shapes_that_overflow_are_damaged() {
    for shape in [vec![u64::MAX], vec![1 << 40, 1 << 40], vec![1 << 62, 8]] {
        let lie = Written { dtype: "<c16", shape, order: Order::F, bytes: Vec::new() };
        let error = <AnyArray as codec::Decode>::decode(&received(&lie)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_byte_that_is_neither_true_nor_false_is_true() {
    let written = Written { dtype: "|b1", shape: vec![3], order: Order::C, bytes: vec![0, 1, 7] };
    let store = open("bool");
    let key = store.put(&written).unwrap();
    assert_eq!(store.get::<Vec<bool>>(&key).unwrap().unwrap(), [false, true, true]);
    let array: Array<Bool> = store.get(&key).unwrap().unwrap();
    assert_eq!(*array, [false, true, true].map(Bool::from));
    let key = store.put(&vec![true, false]).unwrap();
    assert_eq!(store.get::<AnyArray>(&key).unwrap().unwrap().bytes(), [1, 0]);
}

#[test]
fn elements_of_other_types_are_named() {
    let store = open("other");
    let key = store.put(&vec![1.5_f32]).unwrap();
    let error = store.get::<Array<f64>>(&key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let text = error.to_string();
    assert!(text.contains("<f8") && text.contains("<f4") && text.contains("AnyArray"), "{text}");
    assert!(store.get::<AnyArray>(&key).unwrap().unwrap().typed::<i32>().is_none());

    let odd = Written { dtype: "|O", shape: vec![1], order: Order::C, bytes: vec![0; 8] };
    let error = <AnyArray as codec::Decode>::decode(&received(&odd)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
}

#[test]
fn a_document_of_any_kind_can_be_read() {
    let store = open("dynamic");
    let written = BTreeMap::from([("a".to_owned(), vec![Some(1.5), None])]);
    let key = store.put(&written).unwrap();
    let MessagePack(value): MessagePack<rmpv::Value> = store.get(&key).unwrap().unwrap();
    assert_eq!(value["a"][0].as_f64(), Some(1.5));
    assert!(value["a"][1].is_nil());
}

#[test]
fn collections_come_back_as_messagepack() {
    let store = open("collections");
    let pairs = MessagePack((vec![("a".to_owned(), 1_u8)], Some(-1_i64), None::<String>));
    let key = store.put(&pairs).unwrap();
    assert_eq!(store.get(&key).unwrap(), Some(pairs));
    let numbers = MessagePack(HashMap::from([(-1_i64, "x".to_owned())]));
    let key = store.put(&numbers).unwrap();
    assert_eq!(store.get(&key).unwrap(), Some(numbers));
}

#[test]
fn the_name_of_pythons_class_is_no_obstacle() {
    struct Named;
    impl codec::Encode for Named {
        fn encode(&self) -> proxystore::Result<Payload<'_>> {
            let document = b"\x82\xa1x\xca\x3f\x80\x00\x00\xa1y\x02".to_vec();
            let payload = Payload::new(codec::MESSAGE_PACK, b"shapes:Point".to_vec());
            Ok(payload.with_part(document))
        }
    }
    let store = open("named");
    let point: BTreeMap<String, f64> = store.get(&store.put(&Named).unwrap()).unwrap().unwrap();
    assert_eq!(point, BTreeMap::from([("x".to_owned(), 1.0), ("y".to_owned(), 2.0)]));
}
