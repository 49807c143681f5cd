//! What keeps text that others wrote from being more than text: the page's policy, and data that no tag
//! ends. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The Content-Security-Policy of a page that runs these scripts, has these styles, and may ask nothing of
/// anybody. Attributes may hold styles, since charts are made of them; they can load nothing.
pub(super) fn content_security_policy(scripts: &[&str], styles: &[&str]) -> String {
    let hashes = |sources: &[&str]| -> String {
        let hashes = sources.iter().map(|source| {
            format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(source.as_bytes())))
        });
        hashes.collect()
    };
    format!(
        "default-src 'none'; script-src{}; style-src-elem{}; style-src-attr 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'",
        hashes(scripts),
        hashes(styles)
    )
}

/// The JSON of a value as it can stand in a `script` element.
///
/// # Errors
///
/// If the value is none that can be written as JSON.
pub(super) fn embedded_json(value: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut embedded = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // Outside of strings JSON has none of them.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                embedded.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => embedded.push(character),
        }
    }
    Ok(embedded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_ends_no_script_and_is_read_as_it_was() {
        let text = "</script><!--<script>&amp;\u{2028}\u{2029}\"'\u{0}\u{1b}\u{202e}";
        let json = embedded_json(&[text]).unwrap();
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }

    #[test]
    fn a_script_is_known_by_its_hash() {
        let policy = content_security_policy(&["alert('Hello, world.');"], &[]);
        // The example of the specification.
        let hash = "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='";
        assert!(policy.starts_with("default-src 'none';") && policy.contains(hash), "{policy}");
    }
}
