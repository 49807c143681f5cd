//! Text that must never be shown: it has no way to be printed, and is taken out of others' texts.

use std::fmt;

/// An API key or a header's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` without this secret: a server may quote a key that it refuses.
    pub fn redact(&self, text: String) -> String {
        // A very short value would blot out ordinary text and is no secret.
        if self.0.len() < 4 || !text.contains(&self.0) {
            return text;
        }
        text.replace(&self.0, "[redacted]")
    }
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
}
