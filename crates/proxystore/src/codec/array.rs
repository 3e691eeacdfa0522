//! N-dimensional arrays of numbers, in the layout NumPy uses.
//!
//! The metadata is the MessagePack list `[dtype, shape, order]`: NumPy's type string
//! (<https://numpy.org/doc/stable/reference/arrays.interface.html>), the lengths of the
//! dimensions, and `"C"` (last index varies fastest) or `"F"` (first one does). The one part is
//! the elements, little-endian, without gaps.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::codec::{ARRAY, AnyArray, Bool, Decode, Element, Encode};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::Facts;
use crate::payload::{Bytes, Part, Payload, Received};

#[cfg(target_endian = "big")]
compile_error!("arrays are stored little-endian and used in place");

/// Which index varies fastest in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Order {
    /// The last index, as in C and in NumPy by default.
    #[default]
    C,
    /// The first index, as in Fortran.
    F,
}

#[derive(Serialize, Deserialize)]
struct Meta(String, Vec<u64>, Order);

/// Metadata of the array codec, for bridges that hold the elements themselves.
///
/// # Errors
/// [`ErrorKind::Encode`] never in practice: the metadata is plain data.
pub fn array_meta(dtype: &str, shape: &[u64], order: Order) -> Result<Vec<u8>> {
    rmp_serde::to_vec(&Meta(dtype.to_owned(), shape.to_vec(), order)).map_err(|source| {
        Error::new(ErrorKind::Encode, "encode array", source.to_string()).with_source(source)
    })
}

/// Type string, shape and order out of the metadata of the array codec.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it is damaged.
pub fn read_array_meta(meta: &[u8]) -> Result<(String, Vec<u64>, Order)> {
    let Meta(dtype, shape, order) = rmp_serde::from_slice(meta).map_err(|source| {
        Error::new(ErrorKind::Corrupt, "decode array", source.to_string()).with_source(source)
    })?;
    Ok((dtype, shape, order))
}

pub(crate) fn payload<'a, T: Element>(
    shape: &[usize],
    order: Order,
    elements: &'a [T],
    allocated: bool,
) -> Result<Payload<'a>> {
    let shape: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
    let meta = array_meta(T::DTYPE, &shape, order)?;
    let mut payload = Payload::new(ARRAY, meta);
    let bytes = Bytes::Borrowed(bytemuck::cast_slice(elements));
    payload.push(Part { allocated, ..bytes.into() });
    Ok(payload)
}

pub(crate) fn facts<T: Element>(shape: &[usize], elements: usize) -> Facts {
    Facts::of_array(T::DTYPE, shape, elements * size_of::<T>()) // they are in memory: no overflow
}

/// Number of elements of a shape.
pub(crate) fn elements_of(shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(1_usize, |n, side| n.checked_mul(*side)).ok_or_else(|| {
        Error::new(ErrorKind::Config, "make an array", "the shape is too large")
            .with("shape", format_args!("{shape:?}"))
    })
}

/// A read-only array whose elements lie where the channel put them: getting one copies nothing.
///
/// Dereferences to its elements in memory order.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Store, codec::Array};
/// let store = Store::open("memory://arrays")?;
/// let key = store.put(&Array::from_vec(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
/// let array: Array<f64> = store.get(&key)?.expect("just stored");
/// assert_eq!(array.shape(), [2, 3]);
/// assert_eq!(array.iter().sum::<f64>(), 21.0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Array<T> {
    shape: Vec<usize>,
    order: Order,
    bytes: Buffer,
    element: PhantomData<T>,
}

impl<T: Element> Array<T> {
    /// An array of the given shape, elements in C order.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the shape does not fit the number of elements.
    pub fn from_vec(shape: &[usize], elements: Vec<T>) -> Result<Self> {
        Self::from_parts(shape.to_vec(), Order::C, Buffer::from(elements))
    }

    pub(crate) fn from_parts(shape: Vec<usize>, order: Order, bytes: Buffer) -> Result<Self> {
        let fits = elements_of(&shape)?.checked_mul(size_of::<T>()) == Some(bytes.len());
        if !fits || bytemuck::try_cast_slice::<u8, T>(&bytes).is_err() {
            return Err(Error::new(
                ErrorKind::Config,
                "make an array",
                "the shape does not fit the elements",
            )
            .with("shape", format_args!("{shape:?}"))
            .with("bytes", bytes.len()));
        }
        Ok(Self { shape, order, bytes, element: PhantomData })
    }

    /// Lengths of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Which index varies fastest in memory.
    pub fn order(&self) -> Order {
        self.order
    }
}

impl<T: Element> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.bytes) // checked when it was made
    }
}

impl<T: Element> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({}, {:?})", T::DTYPE, self.shape)
    }
}

impl<T: Element> Encode for Array<T> {
    fn encode(&self) -> Result<Payload<'_>> {
        payload(&self.shape, self.order, self, false)
    }

    fn facts(&self) -> Facts {
        facts::<T>(&self.shape, self.len())
    }
}

impl<T: Element> Decode for Array<T> {
    fn decode(received: &Received) -> Result<Self> {
        let array = AnyArray::decode(received)?;
        array.typed().ok_or_else(|| {
            Error::new(ErrorKind::Decode, "decode array", "other elements")
                .with("expected", T::DTYPE)
                .with("found", array.dtype())
                .with_hint("ask for the element type that was stored, or for an AnyArray")
        })
    }
}

/// An array being filled in memory of the channel; storing it copies nothing.
///
/// Made by [`Store::empty`](crate::Store::empty); dereferences to its elements in C order.
pub struct ArrayMut<T> {
    shape: Vec<usize>,
    bytes: Buffer,
    element: PhantomData<T>,
}

impl<T: Element> ArrayMut<T> {
    /// An array over fresh memory from `allocate`, which is asked for the length in bytes.
    pub(crate) fn new(
        shape: &[usize],
        allocate: impl FnOnce(usize) -> Result<Buffer>,
    ) -> Result<Self> {
        let len = elements_of(shape)?.saturating_mul(size_of::<T>());
        Ok(Self { shape: shape.to_vec(), bytes: allocate(len)?, element: PhantomData })
    }

    /// Lengths of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

impl<T: Element> Deref for ArrayMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.bytes)
    }
}

impl<T: Element> DerefMut for ArrayMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.bytes.as_mut().unwrap_or_default(); // the sole holder of writable memory
        bytemuck::cast_slice_mut(bytes)
    }
}

impl<T: Element> fmt::Debug for ArrayMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayMut({}, {:?})", T::DTYPE, self.shape)
    }
}

impl<T: Element> Encode for ArrayMut<T> {
    fn encode(&self) -> Result<Payload<'_>> {
        payload(&self.shape, Order::C, self, true)
    }

    fn facts(&self) -> Facts {
        facts::<T>(&self.shape, self.len())
    }
}

impl<T: Element> From<ArrayMut<T>> for Array<T> {
    /// From now on the elements cannot be changed.
    fn from(array: ArrayMut<T>) -> Self {
        let bytes = array.bytes.into_read_only();
        Self { shape: array.shape, order: Order::C, bytes, element: PhantomData }
    }
}

macro_rules! vectors {
    ($($type:ty),*) => {$(
        impl Encode for Vec<$type> {
            fn encode(&self) -> Result<Payload<'_>> {
                payload(&[self.len()], Order::C, self, false)
            }

            fn facts(&self) -> Facts {
                facts::<$type>(&[self.len()], self.len())
            }
        }
        impl Decode for Vec<$type> {
            fn decode(received: &Received) -> Result<Self> {
                Ok(Array::<$type>::decode(received)?.to_vec())
            }
        }
    )*};
}
vectors!(i8, i16, u16, i32, u32, i64, u64, f32, f64); // Vec<u8> is raw bytes

impl Encode for Vec<bool> {
    fn encode(&self) -> Result<Payload<'_>> {
        payload(&[self.len()], Order::C, bytemuck::cast_slice::<bool, Bool>(self), false)
    }
}

impl Decode for Vec<bool> {
    fn decode(received: &Received) -> Result<Self> {
        Ok(Array::<Bool>::decode(received)?.iter().map(|value| value.get()).collect())
    }
}

#[cfg(feature = "half")]
vectors!(half::f16);

#[cfg(feature = "num-complex")]
vectors!(num_complex::Complex<f32>, num_complex::Complex<f64>);
