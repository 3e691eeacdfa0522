//! The commands, and what is held from one to the next.

use std::any::Any;
use std::collections::HashMap;
use std::time::Duration;

use proxystore::brokers::{self, SubscribeOptions};
use proxystore::connectors::{self, ConnectorConfig, PutOptions};
use proxystore::patterns::{Future, FutureOptions};
use proxystore::store::{SealMode, StoreFactory, registry};
use proxystore::{Error, ErrorKind, Reference, Result, Store};

use crate::samples::{self, Owner};

/// What the other program still needs: futures with leases, and owners.
#[derive(Default)]
pub(crate) struct Session {
    futures: HashMap<String, Box<dyn Any>>,
    owners: HashMap<String, Box<dyn Owner>>,
}

impl Session {
    /// Does what a line says; the answer is text without line breaks.
    pub(crate) fn obey(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["make", kind, url, ref options @ ..] => make(kind, url, &Options::read(options)?),
            ["batch", kind, url, count] => {
                let count = count.parse().or(Err(unknown("a count", count)))?;
                let made = samples::find(kind)?.batch(&Store::open(url)?, count)?;
                let texts: Result<Vec<_>> = made.iter().map(Reference::to_text).collect();
                Ok(texts?.join(" "))
            }
            ["check", kind, text] => samples::find(kind)?.check(Reference::from_text(text)?),
            ["exists", text] => {
                let reference = Reference::from_text(text)?;
                let store = StoreFactory::from_reference(reference.clone()).store()?;
                Ok(store.exists(&reference.key)?.to_string())
            }
            ["facts", text] => {
                let facts = Reference::from_text(text)?.facts;
                Ok(format!(
                    "{:?} {:?} {:?} {:?}",
                    facts.len, facts.shape, facts.dtype, facts.nbytes
                ))
            }
            ["future", url, ref options @ ..] => {
                let Options { evict, timeout, lease, .. } = Options::read(options)?;
                let options = FutureOptions { evict, timeout, lease };
                let future = Store::open(url)?.future_with::<()>(&options)?;
                let text = future.reference().to_text()?;
                self.futures.insert(text.clone(), Box::new(future));
                Ok(text)
            }
            ["set", kind, text] => done(samples::find(kind)?.set(Reference::from_text(text)?)),
            ["fail", text, ref message @ ..] => {
                let cause = std::io::Error::other(message.join(" "));
                done(Future::<()>::from_reference(Reference::from_text(text)?)?.set_error(&cause))
            }
            ["cancel", text] => {
                Ok(Future::<()>::from_reference(Reference::from_text(text)?)?.cancel()?.to_string())
            }
            ["own", kind, url, ref options @ ..] => {
                let lease = Options::read(options)?.lease;
                let owner = samples::find(kind)?.own(&Store::open(url)?, lease)?;
                let text = owner.lent()?.to_text()?;
                self.owners.insert(text.clone(), owner);
                Ok(text)
            }
            ["adopt", kind, text] => {
                let owner = samples::find(kind)?.adopt(&Reference::from_text(text)?)?;
                self.owners.insert(text.to_owned(), owner);
                Ok(String::new())
            }
            ["give", text] => {
                let owner = self.owners.remove(text).ok_or_else(|| unknown("an owner", text))?;
                done(owner.give())
            }
            ["drop", text] => {
                self.futures.remove(text);
                self.owners.remove(text);
                Ok(String::new())
            }
            ["produce", kind, broker, topic, url, count] => {
                let count = count.parse().or(Err(unknown("a count", count)))?;
                let publisher = brokers::open(broker)?.publisher()?;
                let sent =
                    samples::find(kind)?.produce(publisher, topic, &Store::open(url)?, count);
                done(sent)
            }
            ["consume", kind, broker, topic] => {
                let options = SubscribeOptions::default();
                let subscriber = brokers::open(broker)?.subscriber(&[topic], &options)?;
                samples::find(kind)?.consume(subscriber)
            }
            _ => Err(unknown("a command", line)),
        }
    }
}

fn make(kind: &str, url: &str, options: &Options) -> Result<String> {
    let sample = samples::find(kind)?;
    let store = match &options.special {
        Some(way) => special_store(url, way)?,
        None => Store::open(url)?,
    };
    let reference = match options.ttl {
        Some(ttl) => sample.put(&store, &PutOptions { ttl: Some(ttl), ..PutOptions::default() }),
        None if options.evict => sample.proxy_evicting(&store),
        None => sample.proxy(&store),
    };
    reference?.to_secret_text()
}

/// A store of the channel that stores in another way than plainly.
fn special_store(url: &str, way: &str) -> Result<Store> {
    let name = format!("{way}-{url}");
    if let Some(store) = registry::get(&name) {
        return Ok(store);
    }
    let connector = connectors::open(&ConnectorConfig::new(url))?;
    let store = Store::builder(name, connector);
    let store = match way {
        "inline" => store.inline_bytes(10_000),
        "sealed" => store.seal(Some(SealMode::Sealed)),
        "checked" => store.checksums(true),
        compression => store.compression(Some(compression.parse()?)),
    };
    let store = store.build();
    registry::register(&store)?;
    Ok(store)
}

fn done(outcome: Result<()>) -> Result<String> {
    outcome.map(|()| String::new())
}

/// What follows the words that a command needs.
#[derive(Default)]
struct Options {
    evict: bool,
    special: Option<String>,
    ttl: Option<Duration>,
    timeout: Option<Duration>,
    lease: Option<Duration>,
}

impl Options {
    fn read(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let time = value.parse().ok().map(Duration::from_millis);
            match (name, time) {
                ("evict", None) => options.evict = true,
                ("inline" | "sealed" | "checked" | "zstd" | "lz4", None) => {
                    options.special = Some(name.to_owned());
                }
                ("ttl", Some(_)) => options.ttl = time,
                ("timeout", Some(_)) => options.timeout = time,
                ("lease", Some(_)) => options.lease = time,
                _ => return Err(unknown("an option", word)),
            }
        }
        Ok(options)
    }
}

/// The error for a word that means nothing here.
pub(crate) fn unknown(what: &str, word: &str) -> Error {
    Error::new(ErrorKind::Config, "do as told", format!("expected {what}, found {word:?}"))
        .with_hint("examples/exchange/main.rs lists the commands")
}
