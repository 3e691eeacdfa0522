//! What arrays are made of.

use std::fmt;

use bytemuck::{Pod, Zeroable};

/// A type of the elements of arrays.
///
/// All bit patterns of it are values, so that elements are used where the channel put them,
/// whoever wrote them. Complex numbers are [`num_complex::Complex`] with the feature `num-complex`,
/// half precision is [`half::f16`] with the feature `half`; [`AnyArray`](crate::codec::AnyArray)
/// reads arrays of both without.
///
/// [`num_complex::Complex`]: https://docs.rs/num-complex/latest/num_complex/struct.Complex.html
/// [`half::f16`]: https://docs.rs/half/latest/half/struct.f16.html
pub trait Element: Pod + fmt::Debug + Send + Sync + 'static {
    /// NumPy's type string, such as `<f8`.
    const DTYPE: &'static str;
}

macro_rules! elements {
    ($($type:ty = $dtype:literal),*) => {$(
        impl Element for $type {
            const DTYPE: &'static str = $dtype;
        }
    )*};
}
elements!(
    Bool = "|b1",
    i8 = "|i1",
    u8 = "|u1",
    i16 = "<i2",
    u16 = "<u2",
    i32 = "<i4",
    u32 = "<u4",
    i64 = "<i8",
    u64 = "<u8",
    f32 = "<f4",
    f64 = "<f8"
);

#[cfg(feature = "half")]
elements!(half::f16 = "<f2");

#[cfg(feature = "num-complex")]
elements!(num_complex::Complex<f32> = "<c8", num_complex::Complex<f64> = "<c16");

/// Bytes of one element of a type string; `None` for what no array in a channel is made of.
pub(crate) fn size_of_dtype(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "|b1" | "|i1" | "|u1" => 1,
        "<i2" | "<u2" | "<f2" => 2,
        "<i4" | "<u4" | "<f4" => 4,
        "<i8" | "<u8" | "<f8" | "<c8" => 8,
        "<c16" => 16,
        _ => return None,
    })
}

/// A truth value in an array: a byte, which is false when it is 0.
///
/// It is no `bool`, of which no third value may exist in memory, whatever another program wrote
/// there. A `Vec<bool>` is stored and read as an array of these, by a copy.
///
/// ```
/// use proxystore::codec::Bool;
/// assert!(Bool::from(true).get());
/// assert_eq!(bool::from(Bool::default()), false);
/// ```
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bool(u8);

#[expect(unsafe_code, reason = "elements are used in place")]
// SAFETY: a transparent byte, which may be zero.
unsafe impl Zeroable for Bool {}
#[expect(unsafe_code, reason = "elements are used in place")]
// SAFETY: a transparent byte, of which every value is one.
unsafe impl Pod for Bool {}

impl Bool {
    /// Whether it is true.
    pub fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Self(u8::from(value))
    }
}

impl From<Bool> for bool {
    fn from(value: Bool) -> Self {
        value.get()
    }
}

impl PartialEq for Bool {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Bool {}

impl fmt::Debug for Bool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
