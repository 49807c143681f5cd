//! What is sent to be continued or answered. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

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

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the terms.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
}

impl Prompt {
    /// Puts what the system says before it.
    pub fn put_before(&mut self, system: &str, chat: bool) {
        let of_system = || Message { role: Role::System, content: system.to_owned() };
        match self {
            Self::Text(text) if chat => {
                let user = Message { role: Role::User, content: std::mem::take(text) };
                *self = Self::Messages(vec![of_system(), user]);
            }
            Self::Text(text) => text.insert_str(0, &format!("{system}\n\n")),
            Self::Messages(messages) => messages.insert(0, of_system()),
            Self::Tokens(_) => {}
        }
    }

    /// Puts the salt at its very beginning.
    pub fn begin_with(&mut self, salt: &str) {
        let text = match self {
            Self::Text(text) => Some(text),
            Self::Messages(messages) => messages.first_mut().map(|message| &mut message.content),
            Self::Tokens(_) => None,
        };
        if let Some(text) = text {
            text.insert_str(0, &format!("[{salt}] "));
        }
    }

    /// Goes on with what was answered and what the user says to that. Where prompts are texts, the
    /// answer follows the prompt as the model has continued it, and the user's words follow after an
    /// empty line: what a server has cached of the turn before is then the beginning of this one.
    pub fn go_on(&mut self, answer: &str, said: &str, chat: bool) {
        if chat {
            let message = |role, content: &str| Message { role, content: content.to_owned() };
            let mut messages = self.messages();
            messages.extend([message(Role::Assistant, answer), message(Role::User, said)]);
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
                let contents: Vec<&str> =
                    messages.iter().map(|message| message.content.as_str()).collect();
                Cow::Owned(contents.join("\n\n"))
            }
        }
    }

    /// The prompt as a conversation.
    pub fn messages(&self) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![Message { role: Role::User, content: text.clone() }],
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
        let said: Vec<(Role, String)> =
            chat.messages().into_iter().map(|message| (message.role, message.content)).collect();
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
}
