//! Names of files made of names that others chose: of cases, models and backends. Pure.
//!
//! Every system takes them, artifact stores included; the name in the file stays what it was.

use sha2::{Digest as _, Sha256};

/// The longest name without its ending, bytes; endings and numbers still fit into 200.
const LONGEST: usize = 150;
/// Letters and digits of every script are safe, and these.
const SAFE: &str = "-_.+@=,";
/// What Windows takes for a device, whatever follows behind a point.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
/// The same with a digit behind them.
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// A name for the file of something with this name. Where a character is replaced or the end is cut off, a part of
/// the name's hash follows, so that two names stay two.
pub fn file_name(name: &str) -> String {
    let cleaned = cleaned(name);
    if cleaned == name && name.len() <= LONGEST { cleaned } else { marked(&cleaned, name) }
}

/// A name for the file of a case: `+` stands for `/`. Where another case's name differs from it by upper and lower
/// case alone (`is_ambiguous`), it is told apart from it on systems that do not see the difference.
pub fn of_case(case: &str, is_ambiguous: bool) -> String {
    let name = case.replace('/', "+");
    let cleaned = cleaned(&name);
    if cleaned == name && name.len() <= LONGEST && !is_ambiguous && !case.contains('+') {
        cleaned
    } else {
        marked(&cleaned, case)
    }
}

fn cleaned(name: &str) -> String {
    let is_safe = |character: char| character.is_alphanumeric() || SAFE.contains(character);
    let safe = |character| if is_safe(character) { character } else { '_' };
    let mut cleaned: String = name.chars().map(safe).collect();
    // A hidden file, or a flag.
    if cleaned.starts_with(['.', '-']) {
        cleaned.replace_range(..1, "_");
    }
    // Windows drops a point at the end.
    if cleaned.ends_with('.') {
        cleaned.pop();
        cleaned.push('_');
    }
    if cleaned.is_empty() || is_device(&cleaned) {
        cleaned.insert(0, '_');
    }
    cleaned
}

fn is_device(name: &str) -> bool {
    let name = name.split('.').next().unwrap_or_default().to_lowercase();
    let numbered = |device: &str| {
        name.strip_prefix(device).is_some_and(|rest| {
            rest.chars().count() == 1 && rest.chars().all(|digit| digit.is_numeric())
        })
    };
    DEVICES.contains(&name.as_str()) || NUMBERED_DEVICES.iter().any(|device| numbered(device))
}

/// `cleaned`, cut, and with a part of the hash of `name`.
fn marked(cleaned: &str, name: &str) -> String {
    let hash = Sha256::digest(name.as_bytes());
    let mark: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut end = cleaned.len().min(LONGEST - mark.len() - 1);
    while !cleaned.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{mark}", &cleaned[..end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_is_safe_is_that_of_the_file() {
        for name in ["vllm", "vllm-inf.0qps-Llama-3.1-8B-Instruct", "模型", "a_b@4qps"] {
            assert_eq!(file_name(name), name);
        }
        assert_eq!(of_case("vllm/m-1.5/sharegpt@4qps", false), "vllm+m-1.5+sharegpt@4qps");
    }

    #[test]
    fn what_some_system_refuses_is_replaced() {
        for name in ["llama3.1:8b", "a\\..\\b", "x\n::error::y\u{1b}[31m", "a\0b", "..", "", "a."] {
            let file = file_name(name);
            assert!(!file.contains([':', '\\', '\n', '\u{1b}', '\0', '[']), "{file:?}");
            assert!(!file.starts_with('.') && !file.ends_with('.'), "{file:?}");
        }
        for device in ["CON", "nul.txt", "com1", "LPT9.log", "com¹"] {
            assert!(file_name(device).starts_with('_'), "{device}");
        }
        for other in ["console", "com", "com10", "lpt-1"] {
            assert_eq!(file_name(other), other);
        }
    }

    #[test]
    fn names_that_differ_have_files_that_differ() {
        let long = "m".repeat(300);
        let longer = "m".repeat(301);
        let names = ["a:b", "a?b", "a_b", "a b", "A_B", &long, &longer];
        let files: BTreeSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len(), "{files:?}");
        let cases = ["a+b/c", "a/b+c", "a/b/c"];
        let files: BTreeSet<String> = cases.iter().map(|case| of_case(case, false)).collect();
        assert_eq!(files.len(), cases.len(), "{files:?}");
        let (one, other) = (of_case("a/Z1/w", true), of_case("a/z1/w", true));
        assert_ne!(one.to_lowercase(), other.to_lowercase());
    }

    proptest! {
        #[test]
        fn every_name_is_short_and_stays_one_part_of_a_path(name in any::<String>()) {
            let file = file_name(&name);
            prop_assert!(!file.is_empty() && file.len() <= LONGEST);
            prop_assert!(!file.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|']));
            prop_assert!(!file.chars().any(char::is_control));
            prop_assert_eq!(file_name(&file), file.clone());
        }
    }
}
