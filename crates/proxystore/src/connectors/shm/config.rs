//! What a configuration says.

use std::path::PathBuf;

use super::session::default_root;
use crate::connectors::{ConnectorConfig, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::check_id;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) name: String,
    pub(super) pool_bytes: Option<u64>,
    pub(super) persist: bool,
}

impl Settings {
    pub(crate) fn parse(config: &ConnectorConfig) -> Result<Self> {
        let wrong = |cause: &'static str| {
            Error::new(ErrorKind::Config, "open a shared-memory connector", cause)
                .with("url", &config.url)
        };
        let Some(rest) = config.url.strip_prefix("shm://") else {
            return Err(wrong("the URL is not one of shared memory")
                .with_hint("write shm://NAME or shm://NAME?root=/path"));
        };
        let (name, query) = rest.split_once('?').map_or((rest, None), |(n, q)| (n, Some(q)));
        check_id(name).map_err(|error| {
            wrong("the session's name is not usable")
                .with_hint("use letters, digits, '-', '_' or '.', not starting with a dot")
                .with_source(error)
        })?;
        let root = match query.map(|query| query.strip_prefix("root=")) {
            None => default_root(),
            Some(Some(root)) if root.starts_with('/') => PathBuf::from(root),
            Some(_) => {
                return Err(wrong("the only parameter is 'root', an absolute path"));
            }
        };
        let mut settings = Self { root, name: name.to_owned(), pool_bytes: None, persist: false };
        for (option, value) in &config.options {
            match (option.as_str(), value) {
                ("pool_bytes", Value::Int(bytes)) if *bytes >= 0 => {
                    settings.pool_bytes = u64::try_from(*bytes).ok();
                }
                ("persist", Value::Bool(persist)) => settings.persist = *persist,
                _ => {
                    return Err(wrong("an option is unknown or has a value of the wrong kind")
                        .with("option", option)
                        .with_hint("options are pool_bytes (bytes) and persist (true or false)"));
                }
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_session_and_root() {
        let parse = |url: &str| Settings::parse(&ConnectorConfig::new(url));
        let settings = parse("shm://demo?root=/tmp/x").unwrap();
        assert_eq!((settings.name.as_str(), settings.root), ("demo", PathBuf::from("/tmp/x")));
        assert_eq!(parse("shm://demo").unwrap().root, default_root());
        for url in ["shm:demo", "shm://", "shm://a/b", "shm://..", "shm://a?root=x", "shm://a?x=1"]
        {
            assert_eq!(parse(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
        let mut config = ConnectorConfig::new("shm://demo");
        config.options.insert("pool_bytes".into(), Value::Text("1".into()));
        let error = Settings::parse(&config).unwrap_err();
        assert!(error.to_string().contains("pool_bytes"), "{error}");
    }
}
