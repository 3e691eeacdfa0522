//! The relay's certificate: from files of its operator, or made here, kept, and believed by its fingerprint.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use proxystore::{Error, ErrorKind, Result};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::config::Config;
use super::pin::fingerprint_of;
use crate::directory::write_private;

const READ: &str = "read the relay's certificate";
const MAKE: &str = "make a certificate for the relay";

/// Files of a certificate, and what was read from them last.
#[derive(Debug)]
pub(super) struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    shown: Mutex<Arc<Shown>>,
}

/// What endpoints are shown.
#[derive(Debug)]
pub(super) struct Shown {
    key: Arc<CertifiedKey>,
    /// SHA-256 of the certificate.
    pub(super) fingerprint: String,
    /// Whether no authority signed it.
    pub(super) self_signed: bool,
    /// What it is valid for.
    pub(super) names: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub(super) expires: i64,
}

impl Certificate {
    /// Reads the configured files; without any, those in the relay's directory, which are made if they are not there.
    pub(super) fn open(config: &Config) -> Result<Arc<Self>> {
        let own = config.certificate.as_os_str().is_empty();
        let (chain_file, key_file) = if own {
            (config.directory.join("certificate.pem"), config.directory.join("key.pem"))
        } else {
            (config.certificate.clone(), config.key.clone())
        };
        if own && !chain_file.exists() {
            make(&names(config), &chain_file, &key_file)?;
        }
        let shown = Mutex::new(Arc::new(read(&chain_file, &key_file)?));
        Ok(Arc::new(Self { chain_file, key_file, shown }))
    }

    /// What endpoints are shown now.
    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, for they are renewed while the relay runs. What was read before stays in use when
    /// they cannot be read.
    pub(super) fn reload(&self) {
        match read(&self.chain_file, &self.key_file) {
            Ok(new) if new.fingerprint != self.shown().fingerprint => {
                info!(fingerprint = new.fingerprint, "the certificate was renewed");
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the certificate is not renewed"),
        }
    }

    /// How TLS is spoken with it.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::new(ErrorKind::Config, READ, source.to_string()))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        Ok(builder.with_no_client_auth().with_cert_resolver(resolver))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown().key))
    }
}

/// What a certificate made here is valid for.
fn names(config: &Config) -> Vec<String> {
    if !config.names.is_empty() {
        return config.names.clone();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names = vec![host, "localhost".into(), "127.0.0.1".into(), "::1".into()];
    if !config.host.is_unspecified() {
        names.push(config.host.to_string());
    }
    names.sort();
    names.dedup();
    names
}

fn make(names: &[String], chain_file: &Path, key_file: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(names).map_err(|source| {
        Error::new(ErrorKind::Config, MAKE, source.to_string())
            .with("names", names.join(", "))
            .with_hint("write names of hosts and addresses in `names`, without scheme and port")
    })?;
    let failed = |error| Error::io(MAKE, error).with("file", chain_file.display());
    if let Some(directory) = chain_file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    // The certificate last: where it is, its key is.
    write_private(key_file, &made.signing_key.serialize_pem()).map_err(failed)?;
    write_private(chain_file, &made.cert.pem()).map_err(failed)?;
    info!(file = %chain_file.display(), names = names.join(", "), "a certificate was made");
    Ok(())
}

fn read(chain_file: &Path, key_file: &Path) -> Result<Shown> {
    let failed = |file: &Path, error: pem::Error| {
        match error {
        pem::Error::Io(error) => Error::io(READ, error)
            .with("file", file.display())
            .with_hint("check the path, and that the user of the relay may read it"),
        error => Error::new(ErrorKind::Corrupt, READ, error.to_string())
            .with("file", file.display())
            .with_hint("give PEM files: a chain with `BEGIN CERTIFICATE`, and a key with `BEGIN PRIVATE KEY`"),
    }
    };
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(chain_file, error))?;
    let leaf = chain.first().ok_or_else(|| failed(chain_file, pem::Error::NoItemsFound))?;
    let (self_signed, names, expires) = facts(leaf, chain_file)?;
    let fingerprint = fingerprint_of(leaf);
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| failed(key_file, error))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|source| {
        let (message, hint) = match source {
            rustls::Error::InconsistentKeys(_) => (
                "the key is not that of the certificate".into(),
                "give the key that was made for this certificate; the chain starts with the relay's own",
            ),
            _ => (source.to_string(), "have certificate and key made again, by ECDSA P-256 or RSA"),
        };
        Error::new(ErrorKind::Config, READ, message)
            .with("certificate", chain_file.display())
            .with("key", key_file.display())
            .with_hint(hint)
            .with_source(source)
    })?;
    Ok(Shown { key: Arc::new(key), fingerprint, self_signed, names, expires })
}

/// Whether no authority signed a certificate, what it is valid for, and until when.
fn facts(leaf: &CertificateDer<'_>, file: &Path) -> Result<(bool, Vec<String>, i64)> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|source| {
        Error::new(ErrorKind::Corrupt, READ, source.to_string()).with("file", file.display())
    })?;
    let expires = certificate.validity().not_after.timestamp();
    if expires <= now() {
        return Err(Error::new(ErrorKind::Config, READ, "it is expired")
            .with("file", file.display())
            .with("expired", certificate.validity().not_after)
            .with_hint("renew it; or remove it, if it was made here, and tell endpoints the new fingerprint"));
    }
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.map_or(&[][..], |names| &names.value.general_names);
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(raw) => match raw.len() {
            4 => {
                <[u8; 4]>::try_from(*raw).ok().map(|raw| std::net::Ipv4Addr::from(raw).to_string())
            }
            _ => {
                <[u8; 16]>::try_from(*raw).ok().map(|raw| std::net::Ipv6Addr::from(raw).to_string())
            }
        },
        _ => None,
    });
    Ok((certificate.issuer() == certificate.subject(), names.collect(), expires))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
