//! `${VARIABLE}` in the values of a plan file.

/// What became of a text with variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expanded<T = String> {
    /// Every variable is set.
    Text(T),
    /// This one is not set, or is empty.
    Unset(String),
}

/// Replaces each `${VARIABLE}` by what `lookup` gives for it. An error says what is wrong with the
/// text itself.
pub(super) fn expand(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Expanded, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| format!("`{text}`: a `${{` without `}}`"))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{text}`: `{name}` is no name of an environment variable"));
        }
        expanded.push_str(before);
        match lookup(name) {
            Some(value) if !value.is_empty() => expanded.push_str(&value),
            _ => return Ok(Expanded::Unset(name.to_owned())),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Expanded::Text(expanded))
}

/// The process's own environment.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("example.org".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced() {
        for (text, expected) in [
            ("http://${HOST}/v1", "http://example.org/v1"),
            ("${HOST}${HOST}", "example.orgexample.org"),
            ("plain $HOST", "plain $HOST"),
        ] {
            assert_eq!(expand(text, lookup), Ok(Expanded::Text(expected.to_owned())));
        }
    }

    #[test]
    fn an_unset_or_empty_variable_is_named() {
        for name in ["NONE", "EMPTY"] {
            let text = format!("http://${{{name}}}");
            assert_eq!(expand(&text, lookup), Ok(Expanded::Unset(name.to_owned())));
        }
    }

    #[test]
    fn a_malformed_variable_is_an_error() {
        for text in ["${HOST", "${}", "${A-B}"] {
            assert!(expand(text, lookup).is_err(), "{text}");
        }
    }
}
