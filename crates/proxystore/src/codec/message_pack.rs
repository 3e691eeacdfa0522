//! MessagePack for any serde type (<https://github.com/msgpack/msgpack/blob/master/spec.md>).

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::ops::{Deref, DerefMut};

use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{Decode, Encode, MESSAGE_PACK, expect, single_part};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::Facts;
use crate::payload::{Payload, Received};

/// Stores a serde type as MessagePack; structs become maps of their field names.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Store, codec::MessagePack};
/// let store = Store::open("memory://message-pack-example")?;
/// let proxy = store.proxy(MessagePack(("energy".to_owned(), 1.5)))?;
/// assert_eq!(proxy.0, ("energy".to_owned(), 1.5));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessagePack<T>(pub T);

impl<T> Deref for MessagePack<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MessagePack<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize> Encode for MessagePack<T> {
    fn encode(&self) -> Result<Payload<'_>> {
        encode(&self.0)
    }
}

impl<T: DeserializeOwned> Decode for MessagePack<T> {
    fn decode(received: &Received) -> Result<Self> {
        decode(received).map(Self)
    }
}

/// Encodes any serde type; what [`messagepack!`](crate::messagepack) uses.
#[doc(hidden)]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload<'static>> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|source| {
        Error::new(ErrorKind::Encode, "encode object as MessagePack", source.to_string())
            .with("type", std::any::type_name::<T>())
            .with_source(source)
    })?;
    Ok(Payload::new(MESSAGE_PACK, &[][..]).with_part(bytes))
}

/// Decodes any serde type; what [`messagepack!`](crate::messagepack) uses.
#[doc(hidden)]
pub fn decode<T: DeserializeOwned>(received: &Received) -> Result<T> {
    expect(received, MESSAGE_PACK)?;
    rmp_serde::from_slice(&single_part(received)?).map_err(|source| {
        Error::new(ErrorKind::Decode, "decode object from MessagePack", source.to_string())
            .with("type", std::any::type_name::<T>())
            .with_source(source)
    })
}

/// Stores serde types as MessagePack without a wrapper.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Store, messagepack};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Sample { energy: f64, label: String }
/// messagepack!(Sample);
///
/// let store = Store::open("memory://samples")?;
/// let proxy = store.proxy(Sample { energy: 1.5, label: "a".into() })?;
/// assert_eq!(proxy.energy, 1.5);
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! messagepack {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::codec::Encode for $type {
            fn encode(&self) -> $crate::Result<$crate::payload::Payload<'_>> {
                $crate::codec::message_pack_encode(self)
            }
        }
        impl $crate::codec::Decode for $type {
            fn decode(received: &$crate::payload::Received) -> $crate::Result<Self> {
                $crate::codec::message_pack_decode(received)
            }
        }
    )+};
}

messagepack!(bool, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

impl Encode for Vec<String> {
    fn encode(&self) -> Result<Payload<'_>> {
        encode(self)
    }

    fn facts(&self) -> Facts {
        Facts::of_len(self.len())
    }
}

impl Decode for Vec<String> {
    fn decode(received: &Received) -> Result<Self> {
        decode(received)
    }
}

impl<V: Serialize> Encode for BTreeMap<String, V> {
    fn encode(&self) -> Result<Payload<'_>> {
        encode(self)
    }

    fn facts(&self) -> Facts {
        Facts::of_len(self.len())
    }
}

impl<V: DeserializeOwned> Decode for BTreeMap<String, V> {
    fn decode(received: &Received) -> Result<Self> {
        decode(received)
    }
}

impl<V: Serialize, S: BuildHasher> Encode for HashMap<String, V, S> {
    fn encode(&self) -> Result<Payload<'_>> {
        encode(self)
    }

    fn facts(&self) -> Facts {
        Facts::of_len(self.len())
    }
}

impl<V: DeserializeOwned, S: BuildHasher + Default> Decode for HashMap<String, V, S> {
    fn decode(received: &Received) -> Result<Self> {
        decode(received)
    }
}
