//! A short request before the clock starts: where the server answers, whether it does at all, and how it wants
//! to be asked. Never in mid-run.

use std::sync::Arc;

use anyhow::anyhow;

use crate::client::{Client, Exchange, Refusal};
use crate::clock::Clock;
use crate::manners::Manners;
use crate::plan::{Address, Case};
use crate::probe::{Probe, ServedModel};
use crate::prompt::Prompt;
use crate::record::{Failure, FinishReason, Outcome};
use crate::stop::Stop;
use crate::watchdog::Limits;
use crate::wire::BackendKind;
use crate::workload::PromptRequest;

/// The longest answer to the test prompt, tokens: the least that every API takes.
const TEST_TOKENS: u32 = 16;
/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 10;
/// How many of the models that a server has an error names.
const MOST_NAMED: usize = 10;

/// How a case is sent.
#[derive(Clone)]
pub struct Way {
    /// The case, with the server as it was found.
    pub case: Case,
    /// Where the server is.
    pub address: Address,
    /// Speaks to it.
    pub client: Client,
    /// How its requests are put.
    pub manners: Manners,
    /// What else was found out, for the reader of the numbers.
    notes: Vec<String>,
}

/// The server would not answer these requests, whatever load they make: there is nothing to measure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Way {
    /// As the plan says.
    pub fn of(case: &Case, address: &Address) -> anyhow::Result<Self> {
        Ok(Self {
            case: case.clone(),
            address: address.clone(),
            client: Client::new(&case.backend, &address.endpoint_url())?,
            manners: Manners::of(&case.backend),
            notes: Vec::new(),
        })
    }

    /// What the reader of the numbers should know.
    pub fn notes(&self) -> Vec<String> {
        [self.notes.as_slice(), &self.manners.notes].concat()
    }

    /// The way to where a redirect leads.
    fn redirected(self, location: Option<&str>) -> anyhow::Result<Self> {
        let from = self.address.shown_endpoint();
        let refused = |error| Refused(format!("a redirect of {from} is not followed: {error}"));
        let address = self.address.redirected(location).map_err(refused)?;
        let to = address.shown_endpoint();
        let mut note = format!("{from} redirects to {to}, where requests are sent");
        let is_known = address.is_of_origin(&self.address);
        let mut case = self.case;
        if !is_known && case.backend.has_secrets() {
            note.push_str(
                ", without the API key and the headers of the plan: it is another origin; name it in \
                 `base_url` if it is to know them",
            );
        }
        case.backend = Arc::new(case.backend.at(&address, is_known));
        let client = Client::new(&case.backend, &address.endpoint_url())?;
        let notes = self.notes.into_iter().chain([note]).collect();
        Ok(Self { case, address, client, notes, ..self })
    }
}

/// Sends one short request, so that a wrong model or key is one clear error and not hundreds of failures. Follows
/// redirects, and asks again in a milder way where the server refuses a field.
pub async fn try_out(
    case: &Case,
    address: &Address,
    limits: Limits,
    stop: &Stop,
) -> anyhow::Result<Way> {
    let prompt = PromptRequest::single(Prompt::Text("Say hello.".to_owned()), None, TEST_TOKENS);
    let mut way = Way::of(case, address)?;
    let mut visited = vec![address.endpoint_url()];
    loop {
        let request = way.client.prepare(&way.manners.body(&way.case, &prompt), TEST_TOKENS);
        let answer = way.client.send(Clock::start(), &request, limits, stop).await;
        let Exchange { outcome, stream, refusal, .. } = &answer;
        let (failure, message) = match outcome {
            Outcome::Failed { failure: Failure::Cancelled, .. } => return Ok(way),
            Outcome::Failed { failure, message } if !is_cut(&answer) => (failure, message),
            Outcome::Completed | Outcome::Failed { .. } => {
                if stream.one_block {
                    way.notes.push(
                        "the server answers in one block, not in a stream: TTFT, TPOT and the gaps \
                         cannot be measured"
                            .to_owned(),
                    );
                }
                if let Some(note) = check_model(&way).await? {
                    way.notes.push(note);
                }
                return Ok(way);
            }
        };
        let Refusal { location, body } = refusal.as_ref().unwrap_or(&NOTHING);
        match failure {
            Failure::Http(307 | 308) => {
                way = way.redirected(location.as_deref())?;
                let url = way.address.endpoint_url();
                let loops = visited.contains(&url);
                visited.push(url);
                if loops || MOST_REDIRECTS < visited.len() - 1 {
                    return Err(Refused(endless(&visited, loops)).into());
                }
            }
            Failure::Http(400 | 422) => {
                match way.manners.milder(&way.case, &prompt, body, message) {
                    Some(milder) => way.manners = milder,
                    None => return Err(failed(&way, *failure, message).await),
                }
            }
            _ => return Err(failed(&way, *failure, message).await),
        }
    }
}

static NOTHING: Refusal = Refusal { location: None, body: Vec::new() };

/// Whether the model answered, and the answer was over before anything of it was to be seen: reasoning that is
/// not shown takes more than a short answer holds.
fn is_cut(answer: &Exchange) -> bool {
    let Outcome::Failed { failure: Failure::Empty, .. } = answer.outcome else { return false };
    let reason = answer.stream.finish_reason.as_ref().map(FinishReason::word);
    let counted = answer.stream.usage.and_then(|usage| usage.completion_tokens);
    matches!(reason, Some("length" | "max_tokens" | "max_output_tokens"))
        || counted.is_some_and(|tokens| 0 < tokens)
}

/// What to say of redirects that do not end.
fn endless(visited: &[url::Url], loops: bool) -> String {
    let shown = visited.iter().map(|url| Address::shown_location(url.as_str()));
    let places = shown.collect::<Vec<_>>().join(" -> ");
    if loops {
        format!("the redirects of the server lead in a circle: {places}")
    } else {
        format!("more than {MOST_REDIRECTS} redirects follow each other: {places}")
    }
}

/// Why the case is not run: what the server said last, and what may help.
async fn failed(way: &Way, failure: Failure, message: &str) -> anyhow::Error {
    let Way { case, address, manners, notes, .. } = way;
    let mut text = format!("the test prompt to {address:?} failed: {failure}: {message}");
    match served(way).await {
        Some(models) if !is_served(&models, &case.model.id) => {
            text.push_str(&format!("; {}", serves_others(&models, &case.model.id)));
        }
        _ => {}
    }
    if let Failure::Http(301..=303) = failure {
        text.push_str(
            ", which is followed by no prompt: name that place in `base_url` and `endpoint`",
        );
    }
    if let Some(changes) = manners.changes() {
        text.push_str(&format!("; that was the answer to a request {changes}"));
    }
    for note in notes {
        text.push_str(&format!("; {note}"));
    }
    match failure {
        Failure::Http(300..500) => Refused(text).into(),
        _ => anyhow!(text),
    }
}

/// Fails where the server says that it serves other models, though it answered for this one. What to note where
/// it is known to answer to any name.
async fn check_model(way: &Way) -> anyhow::Result<Option<String>> {
    use BackendKind as Kind;
    let asked = &way.case.model.id;
    let models = match way.case.backend.kind {
        // Their requests name no model.
        Kind::TrtLlm | Kind::Tgi | Kind::Sim => return Ok(None),
        _ => served(way).await,
    };
    let Some(models) = models.filter(|models| !is_served(models, asked)) else { return Ok(None) };
    let others = serves_others(&models, asked);
    let any_name = matches!(way.case.backend.kind, Kind::LlamaCpp | Kind::LlamaCppChat)
        || models.iter().any(ServedModel::is_of_llama_cpp);
    if any_name {
        return Ok(Some(format!("of the server: {others}; it answers to any name of a model")));
    }
    let hint = "it answers all the same, perhaps with another model; `probe = false` or \
                --skip-test-prompt leaves this check out";
    Err(Refused(format!("the model is refused: {others}; {hint}")).into())
}

/// The models that the server says it serves.
async fn served(way: &Way) -> Option<Vec<ServedModel>> {
    let backend = &way.case.backend;
    let url = way.address.below("/v1/models");
    let models = Probe::new(backend, &url).ok()?.models(url, backend.connect_timeout).await?;
    (!models.is_empty()).then_some(models)
}

fn is_served(models: &[ServedModel], asked: &str) -> bool {
    models.iter().any(|model| model.is_called(asked))
}

/// Which models a server has that has not the one that was asked for; the most like it first.
fn serves_others(models: &[ServedModel], asked: &str) -> String {
    let mut names: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
    let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &asked.to_lowercase());
    names.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("it serves {}{more}, not `{asked}`", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(ids: &[&str]) -> Vec<ServedModel> {
        let model = |id: &&str| ServedModel { id: (*id).to_owned(), ..ServedModel::default() };
        ids.iter().map(model).collect()
    }

    #[test]
    fn the_models_that_are_most_like_the_one_asked_for_are_named_first() {
        let models = served(&["gpt-x", "llama-3.1-8b-instruct", "mistral"]);
        let said = serves_others(&models, "Llama-3.1-8B");
        assert!(said.starts_with("it serves llama-3.1-8b-instruct, "), "{said}");
        assert!(said.ends_with("not `Llama-3.1-8B`"), "{said}");
        let many: Vec<String> = (0..30).map(|number| format!("m{number}")).collect();
        let many = served(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(serves_others(&many, "m31").contains(" and 20 more, not `m31`"));
    }
}
