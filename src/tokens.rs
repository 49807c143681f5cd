//! How many tokens a request had, by the server's word and by the tokenizer's. Pure.

use std::time::Duration;

use crate::record::RequestRecord;
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
    /// The longest answer asked for.
    pub asked: u32,
    /// Prompt tokens that the server answered from a prefix cache, where it says so.
    pub cached: Option<u32>,
}

impl RequestTokens {
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
    let usage = record.stream.usage;
    let stream = &record.stream;
    // The texts of choices beside the first are not kept.
    let client = tokenizer
        .filter(|_| stream.choices <= 1)
        .map(|tokenizer| {
            let answer = tokenizer.count_output(&stream.text)?;
            Ok::<_, anyhow::Error>(answer + tokenizer.count_output(&stream.reasoning)?)
        })
        .transpose()?;
    let prompt_by_server = usage.and_then(|usage| usage.prompt_tokens);
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
        output: TokenCount { server: usage.and_then(|usage| usage.completion_tokens), client },
        asked: request.output_tokens_of(record.turn).saturating_mul(stream.choices.max(1)),
        cached: usage.and_then(|usage| usage.cached_tokens),
    })
}
