//! Text that others wrote (a server, a plan, a dataset), made harmless in a line of ours. Pure.

/// How much of a text from outside a message quotes, characters.
const QUOTED: usize = 200;
/// What the runners of CI obey anywhere in a line of a log: GitHub's old commands, and Azure's.
const COMMANDS: [&str; 2] = ["##[", "##vso["];

/// The text in one line, without what a terminal, a viewer or a runner of CI would obey: line breaks are spaces, and the
/// other control characters and those that turn the direction of the text are shown by their numbers. The marks of
/// commands are broken by a space.
pub fn plain(text: &str) -> String {
    let text = one_line(text);
    let text = COMMANDS.iter().fold(text, |text, command| {
        if text.contains(command) {
            text.replace(command, &command.replacen("##", "# #", 1))
        } else {
            text
        }
    });
    // GitHub's commands stand at the beginning of a line.
    match text.trim_start().strip_prefix("::") {
        Some(rest) => format!(": :{rest}"),
        None => text,
    }
}

/// As much of a text as a message quotes, made [`plain`].
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", plain(&text[..end])),
        None => plain(text),
    }
}

/// The lines of a text, each made harmless.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// The text for a cell of a table that a spreadsheet may open: one that begins like a formula begins with a quote.
pub fn plain_cell(text: &str) -> String {
    let text = plain(text);
    if text.trim_start().starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text }
}

fn one_line(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys_and_letters_stay() {
        assert_eq!(plain("a\r\nb\u{1b}[31mred\u{7}"), "a  b\\u{1b}[31mred\\u{7}");
        assert_eq!(plain("\u{202e}cod.exe"), "\\u{202e}cod.exe");
        assert_eq!(plain("x ##[add-mask]a ##vso[task.x]b"), "x # #[add-mask]a # #vso[task.x]b");
        assert_eq!(plain("  ::error::x"), ": :error::x");
        assert_eq!(plain("a::b"), "a::b");
        assert_eq!(plain_lines("a\n::error::x\nb\r"), "a\n: :error::x\nb ");
        assert_eq!(plain_cell("=1+1"), "'=1+1");
        assert_eq!(plain_cell("-7b"), "'-7b");
        assert_eq!(plain_cell("org/model"), "org/model");
        let letters = "<script>שלום مرحبا 模型 'é'|`</script>";
        assert_eq!(plain(letters), letters);
    }

    #[test]
    fn a_quotation_is_plain_and_short() {
        assert_eq!(quoted("a\nb"), "a b");
        assert_eq!(quoted(&"é".repeat(201)), format!("{}...", "é".repeat(200)));
    }
}
