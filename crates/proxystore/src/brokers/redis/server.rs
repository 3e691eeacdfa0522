//! The server of a URL, and how long it is tried to be reached.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::fault::{is_passing, report};
use super::link::Link;
use super::socket::{Limit, Waker};
use crate::brokers::{PATIENCE, closed};
use crate::connectors::ConnectorConfig;
use crate::connectors::redis::link::Access;
use crate::connectors::redis::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

const OPEN: &str = "open a broker";

/// Whoever lets a server be silent for longer means for ever, to which no clock can be set.
const LONGEST_SILENCE: Duration = Duration::from_hours(24);

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Server {
    pub(super) settings: Settings,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Server {
    /// The server of `KIND+URL` and options, which are those of the connector.
    pub(super) fn open(kind: &'static str, config: &ConnectorConfig) -> Result<Self> {
        let url = config.url.strip_prefix(kind).and_then(|rest| rest.strip_prefix('+'));
        let Some(url) = url else {
            // Not the URL itself: it may hold a password.
            let cause = format!("its URL does not start with {kind}+redis");
            return Err(Error::new(ErrorKind::Config, OPEN, cause)
                .with_hint(format!("write {kind}+redis://HOST:PORT/DATABASE")));
        };
        let config = ConnectorConfig { url: url.to_owned(), options: config.options.clone() };
        let mut settings = Settings::parse(&config)?;
        settings.timeout = settings.timeout.min(LONGEST_SILENCE);
        if settings.place.is_cluster {
            let cause = "a cluster carries objects, and no messages";
            return Err(Error::new(ErrorKind::Config, OPEN, cause)
                .with("channel", &settings.place)
                .with_hint("name a single server for the messages, and the cluster for a store"));
        }
        let access = Access::new(&settings)?;
        let tls = access.certificates.is_some().then(|| client_config(&access)).transpose();
        let tls = tls.map_err(|error| report(OPEN, error, &settings.place))?.map(Arc::new);
        Ok(Self { settings, tls })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.settings.place)
    }
}

/// How TLS is spoken: whom to believe, and the certificate of this client.
fn client_config(access: &Access) -> RedisResult<ClientConfig> {
    let unusable = |what: &str| RedisError::from(io::Error::other(format!("{what} is not usable")));
    let given = access.certificates.as_ref();
    let mut roots = RootCertStore::empty();
    match given.and_then(|given| given.root_cert.as_deref()) {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|_pem| unusable("ca_file"))?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(match given.and_then(|given| given.client_tls.as_ref()) {
        None => config.with_no_client_auth(),
        Some(client) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&client.client_cert).collect();
            let chain = chain.map_err(|_pem| unusable("cert_file"))?;
            let key = PrivateKeyDer::from_pem_slice(&client.client_key);
            config.with_client_auth_cert(chain, key.map_err(|_pem| unusable("key_file"))?)?
        }
    })
}

/// An operation that outlives broken connections, until its time is up.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) server: &'a Server,
    pub(super) operation: &'static str,
    pub(super) deadline: Option<Instant>,
    /// Ends it; `None` for what is done while its end is being closed.
    pub(super) waker: Option<&'a Arc<Waker>>,
    failures: u32,
    /// The last of them that says more than that the time was up.
    reason: Option<RedisError>,
    /// When the first of them was.
    since: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        server: &'a Server,
        operation: &'static str,
        deadline: Option<Instant>,
        waker: Option<&'a Arc<Waker>>,
    ) -> Self {
        Self {
            server,
            operation,
            deadline,
            waker,
            failures: 0,
            reason: None,
            since: Instant::now(),
        }
    }

    /// Until when an answer has to be here.
    pub(super) fn until(&self) -> Instant {
        let silent = Instant::now() + self.server.settings.timeout;
        self.deadline.map_or(silent, |deadline| deadline.min(silent))
    }

    pub(super) fn limit(&self) -> Limit<'a> {
        Limit { until: self.until(), waker: self.waker }
    }

    pub(super) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    pub(super) fn worked(&mut self) {
        (self.failures, self.reason) = (0, None);
    }

    /// A connection to the server.
    pub(super) fn connect(&mut self) -> Result<Link> {
        loop {
            match Link::open(self.server, self.limit()) {
                Ok(link) => return Ok(link),
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// Returns when it is to be tried again.
    pub(super) fn failed(&mut self, error: RedisError) -> Result<()> {
        self.check_open()?;
        let now = Instant::now();
        let is_first = self.failures == 0;
        if is_first {
            self.since = now;
        }
        let limit = self.deadline.unwrap_or(self.since + PATIENCE);
        // What was idle may have broken unnoticed, and a new connection do, whatever the time.
        if (limit <= now && !is_first) || !is_passing(&error, &self.server.settings.place) {
            let reason = self.reason.take().filter(|_| error.is_timeout());
            return Err(report(
                self.operation,
                reason.unwrap_or(error),
                &self.server.settings.place,
            ));
        }
        if !is_first {
            let pause = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(10));
            let pause = pause.min(LONGEST_PAUSE).min(limit - now);
            match self.waker {
                Some(waker) => waker.sleep(pause),
                None => std::thread::sleep(pause),
            }
        }
        self.failures += 1;
        self.reason = Some(error).filter(|error| !error.is_timeout()).or(self.reason.take());
        self.check_open()
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match self.waker {
            Some(waker) if waker.is_woken() => Err(closed(self.operation)),
            _ => Ok(()),
        }
    }
}
