//! A short request before the clock starts: whether the server answers at all, and how it wants to be
//! asked. Never in mid-run.

use anyhow::bail;

use crate::client::Client;
use crate::clock::Clock;
use crate::config::StreamOptions;
use crate::plan::{Address, Backend, Case};
use crate::probe::Probe;
use crate::prompt::Prompt;
use crate::record::{Failure, Outcome};
use crate::stop::Stop;
use crate::watchdog::Limits;
use crate::wire::{LengthField, ProtocolKind, Request};
use crate::workload::PromptRequest;

/// How the requests of a case are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    include_usage: bool,
    length_field: LengthField,
    ignore_eos: bool,
    min_tokens: bool,
    /// What the server would not have, for the reader of the numbers.
    pub notes: Vec<String>,
}

impl Manners {
    /// As the plan says.
    pub fn of(backend: &Backend) -> Self {
        Self {
            include_usage: backend.stream_options != StreamOptions::Off,
            length_field: backend.length_field,
            ignore_eos: backend.ignore_eos,
            min_tokens: backend.min_tokens,
            notes: Vec::new(),
        }
    }

    /// The body of one request: the protocol's own fields, and the backend's extra ones over them.
    pub fn body(&self, case: &Case, request: &PromptRequest) -> Vec<u8> {
        let backend = &case.backend;
        let mut body = backend.protocol.body(&Request {
            model: &case.model.id,
            prompt: &request.prompt,
            output_tokens: request.output_tokens,
            length_field: self.length_field,
            ignore_eos: self.ignore_eos,
            min_tokens: self.min_tokens,
            include_usage: self.include_usage,
        });
        body.extend(backend.extra_body.clone());
        serde_json::Value::Object(body).to_string().into_bytes()
    }

    /// What to try after the server has refused these with `message`: without the field that it names,
    /// or without one that it may not know. `None` where nothing is left.
    fn milder(&self, backend: &Backend, message: &str) -> Option<Self> {
        let names = |field: &str| message.contains(field);
        let chat = backend.protocol == ProtocolKind::Chat;
        let may_drop_usage = self.include_usage
            && backend.stream_options == StreamOptions::Auto
            && backend.protocol.has_stream_options();
        let without = |note: &str, change: fn(&mut Self)| {
            let mut milder = self.clone();
            milder.notes.push(format!("the server refuses {note} ({message})"));
            change(&mut milder);
            Some(milder)
        };
        let usage = || {
            without("`stream_options`: token counts are not asked for", |manners| {
                manners.include_usage = false;
            })
        };
        let eos = || {
            let note = "`ignore_eos`: answers may end before their length";
            without(note, |manners| manners.ignore_eos = false)
        };
        match self.length_field {
            LengthField::MaxTokens if chat && names("max_completion_tokens") => {
                without("`max_tokens`: `max_completion_tokens` is sent", |manners| {
                    manners.length_field = LengthField::MaxCompletionTokens;
                })
            }
            LengthField::MaxCompletionTokens if chat && names("max_completion_tokens") => {
                without("`max_completion_tokens`: `max_tokens` is sent", |manners| {
                    manners.length_field = LengthField::MaxTokens;
                })
            }
            _ if may_drop_usage && names("stream_options") => usage(),
            _ if self.ignore_eos && names("ignore_eos") => eos(),
            _ if self.min_tokens && names("min_tokens") => {
                without("`min_tokens`: answers may end before their length", |manners| {
                    manners.min_tokens = false;
                })
            }
            _ if may_drop_usage => usage(),
            _ if self.ignore_eos => eos(),
            _ => None,
        }
    }
}

/// Sends one short request, so that a wrong model or key is one clear error and not hundreds of failures,
/// and asks again in a milder way where the server refuses a field.
pub async fn try_out(
    case: &Case,
    client: &Client,
    address: &Address,
    limits: Limits,
    stop: &Stop,
) -> anyhow::Result<Manners> {
    let prompt = PromptRequest::single(Prompt::Text("Say hello.".to_owned()), None, 8);
    let mut manners = Manners::of(&case.backend);
    let mut first = None;
    loop {
        let request = client.prepare(&manners.body(case, &prompt), prompt.output_tokens);
        let answer = client.send(Clock::start(), &request, limits, stop).await;
        let (failure, message) = match answer.outcome {
            Outcome::Completed => {
                if answer.stream.one_block {
                    manners.notes.push(
                        "the server answers in one block, not in a stream: TTFT, TPOT and the gaps \
                         cannot be measured"
                            .to_owned(),
                    );
                }
                return Ok(manners);
            }
            Outcome::Failed { failure: Failure::Cancelled, .. } => return Ok(manners),
            Outcome::Failed { failure, message } => (failure, message),
        };
        let milder = match failure {
            Failure::Http(400 | 422) => manners.milder(&case.backend, &message),
            _ => None,
        };
        // What it says of the request as it was meant is of more use than what it says at last.
        let (failure, message) = first.get_or_insert((failure, message));
        match milder {
            Some(milder) => manners = milder,
            None => {
                let hint = served_instead(case, address).await?;
                bail!("the test prompt to {address:?} failed: {failure}: {message}{hint}");
            }
        }
    }
}

/// What the server serves, where it says so and the model is not among it.
async fn served_instead(case: &Case, address: &Address) -> anyhow::Result<String> {
    let url = address.below("/v1/models");
    let served = Probe::new(&case.backend, &url)?.models(url, case.backend.connect_timeout).await;
    Ok(match served {
        Some(models) if !models.contains(&case.model.id) => {
            format!("; it serves {}, not `{}`", models.join(", "), case.model.id)
        }
        _ => String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Preset, SimConfig};

    fn backend(protocol: ProtocolKind, stream_options: StreamOptions) -> Backend {
        let embedded = Backend::embedded(SimConfig::preset(Preset::Small));
        Backend { protocol, stream_options, min_tokens: true, ..embedded }
    }

    /// What is left of the optional fields, refusal by refusal.
    fn refused(backend: &Backend, messages: &[&str]) -> Vec<String> {
        let mut manners = Some(Manners::of(backend));
        let mut left = Vec::new();
        for message in messages {
            manners = manners.and_then(|manners| manners.milder(backend, message));
            left.push(match &manners {
                None => "nothing".to_owned(),
                Some(manners) => {
                    let shown =
                        |on: bool, name: &str| if on { format!("{name} ") } else { String::new() };
                    let fields = shown(manners.include_usage, "usage")
                        + &shown(manners.ignore_eos, "eos")
                        + &shown(manners.min_tokens, "min");
                    fields + manners.length_field.name()
                }
            });
        }
        left
    }

    #[test]
    fn the_field_that_the_server_names_is_left_out() {
        let chat = backend(ProtocolKind::Chat, StreamOptions::Auto);
        for (message, left) in [
            ("Unrecognized argument: ignore_eos", "usage min max_tokens"),
            ("Unknown field stream_options", "eos min max_tokens"),
            ("extra inputs are not permitted: min_tokens", "usage eos max_tokens"),
            ("use 'max_completion_tokens' instead", "usage eos min max_completion_tokens"),
        ] {
            assert_eq!(refused(&chat, &[message]), [left], "{message}");
        }
    }

    #[test]
    fn where_it_names_none_what_it_may_not_know_is_left_out_one_by_one() {
        let chat = backend(ProtocolKind::Chat, StreamOptions::Auto);
        let left = refused(&chat, &["no", "no", "no"]);
        assert_eq!(left, ["eos min max_tokens", "min max_tokens", "nothing"]);
        let insisting = backend(ProtocolKind::Chat, StreamOptions::On);
        assert_eq!(refused(&insisting, &["stream_options"]), ["usage min max_tokens"]);
        let triton = backend(ProtocolKind::Triton, StreamOptions::Auto);
        assert_eq!(refused(&triton, &["no"]), ["usage min max_tokens"]);
    }

    #[test]
    fn what_was_left_out_is_noted_with_the_servers_word() {
        let chat = backend(ProtocolKind::Chat, StreamOptions::Auto);
        let manners = Manners::of(&chat).milder(&chat, "stream_options: not today").unwrap();
        let expected = "the server refuses `stream_options`: token counts are not asked for \
                        (stream_options: not today)";
        assert_eq!(manners.notes, [expected]);
    }
}
