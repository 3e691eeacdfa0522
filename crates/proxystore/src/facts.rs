//! Facts about an object that travel in its reference, so that nobody has to fetch it to ask.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What is known of an object without fetching it. Facts describe one generation of an object.
///
/// In a reference they are a MessagePack list of these fields in this order.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Proxy, Store};
/// let store = Store::open("memory://facts-example")?;
/// let sent = rmp_serde::to_vec(&store.proxy(vec![0.5; 1000])?).expect("a reference");
///
/// let received: Proxy<Vec<f64>> = rmp_serde::from_slice(&sent).expect("a reference");
/// let facts = received.facts();
/// assert_eq!((facts.len, facts.nbytes), (Some(1000), Some(8000)));
/// assert_eq!(facts.dtype.as_deref(), Some("<f8"));
/// assert!(!received.is_resolved());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)] // a list that ends early leaves the rest unknown
pub struct Facts {
    /// What Python's `len` says of it: items, bytes, rows; code points of a text.
    pub len: Option<u64>,
    /// Lengths of the dimensions of an array; rows and columns of a table.
    pub shape: Option<Vec<u64>>,
    /// NumPy's type string of the elements of an array.
    pub dtype: Option<Cow<'static, str>>,
    /// Bytes of the elements of an array, or of the columns of a table.
    pub nbytes: Option<u64>,
    /// When it was stored, in milliseconds since 1970.
    pub created: Option<u64>,
    /// Where it was stored: the name of the host.
    pub origin: Option<Cow<'static, str>>,
}

impl Facts {
    /// Facts about something of this length.
    pub fn of_len(len: usize) -> Self {
        Self { len: Some(len as u64), ..Self::default() }
    }

    /// Facts about an array whose elements take `nbytes`.
    pub fn of_array(dtype: &'static str, shape: &[usize], nbytes: usize) -> Self {
        Self {
            len: shape.first().map(|len| *len as u64),
            shape: Some(shape.iter().map(|len| *len as u64).collect()),
            dtype: Some(Cow::Borrowed(dtype)),
            nbytes: Some(nbytes as u64),
            ..Self::default()
        }
    }

    /// The same about something that is stored here and now.
    #[must_use]
    pub fn stored_now(self) -> Self {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let created = u64::try_from(clock.as_millis()).ok();
        Self { created, origin: Some(Cow::Borrowed(host_name())), ..self }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The name of this host, as it was when it was first asked for.
pub(crate) fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_documented() {
        let facts = Facts {
            created: Some(1_700_000_000_000),
            origin: Some("host".into()),
            ..Facts::of_array("<f4", &[512, 3], 6144)
        };
        let expected = [
            b"\x96\xcd\x02\x00".as_slice(), // six facts; length 512
            b"\x92\xcd\x02\x00\x03",        // shape (512, 3)
            b"\xa3<f4\xcd\x18\x00",         // dtype; 6144 bytes
            b"\xcf\x00\x00\x01\x8b\xcf\xe5\x68\x00\xa4host",
        ]
        .concat();
        assert_eq!(rmp_serde::to_vec(&facts).unwrap(), expected);
        assert_eq!(rmp_serde::from_slice::<Facts>(&expected).unwrap(), facts);
    }

    #[test]
    fn a_list_may_end_early() {
        assert_eq!(rmp_serde::from_slice::<Facts>(b"\x91\x05").unwrap(), Facts::of_len(5));
        assert!(rmp_serde::from_slice::<Facts>(b"\x90").unwrap().is_empty());
    }

    #[test]
    fn an_array_without_dimensions_has_no_length() {
        assert_eq!(Facts::of_array("<f8", &[], 8).len, None);
    }

    #[test]
    fn what_is_stored_now_knows_when_and_where() {
        let facts = Facts::default().stored_now();
        assert!(facts.created.is_some_and(|time| time > 1_600_000_000_000));
        assert_eq!(facts.origin.as_deref(), Some(host_name()));
        assert!(!host_name().is_empty());
    }
}
