//! Believing one certificate, whoever signed it: what makes a relay without a certificate authority safe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use iroh::RelayUrl;
use iroh::tls::CaTlsConfig;
use proxystore::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
        .with("fingerprint", text)
        .with_hint("copy what the relay prints when it starts: 64 hexadecimal digits"))
}

/// Believes exactly the certificate with this fingerprint, whatever its names, signer and dates; for
/// [`Builder::ca_tls_config`](iroh::endpoint::Builder::ca_tls_config). Unlike [`trusted`] it needs no
/// relay that answers already.
///
/// # Errors
/// When it is no fingerprint.
pub fn pinned(fingerprint: &str) -> Result<CaTlsConfig> {
    let fingerprint = parse_fingerprint(fingerprint)?;
    Ok(CaTlsConfig::custom_server_cert_verifier(Arc::new(move |provider| {
        let fingerprint = Some(fingerprint.clone());
        Ok(Arc::new(Verifier { fingerprint, provider }))
    })))
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
    let verifier = Verifier { fingerprint: None, provider: Arc::clone(&provider) };
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
    let parsed: Option<RelayUrl> = url.parse().ok();
    let parsed = parsed.as_ref().filter(|url| url.scheme() == "https");
    let Some((parsed, host)) = parsed.and_then(|url| Some((url, url.host_str()?))) else {
        return Err(Error::new(ErrorKind::Config, TRUST, "this is no relay's URL")
            .with("relay", url)
            .with_hint("write it as https://HOST:PORT"));
    };
    Ok((host.to_owned(), parsed.port_or_known_default().unwrap_or(443)))
}

/// Takes one certificate, or any where there is no fingerprint; the server proves that it has the key either way.
struct Verifier {
    fingerprint: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifier").field(&self.fingerprint).finish()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.fingerprint {
            Some(expected) if *expected != fingerprint_of(certificate) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
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
