//! Which relay is believed to be the one that was configured.

use std::fs;
use std::io;
use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use iroh::tls::CaTlsConfig;
use proxystore::{Error, ErrorKind, Result};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::config;

const CHECK: &str = "check the relay's certificate";

/// How relays are checked: those with the pinned certificate are believed, others by the authorities.///
/// # Errors
/// When the fingerprint is none, and when the file of the authority cannot be used.
pub fn checks(config: &config::Relay) -> Result<CaTlsConfig> {
    let by_authority = authorities(config)?;
    if config.fingerprint.is_empty() {
        return Ok(by_authority);
    }
    let digits: String = config.fingerprint.chars().filter(|c| !": ".contains(*c)).collect();
    let pin = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
    let pin: [u8; 32] = pin.and_then(|pin| pin.try_into().ok()).ok_or_else(|| {
        Error::new(ErrorKind::Config, CHECK, "the fingerprint is none")
            .with("fingerprint", format_args!("{:?}", config.fingerprint))
            .with_hint("it has 64 hexadecimal digits; the relay writes it when it starts")
    })?;
    Ok(CaTlsConfig::custom_server_cert_verifier(Arc::new(move |provider| {
        let otherwise = by_authority.server_cert_verifier(Arc::clone(&provider))?;
        Ok(Arc::new(Pinned { pin, otherwise, provider }))
    })))
}

fn authorities(config: &config::Relay) -> Result<CaTlsConfig> {
    let path = &config.ca_file;
    if path.as_os_str().is_empty() {
        return Ok(CaTlsConfig::embedded());
    }
    let failed = |error| Error::io(CHECK, error).with("ca_file", path.display());
    let bytes = fs::read(path).map_err(failed)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let mut roots = found.map_err(|error| failed(io::Error::other(error)))?;
    if roots.is_empty() {
        roots.push(CertificateDer::from(bytes)); // it may be in the binary form
    }
    Ok(CaTlsConfig::custom_roots(roots))
}

/// Believes one certificate, whoever signed it.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    otherwise: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = digest(&SHA256, certificate);
        if found.as_ref() == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        self.otherwise.verify_server_cert(certificate, intermediates, name, ocsp, now).inspect_err(|_| {
            tracing::warn!(
                found = HEXLOWER.encode(found.as_ref()),
                configured = HEXLOWER.encode(&self.pin),
                "the relay has another certificate; if that is right, set `fingerprint` in section [relay]",
            );
        })
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
