//! Which relay is believed: one with exactly the certificate that was configured, whoever signed it, which makes a relay
//! without a certificate authority safe; where none was, and for relays of others, one of a known authority.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use iroh::RelayUrl;
use iroh::tls::CaTlsConfig;
use proxystore::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config;

const PATIENCE: Duration = Duration::from_secs(10);
const FETCH: &str = "read a relay's certificate";
const TRUST: &str = "trust a relay";

/// SHA-256 of a certificate, as 64 hexadecimal digits.
pub fn fingerprint_of(certificate: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref())
}

/// A fingerprint in the form of [`fingerprint_of`]: people also write them in capitals and with colons.
///
/// # Errors
/// When it is none.
pub fn parse_fingerprint(text: &str) -> Result<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    let digits = digits.to_ascii_lowercase();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(Error::new(ErrorKind::Config, TRUST, "this is no fingerprint")
        .with("fingerprint", format_args!("{text:?}"))
        .with_hint("copy what the relay prints when it starts: 64 hexadecimal digits"))
}

/// How relays are checked, for [`Builder::ca_tls_config`](iroh::endpoint::Builder::ca_tls_config): the certificate
/// with the configured fingerprint is believed whatever its names, signer and dates, and at the host of the configured
/// relay no other; elsewhere also those of the authorities.
///
/// # Errors
/// When fingerprint or URL are none, and when the file of the authority cannot be used.
pub fn checks(config: &config::Relay) -> Result<CaTlsConfig> {
    let by_authority = authorities(&config.ca_file)?;
    if config.fingerprint.is_empty() {
        return Ok(by_authority);
    }
    let pin = parse_fingerprint(&config.fingerprint)?;
    let host = host_and_port(&config.url)?.0.trim_matches(['[', ']']).to_owned();
    Ok(CaTlsConfig::custom_server_cert_verifier(Arc::new(move |provider| {
        let otherwise = by_authority.server_cert_verifier(Arc::clone(&provider))?;
        let believed = Believed::Pinned { pin: pin.clone(), host: host.clone(), otherwise };
        Ok(Arc::new(Verifier { believed, provider }))
    })))
}

fn authorities(file: &Path) -> Result<CaTlsConfig> {
    if file.as_os_str().is_empty() {
        return Ok(CaTlsConfig::embedded());
    }
    let failed = |error| Error::io(TRUST, error).with("ca_file", file.display());
    let bytes = fs::read(file).map_err(failed)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let mut roots = found.map_err(|error| failed(io::Error::other(error)))?;
    if roots.is_empty() {
        roots.push(CertificateDer::from(bytes)); // it may be in the binary form
    }
    Ok(CaTlsConfig::custom_roots(roots))
}

/// The certificate that a relay at `url` shows, if it has this fingerprint.
///
/// # Errors
/// When it cannot be reached, and when it shows another certificate; then names both fingerprints.
pub async fn trusted(url: &str, fingerprint: &str) -> Result<CertificateDer<'static>> {
    let expected = parse_fingerprint(fingerprint)?;
    let (host, port) = host_and_port(url)?;
    let certificate = fetch_certificate(&host, port).await?;
    let shown = fingerprint_of(&certificate);
    if shown == expected {
        return Ok(certificate);
    }
    Err(Error::new(ErrorKind::Untrusted, TRUST, "it shows another certificate than the one to believe")
        .with("relay", url)
        .with("fingerprint", shown)
        .with("expected", expected)
        .with_hint("compare with what the relay prints when it starts; if that differs too, somebody is in between"))
}

/// The certificate that a server shows. It is not verified: compare its fingerprint.
///
/// # Errors
/// When it cannot be reached within ten seconds, or does not speak TLS.
pub async fn fetch_certificate(host: &str, port: u16) -> Result<CertificateDer<'static>> {
    let address = format!("{host}:{port}");
    let failed = |error: Error| error.with("address", &address);
    tokio::time::timeout(PATIENCE, fetch(host, port)).await.map_or_else(
        |_| {
            let hint = "check that the relay runs, and that firewalls let TCP to this port pass";
            Err(failed(Error::new(ErrorKind::Timeout, FETCH, "there is no answer").with_hint(hint)))
        },
        |result| result.map_err(failed),
    )
}

async fn fetch(host: &str, port: u16) -> Result<CertificateDer<'static>> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(bare.clone()).map_err(|source| {
        Error::new(ErrorKind::Config, FETCH, "this is no name of a host").with_source(source)
    })?;
    let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(|error| {
        Error::io(FETCH, error).with_hint("check that the relay runs, and its address and port")
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier { believed: Believed::Any, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::new(ErrorKind::Config, FETCH, source.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
            Error::io(FETCH, error)
                .with_hint("something else than a relay answers there: check the port")
        })?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    shown
        .map(|certificate| certificate.clone().into_owned())
        .ok_or_else(|| Error::new(ErrorKind::Io, FETCH, "it shows none"))
}

/// Host and port of `https://HOST:PORT`; 443 where there is no port.
pub(super) fn host_and_port(url: &str) -> Result<(String, u16)> {
    let parsed = relay_url(url)?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    Ok((host, parsed.port_or_known_default().unwrap_or(443)))
}

/// The URL of a relay.
///
/// # Errors
/// When it is not `https://HOST:PORT`.
pub fn relay_url(text: &str) -> Result<RelayUrl> {
    let url: Option<RelayUrl> = text.parse().ok();
    url.filter(|url| url.scheme() == "https" && url.host_str().is_some()).ok_or_else(|| {
        Error::new(ErrorKind::Config, "reach a relay", "this is no relay's URL")
            .with("relay", format_args!("{text:?}"))
            .with_hint("write it as https://HOST:PORT")
    })
}

/// Takes what is believed; the server proves that it has the key either way.
#[derive(Debug)]
struct Verifier {
    believed: Believed,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Believed {
    /// Every certificate: it is looked at later.
    Any,
    /// The one with this fingerprint; at other hosts than this one, also what somebody else says.
    Pinned { pin: String, host: String, otherwise: Arc<dyn ServerCertVerifier> },
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Believed::Pinned { pin, host, otherwise } = &self.believed else {
            return Ok(ServerCertVerified::assertion());
        };
        let found = fingerprint_of(certificate);
        if found == *pin {
            return Ok(ServerCertVerified::assertion());
        }
        if !name.to_str().eq_ignore_ascii_case(host) {
            return otherwise.verify_server_cert(certificate, intermediates, name, ocsp, now);
        }
        tracing::warn!(
            found,
            configured = pin,
            "the relay has another certificate; if that is right, set `fingerprint` in section [relay]",
        );
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
