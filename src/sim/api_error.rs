//! Refusals, in the shape in which OpenAI's API words them.

use hyper::StatusCode;
use serde_json::json;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    message: String,
    /// The field at fault.
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    /// The request is at fault.
    pub(crate) fn bad_request(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status: StatusCode::BAD_REQUEST, message, param, code: None }
    }

    /// The request asks for more tokens than there can ever be room for.
    pub(crate) fn too_long(room: u64, prompt_tokens: u32, max_tokens: u32) -> Self {
        let message = format!(
            "This model's maximum context length is {room} tokens. However, you requested {} \
             tokens ({prompt_tokens} in the prompt, {max_tokens} in the completion).",
            u64::from(prompt_tokens) + u64::from(max_tokens),
        );
        let code = Some("context_length_exceeded");
        Self { status: StatusCode::BAD_REQUEST, message, param: None, code }
    }

    /// There is no such model.
    pub(crate) fn unknown_model(model: &str, served: &[String]) -> Self {
        let served = served.join("`, `");
        let message = format!("The model `{model}` does not exist. Served here: `{served}`.");
        let code = Some("model_not_found");
        Self { status: StatusCode::NOT_FOUND, message, param: Some("model"), code }
    }

    /// There is nothing at this path.
    pub(crate) fn unknown_route(path: &str) -> Self {
        let message = format!("There is nothing at `{path}`.");
        Self { status: StatusCode::NOT_FOUND, message, param: None, code: None }
    }

    /// The path is right and the method is not.
    pub(crate) fn wrong_method(allowed: &str) -> Self {
        let message = format!("Only {allowed} is allowed here.");
        Self { status: StatusCode::METHOD_NOT_ALLOWED, message, param: None, code: None }
    }

    /// The body of the answer.
    pub(crate) fn json(&self) -> String {
        json!({"error": {
            "message": self.message,
            "type": "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }})
        .to_string()
    }
}
