//! Facts about an object that travel in its reference, so that nobody has to fetch it to ask.

use serde::{Deserialize, Serialize};

/// What is known of an object without fetching it. Facts describe one generation of an object.
///
/// In a reference they are a MessagePack list of these fields in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What `len` says of it.
    pub len: Option<u64>,
    /// Lengths of the dimensions of an array; rows and columns of a table.
    pub shape: Option<Vec<u64>>,
    /// NumPy's type string of the elements of an array.
    pub dtype: Option<String>,
    /// Bytes of the elements of an array, or of the columns of a table.
    pub nbytes: Option<u64>,
    /// When it was stored, in milliseconds since 1970.
    pub created: Option<u64>,
    /// Where it was stored: the name of the host.
    pub origin: Option<String>,
}

impl Facts {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
