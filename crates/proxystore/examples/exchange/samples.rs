//! The objects. `python/tests/exchange/samples.py` has the same under the same names.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use num_complex::Complex;
use proxystore::brokers::{Publisher, Subscriber};
use proxystore::codec::{Bool, Decode, Element, Encode, MessagePack, Order};
use proxystore::connectors::PutOptions;
use proxystore::patterns::stream::{Metadata, SendOptions, StreamConsumer, StreamProducer};
use proxystore::patterns::{Future, OwnedProxy};
use proxystore::{Proxy, Reference, Result, Store, messagepack};
use serde::{Deserialize, Serialize};

use crate::commands::unknown;
use crate::tables;

/// An object of a type that the commands need not know.
pub(crate) trait Sample {
    fn proxy(&self, store: &Store) -> Result<Reference>;
    fn proxy_evicting(&self, store: &Store) -> Result<Reference>;
    fn put(&self, store: &Store, options: &PutOptions) -> Result<Reference>;
    fn batch(&self, store: &Store, count: usize) -> Result<Vec<Reference>>;
    fn check(&self, reference: Reference) -> Result<String>;
    fn set(&self, future: Reference) -> Result<()>;
    fn own(&self, store: &Store, lease: Option<Duration>) -> Result<Box<dyn Owner>>;
    fn adopt(&self, reference: &Reference) -> Result<Box<dyn Owner>>;
    fn produce(
        &self,
        publisher: Box<dyn Publisher>,
        topic: &str,
        store: &Store,
        count: usize,
    ) -> Result<()>;
    fn consume(&self, subscriber: Box<dyn Subscriber>) -> Result<String>;
}

/// An owner of an object of any type.
pub(crate) trait Owner {
    fn lent(&self) -> Result<Reference>;
    fn give(self: Box<Self>) -> Result<()>;
}

pub(crate) struct Of<T> {
    pub(crate) value: T,
    /// What makes two of them the same.
    pub(crate) same: fn(&T, &T) -> bool,
}

impl<T> Sample for Of<T>
where
    T: Encode + Decode + Clone + Debug + Send + Sync + 'static,
{
    fn proxy(&self, store: &Store) -> Result<Reference> {
        store.proxy(self.value.clone())?.reference()
    }

    fn proxy_evicting(&self, store: &Store) -> Result<Reference> {
        store.proxy_evicting(&self.value)?.reference()
    }

    fn put(&self, store: &Store, options: &PutOptions) -> Result<Reference> {
        let key = store.put_with(&self.value, options)?;
        store.proxy_from_key::<T>(&key).reference()
    }

    fn batch(&self, store: &Store, count: usize) -> Result<Vec<Reference>> {
        let proxies = store.proxy_batch(vec![self.value.clone(); count])?;
        proxies.iter().map(Proxy::reference).collect()
    }

    fn check(&self, reference: Reference) -> Result<String> {
        let proxy = Proxy::<T>::from_reference(reference);
        let found = proxy.resolve()?;
        if (self.same)(found, &self.value) {
            return Ok("same".to_owned());
        }
        Ok(format!("{found:?}").replace('\n', " "))
    }

    fn set(&self, future: Reference) -> Result<()> {
        Future::<T>::from_reference(future)?.set_result(&self.value)
    }

    fn own(&self, store: &Store, lease: Option<Duration>) -> Result<Box<dyn Owner>> {
        let value = self.value.clone();
        Ok(Box::new(match lease {
            Some(ttl) => store.leased_proxy(value, ttl)?,
            None => store.owned_proxy(value)?,
        }))
    }

    fn adopt(&self, reference: &Reference) -> Result<Box<dyn Owner>> {
        Ok(Box::new(OwnedProxy::<T>::adopt(reference, None)?))
    }

    fn produce(
        &self,
        publisher: Box<dyn Publisher>,
        topic: &str,
        store: &Store,
        count: usize,
    ) -> Result<()> {
        let producer = StreamProducer::builder(publisher).store(store).build()?;
        for number in 0..count {
            let metadata = Metadata::new(&BTreeMap::from([("number", number)]))?;
            let options = SendOptions { metadata, ..SendOptions::default() };
            producer.send_with(topic, self.value.clone(), options)?;
        }
        producer.close_topic(topic)?;
        producer.close()
    }

    fn consume(&self, subscriber: Box<dyn Subscriber>) -> Result<String> {
        let consumer = StreamConsumer::new(subscriber);
        let mut numbers = Vec::new();
        for item in consumer.iter::<T>() {
            let item = item?;
            let found = item.proxy.resolve()?;
            if !(self.same)(found, &self.value) {
                return Ok(format!("{found:?}").replace('\n', " "));
            }
            numbers.push(format!("{:?}", item.metadata.get::<u64>("number")?));
        }
        Ok(numbers.join(" "))
    }
}

impl<T: Decode + Send + Sync + 'static> Owner for OwnedProxy<T> {
    fn lent(&self) -> Result<Reference> {
        self.borrow().reference()
    }

    fn give(self: Box<Self>) -> Result<()> {
        self.into_reference().map(drop)
    }
}

fn of<T>(value: T) -> Box<dyn Sample>
where
    T: Encode + Decode + Clone + Debug + PartialEq + Send + Sync + 'static,
{
    Box::new(Of { value, same: T::eq })
}

/// What is a dataclass in Python.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measurement {
    name: String,
    counts: Vec<u64>,
    position: (f64, f64),
    note: Option<String>,
    origin: Site,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Site {
    name: String,
    altitude: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Exposure {
    Dark,
    Light { seconds: f64 },
}

/// Serde writes a vector of bytes as a list of numbers, unless it is told that they are bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Blob {
    name: String,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
}
messagepack!(Measurement, Exposure, Blob);

/// The sample of a name.
pub(crate) fn find(name: &str) -> Result<Box<dyn Sample>> {
    let text = |text: &str| text.to_owned();
    Ok(match name {
        "bytes" => of((0..=255).collect::<Vec<u8>>()),
        "bytes-empty" => of(Vec::<u8>::new()),
        "bytes-large" => of(vec![7_u8; 3_000_000]),
        "text" => of(text("Grüße, 世界 🦀\0\r\n")),
        "text-empty" => of(String::new()),
        "text-large" => of("ä".repeat(1_000_000)),
        "bool" => of(true),
        "int" => of(-5_i32),
        "int-smallest" => of(i64::MIN),
        "int-largest" => of(u64::MAX),
        "float" => of(0.1_f64),
        "float-infinite" => of(f64::NEG_INFINITY),
        "nothing" => of(MessagePack(None::<u8>)),
        "list" => of(vec![text("a"), text("ß"), String::new()]),
        "list-empty" => of(Vec::<String>::new()),
        "list-of-int" => of(MessagePack(vec![1_i64, -2, 1 << 40])),
        "tuple" => of(MessagePack((text("energy"), 1.5))),
        "unit-variant" => of(Exposure::Dark),
        "struct-variant" => of(Exposure::Light { seconds: 30.0 }),
        "bytes-in-struct" => of(Blob { name: text("raw"), content: vec![0, 255] }),
        "map" => of(BTreeMap::from([(text("a"), 1_i64), (text("ä"), -1)])),
        "map-of-int" => of(MessagePack(BTreeMap::from([(-1_i64, text("a")), (300, text("b"))]))),
        "nested" => {
            let inner = |last| vec![None, Some(0.5), last];
            let lists = BTreeMap::from([(text("x"), vec![inner(None), vec![]])]);
            of(MessagePack(BTreeMap::from([(text("deep"), vec![lists])])))
        }
        "struct" => of(Measurement {
            name: text("M 31"),
            counts: vec![0, 1, u64::MAX],
            position: (10.68, 41.27),
            note: None,
            origin: Site { name: text("Calar Alto"), altitude: 2168.0 },
        }),
        _ => match name.split(':').collect::<Vec<_>>()[..] {
            ["array", dtype, order, shape] => array(dtype, order, shape)?,
            _ => return tables::find(name),
        },
    })
}

/// The array of a type such as `array:f8:F:2x3`, all little-endian.
fn array(dtype: &str, order: &str, shape: &str) -> Result<Box<dyn Sample>> {
    let sides = shape.split('x').filter(|side| !side.is_empty());
    let sides: Option<Vec<usize>> = sides.map(|side| side.parse().ok()).collect();
    let sides = sides.ok_or_else(|| unknown("a shape", shape))?;
    let order = if order == "F" { Order::F } else { Order::C };
    macro_rules! element {
        ($($type:ty => $element:expr),* $(,)?) => {
            match dtype {
                $(dtype if dtype == &<$type as Element>::DTYPE[1..] => Ok(filled::<$type>(&sides, order, $element)),)*
                _ => Err(unknown("a type of elements", dtype)),
            }
        };
    }
    element!(
        Bool => |n| Bool::from(n % 2 != 0),
        f16 => |n| f16::from_f64(n as f64 / 2.0),
        Complex<f32> => |n| Complex::new(n as f32 / 2.0, -n as f32),
        Complex<f64> => |n| Complex::new(n as f64 / 2.0, -n as f64),
        i8 => |n| n as i8,
        u8 => |n| n as u8,
        i16 => |n| n as i16,
        u16 => |n| n as u16,
        i32 => |n| n as i32,
        u32 => |n| n as u32,
        i64 => |n| n,
        u64 => |n| n as u64,
        f32 => |n| n as f32 / 2.0,
        f64 => |n| n as f64 / 2.0,
    )
}

/// Element number `n`, counted with the last index fastest, is made of 7 `n` - 50.
fn filled<T>(sides: &[usize], order: Order, element: fn(i64) -> T) -> Box<dyn Sample>
where
    T: Element + Clone + PartialEq,
{
    let mut value = ArrayD::from_elem(IxDyn(sides).set_f(order == Order::F), element(0));
    for (n, place) in value.iter_mut().enumerate() {
        *place = element(n as i64 * 7 - 50);
    }
    let same =
        |found: &ArrayD<T>, value: &ArrayD<T>| found == value && found.strides() == value.strides();
    Box::new(Of { value, same })
}
