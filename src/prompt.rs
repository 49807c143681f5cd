//! What is sent to be continued or answered. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What is continued or answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text; for chat, what the user says.
    Text(String),
    /// The tokens themselves: nothing is added to them or cut from them.
    Tokens(Vec<u32>),
    /// A conversation.
    Messages(Vec<Message>),
}

/// One message of a conversation. Chat servers are sent it as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said; `None` where there is nothing but `fields`, such as calls of tools.
    #[serde(default)]
    pub content: Option<Content>,
    /// What else it holds: `tool_calls`, `tool_call_id`, `name`.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// What is said in a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts, such as texts and images.
    Parts(Vec<Value>),
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the terms.
    System,
    /// Sets the terms, of OpenAI's newer models.
    Developer,
    /// Asks.
    User,
    /// Answers.
    Assistant,
    /// Is what a tool gave.
    Tool,
    /// Is what a function gave, as tools were called before.
    Function,
}

impl Message {
    /// A message of a text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: Some(Content::Text(text.into())), fields: Map::new() }
    }

    /// What is said in words: of parts, the texts, each on lines of its own.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.content {
            None => Cow::Borrowed(""),
            Some(Content::Text(text)) => Cow::Borrowed(text),
            Some(Content::Parts(parts)) => {
                let texts: Vec<&str> = parts.iter().filter_map(text_of_part).collect();
                Cow::Owned(texts.join("\n"))
            }
        }
    }

    /// The kinds of its parts that are no text.
    pub fn other_parts(&self) -> impl Iterator<Item = &str> {
        let parts: &[Value] = match &self.content {
            Some(Content::Parts(parts)) => parts,
            None | Some(Content::Text(_)) => &[],
        };
        let others = parts.iter().filter(|part| text_of_part(part).is_none());
        others.map(|part| part["type"].as_str().unwrap_or("a part without a `type`"))
    }

    /// Lets what it says begin with a text; `false` where it says nothing.
    fn begin_with(&mut self, beginning: &str, count: impl Fn(&str) -> usize) -> bool {
        match &mut self.content {
            None => return false,
            Some(Content::Text(text)) => begin_with(text, beginning, count),
            Some(Content::Parts(parts)) => match parts.iter_mut().find_map(text_of_part_mut) {
                Some(text) => begin_with(text, beginning, count),
                None => parts.insert(0, json!({ "type": "text", "text": beginning })),
            },
        }
        true
    }
}

/// Bytes at the front of a text within which its beginning is exchanged, or so many times those of the new one: what
/// prompts share beyond is shared as before, and counting is cheap.
const FRONT: usize = 128;
const FRONT_OF_BEGINNING: usize = 8;
/// Characters around the first place where the length fits in which it is looked for where it fits exactly.
const NEAR: usize = 6;

/// Puts `beginning` in the place of what is as long by `count`, unless that were more than half of the text.
fn begin_with(text: &mut String, beginning: &str, count: impl Fn(&str) -> usize) {
    let most = FRONT.max(FRONT_OF_BEGINNING * beginning.len());
    let end = text.char_indices().map(|(at, _)| at).find(|at| most <= *at);
    let front = &text[..end.unwrap_or(text.len())];
    let wanted = count(front);
    let cuts: Vec<usize> = front.char_indices().map(|(at, _)| at).collect();
    let length = |cut: usize| count(&format!("{beginning}{}", &front[cut..]));
    let least = cuts.partition_point(|&cut| wanted < length(cut));
    // A character more or less may change how those beside it are counted.
    let near = least.saturating_sub(NEAR)..cuts.len().min(least + NEAR);
    let exact = cuts[near].iter().find(|&&cut| length(cut) == wanted);
    let cut = exact.or(cuts.get(least)).filter(|cut| 2 * **cut <= text.len());
    let cut = cut.copied().unwrap_or(0);
    text.replace_range(..cut, beginning);
}

/// The kinds of parts that are texts.
const TEXTS: [&str; 3] = ["text", "input_text", "output_text"];

fn is_text(part: &Value) -> bool {
    part["type"].as_str().is_none_or(|kind| TEXTS.contains(&kind))
}

/// The words of a part; `None` where it is something else.
fn text_of_part(part: &Value) -> Option<&str> {
    match part {
        Value::String(text) => Some(text),
        part if is_text(part) => part["text"].as_str(),
        _ => None,
    }
}

fn text_of_part_mut(part: &mut Value) -> Option<&mut String> {
    match part {
        Value::String(text) => Some(text),
        Value::Object(_) if is_text(part) => match part.get_mut("text") {
            Some(Value::String(text)) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

impl Prompt {
    /// Puts what the system says before it.
    pub fn put_before(&mut self, system: &str, chat: bool) {
        let of_system = || Message::new(Role::System, system);
        match self {
            Self::Text(text) if chat => {
                let user = Message::new(Role::User, std::mem::take(text));
                *self = Self::Messages(vec![of_system(), user]);
            }
            Self::Text(text) => text.insert_str(0, &format!("{system}\n\n")),
            Self::Messages(messages) => messages.insert(0, of_system()),
            Self::Tokens(_) => {}
        }
    }

    /// Puts a beginning in the place of its very first words, so that it is as long as before by `count`, which
    /// tells the length of a text. A prompt that is too short to spare them is made longer.
    pub fn begin_with(&mut self, beginning: &str, count: impl Fn(&str) -> usize) {
        match self {
            Self::Text(text) => begin_with(text, beginning, count),
            Self::Messages(messages) => {
                messages.iter_mut().any(|message| message.begin_with(beginning, &count));
            }
            Self::Tokens(_) => {}
        }
    }

    /// Goes on with what was answered and what the user says to that. Where prompts are texts, the
    /// answer follows the prompt as the model has continued it, and the user's words follow after an
    /// empty line: what a server has cached of the turn before is then the beginning of this one.
    pub fn go_on(&mut self, answer: &str, said: &str, chat: bool) {
        if chat {
            let mut messages = self.messages();
            messages
                .extend([Message::new(Role::Assistant, answer), Message::new(Role::User, said)]);
            *self = Self::Messages(messages);
        } else {
            *self = Self::Text(format!("{}{answer}\n\n{said}", self.text()));
        }
    }

    /// The prompt as a text: of a conversation, what is said in it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Tokens(_) => Cow::Borrowed(""),
            Self::Messages(messages) => {
                let said = messages.iter().filter(|message| message.content.is_some());
                let texts: Vec<Cow<'_, str>> = said.map(Message::text).collect();
                Cow::Owned(texts.join("\n\n"))
            }
        }
    }

    /// The prompt as a conversation.
    pub fn messages(&self) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![Message::new(Role::User, text.clone())],
            Self::Messages(messages) => messages.clone(),
            Self::Tokens(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_goes_on_as_messages_or_as_one_text() {
        let mut chat = Prompt::Text("a".to_owned());
        chat.put_before("be brief", true);
        chat.go_on("b", "c", true);
        let said: Vec<(Role, String)> = chat
            .messages()
            .iter()
            .map(|message| (message.role, message.text().into_owned()))
            .collect();
        let of = |role, text: &str| (role, text.to_owned());
        assert_eq!(
            said,
            [
                of(Role::System, "be brief"),
                of(Role::User, "a"),
                of(Role::Assistant, "b"),
                of(Role::User, "c"),
            ]
        );
        let mut text = Prompt::Text("a".to_owned());
        text.go_on(" b", "c", false);
        text.go_on(" d", "e", false);
        assert_eq!(text, Prompt::Text("a b\n\nc d\n\ne".to_owned()));
    }

    #[test]
    fn a_message_is_sent_as_it_came() {
        for text in [
            r#"{"role":"assistant","content":"Hi"}"#,
            r#"{"role":"developer","content":"Be brief.","name":"d"}"#,
            r#"{"role":"user","content":[{"text":"What is it?","type":"text"},{"image_url":{"url":"data:,"},"type":"image_url"}]}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{}","name":"f"},"id":"c","type":"function"}]}"#,
            r#"{"role":"tool","content":"42","tool_call_id":"c"}"#,
        ] {
            let message: Message = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&message).unwrap(), text);
        }
    }

    fn message(text: &str) -> Message {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_text_of_parts_is_that_of_their_texts_and_the_others_are_named() {
        let parts = message(
            r#"{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"},
                {"type": "input_text", "text": "b"}, "c", {"type": "image_url", "text": "no"}]}"#,
        );
        assert_eq!(parts.text(), "a\nb\nc");
        assert_eq!(parts.other_parts().collect::<Vec<_>>(), ["input_audio", "image_url"]);
        let none = message(r#"{"role": "assistant", "tool_calls": []}"#);
        assert_eq!((none.text().as_ref(), none.other_parts().count()), ("", 0));
    }

    #[test]
    fn a_salt_goes_before_the_first_words_whatever_holds_them() {
        for (said, salted) in [
            (r#"[{"role":"user","content":"a"}]"#, r#"[{"role":"user","content":"[s] a"}]"#),
            (
                r#"[{"role":"user","content":[{"type":"image_url"},{"text":"a","type":"text"}]}]"#,
                r#"[{"role":"user","content":[{"type":"image_url"},{"text":"[s] a","type":"text"}]}]"#,
            ),
            (
                r#"[{"role":"user","content":[{"type":"image_url"}]}]"#,
                r#"[{"role":"user","content":[{"text":"[s] ","type":"text"},{"type":"image_url"}]}]"#,
            ),
            (
                r#"[{"role":"assistant","content":null},{"role":"tool","content":"a"}]"#,
                r#"[{"role":"assistant","content":null},{"role":"tool","content":"[s] a"}]"#,
            ),
        ] {
            let mut prompt = Prompt::Messages(serde_json::from_str(said).unwrap());
            prompt.begin_with("[s] ", |text| text.chars().count());
            assert_eq!(serde_json::to_string(&prompt.messages()).unwrap(), salted);
        }
    }

    #[test]
    fn a_beginning_takes_the_place_of_as_much() {
        for (text, salted) in [
            ("Tell me a story of two bears.", "[salt]  a story of two bears."),
            (
                "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
                "[salt] \u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
            ),
            ("Too short.", "[salt] Too short."),
            ("", "[salt] "),
        ] {
            let mut prompt = Prompt::Text(text.to_owned());
            prompt.begin_with("[salt] ", |text| text.chars().count());
            assert_eq!(prompt.text(), salted);
        }
        let long = "word ".repeat(1000);
        let mut prompt = Prompt::Text(long.clone());
        prompt.begin_with("[salt] ", |text| text.split(' ').count());
        assert_eq!(prompt.text().split(' ').count(), long.split(' ').count());
    }
}
