//! Which servers are believed: those that the system's authorities vouch for or those of the plan, and those
//! whose very certificate the plan names.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::certificate;

/// Verifies certificates of servers.
#[derive(Debug)]
pub(super) struct Trust {
    /// The certificates of the plan.
    given: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    /// By authorities: those of the system, which are read when they are first needed, and those given.
    authorities: OnceLock<Result<Verifier, Error>>,
}

impl Trust {
    /// Trusts the system's authorities and what is `given`.
    pub(super) fn new(given: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Self {
        Self { given, provider, authorities: OnceLock::new() }
    }

    fn authorities(&self) -> Result<&Verifier, Error> {
        let read =
            || Verifier::new_with_extra_roots(self.given.clone(), Arc::clone(&self.provider));
        self.authorities.get_or_init(read).as_ref().map_err(Error::clone)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Who is known needs nobody's word: a certificate that `openssl req -x509` makes is of an authority, and
        // so could be no server's.
        if self.given.iter().any(|given| given == end_entity) {
            certificate::check(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let authorities = self.authorities()?;
        authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What to do about an error in which a handshake failed; empty where that is not known.
pub fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match of_tls(error) {
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::Other(_),
        )) => "; name who is to be trusted with tls = { ca = \"…\" } or --ca",
        Some(Error::InvalidMessage(_)) => "; does the server speak https?",
        Some(Error::General(text)) if text.starts_with("No CA certificates") => {
            "; install them (on Debian, the package ca-certificates), or name who is to be trusted with \
             tls = { ca = \"…\" } or --ca"
        }
        _ => "",
    }
}

/// The error of TLS that an error holds or has as a cause.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    if let Some(error) = error.downcast_ref() {
        return Some(error);
    }
    // An error of input and output holds another one, which is not its cause.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let held = held.map(|held| -> &'a (dyn std::error::Error + 'static) { held });
    held.or(error.source()).and_then(of_tls)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    use rustls::CertificateError;

    use super::*;

    /// A certificate that signs itself, as `openssl req -x509` makes them.
    fn self_signed(
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(
        given: &CertificateDer<'static>,
        shown: &CertificateDer<'_>,
        name: &str,
    ) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let name = ServerName::try_from(name).unwrap();
        let trust = Trust::new(vec![given.clone()], provider);
        trust.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).map(|_| ())
    }

    #[test]
    fn a_server_whose_own_certificate_is_given_is_trusted_by_its_names() {
        let of_authority = self_signed(&["localhost", "*.example.com", "127.0.0.1"], |_| {});
        let of_server = self_signed(&["localhost"], |params| params.is_ca = IsCa::ExplicitNoCa);
        for name in ["localhost", "a.example.com", "127.0.0.1"] {
            assert_eq!(verify(&of_authority, &of_authority, name), Ok(()), "{name}");
        }
        assert_eq!(verify(&of_server, &of_server, "localhost"), Ok(()));
        for name in ["other", "example.com", "127.0.0.2"] {
            let error = verify(&of_authority, &of_authority, name).unwrap_err();
            let Error::InvalidCertificate(error) = error else { panic!("{error}") };
            assert!(
                matches!(error, CertificateError::NotValidForNameContext { .. }),
                "{name}: {error:?}"
            );
        }
    }

    #[test]
    fn one_that_is_not_the_one_given_is_not_trusted() {
        let [given, shown] =
            [self_signed(&["localhost"], |_| {}), self_signed(&["localhost"], |_| {})];
        assert!(verify(&given, &shown, "localhost").is_err());
    }

    #[test]
    fn the_certificate_that_is_given_must_be_of_today() {
        let ended = self_signed(&["localhost"], |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        let expired = verify(&ended, &ended, "localhost");
        assert_eq!(expired, Err(CertificateError::Expired.into()));
        let to_come = self_signed(&["localhost"], |params| {
            params.not_before = rcgen::date_time_ymd(2999, 1, 1);
        });
        let early = verify(&to_come, &to_come, "localhost");
        assert_eq!(early, Err(CertificateError::NotValidYet.into()));
    }

    #[test]
    fn the_common_name_counts_where_a_certificate_has_no_other() {
        let called = |name: &'static str, names: &[&str]| {
            self_signed(names, |params| {
                params.distinguished_name.push(DnType::CommonName, name);
                params.distinguished_name.push(DnType::OrganizationName, "h");
            })
        };
        for (common, names, host, trusted) in [
            ("host", &[][..], "host", true),
            ("HOST", &[], "host", true),
            ("*.example.com", &[], "a.example.com", true),
            ("*.example.com", &[], "a.b.example.com", false),
            ("10.0.0.1", &[], "10.0.0.1", true),
            ("host", &[], "h", false),
            ("host", &["other"], "host", false),
        ] {
            let certificate = called(common, names);
            let verified = verify(&certificate, &certificate, host);
            assert_eq!(verified.is_ok(), trusted, "{common} {names:?} {host}: {verified:?}");
        }
    }
}
