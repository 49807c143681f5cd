//! Whether a certificate that is known already is of a server and of today, as curl sees it. Reads the parts of
//! X.509 (RFC 5280, 4.1) that this takes. Pure.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
/// The object 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Fails where the certificate is not of the server that was asked for, or not of `now`.
pub(super) fn check(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let fields =
        Fields::of(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < fields.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if fields.not_after < now {
        return Err(CertificateError::Expired.into());
    }
    let parsed = ParsedCertificate::try_from(certificate)?;
    match verify_server_name(&parsed, name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) if presented.is_empty() && fields.is_called(&name.to_str()) => Ok(()),
        verified => verified,
    }
}

/// What is of interest in a certificate.
struct Fields<'a> {
    /// Seconds since the epoch.
    not_before: i64,
    not_after: i64,
    common_names: Vec<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// `None` where it is no certificate.
    fn of(certificate: &'a [u8]) -> Option<Self> {
        let mut signed = Elements(Elements(certificate).next()?.content);
        let mut fields = Elements(signed.next()?.content).peekable();
        // The version, the serial number, the algorithm and who signed it.
        fields.next_if(|field| field.tag == VERSION);
        fields.next().filter(|field| field.tag == INTEGER)?;
        let (_algorithm, _issuer) = (fields.next()?, fields.next()?);
        let mut validity = Elements(fields.next()?.content);
        let (not_before, not_after) = (validity.next()?.seconds()?, validity.next()?.seconds()?);
        let subject = Elements(fields.next()?.content);
        // A name is a sequence of sets of pairs.
        let pairs = subject.flat_map(|set| Elements(set.content));
        let common_name = |pair: Element<'a>| {
            let mut pair = Elements(pair.content);
            let kind = pair.next()?;
            let value = pair.next()?;
            (kind.tag == OBJECT && kind.content == COMMON_NAME).then_some(value.content)
        };
        Some(Self { not_before, not_after, common_names: pairs.filter_map(common_name).collect() })
    }

    /// Whether one of its common names is that of the host, or a pattern of it.
    fn is_called(&self, host: &str) -> bool {
        self.common_names.iter().filter_map(|name| std::str::from_utf8(name).ok()).any(|name| {
            let below = name.strip_prefix("*.").filter(|parent| parent.contains('.'));
            let parent = host.split_once('.').map(|(_, parent)| parent);
            let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
            same(name, host) || below.zip(parent).is_some_and(|(below, parent)| same(below, parent))
        })
    }
}

/// One element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

impl Element<'_> {
    /// The time that it is, seconds since the epoch.
    fn seconds(&self) -> Option<i64> {
        let text = std::str::from_utf8(self.content).ok()?.strip_suffix('Z')?;
        let text = match self.tag {
            GENERALIZED_TIME => text.to_owned(),
            // Two digits of a year are of 1950 to 2049.
            UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
            UTC_TIME => format!("19{text}"),
            _ => return None,
        };
        let time = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
        Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
    }
}

/// The elements that follow each other in some bytes, up to the first that is none.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match usize::from(first) {
            short @ ..=0x7f => (short, rest),
            // The number of the bytes that hold the length.
            long @ 0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Element { tag, content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn times_of_both_kinds_are_read() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20501301000000Z", None),
            (GENERALIZED_TIME, "20500101000000", None),
            (INTEGER, "700101000000Z", None),
        ] {
            let element = Element { tag, content: text.as_bytes() };
            assert_eq!(element.seconds(), seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            end in any::<prop::sample::Index>(),
        ) {
            let mut bytes = made().to_vec();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(end.index(bytes.len()) + 1);
            let name = ServerName::try_from("localhost").unwrap();
            let _ = check(&CertificateDer::from(bytes), &name, UnixTime::now());
        }
    }
}
