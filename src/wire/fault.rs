//! Errors that stand where a part of an answer should: servers and gateways say them in many shapes. Pure.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::lenient::Filled;
use crate::surrogates;

/// What an event says of an error, if it holds nothing of an answer.
#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    status_code: Option<&'a RawValue>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    error: Option<Value>,
    #[serde(default)]
    errors: Filled,
    #[serde(default)]
    message: Filled,
    #[serde(default)]
    msg: Filled,
    #[serde(default)]
    error_msg: Filled,
    #[serde(default)]
    error_message: Filled,
    #[serde(default)]
    detail: Filled,
}

/// What the error says that `data`, an event without a part of an answer, is; `None` where it is none.
pub(super) fn of(data: &[u8]) -> Option<String> {
    let fault: Fault<'_> = serde_json::from_slice(data).ok()?;
    let codes = [fault.status, fault.code, fault.status_code, fault.error_code];
    let failed = codes.into_iter().any(is_failure);
    let succeeded = codes.into_iter().any(|code| code.is_some_and(|code| is_success(code.get())));
    let said = fault.message.0 || fault.msg.0 || fault.detail.0;
    let is_error = is_word_error(fault.object)
        || is_word_error(fault.kind)
        || is_failure(fault.error_code)
        || fault.error.is_some_and(|error| !is_empty(&error))
        || fault.errors.0
        || fault.error_msg.0
        || fault.error_message.0
        || said && (failed || !succeeded);
    is_error.then(|| message(data))
}

/// Whether a `code` says that something failed: it is there, and neither zero nor a success of HTTP.
pub(super) fn is_failure(code: Option<&RawValue>) -> bool {
    code.is_some_and(|code| !is_nothing(code.get()) && !is_success(code.get()))
}

/// Whether `object` or `type` is the word for an error.
pub(super) fn is_word_error(word: Option<&RawValue>) -> bool {
    word.is_some_and(|word| word.get() == r#""error""#)
}

fn is_nothing(code: &str) -> bool {
    matches!(code, "null" | "false" | "\"\"" | "{}" | "[]")
}

fn is_success(code: &str) -> bool {
    let code = code.trim_matches('"');
    let number = code.parse::<f64>().ok();
    let words = ["ok", "success", "succeeded", "true"];
    number.is_some_and(|code| code == 0.0 || (200.0..300.0).contains(&code))
        || words.iter().any(|word| code.eq_ignore_ascii_case(word))
}

/// What the body of an error response says: the message of its error object, else the text itself.
pub fn message(body: &[u8]) -> String {
    let parse = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
    let value = parse(body).or_else(|| parse(&surrogates::replaced(body)?));
    let Some(value) = value else { return String::from_utf8_lossy(body).trim().to_owned() };
    let mut errors = ["error", "errors"].iter().filter_map(|name| value.get(*name));
    message_of(errors.find(|error| !is_empty(error)).unwrap_or(&value))
}

/// What an error object says: its `message` where it has one.
pub(super) fn message_of(error: &Value) -> String {
    let names = ["message", "msg", "error_message", "error_msg", "detail"];
    let said = names.iter().filter_map(|name| error.get(*name)).find(|said| !is_empty(said));
    match said.unwrap_or(error) {
        Value::String(message) => message.clone(),
        other => other.to_string(),
    }
}

/// Whether an `error` field says nothing: some servers send it, empty, with every event.
pub(super) fn is_empty(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_place_of_an_answer_is_found_in_every_shape() {
        for (data, message) in [
            (r#"{"object":"error","message":"late","code":400}"#, "late"),
            (r#"{"type":"error","message":"late"}"#, "late"),
            (r#"{"type":"error","error":{"message":"late"}}"#, "late"),
            (r#"{"error":{"message":"late"}}"#, "late"),
            (r#"{"error":"late"}"#, "late"),
            (r#"{"errors":[{"message":"late"}]}"#, r#"[{"message":"late"}]"#),
            (r#"{"error_code":50001,"message":"late"}"#, "late"),
            (r#"{"error_code":336,"error_msg":"late"}"#, "late"),
            (r#"{"code":500,"message":"late"}"#, "late"),
            (r#"{"code":"Throttling","message":"late"}"#, "late"),
            (r#"{"code":1001,"msg":"late"}"#, "late"),
            (r#"{"status":"failed","msg":"late"}"#, "late"),
            (r#"{"status_code":503,"detail":"late"}"#, "late"),
            (r#"{"message":"late"}"#, "late"),
            (r#"{"detail":"late"}"#, "late"),
            (r#"{"error_message":"late"}"#, "late"),
        ] {
            assert_eq!(of(data.as_bytes()).as_deref(), Some(message), "{data}");
        }
    }

    #[test]
    fn what_says_that_all_is_well_is_no_error() {
        for data in [
            "{}",
            r#"{"error":null}"#,
            r#"{"error":{},"message":null}"#,
            r#"{"code":0,"message":"success"}"#,
            r#"{"code":200,"msg":"OK"}"#,
            r#"{"code":"200","message":"ok"}"#,
            r#"{"status":"success","message":"began"}"#,
            r#"{"error_code":0,"error_msg":""}"#,
            r#"{"id":"a","object":"chat.completion.chunk","created":1}"#,
            r#"{"type":"ping"}"#,
            r#"{"status":"running"}"#,
            "7",
            "not JSON",
        ] {
            assert_eq!(of(data.as_bytes()), None, "{data}");
        }
    }

    #[test]
    fn an_error_without_content_is_empty() {
        for (error, empty) in [
            ("null", true),
            (r#""""#, true),
            ("{}", true),
            ("0", true),
            (r#"{"code":"","message":null}"#, true),
            ("true", false),
            (r#"{"code":500,"message":""}"#, false),
            (r#""oom""#, false),
        ] {
            assert_eq!(is_empty(&serde_json::from_str(error).unwrap()), empty, "{error}");
        }
    }
}
