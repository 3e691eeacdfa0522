//! Options of a configuration, read and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{check_id, unique_id};

/// The options of a configuration, and the URL for errors about them.
pub(super) struct Given<'a> {
    /// What fails where an option is wrong.
    pub(super) operation: &'static str,
    pub(super) url: &'a str,
    pub(super) options: &'a BTreeMap<String, Value>,
}

impl Given<'_> {
    #[cold]
    pub(super) fn wrong(&self, option: &'static str) -> Error {
        Error::new(ErrorKind::Config, self.operation, "an option has a value it cannot have")
            .with("option", option)
            .with("channel", self.url)
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>> {
        match self.options.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(name).with_hint("it is text")),
        }
    }

    #[cfg(feature = "redis")]
    pub(super) fn flag(&self, name: &'static str) -> Result<bool> {
        match self.options.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name).with_hint("it is true or false")),
        }
    }

    #[cfg(feature = "redis")]
    pub(super) fn number(&self, name: &'static str, from: u64, to: u64) -> Result<Option<u64>> {
        let Some(value) = self.options.get(name) else { return Ok(None) };
        match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
        .filter(|number| (from..=to).contains(number))
        .map(Some)
        .ok_or_else(|| self.wrong(name).with_hint(format!("it is a number from {from} to {to}")))
    }

    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<Duration>> {
        let Some(value) = self.options.get(name) else { return Ok(None) };
        match value {
            Value::Int(number) => u64::try_from(*number).ok().map(Duration::from_secs),
            Value::Float(number) => Duration::try_from_secs_f64(*number).ok(),
            _ => None,
        }
        .filter(|time| !time.is_zero())
        .map(Some)
        .ok_or_else(|| self.wrong(name).with_hint("it is a number of seconds above 0"))
    }

    /// First part of the ids that a connector makes: the one given, or a random one.
    pub(super) fn namespace(&self) -> Result<String> {
        let namespace = match self.text("namespace")? {
            Some(namespace) => namespace,
            None => unique_id()?[..12].to_owned(),
        };
        if check_id(&namespace).is_err() || namespace.contains('.') || namespace.len() > 64 {
            return Err(self.wrong("namespace").with_hint(
                "a namespace is 1 to 64 letters, digits, '-' or '_'; leave it out for a random one",
            ));
        }
        Ok(namespace)
    }
}
