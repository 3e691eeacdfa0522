//! Options from the environment, over those of the file: `PROXYSTORE_ENDPOINT_<SECTION>_<OPTION>`.

use std::ffi::OsString;

use proxystore::{Error, ErrorKind, Result};
use toml::{Table, Value};

use super::Config;

const PREFIX: &str = "PROXYSTORE_ENDPOINT_";
/// What clients read: how they reach a daemon without its directory.
const OF_CLIENTS: &[&str] = &["ADDRESS", "TOKEN"];
const READ: &str = "read an endpoint's environment";

/// The configuration with what variables say over it, such as `PROXYSTORE_ENDPOINT_STORAGE_MEMORY=2 GB`.
///
/// # Errors
/// When a variable names no option, or its value is none for it.
pub fn overridden(
    config: Config,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config> {
    let mut told = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.to_str().and_then(|v| v.strip_prefix(PREFIX)) else { continue };
        if !OF_CLIENTS.contains(&name) {
            told.push((name.to_ascii_lowercase(), value.to_string_lossy().into_owned()));
        }
    }
    if told.is_empty() {
        return Ok(config);
    }
    let mut table = Table::try_from(&config).map_err(|source| {
        Error::new(ErrorKind::Config, READ, "it has no form").with_source(source)
    })?;
    for (name, text) in &told {
        let option = option_of(&mut table, name).ok_or_else(|| {
            refused(name, "there is no such option").with_hint(
                "the file config.toml shows sections and options: \
                 PROXYSTORE_ENDPOINT_STORAGE_MEMORY is `memory` in section [storage]",
            )
        })?;
        *option = value_like(option, text).ok_or_else(|| {
            refused(name, "this is no value for it").with("type", option.type_str())
        })?;
    }
    table.try_into().map_err(|source: toml::de::Error| {
        Error::new(ErrorKind::Config, READ, source.message().to_owned())
            .with_hint("correct the variables that begin with PROXYSTORE_ENDPOINT_")
    })
}

/// The option `<section>_<option>`.
fn option_of<'a>(table: &'a mut Table, name: &str) -> Option<&'a mut Value> {
    let (section, option) = name.split_once('_')?;
    table.get_mut(section)?.as_table_mut()?.get_mut(option)
}

/// A value of the type that the option has.
fn value_like(option: &Value, text: &str) -> Option<Value> {
    match option {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Boolean(_) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(Value::Boolean(true)),
            "false" | "no" | "off" | "0" => Some(Value::Boolean(false)),
            _ => None,
        },
        _ => None, // lists belong into the file
    }
}

fn refused(name: &str, message: &'static str) -> Error {
    Error::new(ErrorKind::Config, READ, message)
        .with("variable", format_args!("{PREFIX}{}", name.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Config> {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        overridden(Config::default(), variables)
    }

    #[test]
    fn the_environment_is_over_the_file() {
        let config = with(&[
            ("PROXYSTORE_ENDPOINT_STORAGE_MEMORY", "2 GB"),
            ("PROXYSTORE_ENDPOINT_STORAGE_MAX_OBJECT", "5"),
            ("PROXYSTORE_ENDPOINT_STORAGE_PERSIST", "yes"),
            ("PROXYSTORE_ENDPOINT_CLIENTS_PORT", "4711"),
            ("PROXYSTORE_ENDPOINT_WEB_ADDRESS", ""),
            ("PROXYSTORE_ENDPOINT_LOG_LEVEL", "debug"),
            ("PROXYSTORE_ENDPOINT_TOKEN", "of clients"),
            ("PROXYSTORE_HOME", "of everybody"),
        ])
        .unwrap();
        assert_eq!((config.storage.memory, config.storage.max_object), (2_000_000_000, 5));
        assert!(config.storage.persist);
        assert_eq!((config.clients.port, config.web.address), (4711, None));
        assert_eq!(config.log.level, "debug");
        assert_eq!(with(&[]).unwrap(), Config::default());
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_name() {
        for (variable, value) in [
            ("PROXYSTORE_ENDPOINT_STORAGE_MEMROY", "1"),
            ("PROXYSTORE_ENDPOINT_ATTIC_MEMORY", "1"),
            ("PROXYSTORE_ENDPOINT_CLIENTS_PORT", "many"),
            ("PROXYSTORE_ENDPOINT_STORAGE_SYNC", "perhaps"),
            ("PROXYSTORE_ENDPOINT_PEERS_ALLOW", "all"),
        ] {
            let error = with(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
        let error = with(&[("PROXYSTORE_ENDPOINT_STORAGE_MEMORY", "lots")]).unwrap_err();
        assert!(error.to_string().contains("no size"), "{error}");
    }
}
