//! Wire protocols: what is sent, and what each event of the answer means. One file a protocol, all
//! pure: bytes in, meaning out; no sockets, no time.

use serde::Deserialize;

use crate::prompt::Prompt;
use crate::record::FinishReason;
use crate::surrogates;

mod chat;
mod completions;
mod fault;
mod finish;
mod items;
mod lenient;
mod openai;
mod responses;
mod sse;
mod tgi;
mod triton;

pub use fault::message as error_message;
pub use sse::{EventName, SseParser};

/// What speaks at a backend's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// MAX Serve, completions.
    Modular,
    /// MAX Serve, chat.
    ModularChat,
    /// vLLM, completions.
    Vllm,
    /// vLLM, chat.
    VllmChat,
    /// SGLang, completions.
    Sglang,
    /// SGLang, chat.
    SglangChat,
    /// llama.cpp, completions.
    LlamaCpp,
    /// llama.cpp, chat.
    LlamaCppChat,
    /// Any OpenAI-compatible server, completions.
    #[serde(rename = "openai")]
    #[value(name = "openai")]
    OpenAi,
    /// Any OpenAI-compatible server, chat.
    #[serde(rename = "openai-chat")]
    #[value(name = "openai-chat")]
    OpenAiChat,
    /// OpenAI's responses.
    #[serde(rename = "openai-responses")]
    #[value(name = "openai-responses")]
    OpenAiResponses,
    /// TensorRT-LLM behind Triton's generate extension.
    TrtLlm,
    /// Text Generation Inference.
    Tgi,
    /// The embedded engine, started by the harness.
    Sim,
}

impl BackendKind {
    /// The name in configs, flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Modular => "modular",
            Self::ModularChat => "modular-chat",
            Self::Vllm => "vllm",
            Self::VllmChat => "vllm-chat",
            Self::Sglang => "sglang",
            Self::SglangChat => "sglang-chat",
            Self::LlamaCpp => "llama-cpp",
            Self::LlamaCppChat => "llama-cpp-chat",
            Self::OpenAi => "openai",
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::TrtLlm => "trt-llm",
            Self::Tgi => "tgi",
            Self::Sim => "sim",
        }
    }

    /// The protocol spoken; `None` for the embedded engine, which speaks them all.
    pub fn protocol(self) -> Option<ProtocolKind> {
        match self {
            Self::Modular | Self::Vllm | Self::Sglang | Self::LlamaCpp | Self::OpenAi => {
                Some(ProtocolKind::Completions)
            }
            Self::ModularChat
            | Self::VllmChat
            | Self::SglangChat
            | Self::LlamaCppChat
            | Self::OpenAiChat => Some(ProtocolKind::Chat),
            Self::OpenAiResponses => Some(ProtocolKind::Responses),
            Self::TrtLlm => Some(ProtocolKind::Triton),
            Self::Tgi => Some(ProtocolKind::Tgi),
            Self::Sim => None,
        }
    }

    /// Whether the engine knows `ignore_eos`, a field that OpenAI's own API refuses.
    pub fn knows_ignore_eos(self) -> bool {
        !matches!(self, Self::OpenAi | Self::OpenAiChat | Self::OpenAiResponses)
    }

    /// Whether the engine knows `min_tokens`: `ignore_eos` alone does not keep every answer from ending
    /// early.
    pub fn knows_min_tokens(self) -> bool {
        use BackendKind as Kind;
        match self {
            Kind::Modular | Kind::ModularChat | Kind::Vllm | Kind::VllmChat => true,
            Kind::Sglang | Kind::SglangChat | Kind::TrtLlm | Kind::Sim => true,
            Kind::LlamaCpp | Kind::LlamaCppChat | Kind::Tgi => false,
            Kind::OpenAi | Kind::OpenAiChat | Kind::OpenAiResponses => false,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What the server calls the model.
    pub model: &'a str,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The longest answer, tokens.
    pub output_tokens: u32,
    /// Under which name chat servers are told that.
    pub length_field: LengthField,
    /// Whether the answer is kept from ending before its length.
    pub ignore_eos: bool,
    /// Whether `min_tokens` is sent, equal to the length.
    pub min_tokens: bool,
    /// Whether usage counts are asked for.
    pub include_usage: bool,
}

/// How OpenAI's chat is told the longest answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthField {
    /// As all engines know it.
    #[default]
    MaxTokens,
    /// As OpenAI's newer models want it.
    MaxCompletionTokens,
}

impl LengthField {
    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// The wire protocols by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolKind {
    /// OpenAI completions, streamed.
    Completions,
    /// OpenAI chat completions, streamed.
    Chat,
    /// OpenAI responses, streamed.
    Responses,
    /// Triton's generate extension, streamed.
    Triton,
    /// Text Generation Inference, streamed.
    Tgi,
}

impl ProtocolKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Completions, Self::Chat, Self::Responses, Self::Triton, Self::Tgi];

    /// The name in configs and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Triton => "triton",
            Self::Tgi => "tgi",
        }
    }

    /// The path below the base URL unless the backend names another.
    pub fn default_endpoint(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Triton => "/v2/models/ensemble/generate_stream",
            Self::Tgi => "/generate_stream",
        }
    }

    /// Whether a complete answer ends with its response and without a word in it.
    pub fn ends_with_response(self) -> bool {
        matches!(self, Self::Triton)
    }

    /// Whether the server can be asked for usage counts by `stream_options`.
    pub fn has_stream_options(self) -> bool {
        matches!(self, Self::Completions | Self::Chat)
    }

    /// Whether a request is a conversation.
    pub fn is_chat(self) -> bool {
        matches!(self, Self::Chat | Self::Responses)
    }

    /// Whether a prompt can be sent as token IDs.
    pub fn takes_tokens(self) -> bool {
        matches!(self, Self::Completions)
    }

    /// Whether a field of a request in OpenAI's form, which the data may hold, is sent as it is.
    pub fn takes_field(self, field: &str) -> bool {
        const OF_CHAT: [&str; 17] = [
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "functions",
            "function_call",
            "response_format",
            "reasoning_effort",
            "verbosity",
            "modalities",
            "audio",
            "prediction",
            "web_search_options",
            "chat_template",
            "chat_template_kwargs",
            "add_generation_prompt",
            "continue_final_message",
            "top_logprobs",
        ];
        const OF_COMPLETIONS: [&str; 1] = ["suffix"];
        const OF_RESPONSES: [&str; 11] = [
            "tools",
            "tool_choice",
            "temperature",
            "top_p",
            "top_logprobs",
            "parallel_tool_calls",
            "reasoning",
            "service_tier",
            "prompt_cache_key",
            "ignore_eos",
            "min_tokens",
        ];
        match self {
            Self::Completions => !OF_CHAT.contains(&field),
            Self::Chat => !OF_COMPLETIONS.contains(&field),
            Self::Responses => OF_RESPONSES.contains(&field),
            Self::Triton | Self::Tgi => false,
        }
    }

    /// Adds the fields of a request in OpenAI's form that are sent, in the place of those of the same name.
    pub fn add_fields(
        self,
        fields: &serde_json::Map<String, serde_json::Value>,
        body: &mut serde_json::Map<String, serde_json::Value>,
    ) {
        for (name, value) in fields.iter().filter(|(name, _)| self.takes_field(name)) {
            let value = match self {
                Self::Responses => items::field(name, value).into_owned(),
                Self::Completions | Self::Chat | Self::Triton | Self::Tgi => value.clone(),
            };
            body.insert(name.clone(), value);
        }
    }

    /// The JSON body of a request.
    pub fn body(self, request: &Request<'_>) -> serde_json::Map<String, serde_json::Value> {
        match self {
            Self::Completions => completions::body(request),
            Self::Chat => chat::body(request),
            Self::Responses => responses::body(request),
            Self::Triton => triton::body(request),
            Self::Tgi => tgi::body(request),
        }
    }

    /// Puts what the data of one event means into `event`, in the place of what was there. An event
    /// that is used again and again costs no allocation.
    pub fn read(self, data: &[u8], event: &mut Event) -> Result<(), EventError> {
        event.clear();
        let text = data.trim_ascii();
        if text.eq_ignore_ascii_case(b"[DONE]") || text == b"\"[DONE]\"" {
            event.done = true;
            return Ok(());
        }
        if is_keep_alive(text) {
            return Ok(());
        }
        let read = self.read_json(data, event);
        if let Err(EventError::BadJson(_)) = &read
            && let Some(repaired) = surrogates::replaced(data)
        {
            event.clear();
            return self.read_json(&repaired, event);
        }
        read
    }

    fn read_json(self, data: &[u8], event: &mut Event) -> Result<(), EventError> {
        match self {
            Self::Completions => completions::read(data, event),
            Self::Chat => chat::read(data, event),
            Self::Responses => responses::read(data, event),
            Self::Triton => triton::read(data, event),
            Self::Tgi => tgi::read(data, event),
        }
    }
}

/// The JSON of an event's data.
fn parse<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, EventError> {
    serde_json::from_slice(data).map_err(|error| EventError::BadJson(error.to_string()))
}

/// Whether an event's data is there only to keep the connection open: nothing, a comment in its place, or a word for it.
fn is_keep_alive(text: &[u8]) -> bool {
    match text.first() {
        None | Some(b':') => true,
        Some(b'{') => false,
        Some(_) => {
            let text = text.strip_prefix(b"[").unwrap_or(text);
            let text = text.strip_suffix(b"]").unwrap_or(text);
            let words: [&[u8]; 8] = [
                b"",
                b"null",
                b"\"\"",
                b"ping",
                b"keep-alive",
                b"keep_alive",
                b"keepalive",
                b"heartbeat",
            ];
            words.iter().any(|word| text.eq_ignore_ascii_case(word))
        }
    }
}

/// The bit of a choice; all beyond 63 share one.
fn bit(choice: u32) -> u64 {
    1 << choice.min(63)
}

/// Fails where an event's `error` field says something.
fn no_error(error: Option<serde_json::Value>) -> Result<(), EventError> {
    match error.filter(|error| !fault::is_empty(error)) {
        Some(error) => Err(EventError::Server(fault::message_of(&error))),
        None => Ok(()),
    }
}

/// Fails where an event without a part of an answer is an error.
fn no_fault(data: &[u8]) -> Result<(), EventError> {
    fault::of(data).map_or(Ok(()), |message| Err(EventError::Server(message)))
}

/// What one event of a stream brought. Most bring one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Answer text; may be empty.
    pub text: String,
    /// Reasoning text; may be empty.
    pub reasoning: String,
    /// Whether it holds output that is no text here: part of a tool call, audio, another choice's text.
    pub other_output: bool,
    /// Which choice the text is of.
    pub choice: u32,
    /// The choices that it speaks of, and those that it ends; a bit each, all beyond 63 in one.
    pub seen: u64,
    /// See `seen`.
    pub finished: u64,
    /// See `seen`: those that it brings output of.
    pub with_output: u64,
    /// Why the server stopped, where this event ends the answer; of several choices, the worst.
    pub finish_reason: Option<FinishReason>,
    /// How many tokens this event is, where the protocol says so.
    pub tokens: Option<u32>,
    /// Token counts so far, where the event has them.
    pub usage: Option<crate::record::Usage>,
    /// The end mark of the stream.
    pub done: bool,
}

impl Event {
    /// Empties it, and keeps its room.
    fn clear(&mut self) {
        let (mut text, mut reasoning) =
            (std::mem::take(&mut self.text), std::mem::take(&mut self.reasoning));
        text.clear();
        reasoning.clear();
        *self = Self { text, reasoning, ..Self::default() };
    }

    /// Notes why the server stopped, where it says so.
    fn finish(&mut self, reason: Option<FinishReason>) {
        if reason.is_some() {
            self.seen |= bit(self.choice);
            self.finished |= bit(self.choice);
        }
        self.finish_reason = worse(self.finish_reason.take(), reason);
    }

    /// Notes that it speaks of its choice, once what it says of it is there.
    fn note_choice(&mut self) {
        self.seen |= bit(self.choice);
        if self.has_output() {
            self.with_output |= bit(self.choice);
        }
    }

    /// Adds what the event says of a choice beside its first.
    fn add_other(&mut self, other: Self) {
        self.other_output |= other.has_output();
        self.seen |= other.seen;
        self.finished |= other.finished;
        self.with_output |= other.with_output;
        self.usage = self.usage.or(other.usage);
        self.finish_reason = worse(self.finish_reason.take(), other.finish_reason);
    }

    /// Whether it holds generated output, and so moves the clock.
    pub fn has_output(&self) -> bool {
        !self.text.is_empty() || !self.reasoning.is_empty() || self.other_output
    }
}

/// Of two reasons, the failure; else the later one.
pub(crate) fn worse(
    before: Option<FinishReason>,
    after: Option<FinishReason>,
) -> Option<FinishReason> {
    match (before, after) {
        (Some(before @ FinishReason::Failed(_)), _) => Some(before),
        (before, after) => after.or(before),
    }
}

/// Why an event ends its request as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventError {
    /// It is an error object; what it says.
    Server(String),
    /// It is not what the protocol says; why.
    BadJson(String),
}
