//! Arrays whose elements a reader learns from the array.

use std::fmt;

use crate::buffer::Buffer;
use crate::codec::array::elements_of;
use crate::codec::element::size_of_dtype;
use crate::codec::{
    ARRAY, Array, Decode, Element, Encode, Order, array_meta, expect, read_array_meta, single_part,
};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{Payload, Received};

/// A read-only array of whichever elements were stored, where the channel put them.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Store, codec::AnyArray};
/// let store = Store::open("memory://any-arrays")?;
/// let key = store.put(&vec![1.5_f32, 2.0])?;
/// let array: AnyArray = store.get(&key)?.expect("just stored");
/// let sum: f64 = match array.dtype() {
///     "<f4" => array.typed::<f32>().expect("as it says").iter().copied().map(f64::from).sum(),
///     "<f8" => array.typed::<f64>().expect("as it says").iter().sum(),
///     other => panic!("no numbers: {other}"),
/// };
/// assert_eq!(sum, 3.5);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AnyArray {
    dtype: String,
    shape: Vec<usize>,
    order: Order,
    bytes: Buffer,
}

impl AnyArray {
    /// NumPy's type string of the elements, such as `<f8`.
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// Lengths of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Which index varies fastest in memory.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The elements, little-endian and without gaps.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same array in the same memory, if its elements are of this type.
    pub fn typed<T: Element>(&self) -> Option<Array<T>> {
        if self.dtype != T::DTYPE {
            return None;
        }
        let made = |bytes| Array::from_parts(self.shape.clone(), self.order, bytes).ok();
        // A channel that hands out memory of no alignment costs a copy.
        made(self.bytes.clone()).or_else(|| made(Buffer::copy_of(&self.bytes)))
    }
}

impl fmt::Debug for AnyArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyArray({}, {:?})", self.dtype, self.shape)
    }
}

impl Encode for AnyArray {
    fn encode(&self) -> Result<Payload<'_>> {
        let shape: Vec<u64> = self.shape.iter().map(|n| *n as u64).collect();
        let meta = array_meta(&self.dtype, &shape, self.order)?;
        Ok(Payload::new(ARRAY, meta).with_part(&self.bytes[..]))
    }
}

impl Decode for AnyArray {
    fn decode(received: &Received) -> Result<Self> {
        expect(received, ARRAY)?;
        let (dtype, shape, order) = read_array_meta(received.meta())?;
        let Some(size) = size_of_dtype(&dtype) else {
            return Err(Error::new(ErrorKind::Incompatible, "decode array", "unknown elements")
                .with("found", dtype)
                .with_hint("upgrade this program to the version that wrote the object"));
        };
        let shape: Vec<usize> =
            shape.into_iter().map(usize::try_from).collect::<Result<_, _>>().map_err(|source| {
                Error::new(ErrorKind::Corrupt, "decode array", "the shape is too large")
                    .with_source(source)
            })?;
        let bytes = single_part(received)?;
        let len = elements_of(&shape).ok().and_then(|count| count.checked_mul(size));
        if len != Some(bytes.len()) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "decode array",
                "its shape does not fit its elements",
            )
            .with("shape", format_args!("{shape:?}"))
            .with("bytes", bytes.len())
            .with_hint("whoever wrote it is at fault; store the object again"));
        }
        Ok(Self { dtype, shape, order, bytes })
    }
}
