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

/// What case names call a model: the last part of its ID, with a `-` for what no name may hold. Empty where
/// nothing of it may be in a name.
pub(super) fn of_model(id: &str) -> String {
    let last = id.trim_end_matches('/').rsplit('/').next().unwrap_or(id);
    let mut name = String::with_capacity(last.len());
    for character in last.chars() {
        match character {
            character if is_allowed(character) => name.push(character),
            // One for several in a row, and none where the name begins.
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    let end = name.trim_end_matches('-').len();
    if !last.ends_with('-') {
        name.truncate(end);
    }
    name
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

    #[test]
    fn what_no_name_may_hold_is_left_out_of_the_name_of_a_model() {
        for (id, name) in [
            ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet-20240620"),
            ("org/m (v2), final", "m-v2-final"),
            ("@a/@b@", "b"),
            ("llama3:8b", "llama3:8b"),
            ("a--b-", "a--b-"),
            ("\u{6a21}\u{578b}-7b", "-7b"),
            ("\u{6a21}", ""),
        ] {
            assert_eq!(of_model(id), name, "{id}");
            assert!(name.is_empty() || fault(name).is_none(), "{name}");
        }
    }
}
