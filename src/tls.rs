//! What makes a connection secure: the certificates that the system trusts, those that the plan adds, and
//! the client's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Deserialize;

mod certificate;
mod trust;

use trust::Trust;
pub use trust::hint;

/// TLS as a plan asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// PEM file of certificates to trust beside the system's: of authorities, or of the server itself.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate by which this client shows who it is; `key` goes with it.
    pub cert: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
    /// Trust any server. What is sent, keys included, may be read by whoever stands between.
    #[serde(default)]
    pub insecure: bool,
}

impl TlsOptions {
    /// A client's TLS with these options. The error names the file at fault. The certificates that the system
    /// trusts are first read when a server's has to be verified: who speaks plain http needs none.
    pub fn client_config(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.insecure {
            Arc::new(TrustAll(provider))
        } else {
            let given = match &self.ca {
                Some(path) => certificates(path)?,
                None => Vec::new(),
            };
            Arc::new(Trust::new(given, provider))
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        match (&self.cert, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => {
                let shown = key.display();
                let private = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("`{shown}` holds no private key in PEM form"))?;
                let chain = certificates(cert)?;
                builder
                    .with_client_auth_cert(chain, private)
                    .with_context(|| format!("`{shown}` is no key for `{}`", cert.display()))
            }
            _ => bail!("`cert` and `key` go together"),
        }
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> =
        read.with_context(|| format!("`{shown}` cannot be read as certificates in PEM form"))?;
    if certificates.is_empty() {
        bail!("`{shown}` holds no certificate in PEM form");
    }
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        let added = store.add(certificate.clone());
        added.with_context(|| format!("`{shown}` holds a certificate that cannot be read"))?;
    }
    Ok(certificates)
}

/// Believes every certificate, and still that its owner signed.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (
            file("cert.pem", &made.cert.pem()),
            file("key.pem", &made.signing_key.serialize_pem()),
        );
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other_key = file("other.pem", &other.signing_key.serialize_pem());
        let plain = TlsOptions::default();
        for (options, fault) in [
            (TlsOptions { ca: Some("none.pem".into()), ..plain.clone() }, "`none.pem` cannot be"),
            (TlsOptions { ca: file("empty.pem", ""), ..plain.clone() }, "empty.pem` holds no cert"),
            (TlsOptions { cert: cert.clone(), ..plain.clone() }, "`cert` and `key` go together"),
            (
                TlsOptions { cert: cert.clone(), key: cert.clone(), ..plain.clone() },
                "cert.pem` holds no private key",
            ),
            (
                TlsOptions { cert: cert.clone(), key: other_key, ..plain.clone() },
                "other.pem` is no key for",
            ),
        ] {
            let error = options.client_config().unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
        for options in [
            plain.clone(),
            TlsOptions { ca: cert.clone(), ..plain.clone() },
            TlsOptions { insecure: true, ..plain.clone() },
            TlsOptions { cert, key, ..plain },
        ] {
            options.client_config().unwrap();
        }
    }
}
