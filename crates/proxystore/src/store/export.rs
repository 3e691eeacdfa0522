//! Metrics for monitoring systems: plain observations, and Prometheus's text format.
//!
//! Nothing that is exported names a key, and nothing a credential: a store's name may be a URL, whose
//! credentials are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Metrics, OperationStats, Store};
use crate::connectors::without_credentials;

/// A counter that only grows, as OpenTelemetry names it and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instrument {
    /// Such as `proxystore.store.operations`.
    pub name: &'static str,
    /// `s`, `By` or, for counts of things, `{thing}`.
    pub unit: &'static str,
    /// What it counts.
    pub description: &'static str,
}

/// The value of an instrument for one store, and one kind of operation where it tells them apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// What was counted.
    pub instrument: &'static Instrument,
    /// The store's name, without credentials.
    pub store: String,
    /// `put`, `get`, `exists`, `evict`, `wait`, `expire`, `allocate`, `encode` or `decode`.
    pub operation: Option<&'static str>,
    /// The total so far, in the unit of the instrument.
    pub value: f64,
}

const OPERATIONS: usize = 0;
const TIME: usize = 1;
const BYTES: usize = 2;
const CACHE_HITS: usize = 3;
const CACHE_MISSES: usize = 4;
const MISSING: usize = 5;

/// All that is exported.
pub static INSTRUMENTS: [Instrument; 6] = [
    Instrument {
        name: "proxystore.store.operations",
        unit: "{operation}",
        description: "Calls to the channel and the codec; a batch that is put counts once.",
    },
    Instrument {
        name: "proxystore.store.operation.time",
        unit: "s",
        description: "Time spent in calls to the channel and the codec.",
    },
    Instrument {
        name: "proxystore.store.bytes",
        unit: "By",
        description: "Bytes moved to and from the channel, as stored.",
    },
    Instrument {
        name: "proxystore.store.cache.hits",
        unit: "{hit}",
        description: "Objects found in the cache.",
    },
    Instrument {
        name: "proxystore.store.cache.misses",
        unit: "{miss}",
        description: "Objects asked for that were not in the cache.",
    },
    Instrument {
        name: "proxystore.store.missing",
        unit: "{object}",
        description: "Objects asked for that were not in the channel.",
    },
];

/// What these stores did so far; stores without metrics are passed over, and those of one name add up.
pub fn observations(stores: &[Store]) -> Vec<Observation> {
    observe(stores.iter().filter_map(|store| Some((store.name(), store.metrics()?))))
}

/// The same in the text format of Prometheus, version 0.0.4.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use std::sync::Arc;
/// use proxystore::Store;
/// use proxystore::connectors::memory::MemoryConnector;
/// use proxystore::store::{registry, to_prometheus};
///
/// let connector = Arc::new(MemoryConnector::new("exported")?);
/// let store = Store::builder("exported", connector).metrics(true).build();
/// registry::register(&store)?;
/// store.put("hello")?;
/// let text = to_prometheus(&registry::all());
/// let line = "proxystore_store_operations_total{store=\"exported\",operation=\"put\"} 1";
/// assert!(text.lines().any(|found| found == line));
/// # store.close(true)?;
/// # Ok(()) }
/// ```
pub fn to_prometheus(stores: &[Store]) -> String {
    text_of(&observations(stores))
}

impl Metrics {
    /// As [`observations`](super::observations), under the name of a store.
    pub fn observations(&self, store: &str) -> Vec<Observation> {
        observe([(store, self)])
    }

    /// As [`to_prometheus`](super::to_prometheus), under the name of a store.
    pub fn to_prometheus(&self, store: &str) -> String {
        text_of(&self.observations(store))
    }
}

fn observe<'a>(stores: impl IntoIterator<Item = (&'a str, &'a Metrics)>) -> Vec<Observation> {
    let mut by_store: BTreeMap<String, Vec<OperationStats>> = BTreeMap::new();
    for (name, metrics) in stores {
        let name = without_credentials(name).into_owned();
        let Some(known) = by_store.get_mut(&name) else {
            by_store.insert(name, metrics.totals().collect());
            continue;
        };
        for (sum, more) in known.iter_mut().zip(metrics.totals()) {
            sum.count += more.count;
            sum.total_time += more.total_time;
            sum.bytes += more.bytes;
        }
    }
    let mut found = Vec::new();
    for (store, totals) in &by_store {
        for OperationStats { name, count, total_time, bytes } in totals {
            let mut add = |instrument: usize, operation, value| {
                let (instrument, store) = (&INSTRUMENTS[instrument], store.clone());
                found.push(Observation { instrument, store, operation, value });
            };
            let count = precise(*count);
            match *name {
                "cache_hit" => add(CACHE_HITS, None, count),
                "missing" => add(MISSING, None, count),
                operation => {
                    add(OPERATIONS, Some(operation), count);
                    add(TIME, Some(operation), total_time.as_secs_f64());
                    if matches!(operation, "put" | "get" | "allocate") {
                        add(BYTES, Some(operation), precise(*bytes));
                    }
                    if operation == "get" {
                        add(CACHE_MISSES, None, count); // what is not in the cache is got
                    }
                }
            }
        }
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, as all of Prometheus is")]
fn precise(count: u64) -> f64 {
    count as f64
}

fn text_of(observations: &[Observation]) -> String {
    let of = |instrument: usize| {
        observations.iter().filter(move |found| found.instrument == &INSTRUMENTS[instrument])
    };
    let mut text = String::new();
    for (instrument, name) in [
        (OPERATIONS, "proxystore_store_operations_total"),
        (TIME, "proxystore_store_operation_seconds"),
        (BYTES, "proxystore_store_bytes_total"),
        (CACHE_HITS, "proxystore_store_cache_hits_total"),
        (CACHE_MISSES, "proxystore_store_cache_misses_total"),
        (MISSING, "proxystore_store_missing_total"),
    ] {
        // A time is a summary without quantiles: its count is that of the operations.
        let (kind, suffixes): (_, &[_]) = match instrument {
            TIME => ("summary", &[(TIME, "_sum"), (OPERATIONS, "_count")]),
            _ => ("counter", &[(instrument, "")]),
        };
        let help = INSTRUMENTS[instrument].description;
        // Writing to a text does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (values, suffix) in suffixes {
            for Observation { store, operation, value, .. } in of(*values) {
                let _ = write!(text, "{name}{suffix}{{store=\"{}\"", escaped(store));
                if let Some(operation) = operation {
                    let _ = write!(text, ",operation=\"{operation}\"");
                }
                let _ = writeln!(text, "}} {value}");
            }
        }
    }
    text
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Operation;
    use super::*;

    #[test]
    fn the_text_is_as_documented() {
        let metrics = Metrics::default();
        metrics.record(Operation::Put, Duration::from_millis(1500), 100);
        metrics.record(Operation::Put, Duration::from_millis(500), 20);
        metrics.record(Operation::Get, Duration::from_millis(250), 100);
        metrics.record(Operation::CacheHit, Duration::ZERO, 0);
        let text = metrics.to_prometheus("a \"b\"\n\\c");
        for line in [
            "# TYPE proxystore_store_operations_total counter",
            r#"proxystore_store_operations_total{store="a \"b\"\n\\c",operation="put"} 2"#,
            "# TYPE proxystore_store_operation_seconds summary",
            r#"proxystore_store_operation_seconds_sum{store="a \"b\"\n\\c",operation="put"} 2"#,
            r#"proxystore_store_operation_seconds_sum{store="a \"b\"\n\\c",operation="get"} 0.25"#,
            r#"proxystore_store_operation_seconds_count{store="a \"b\"\n\\c",operation="put"} 2"#,
            r#"proxystore_store_bytes_total{store="a \"b\"\n\\c",operation="put"} 120"#,
            r#"proxystore_store_cache_hits_total{store="a \"b\"\n\\c"} 1"#,
            r#"proxystore_store_cache_misses_total{store="a \"b\"\n\\c"} 1"#,
            r#"proxystore_store_missing_total{store="a \"b\"\n\\c"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE ").count(), INSTRUMENTS.len());
    }

    #[test]
    fn stores_of_one_name_add_up() {
        let (first, second) = (Metrics::default(), Metrics::default());
        for metrics in [&first, &second] {
            metrics.record(Operation::Get, Duration::from_secs(1), 5);
        }
        let names = ["redis://user:secret@host/1", "redis://other@host/1"];
        let found = observe(names.into_iter().zip([&first, &second]));
        let bytes = |found: &&Observation| {
            found.instrument == &INSTRUMENTS[BYTES] && found.operation == Some("get")
        };
        let found: Vec<_> = found.iter().filter(bytes).collect();
        assert_eq!((found.len(), found[0].value), (1, 10.0));
        assert_eq!(found[0].store, "redis://host/1");
    }
}
