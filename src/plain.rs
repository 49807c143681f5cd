//! Text that others wrote (a server, a plan, a dataset), made harmless in a line of ours. Pure.

/// How much of a text from outside a message quotes, characters.
const QUOTED: usize = 200;

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

/// As much of a text as a message quotes, made [`plain`].
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", plain(&text[..end])),
        None => plain(text),
    }
}

/// Whether it changes the direction in which what follows is read.
fn turns(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
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

    #[test]
    fn a_quotation_is_plain_and_short() {
        assert_eq!(quoted("a\nb"), "a b");
        assert_eq!(quoted(&"é".repeat(201)), format!("{}...", "é".repeat(200)));
    }
}
