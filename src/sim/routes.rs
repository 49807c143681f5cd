//! Which request gets which answer.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use serde_json::json;

use super::answer::{Answer, Stage};
use super::api_error::ApiError;
use super::chunk::Format;
use super::config::SimConfig;
use super::engine::{Engine, Submission};
use super::lexicon::{Lexicon, Words};
use super::request::{Endpoint, GenerationRequest, Prompt};
use super::truth::{TruthLog, TruthRecord};
use crate::clock::Clock;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A body of either kind.
pub(crate) type AnyBody = Either<Full<Bytes>, Answer>;

/// Answers requests.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) clock: Clock,
    pub(crate) config: SimConfig,
    pub(crate) words: Words,
    pub(crate) engine: Engine,
    pub(crate) truth: TruthLog,
}

impl Routes {
    /// The answer to a request; fails where the connection does.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<AnyBody>, Box<dyn Error + Send + Sync>> {
        let arrived = self.clock.now();
        let path = request.uri().path();
        let endpoint = Endpoint::of(path);
        let allowed = match path {
            _ if endpoint.is_some() => Method::POST,
            "/sim/truth/reset" => Method::POST,
            "/v1/models" | "/health" | "/version" | "/metrics" | "/sim/truth" => Method::GET,
            _ => return Ok(refusal(&ApiError::unknown_route(path))),
        };
        if request.method() != allowed {
            let mut response = refusal(&ApiError::wrong_method(allowed.as_str()));
            response.headers_mut().insert(ALLOW, HeaderValue::from_str(allowed.as_str())?);
            return Ok(response);
        }
        if let Some(endpoint) = endpoint {
            let body = request.into_body().collect().await?.to_bytes();
            let answer = self.generate(endpoint, &body, arrived).await;
            return Ok(answer.unwrap_or_else(|error| refusal(&error)));
        }
        Ok(match path {
            "/v1/models" => full(JSON, self.models()),
            "/version" => full(JSON, json!({"version": env!("CARGO_PKG_VERSION")}).to_string()),
            "/metrics" => full(METRICS, self.engine.metrics(self.config.model_name())),
            "/sim/truth" => full(JSON, serde_json::to_string(&self.truth.records())?),
            "/sim/truth/reset" => {
                self.truth.reset();
                full(JSON, "{}")
            }
            _ => full(JSON, ""),
        })
    }

    async fn generate(
        &self,
        endpoint: Endpoint,
        body: &[u8],
        arrived: Duration,
    ) -> Result<Response<AnyBody>, ApiError> {
        let request = GenerationRequest::parse(endpoint, body)?;
        if let Some(model) = request.model.as_ref().filter(|model| !self.config.serves(model)) {
            return Err(ApiError::unknown_model(model, &self.config.models));
        }
        let answer_seed = seed(self.config.seed, &request.prompt);
        let (output_tokens, reason) = request.answer_length(self.natural_length(answer_seed));
        let GenerationRequest { model, prompt, max_tokens, stream, include_usage, .. } = request;
        let model = model.unwrap_or_else(|| self.config.model_name().to_owned());
        let stream = stream && !self.config.dialect.one_block;
        let prompt_tokens = self.count(prompt).await?;
        let submission = Submission { arrived, prompt_tokens, max_tokens, output_tokens, reason };
        let (sequence, tokens) = self.engine.submit(submission).map_err(|_| {
            ApiError::too_long(self.config.kv_cache_tokens, prompt_tokens, max_tokens)
        })?;
        let id = match endpoint {
            Endpoint::Completions => format!("cmpl-{sequence}"),
            Endpoint::Chat => format!("chatcmpl-{sequence}"),
            Endpoint::Responses => format!("resp-{sequence}"),
            Endpoint::Triton | Endpoint::Tgi => sequence.to_string(),
        };
        let record = self.truth.open(TruthRecord {
            id: id.clone(),
            model: model.clone(),
            arrived,
            prompt_tokens,
            max_tokens,
            tokens: Vec::with_capacity(output_tokens as usize),
            first_byte: None,
            ended: None,
            cancelled: false,
        });
        let answer = Answer {
            sequence,
            tokens,
            engine: self.engine.clone(),
            clock: self.clock,
            record,
            format: Format::new(
                endpoint,
                id,
                model,
                arrived.as_secs(),
                include_usage,
                self.config.dialect,
            ),
            words: self.words.answer(answer_seed),
            reason,
            prompt_tokens,
            generated: 0,
            stage: if stream { Stage::Opening } else { Stage::Whole },
            held: String::new(),
            held_tokens: 0,
        };
        let mut response = Response::new(Either::Right(answer));
        response.headers_mut().insert(CONTENT_TYPE, if stream { EVENTS } else { JSON });
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    /// Tokens of a prompt; above 0.
    async fn count(&self, prompt: Prompt) -> Result<u32, ApiError> {
        let text = match prompt {
            Prompt::Tokens(tokens) => return Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX)),
            Prompt::Text(text) => text,
        };
        let count = match &self.config.lexicon {
            Lexicon::Approximate => Lexicon::Approximate.count_prompt(&text),
            // Tokenizing takes long enough to hold up the tokens of others.
            lexicon => {
                let lexicon = lexicon.clone();
                tokio::task::spawn_blocking(move || lexicon.count_prompt(&text))
                    .await
                    .unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        count.map_err(|error| ApiError::bad_request(None, error))
    }

    /// Where an answer ends by itself: from half the mean length to one and a half.
    fn natural_length(&self, answer_seed: u64) -> u32 {
        let share = ChaCha12Rng::seed_from_u64(answer_seed).random_range(0.5..1.5);
        (f64::from(self.config.mean_natural_tokens) * share).round() as u32
    }

    fn models(&self) -> String {
        let model =
            |id: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": "sim"});
        let data: Vec<_> = if self.config.models.is_empty() {
            let mut any = model(self.config.model_name());
            // It answers to every name.
            any["aliases"] = json!(["*"]);
            vec![any]
        } else {
            self.config.models.iter().map(|id| model(id)).collect()
        };
        json!({"object": "list", "data": data}).to_string()
    }
}

/// The same for the same prompt (FNV-1a), so that an answer does not depend on what else is asked.
fn seed(seed: u64, prompt: &Prompt) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let start = seed.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    match prompt {
        Prompt::Text(text) => text.bytes().fold(start, step),
        Prompt::Tokens(tokens) => tokens.iter().flat_map(|t| t.to_le_bytes()).fold(start, step),
    }
}

fn full(content_type: HeaderValue, body: impl Into<Bytes>) -> Response<AnyBody> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn refusal(error: &ApiError) -> Response<AnyBody> {
    let mut response = full(JSON, error.json());
    *response.status_mut() = error.status;
    response
}
