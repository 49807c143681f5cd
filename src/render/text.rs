//! Text that others wrote (a server, a plan), made harmless in a line of ours. Pure.

/// The text in one line, without what a terminal or a viewer would obey: line breaks are spaces, and the
/// other control characters and those that turn the direction of the text are shown by their numbers.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => plain.push(' '),
            _ if character.is_control() || turns(character) => {
                plain.extend(character.escape_unicode());
            }
            _ => plain.push(character),
        }
    }
    plain
}

/// Whether it changes the direction in which what follows is read.
fn turns(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// A number as tables show it: two digits behind the point, `n/a` where it is missing.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys_and_letters_stay() {
        assert_eq!(plain("a\r\nb\u{1b}[31mred\u{7}"), "a  b\\u{1b}[31mred\\u{7}");
        assert_eq!(plain("\u{202e}cod.exe"), "\\u{202e}cod.exe");
        let letters = "<script>שלום مرحبا 模型 'é'|`</script>";
        assert_eq!(plain(letters), letters);
    }
}
