//! How many tokens a request had, by the server's word and by the tokenizer's. Pure.

use std::time::Duration;

use crate::record::{FinishReason, RequestRecord, Stream, Usage};
use crate::tokenizer::Tokenizer;
use crate::workload::PromptRequest;

/// Two counts of the same tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// By the server's `usage`.
    pub server: Option<u32>,
    /// By the tokenizer.
    pub client: Option<u32>,
}

impl TokenCount {
    /// The server's count, which knows what the model saw; the tokenizer's where there is none.
    pub fn best(self) -> Option<u32> {
        self.server.or(self.client)
    }
}

/// The tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTokens {
    /// Of the prompt.
    pub input: TokenCount,
    /// Of the answer and the reasoning.
    pub output: TokenCount,
    /// The prompt's length as it was asked for.
    pub input_asked: Option<u32>,
    /// Of the prompt, what begins other prompts of the case too: the salt.
    pub salt: u32,
    /// The longest answer asked for.
    pub asked: u32,
    /// Prompt tokens that the server answered from a prefix cache, where it says so.
    pub cached: Option<u32>,
    /// Tokens of the answer that no event brought: reasoning that is not streamed, the end-of-sequence token.
    pub unstreamed: Unstreamed,
    /// The server sent counts that cannot be true; they are left out.
    pub refused_counts: bool,
}

/// How many generated tokens no event of the stream brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstreamed {
    /// So many.
    Tokens(u32),
    /// The count and what was streamed cannot both be right, so nobody knows.
    Unknown,
}

impl Default for Unstreamed {
    fn default() -> Self {
        Self::Tokens(0)
    }
}

/// A count more than so many times what was asked for is no count.
const ABSURD: u32 = 100;
/// The server's tokenizer makes at most so many times the tokens of ours of the same text, give or take
/// [`TOKENS_ASIDE`]: more were not streamed.
const MOST_PER_TOKEN: u32 = 2;
/// The part of a prompt that a chat template may make, tokens.
const TEMPLATE_TOKENS: u32 = 100;
/// Tokens that have no text, such as those around the answer.
const TOKENS_ASIDE: u32 = 16;

impl RequestTokens {
    /// How many tokens of the answer its events brought; `None` where that is not known.
    pub fn streamed(self) -> Option<u32> {
        match self.unstreamed {
            Unstreamed::Tokens(tokens) => Some(self.output.best()?.saturating_sub(tokens)),
            Unstreamed::Unknown => None,
        }
    }

    /// When how many tokens of the answer arrived. They are spread evenly over the chunks where the server
    /// does not count those of each.
    pub fn arrivals(self, record: &RequestRecord) -> impl Iterator<Item = (Duration, f64)> {
        let chunks = &record.stream.chunks;
        let total = f64::from(self.output.best().unwrap_or(0));
        let counted: Option<u64> = chunks.iter().map(|chunk| chunk.tokens.map(u64::from)).sum();
        let counted = counted.filter(|counted| 0 < *counted);
        chunks.iter().map(move |chunk| {
            let share = match (counted, chunk.tokens) {
                (Some(counted), Some(tokens)) => f64::from(tokens) / counted as f64,
                _ => 1.0 / chunks.len() as f64,
            };
            (chunk.at, total * share)
        })
    }
}

/// Counts the tokens of the last of `turns`, the turns of `request` until then.
pub fn count(
    turns: &[RequestRecord],
    request: &PromptRequest,
    tokenizer: Option<&Tokenizer>,
    chat: bool,
) -> anyhow::Result<RequestTokens> {
    let Some((record, before)) = turns.split_last() else { return Ok(RequestTokens::default()) };
    let stream = &record.stream;
    let asked = request.output_tokens_of(record.turn).saturating_mul(stream.choices.max(1));
    let prompt = (record.turn == 0).then(|| most_prompt_tokens(request));
    let (usage, refused_counts) = believed(stream, asked, prompt);
    // The texts of choices beside the first are not kept.
    let client = tokenizer
        .filter(|_| stream.choices <= 1)
        .map(|tokenizer| {
            let answer = tokenizer.count_output(&stream.text)?;
            Ok::<_, anyhow::Error>(answer + tokenizer.count_output(&stream.reasoning)?)
        })
        .transpose()?;
    let prompt_by_server = usage.prompt_tokens;
    let prompt_by_client = match (record.turn, tokenizer) {
        (0, _) => request.prompt_tokens,
        // All of a conversation, once more for each turn, is much to count where the server has.
        (_, Some(tokenizer)) if prompt_by_server.is_none() => {
            let answers = before.iter().map(|turn| turn.stream.text.as_str());
            let turn = request.after(answers, chat);
            turn.map(|turn| tokenizer.count(&turn.prompt, chat)).transpose()?
        }
        _ => None,
    };
    Ok(RequestTokens {
        input: TokenCount { server: prompt_by_server, client: prompt_by_client },
        output: TokenCount { server: usage.completion_tokens, client },
        input_asked: (record.turn == 0).then_some(request.asked_tokens).flatten(),
        salt: request.salt_tokens,
        asked,
        cached: usage.cached_tokens,
        unstreamed: unstreamed(stream, usage, client),
        refused_counts,
    })
}

/// How many tokens the prompt of a request has, or at most where that is not known: no token is shorter than a byte,
/// but a chat template adds some of its own.
fn most_prompt_tokens(request: &PromptRequest) -> u32 {
    request.prompt_tokens.unwrap_or_else(|| {
        let bytes = u32::try_from(request.prompt.text().len()).unwrap_or(u32::MAX);
        bytes.max(TEMPLATE_TOKENS)
    })
}

/// The server's counts that can be true of an answer to a prompt of `prompt` tokens, where that is known; whether some
/// cannot.
fn believed(stream: &Stream, asked: u32, prompt: Option<u32>) -> (Usage, bool) {
    let said = stream.usage.unwrap_or_default();
    let mut usage = said;
    let most = |of: u32| of.max(1).saturating_mul(ABSURD);
    let wrote = !stream.chunks.is_empty();
    let streamed = u32::try_from(stream.chunks.len()).unwrap_or(u32::MAX);
    // However long a model thinks, that is told apart.
    let reasoning = said.reasoning_tokens.unwrap_or(0);
    usage.completion_tokens = said.completion_tokens.filter(|count| {
        !(wrote && *count == 0) && count.saturating_sub(reasoning) <= most(asked.max(streamed))
    });
    usage.prompt_tokens = said.prompt_tokens.filter(|count| {
        0 < *count && prompt.is_none_or(|prompt| *count <= most(prompt.max(TEMPLATE_TOKENS)))
    });
    let within = |part: Option<u32>, whole: Option<u32>| match (part, whole) {
        (Some(part), Some(whole)) => part <= whole,
        _ => true,
    };
    usage.cached_tokens =
        said.cached_tokens.filter(|count| within(Some(*count), usage.prompt_tokens));
    usage.reasoning_tokens =
        said.reasoning_tokens.filter(|count| within(Some(*count), usage.completion_tokens));
    let refused = said.unusable || usage != said;
    (usage, refused)
}

/// How many of the answer's tokens no event brought. Reasoning that is counted and has no text was not streamed. A token
/// more than there are events is the one that ended the answer, where one did.
fn unstreamed(stream: &Stream, usage: Usage, by_tokenizer: Option<u32>) -> Unstreamed {
    let Some(output) = usage.completion_tokens else { return Unstreamed::default() };
    let hidden = if stream.reasoning.is_empty() { usage.reasoning_tokens.unwrap_or(0) } else { 0 };
    let streamed = output.saturating_sub(hidden);
    let bytes = u32::try_from(stream.text.len() + stream.reasoning.len()).unwrap_or(u32::MAX);
    // No token is shorter than a byte.
    let most = match by_tokenizer {
        Some(tokens) => tokens.saturating_mul(MOST_PER_TOKEN).min(bytes),
        None => bytes,
    };
    let events_are_counted = stream.chunks.iter().all(|chunk| chunk.tokens.is_some());
    if most.saturating_add(TOKENS_ASIDE) < streamed && !stream.other_output && !events_are_counted {
        return Unstreamed::Unknown;
    }
    let stopped = match &stream.finish_reason {
        Some(FinishReason::EndsWell(word)) => !is_length(word),
        _ => false,
    };
    let end = stopped && stream.chunks.len() as u64 + 1 == u64::from(streamed);
    Unstreamed::Tokens(hidden + u32::from(end))
}

/// Whether the reason of an end is the length of the answer.
fn is_length(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.contains("length") || word.contains("limit") || word.starts_with("max")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Prompt;
    use crate::record::tests::completed;

    /// The counts of an answer of `chunks` events and the text `text` to a prompt of ten tokens, of which five were
    /// asked for, by the server's word alone.
    fn counts(chunks: usize, text: &str, usage: Usage, reason: &str) -> RequestTokens {
        let at: Vec<u64> = (0..chunks as u64).map(|chunk| 60 + 10 * chunk).collect();
        let mut record = completed(&at);
        record.stream.text = text.to_owned();
        record.stream.usage = Some(usage);
        record.stream.finish_reason = Some(FinishReason::EndsWell(reason.to_owned().into()));
        let request = PromptRequest::single(Prompt::Text("ten".to_owned()), Some(10), 5);
        count(&[record], &request, None, true).unwrap()
    }

    fn usage(prompt: u32, completion: u32) -> Usage {
        let (prompt_tokens, completion_tokens) = (Some(prompt), Some(completion));
        Usage { prompt_tokens, completion_tokens, ..Usage::default() }
    }

    #[test]
    fn counts_that_cannot_be_true_are_unknown() {
        let text = "five words are in here";
        let cases = [
            (usage(10, 5), Some(10), Some(5), false),
            (usage(0, 0), Some(10), None, true),
            (usage(10, 0), Some(10), None, true),
            (usage(10, 501), Some(10), None, true),
            (
                Usage { reasoning_tokens: Some(1000), ..usage(10, 1005) },
                Some(10),
                Some(1005),
                false,
            ),
            (usage(10_001, 5), Some(10), Some(5), true),
            (usage(1600, 5), Some(1600), Some(5), false),
            (Usage { unusable: true, ..usage(10, 5) }, Some(10), Some(5), true),
            (Usage { cached_tokens: Some(11), ..usage(10, 5) }, Some(10), Some(5), true),
            (Usage { reasoning_tokens: Some(6), ..usage(10, 5) }, Some(10), Some(5), true),
        ];
        for (usage, input, output, refused) in cases {
            let counts = counts(5, text, usage, "length");
            assert_eq!(counts.input.best(), input, "{usage:?}");
            assert_eq!(
                (counts.output.server, counts.refused_counts),
                (output, refused),
                "{usage:?}"
            );
            assert!(counts.cached.is_none(), "{usage:?}");
        }
    }

    #[test]
    fn tokens_that_no_event_brought_are_told_apart() {
        let text = "a b c d e";
        let hidden = Usage { reasoning_tokens: Some(400), ..usage(10, 405) };
        for (chunks, usage, reason, streamed) in [
            (5, usage(10, 5), "length", Some(5)),
            (5, usage(10, 6), "stop", Some(5)),
            (5, usage(10, 6), "length", Some(6)),
            (3, usage(10, 6), "stop", Some(6)),
            (5, hidden, "stop", Some(5)),
            (5, usage(10, 405), "stop", None),
        ] {
            let counts = counts(chunks, text, usage, reason);
            assert_eq!(counts.streamed(), streamed, "{usage:?} {reason}");
        }
    }
}
