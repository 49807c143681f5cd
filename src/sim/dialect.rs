//! How servers differ in what they send for the same answer: switches, all off in a plain server.

use std::num::NonZeroU32;

use serde::Deserialize;

/// The dialect of a simulated server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Dialect {
    /// Tokens of an event, as with speculative decoding
    #[arg(long, value_name = "N", default_value = "1")]
    pub tokens_per_chunk: NonZeroU32,
    /// So many tokens are reasoning, before the answer (chat, responses)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub reasoning_tokens: u32,
    /// The answer is the arguments of a tool call (chat, responses)
    #[arg(long)]
    pub tool_call: bool,
    /// Token counts are sent with every event, or never, whatever the request says
    #[arg(long, value_enum, value_name = "WHEN", default_value = "as-asked")]
    pub usage: UsageStyle,
    /// A comment before each event
    #[arg(long)]
    pub keep_alive: bool,
    /// Lines end in CRLF
    #[arg(long)]
    pub crlf: bool,
    /// No space behind `data:`
    #[arg(long)]
    pub no_space: bool,
    /// An `event:` line before each `data:` line
    #[arg(long)]
    pub event_lines: bool,
    /// No `[DONE]`
    #[arg(long)]
    pub no_done: bool,
    /// No `finish_reason`
    #[arg(long)]
    pub no_finish_reason: bool,
    /// An error object in the stream after so many tokens
    #[arg(long, value_name = "N")]
    pub error_after: Option<u32>,
    /// The whole answer in one block, also where a stream is asked for
    #[arg(long)]
    pub one_block: bool,
}

/// When token counts are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum UsageStyle {
    /// As the request asks for it.
    #[default]
    AsAsked,
    /// In every event.
    EveryChunk,
    /// Never.
    Never,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            tokens_per_chunk: NonZeroU32::MIN,
            reasoning_tokens: 0,
            tool_call: false,
            usage: UsageStyle::AsAsked,
            keep_alive: false,
            crlf: false,
            no_space: false,
            event_lines: false,
            no_done: false,
            no_finish_reason: false,
            error_after: None,
            one_block: false,
        }
    }
}

impl Dialect {
    /// One server-sent event.
    pub(crate) fn event(&self, name: Option<&str>, data: &str) -> String {
        let end = if self.crlf { "\r\n" } else { "\n" };
        let space = if self.no_space { "" } else { " " };
        let comment =
            if self.keep_alive { format!(": keep-alive{end}{end}") } else { String::new() };
        let name = match name.or(self.event_lines.then_some("message")) {
            Some(name) => format!("event:{space}{name}{end}"),
            None => String::new(),
        };
        format!("{comment}{name}data:{space}{data}{end}{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_the_dialect_has_it() {
        let plain = Dialect::default();
        assert_eq!(plain.event(None, "x"), "data: x\n\n");
        assert_eq!(plain.event(Some("e"), "x"), "event: e\ndata: x\n\n");
        let odd = Dialect {
            crlf: true,
            no_space: true,
            event_lines: true,
            keep_alive: true,
            ..Dialect::default()
        };
        let expected = ": keep-alive\r\n\r\nevent:message\r\ndata:x\r\n\r\n";
        assert_eq!(odd.event(None, "x"), expected);
    }
}
