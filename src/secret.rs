//! Text that must never be shown: it has no way to be printed, and is taken out of others' texts.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};
use url::Url;

/// A shorter text would blot out ordinary text and is no secret.
const SHORTEST: usize = 4;
/// A value of a query so long is a secret whatever its name.
const LONG: usize = 20;

/// An API key, a password or a header's value, in every form in which it may have been sent or quoted.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// The text itself among them; the longest first.
    forms: Arc<[String]>,
}

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut hidden = vec![text.clone()];
        // `Bearer KEY` and the like: the key alone is a secret too.
        if let Some((scheme, value)) = text.split_once(' ') {
            let value = value.trim();
            hidden.push(value.to_owned());
            if scheme.eq_ignore_ascii_case("basic")
                && let Some(pair) =
                    BASE64.decode(value).ok().and_then(|pair| String::from_utf8(pair).ok())
            {
                hidden.extend(pair.split_once(':').map(|(_, password)| password.to_owned()));
                hidden.push(pair);
            }
        }
        Self { forms: forms(&hidden), text }
    }

    /// What a URL holds that nobody else is to know: its password, the header that is made of it, and the values of its
    /// query that look like keys.
    pub fn of_url(url: &Url) -> Vec<Self> {
        let mut secrets = Vec::new();
        if let Some(password) = url.password() {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let pair = format!("{}:{}", decoded(url.username()), decoded(password));
            let hidden = [BASE64.encode(&pair), pair, decoded(password), password.to_owned()];
            secrets.push(Self { text: decoded(password), forms: forms(&hidden) });
        }
        for (name, value) in url.query_pairs() {
            if is_secret(&name) || LONG <= value.len() {
                secrets.push(Self::new(value.into_owned()));
            }
        }
        secrets
    }

    /// The fields of a request's body whose names say that they are secret.
    pub fn of_body(body: &Map<String, Value>) -> Vec<Self> {
        let secret = |(name, value): (&String, &Value)| match value {
            Value::String(text) if is_secret(name) => vec![Self::new(text.clone())],
            Value::Object(object) => Self::of_body(object),
            _ => Vec::new(),
        };
        body.iter().flat_map(secret).collect()
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// `text` without this secret in any of its forms: a server may quote a key that it refuses.
    pub fn redact(&self, text: String) -> String {
        self.forms.iter().fold(text, |text, form| {
            if text.contains(form.as_str()) {
                text.replace(form.as_str(), "[redacted]")
            } else {
                text
            }
        })
    }
}

/// Whether the value of a field with this name is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["key", "token", "secret", "passw", "auth", "sig", "credential", "session"];
    // Lengths in tokens are none.
    words.iter().any(|word| name.contains(word)) && !name.ends_with("tokens")
}

/// What these texts look like as they are, in a URL, in JSON and in Base64.
fn forms(texts: &[String]) -> Arc<[String]> {
    let mut forms = Vec::new();
    for text in texts.iter().filter(|text| SHORTEST <= text.len()) {
        let json = Value::from(text.as_str()).to_string();
        let json = json.trim_matches('"').to_owned();
        let in_url = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        forms.extend([
            json.replace('/', r"\/"),
            json,
            in_url.replace("%2D", "-").replace("%2E", ".").replace("%5F", "_").replace("%7E", "~"),
            in_url,
            BASE64.encode(text),
            BASE64.encode(text).trim_end_matches('=').to_owned(),
            text.clone(),
        ]);
    }
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.dedup();
    forms.into()
}

/// `text` without any of `secrets`.
pub fn redact_all<'a>(secrets: impl IntoIterator<Item = &'a Secret>, text: String) -> String {
    secrets.into_iter().fold(text, |text, secret| secret.redact(text))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_is_taken_out_of_texts() {
        let secret = Secret::new("sk-12345");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        let text = secret.redact("Incorrect API key: sk-12345.".to_owned());
        assert_eq!(text, "Incorrect API key: [redacted].");
    }

    #[test]
    fn a_secret_is_found_in_every_form_in_which_it_is_sent() {
        let redacted = |secret: &Secret, text: &str| secret.redact(format!("<{text}>"));
        let bearer = Secret::new("Bearer sk-a/b+c\"d");
        for quoted in [
            "Bearer sk-a/b+c\"d",
            "sk-a/b+c\"d",
            r#"sk-a/b+c\"d"#,
            r#"sk-a\/b+c\"d"#,
            "sk-a%2Fb%2Bc%22d",
            "sk%2Da%2Fb%2Bc%22d",
            &BASE64.encode("sk-a/b+c\"d"),
        ] {
            assert_eq!(redacted(&bearer, quoted), "<[redacted]>", "{quoted}");
        }
        let basic = Secret::new(format!("Basic {}", BASE64.encode("me:hunter22")));
        for quoted in ["hunter22", "me:hunter22", &BASE64.encode("me:hunter22")] {
            assert_eq!(redacted(&basic, quoted), "<[redacted]>", "{quoted}");
        }
    }

    #[test]
    fn a_url_has_its_password_and_its_keys_hidden() {
        let url =
            "http://me:hunter%2F22@host/x?key=QSECRET&api-version=2024-06-01&max_tokens=12345";
        let secrets = Secret::of_url(&url.parse().unwrap());
        let redacted = |text: &str| redact_all(&secrets, text.to_owned());
        for quoted in ["hunter/22", "hunter%2F22", &BASE64.encode("me:hunter/22"), "QSECRET"] {
            assert_eq!(redacted(quoted), "[redacted]", "{quoted}");
        }
        assert_eq!(redacted("2024-06-01 of me: 12345"), "2024-06-01 of me: 12345");
    }
}
