//! What a client may ask for: the bodies of the generating routes, read and checked.

use serde::Deserialize;

use super::api_error::ApiError;
use super::chunk::FinishReason;

/// Which of the generating routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/responses`
    Responses,
    /// `/v2/models/MODEL/generate_stream`
    Triton,
    /// `/generate_stream`
    Tgi,
}

impl Endpoint {
    /// The route of a path, if it generates.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/completions" => Some(Self::Completions),
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/responses" => Some(Self::Responses),
            "/generate_stream" => Some(Self::Tgi),
            _ => {
                let model = path.strip_prefix("/v2/models/")?.strip_suffix("/generate_stream")?;
                (!model.is_empty() && !model.contains('/')).then_some(Self::Triton)
            }
        }
    }

    /// Whether a request must name a model, and may ask for its answer in one piece.
    fn is_openai(self) -> bool {
        matches!(self, Self::Completions | Self::Chat | Self::Responses)
    }

    /// The longest answer where the request does not say.
    fn default_max_tokens(self) -> u32 {
        match self {
            Self::Completions => 16,
            Self::Chat | Self::Responses => 256,
            Self::Triton => 16,
            Self::Tgi => 20,
        }
    }
}

/// A request for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GenerationRequest {
    /// Where it came in.
    pub(crate) endpoint: Endpoint,
    /// What it calls the model, where it does.
    pub(crate) model: Option<String>,
    /// What is to be continued or answered.
    pub(crate) prompt: Prompt,
    /// The longest answer; above 0.
    pub(crate) max_tokens: u32,
    /// The shortest answer; at most `max_tokens`.
    pub(crate) min_tokens: u32,
    /// Whether the answer goes on where it would end by itself.
    pub(crate) ignore_eos: bool,
    /// Whether the tokens are sent as they come.
    pub(crate) stream: bool,
    /// Whether a stream ends with the token counts.
    pub(crate) include_usage: bool,
}

/// The prompt, as text or as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    prompt: Option<PromptField>,
    messages: Option<Vec<Message>>,
    input: Option<ResponsesInput>,
    text_input: Option<String>,
    inputs: Option<String>,
    parameters: Option<TgiParameters>,
    max_output_tokens: Option<u32>,
    min_length: Option<u32>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    min_tokens: Option<u32>,
    ignore_eos: Option<bool>,
    n: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ResponsesInput {
    Text(String),
    Items(Vec<Message>),
}

#[derive(Default, Deserialize)]
struct TgiParameters {
    max_new_tokens: Option<u32>,
    ignore_eos_token: Option<bool>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PromptField {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
    tool_calls: Option<serde::de::IgnoredAny>,
    /// What an item of a response is, where it is no message.
    #[serde(rename = "type")]
    kind: Option<String>,
    output: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
}

impl GenerationRequest {
    /// Reads a body.
    pub(crate) fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Self, ApiError> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(None, format!("Malformed request: {error}.")))?;
        if body.model.is_none() && endpoint.is_openai() {
            return Err(missing("model"));
        }
        let prompt = match endpoint {
            Endpoint::Completions => prompt(body.prompt.ok_or_else(|| missing("prompt"))?)?,
            Endpoint::Chat => conversation(body.messages.ok_or_else(|| missing("messages"))?)?,
            Endpoint::Responses => match body.input.ok_or_else(|| missing("input"))? {
                ResponsesInput::Text(text) => Prompt::Text(text),
                ResponsesInput::Items(items) => conversation(items)?,
            },
            Endpoint::Triton => Prompt::Text(body.text_input.ok_or_else(|| missing("text_input"))?),
            Endpoint::Tgi => Prompt::Text(body.inputs.ok_or_else(|| missing("inputs"))?),
        };
        let tgi = body.parameters.unwrap_or_default();
        if body.n.is_some_and(|n| n != 1) {
            return Err(ApiError::bad_request(Some("n"), "`n` must be 1."));
        }
        let max_tokens = body
            .max_completion_tokens
            .or(body.max_output_tokens)
            .or(tgi.max_new_tokens)
            .or(body.max_tokens)
            .unwrap_or_else(|| endpoint.default_max_tokens());
        if max_tokens == 0 {
            return Err(ApiError::bad_request(Some("max_tokens"), "`max_tokens` must be above 0."));
        }
        let min_tokens = body.min_tokens.or(body.min_length).unwrap_or(0);
        if min_tokens > max_tokens {
            let message = format!("`min_tokens` must be at most `max_tokens`, {max_tokens}.");
            return Err(ApiError::bad_request(Some("min_tokens"), message));
        }
        Ok(Self {
            endpoint,
            model: body.model,
            prompt,
            max_tokens,
            min_tokens,
            ignore_eos: body.ignore_eos.or(tgi.ignore_eos_token).unwrap_or(false),
            // The other routes are for streams only.
            stream: body.stream.unwrap_or(false) || !endpoint.is_openai(),
            include_usage: body.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
        })
    }

    /// Length of the answer and why it ends, given where it would end by itself.
    pub(crate) fn answer_length(&self, natural: u32) -> (u32, FinishReason) {
        let natural = natural.max(self.min_tokens).max(1);
        if self.ignore_eos || natural >= self.max_tokens {
            return (self.max_tokens, FinishReason::Length);
        }
        (natural, FinishReason::Stop)
    }
}

fn missing(field: &'static str) -> ApiError {
    ApiError::bad_request(Some(field), format!("`{field}` is missing."))
}

fn prompt(field: PromptField) -> Result<Prompt, ApiError> {
    let refuse = |message| Err(ApiError::bad_request(Some("prompt"), message));
    match field {
        PromptField::Text(text) => Ok(Prompt::Text(text)),
        PromptField::Tokens(tokens) if tokens.is_empty() => refuse("`prompt` is empty."),
        PromptField::Tokens(tokens) => Ok(Prompt::Tokens(tokens)),
        PromptField::Texts(texts) => match <[_; 1]>::try_from(texts) {
            Ok([text]) => Ok(Prompt::Text(text)),
            Err(_) => refuse("`prompt` must hold one prompt."),
        },
        PromptField::TokenLists(lists) => match <[_; 1]>::try_from(lists) {
            Ok([tokens]) => prompt(PromptField::Tokens(tokens)),
            Err(_) => refuse("`prompt` must hold one prompt."),
        },
    }
}

/// The texts of a conversation, a line each. There is no chat template that would add to them.
fn conversation(messages: Vec<Message>) -> Result<Prompt, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::bad_request(Some("messages"), "`messages` is empty."));
    }
    let refuse = |message| ApiError::bad_request(Some("messages"), message);
    let mut texts = Vec::new();
    for message in messages {
        match message.content {
            // It calls tools, or is what they gave.
            None if message.tool_calls.is_some() || message.kind.is_some() => {
                texts.extend(message.output);
            }
            None => return Err(refuse("A message has no `content`.")),
            Some(Content::Text(text)) => texts.push(text),
            Some(Content::Parts(parts)) => {
                for part in parts {
                    match (part.text, part.kind.as_deref()) {
                        (Some(text), _) => texts.push(text),
                        (None, Some("text" | "input_text") | None) => {
                            return Err(refuse("A part of a message has no text."));
                        }
                        // Images and sounds are nothing to it.
                        (None, Some(_)) => {}
                    }
                }
            }
        }
    }
    Ok(Prompt::Text(texts.join("\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn completions(body: Value) -> Result<GenerationRequest, ApiError> {
        GenerationRequest::parse(Endpoint::Completions, body.to_string().as_bytes())
    }

    fn chat(body: Value) -> Result<GenerationRequest, ApiError> {
        GenerationRequest::parse(Endpoint::Chat, body.to_string().as_bytes())
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let request = completions(json!({"model": "m", "prompt": "p"})).unwrap();
        assert_eq!(request.max_tokens, 16);
        assert!(!request.stream && !request.include_usage && !request.ignore_eos);
        let request = chat(json!({"model": "m", "messages": [{"content": "p"}]})).unwrap();
        assert_eq!(request.max_tokens, 256);
    }

    #[test]
    fn a_prompt_is_a_text_or_tokens_or_a_list_of_one() {
        let prompt = |prompt: Value| completions(json!({"model": "m", "prompt": prompt}));
        let text = Prompt::Text("p".to_owned());
        assert_eq!(prompt(json!("p")).unwrap().prompt, text);
        assert_eq!(prompt(json!(["p"])).unwrap().prompt, text);
        assert_eq!(prompt(json!([1, 2])).unwrap().prompt, Prompt::Tokens(vec![1, 2]));
        assert_eq!(prompt(json!([[1, 2]])).unwrap().prompt, Prompt::Tokens(vec![1, 2]));
        for refused in [json!([]), json!(["p", "q"]), json!([[1], [2]]), json!({}), json!(null)] {
            prompt(refused).unwrap_err();
        }
    }

    #[test]
    fn a_conversation_is_of_texts_and_of_parts_with_text() {
        let messages = json!([
            {"role": "system", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image_url"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "c"},
        ]);
        let request = chat(json!({"model": "m", "messages": messages})).unwrap();
        assert_eq!(request.prompt, Prompt::Text("a\nb\nc".to_owned()));
        chat(json!({"model": "m", "messages": []})).unwrap_err();
        chat(json!({"model": "m", "messages": [{"role": "user"}]})).unwrap_err();
        chat(json!({"model": "m", "messages": [{"content": [{"type": "text"}]}]})).unwrap_err();
    }

    #[test]
    fn limits_that_contradict_are_refused() {
        let with =
            |key: &str, value: u32| completions(json!({"model": "m", "prompt": "p", key: value}));
        with("max_tokens", 0).unwrap_err();
        with("min_tokens", 17).unwrap_err();
        with("n", 2).unwrap_err();
        assert_eq!(with("max_completion_tokens", 5).unwrap().max_tokens, 5);
    }

    #[test]
    fn an_answer_ends_by_itself_or_where_the_request_says() {
        let length = |natural: u32, more: Value| {
            let mut body = json!({"model": "m", "prompt": "p", "max_tokens": 20});
            for (key, value) in more.as_object().unwrap() {
                body[key] = value.clone();
            }
            completions(body).unwrap().answer_length(natural)
        };
        assert_eq!(length(5, json!({})), (5, FinishReason::Stop));
        assert_eq!(length(30, json!({})), (20, FinishReason::Length));
        assert_eq!(length(5, json!({"min_tokens": 8})), (8, FinishReason::Stop));
        assert_eq!(length(5, json!({"ignore_eos": true})), (20, FinishReason::Length));
        assert_eq!(length(0, json!({})), (1, FinishReason::Stop));
    }
}
