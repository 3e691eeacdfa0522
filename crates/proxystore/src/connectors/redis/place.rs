//! Where the servers are: what a URL says, and how it is written so that equal places are equal.

use std::fmt;
use std::path::PathBuf;

use crate::connectors::percent;

const DEFAULT_PORT: u16 = 6379;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Node {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Node {
    /// From `HOST:PORT`, `HOST` or `[IPV6]:PORT`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let after_address = text.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match text[after_address..].rfind(':') {
            None => (text, DEFAULT_PORT),
            Some(at) => {
                let at = after_address + at;
                (&text[..at], text[at + 1..].parse().ok()?)
            }
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_usable = !host.is_empty() && !host.contains(['/', '@', '[', ']', ' ']);
        is_usable.then(|| Self::Tcp { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A server, or the cluster that some servers are known of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) nodes: Vec<Node>,
    pub(crate) is_cluster: bool,
    pub(super) tls: bool,
    pub(crate) database: u32,
}

/// User and password as they stand in a URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UserInfo {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

impl Place {
    /// What a URL says, and the credentials in it; an error is the cause alone, as the URL may
    /// hold a password.
    pub(super) fn parse(url: &str) -> Result<(Self, UserInfo), &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no '://'")?;
        let (tls, is_cluster, is_unix) = match scheme {
            "redis" => (false, false, false),
            "rediss" => (true, false, false),
            "redis+unix" => (false, false, true),
            "redis+cluster" => (false, true, false),
            "rediss+cluster" => (true, true, false),
            _ => return Err("its scheme is not one of Redis"),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user_info, hosts) = match authority.rsplit_once('@') {
            None => (UserInfo::default(), authority),
            Some((before, hosts)) => (user_info(before)?, hosts),
        };
        let number = |text: &str| text.parse().map_err(|_error| "the database is no number");
        if is_unix {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let database = match query.strip_prefix("db=") {
                Some(database) => number(database)?,
                None if query.is_empty() => 0,
                None => return Err("its only parameter is 'db'"),
            };
            if !hosts.is_empty() || path.len() < 2 {
                return Err("the path of the socket is not absolute");
            }
            let nodes = vec![Node::Unix(decoded(path)?.into())];
            return Ok((Self { nodes, is_cluster, tls, database }, user_info));
        }
        let mut nodes = hosts
            .split(',')
            .map(|host| Node::parse(host).ok_or("it does not name HOST:PORT"))
            .collect::<Result<Vec<_>, _>>()?;
        nodes.sort();
        nodes.dedup();
        if !is_cluster && nodes.len() != 1 {
            return Err("it names several servers, and is not that of a cluster");
        }
        let database = match path.trim_matches('/') {
            "" => 0,
            database => number(database)?,
        };
        if is_cluster && database != 0 {
            return Err("a cluster has no databases");
        }
        Ok((Self { nodes, is_cluster, tls, database }, user_info))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "s" } else { "" };
        if let [Node::Unix(path)] = &self.nodes[..] {
            let path = path.to_string_lossy();
            write!(f, "redis+unix://{}", percent::encode(path.as_bytes(), percent::keeps_path))?;
            return match self.database {
                0 => Ok(()),
                database => write!(f, "?db={database}"),
            };
        }
        let nodes: Vec<_> = self.nodes.iter().map(ToString::to_string).collect();
        let nodes = nodes.join(",");
        if self.is_cluster {
            write!(f, "redis{tls}+cluster://{nodes}")
        } else {
            write!(f, "redis{tls}://{nodes}/{}", self.database)
        }
    }
}

fn user_info(text: &str) -> Result<UserInfo, &'static str> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    let given = |text: &str| match text {
        "" => Ok(None),
        text => decoded(text).map(Some),
    };
    Ok(UserInfo { username: given(username)?, password: given(password)? })
}

fn decoded(text: &str) -> Result<String, &'static str> {
    percent::decode(text)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or("it is not percent-encoded UTF-8: write %25 for '%'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_places_have_equal_urls() {
        for (given, normal) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://LocalHost:6379/", "redis://localhost:6379/0"),
            ("redis://user:pa%40ss@localhost:1/3", "redis://localhost:1/3"),
            ("rediss://:word@[::1]:7000/0", "rediss://[::1]:7000/0"),
            ("redis+unix:///run/a%20b.sock", "redis+unix:///run/a%20b.sock"),
            ("redis+unix://:pw@/run/r.sock?db=2", "redis+unix:///run/r.sock?db=2"),
            ("redis+cluster://b:2,a:1,b:2", "redis+cluster://a:1,b:2"),
            ("rediss+cluster://a", "rediss+cluster://a:6379"),
        ] {
            let (place, _) = Place::parse(given).expect(given);
            assert_eq!(place.to_string(), normal);
            assert_eq!(Place::parse(normal).unwrap(), (place, UserInfo::default()));
        }
    }

    #[test]
    fn credentials_are_split_off() {
        let (_, found) = Place::parse("redis://user:pa%40s:s@localhost").unwrap();
        let (username, password) = (Some("user".to_owned()), Some("pa@s:s".to_owned()));
        assert_eq!(found, UserInfo { username, password });
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "redis:localhost",
            "redis://",
            "redis://a:b",
            "redis://a:1,b:2",
            "redis://a/x",
            "redis://a//1/2",
            "redis+unix://host/path",
            "redis+unix:///",
            "redis+unix:///a?x=1",
            "redis+cluster://a:1/2",
            "http://a",
        ] {
            assert!(Place::parse(url).is_err(), "{url}");
        }
    }
}
