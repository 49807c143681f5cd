//! Repairs JSON from writers that escape half a character: a lone UTF-16 surrogate becomes U+FFFD. Pure.

/// `json` with each lone surrogate escape replaced by that of U+FFFD; `None` where it has none. A valid pair stays.
/// The length does not change, so places in the text stay right.
pub fn replaced(json: &[u8]) -> Option<Vec<u8>> {
    let mut repaired: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &json[at..]) {
        at += found;
        at += match unit(&json[at..]) {
            // An escaped backslash must not be taken for the beginning of an escape.
            None => 2,
            Some(0xD800..=0xDBFF) if is_low(json.get(at + 6..).unwrap_or_default()) => 12,
            Some(0xD800..=0xDFFF) => {
                let copy = repaired.get_or_insert_with(|| json.to_vec());
                copy[at..at + 6].copy_from_slice(br"\ufffd");
                6
            }
            Some(_) => 6,
        };
        if json.len() < at {
            break;
        }
    }
    repaired
}

/// The UTF-16 unit of an escape such as `\u00e9` at the beginning of `text`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

fn is_low(text: &[u8]) -> bool {
    matches!(unit(text), Some(0xDC00..=0xDFFF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_surrogate_is_replaced_and_all_else_stays() {
        for (json, expected) in [
            (r#""a\ud83db""#, Some(r#""a\ufffdb""#)),
            (r#""\ude00""#, Some(r#""\ufffd""#)),
            (r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
            (r#""\uD83D"#, Some(r#""\ufffd"#)),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud83d""#, None),
            (r#""\u00e9 \n \ud8""#, None),
            (r#""plain""#, None),
            (r"\", None),
        ] {
            let repaired = replaced(json.as_bytes()).map(|json| String::from_utf8(json).unwrap());
            assert_eq!(repaired.as_deref(), expected, "{json}");
        }
    }
}
