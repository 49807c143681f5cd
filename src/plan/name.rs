//! The parts of case names. Names go through shells, filters of test runners and file systems. Pure.

use toml::Spanned;

use crate::config::{ConfigError, ConfigFile};

/// Why `text` cannot be part of a case name; `None` if it can.
pub(super) fn fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("a name cannot be empty".to_owned());
    }
    let bad = text.chars().find(|&character| !is_allowed(character))?;
    Some(format!("`{text}` holds {bad:?}: names are made of letters, digits and . _ : + - only"))
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._:+-".contains(character)
}

/// What case names call a model: the last part of its ID.
pub(super) fn of_model(id: &str) -> &str {
    id.trim_end_matches('/').rsplit('/').next().unwrap_or(id)
}

/// A name of the file that can be part of a case's name; an error at its place if it cannot.
pub(super) fn checked(file: &ConfigFile, name: &Spanned<String>) -> Result<String, ConfigError> {
    match fault(name.get_ref()) {
        Some(fault) => Err(file.error(name.span(), fault)),
        None => Ok(name.get_ref().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_space_comma_bracket_or_separator() {
        for text in ["vllm", "Llama-3.1-8B-Instruct", "llama3:8b", "a_b+c"] {
            assert_eq!(fault(text), None, "{text}");
        }
        for text in ["", "a b", "a,b", "a(b", "a[b", "a/b", "a@b", "\u{e4}"] {
            assert!(fault(text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_model_is_called_by_the_last_part_of_its_id() {
        for (id, name) in [("org/Llama-8B", "Llama-8B"), ("m", "m"), ("/models/tiny/", "tiny")] {
            assert_eq!(of_model(id), name);
        }
    }
}
