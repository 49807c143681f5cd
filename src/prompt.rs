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
