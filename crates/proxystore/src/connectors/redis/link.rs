//! One connection to one server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, Value,
};

use super::place::Node;
use super::request::Request;
use super::settings::{OPEN, Settings};
use crate::error::{Error, Result};

/// A peer that vanished without a word is noticed after about a minute, also while waiting.
pub(crate) const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// A timeout of zero would mean to wait for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// How to connect, beside where.
pub(crate) struct Access {
    redis: RedisConnectionInfo,
    pub(crate) certificates: Option<TlsCertificates>,
}

impl Access {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let mut redis = RedisConnectionInfo::default().set_db(settings.place.database.into());
        if let Some(username) = &settings.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(&password.0);
        }
        let read = |path: &Path| {
            fs::read(path).map_err(|error| {
                Error::io(OPEN, error)
                    .with("path", path.display())
                    .with("channel", &settings.url)
                    .with_hint("ca_file, cert_file and key_file name readable PEM files")
            })
        };
        let certificates = if settings.place.tls {
            // Chosen once per process; another part of the program may have chosen before.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client_tls = match (&settings.cert_file, &settings.key_file) {
                (Some(cert), Some(key)) => {
                    Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
                }
                _ => None,
            };
            let root_cert = settings.ca_file.as_deref().map(read).transpose()?;
            Some(TlsCertificates { client_tls, root_cert })
        } else {
            None
        };
        Ok(Self { redis, certificates })
    }

    fn client(&self, node: &Node) -> RedisResult<Client> {
        let address = match node {
            Node::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Node::Tcp { host, port } if self.certificates.is_none() => {
                ConnectionAddr::Tcp(host.clone(), *port)
            }
            Node::Tcp { host, port } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(KEEPALIVE);
        let info = address
            .into_connection_info()?
            .set_tcp_settings(tcp)
            .set_redis_settings(self.redis.clone());
        match &self.certificates {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }
}

/// One connection to one server; after an error it is to be dropped.
pub(super) struct Link {
    connection: Connection,
    timeout: Duration,
}

impl Link {
    pub(super) fn open(node: &Node, access: &Access, timeout: Duration) -> RedisResult<Self> {
        let connection = access.client(node)?.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(Self { connection, timeout })
    }

    /// How long the server may be silent from now on.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> RedisResult<()> {
        let timeout = timeout.max(SHORTEST);
        if timeout != self.timeout {
            self.connection.set_read_timeout(Some(timeout))?;
            self.connection.set_write_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Sends a request and takes its answers, errors of the server among them.
    pub(super) fn call(&mut self, request: &Request<'_>) -> RedisResult<Vec<Value>> {
        request.send(&mut self.connection)?;
        (0..request.commands()).map(|_| self.connection.recv_response()).collect()
    }

    /// Sends requests of one command each, at most `ahead` before their answers, which `take` gets.
    pub(super) fn stream(
        &mut self,
        requests: &[Request<'_>],
        ahead: usize,
        mut take: impl FnMut(usize, Value),
    ) -> RedisResult<()> {
        let mut unsent = requests.iter();
        for request in unsent.by_ref().take(ahead) {
            request.send(&mut self.connection)?;
        }
        for index in 0..requests.len() {
            take(index, self.connection.recv_response()?);
            if let Some(request) = unsent.next() {
                request.send(&mut self.connection)?;
            }
        }
        Ok(())
    }

    /// Listens on a channel while `listen` runs; the link is as before when this succeeds.
    ///
    /// `listen` is given a function that sleeps up to a time, and says whether there was a message.
    pub(super) fn subscribed<T>(
        &mut self,
        channel: &[u8],
        listen: impl FnOnce(&mut dyn FnMut(Duration) -> RedisResult<bool>) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let mut subscription = self.connection.as_pubsub();
        subscription.subscribe(channel)?;
        let outcome = listen(&mut |time| {
            subscription.set_read_timeout(Some(time.max(SHORTEST)))?;
            match subscription.get_message() {
                Ok(_) => Ok(true),
                Err(error) if error.is_timeout() => Ok(false),
                Err(error) => Err(error),
            }
        });
        // Dropping it unsubscribes; a server that is too slow for that loses the connection.
        subscription.set_read_timeout(Some(self.timeout.min(Duration::from_millis(500))))?;
        drop(subscription);
        let outcome = outcome?;
        // It cannot say whether it succeeded, so see whether answers still follow questions.
        let answers = self.call(Request::default().command(&[b"ECHO", channel]))?;
        self.connection.set_read_timeout(Some(self.timeout))?;
        match &answers[..] {
            [Value::BulkString(echo)] if echo == channel => Ok(outcome),
            _ => Err(RedisError::from(std::io::Error::other("the connection is out of step"))),
        }
    }
}
