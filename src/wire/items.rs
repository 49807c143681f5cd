//! Messages and tools of chat as OpenAI's responses take them: an item a message, a call of a tool and a
//! result of one; parts and tools by names of their own. Pure.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::prompt::{Content, Message, Role};

/// The items of a conversation.
pub(super) fn of(messages: &[Message]) -> Vec<Value> {
    messages.iter().flat_map(items).collect()
}

/// The tools of a request to chat.
pub(super) fn tools(tools: &Value) -> Value {
    match tools {
        Value::Array(tools) => tools.iter().map(flat).collect(),
        other => other.clone(),
    }
}

/// A tool, or the choice of one, without the object around its function.
pub(super) fn flat(tool: &Value) -> Value {
    match (tool, tool.get("function")) {
        (Value::Object(tool), Some(Value::Object(function))) => {
            let mut flat = function.clone();
            flat.extend(tool.iter().filter(|(name, _)| *name != "function").map(owned));
            Value::Object(flat)
        }
        _ => tool.clone(),
    }
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn items(message: &Message) -> Vec<Value> {
    if matches!(message.role, Role::Tool | Role::Function) {
        let call = message.fields.get("tool_call_id").or(message.fields.get("name"));
        return vec![json!({
            "type": "function_call_output", "call_id": call, "output": message.text(),
        })];
    }
    let mut items = Vec::new();
    if let Some(content) = &message.content {
        let content = match content {
            Content::Text(text) => json!(text),
            Content::Parts(parts) => {
                parts.iter().map(|part| self::part(part, message.role)).collect()
            }
        };
        items.push(json!({ "role": message.role, "content": content }));
    }
    if let Some(Value::Array(calls)) = message.fields.get("tool_calls") {
        items.extend(calls.iter().map(|call| {
            json!({
                "type": "function_call",
                "call_id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
            })
        }));
    }
    items
}

fn part(part: &Value, role: Role) -> Value {
    let of_text = if role == Role::Assistant { "output_text" } else { "input_text" };
    match (part, part["type"].as_str()) {
        (Value::String(text), _) => json!({ "type": of_text, "text": text }),
        (_, Some("text")) => json!({ "type": of_text, "text": part["text"] }),
        (_, Some("image_url")) => {
            let mut image: Map<String, Value> = Map::new();
            image.insert("type".into(), "input_image".into());
            match &part["image_url"] {
                Value::Object(of) => {
                    image.insert("image_url".into(), of.get("url").cloned().unwrap_or_default());
                    image.extend(of.get_key_value("detail").map(owned));
                }
                url => {
                    image.insert("image_url".into(), url.clone());
                }
            }
            Value::Object(image)
        }
        _ => part.clone(),
    }
}

/// A field that the data sets, as responses take it.
pub(super) fn field<'a>(name: &str, value: &'a Value) -> Cow<'a, Value> {
    match name {
        "tools" => Cow::Owned(tools(value)),
        "tool_choice" => Cow::Owned(flat(value)),
        _ => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_items_of_the_same_meaning() {
        let messages: Vec<Message> = serde_json::from_value(json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": [
                { "type": "text", "text": "a" },
                { "type": "image_url", "image_url": { "url": "data:,", "detail": "low" } },
                { "type": "input_audio", "input_audio": {} },
            ] },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } },
            ] },
            { "role": "tool", "tool_call_id": "c", "content": "42" },
            { "role": "assistant", "content": [{ "type": "text", "text": "b" }] },
        ]))
        .unwrap();
        assert_eq!(
            Value::Array(of(&messages)),
            json!([
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": [
                    { "type": "input_text", "text": "a" },
                    { "type": "input_image", "image_url": "data:,", "detail": "low" },
                    { "type": "input_audio", "input_audio": {} },
                ] },
                { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
                { "type": "function_call_output", "call_id": "c", "output": "42" },
                { "role": "assistant", "content": [{ "type": "output_text", "text": "b" }] },
            ])
        );
    }

    #[test]
    fn tools_are_flat() {
        let of_chat =
            json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
        let flat = json!([{ "type": "function", "name": "f", "parameters": {} }]);
        assert_eq!(*field("tools", &of_chat), flat);
        assert_eq!(*field("tool_choice", &of_chat[0]), flat[0]);
        assert_eq!(*field("tool_choice", &json!("auto")), json!("auto"));
    }
}
