//! `multi_turn`: conversations whose next turn waits for the last answer and holds it, from a file or made
//! up.

use anyhow::bail;
use rayon::prelude::*;
use serde::Deserialize;

use super::dialogue::{Dialogue, Said, Speaker};
use super::json_items::{JsonItems, Place, Usable};
use super::writer::Writer;
use super::{
    FollowUp, Length, PromptForm, PromptRequest, Sampling, Source, ThinkTime, Workload,
    python_random, random, take_fit,
};
use crate::prompt::Prompt;

/// What an item should be.
const EXPECTED: &str = "objects, a line each or in an array, such as {\"conversations\": [{\"from\": \
                        \"human\", \"value\": \"...\"}, ...]} or {\"messages\": [{\"role\": \"user\", \
                        \"content\": \"...\"}, ...]}";
/// How many conversations are held at once.
const HELD: usize = 1024;

/// The purposes that random numbers are drawn for.
const TURNS: &str = "turns";
const PREFIX: &str = "prefix";
const FOLLOW_UPS: &str = "follow-ups";

/// Where conversations come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversations {
    /// A file: what users said is sent, and the answers of then say how long those of now are.
    Recorded(Source),
    /// Words, of an exact number of tokens.
    MadeUp {
        /// How many turns a conversation has.
        turns: Length,
        /// Length of the first turn, behind what all have in common.
        input: Length,
        /// Length of what the user says in later turns.
        follow_up: Length,
        /// Words that all conversations begin with, like a system prompt.
        prefix_tokens: u32,
    },
}

impl Conversations {
    /// Whether they are of no file.
    pub fn are_made_up(&self) -> bool {
        matches!(self, Self::MadeUp { .. })
    }
}

/// How conversations are held, wherever they come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) output: Option<Length>,
    pub(super) think: ThinkTime,
    pub(super) max_turns: Option<u32>,
}

impl Manner {
    fn most_turns(self) -> usize {
        self.max_turns.map_or(usize::MAX, |turns| turns as usize)
    }
}

pub(super) fn sample(
    conversations: &Conversations,
    manner: Manner,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    match conversations {
        Conversations::Recorded(source) => recorded(source, manner, sampling),
        Conversations::MadeUp { turns, input, follow_up, prefix_tokens } => {
            let lengths = Lengths {
                turns: *turns,
                input: *input,
                follow_up: *follow_up,
                prefix_tokens: *prefix_tokens,
            };
            made_up(lengths, manner, sampling)
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Lengths {
    turns: Length,
    input: Length,
    follow_up: Length,
    prefix_tokens: u32,
}

/// The turns of one conversation, tokens; those after the first with what the user thinks before.
struct Drawn {
    first: (u32, u32),
    later: Vec<(u32, FollowUp)>,
}

fn made_up(lengths: Lengths, manner: Manner, sampling: &Sampling<'_>) -> anyhow::Result<Workload> {
    let writer = Writer::new(PromptForm::Text, sampling)?;
    let output = manner.output.unwrap_or(Length::Fixed(1));
    let unsalted = Sampling { salt: None, ..*sampling };
    // The salt does not change how long anything is.
    let draw = |index: usize| {
        let mut rng = unsalted.rng(TURNS, index as u64);
        let turns = (lengths.turns.draw(&mut rng) as usize).min(manner.most_turns());
        let first = (lengths.prefix_tokens + lengths.input.draw(&mut rng), output.draw(&mut rng));
        let mut follow_up = || {
            let tokens = lengths.follow_up.draw(&mut rng);
            let output_tokens = output.draw(&mut rng);
            let think = manner.think.draw(&mut rng);
            (tokens, FollowUp { text: String::new(), output_tokens, think })
        };
        Drawn { first, later: (1..turns).map(|_| follow_up()).collect() }
    };
    let drawn: Vec<Drawn> = (0..sampling.requests.unwrap_or(1)).map(draw).collect();
    let first: Vec<(u32, u32)> = drawn.iter().map(|drawn| drawn.first).collect();
    let prefix = writer.opening(lengths.prefix_tokens as usize, &mut sampling.rng(PREFIX, 0));
    let mut requests = random::write(&writer, &first, |_| &prefix, sampling)?;
    let said: Vec<Vec<u32>> =
        drawn.iter().map(|drawn| drawn.later.iter().map(|(tokens, _)| *tokens).collect()).collect();
    requests.par_iter_mut().zip(drawn).enumerate().try_for_each(|(index, (request, drawn))| {
        let mut rng = sampling.rng(FOLLOW_UPS, index as u64);
        let write = |(tokens, follow_up): (u32, FollowUp)| {
            let text = writer.passage(tokens as usize, &mut rng)?;
            Ok(FollowUp { text, ..follow_up })
        };
        request.follow_ups = drawn.later.into_iter().map(write).collect::<anyhow::Result<_>>()?;
        anyhow::Ok(())
    })?;
    Ok(Workload::made_up(requests, &("multi_turn", lengths.prefix_tokens, said)))
}

fn recorded(source: &Source, manner: Manner, sampling: &Sampling<'_>) -> anyhow::Result<Workload> {
    if manner.output.is_none() {
        sampling.tokenizer(
            "the conversations of a file say how long answers are, and to count them takes a tokenizer, \
             unless `output_tokens` is set",
        )?;
    }
    let name = source.to_string();
    let mut items = JsonItems::open(&source.locate(sampling)?, &name, EXPECTED)?;
    // The file may be larger than the memory: only the places of conversations are kept.
    let usable = items.usable(|Dialogue(Turns(said)): &Dialogue<Turns>| !said.is_empty())?;
    let Usable { mut places, read, malformed, are_arrays } = usable;
    python_random::shuffle(&mut places, sampling.seed);
    let mut requests: Vec<PromptRequest> = Vec::new();
    for (part, places) in places.chunks(HELD).enumerate() {
        if sampling.is_enough(requests.len()) {
            break;
        }
        let load = |(index, place): (usize, &Place)| {
            let Dialogue(turns): Dialogue<Turns> = items.read(place)?;
            let conversation = Conversation::from(turns);
            Ok((part * HELD + index, conversation))
        };
        let numbered = places.iter().enumerate().map(load).collect::<anyhow::Result<Vec<_>>>()?;
        let left = sampling.requests.map(|wanted| wanted - requests.len());
        let sampling = Sampling { requests: left, ..*sampling };
        requests.extend(take_fit(&numbered, &sampling, |(index, conversation)| {
            request(conversation, *index, manner, &sampling)
        })?);
    }
    if requests.is_empty() {
        bail!(
            "dataset `{name}`: in none of its {read} conversations does a user say anything that is \
             answered{}",
            malformed.hint()
        );
    }
    let mut workload = Workload::of_texts(requests);
    workload.notes.extend(malformed.note(&name, read));
    if are_arrays {
        workload.recognised.push(format!("`{name}`: each array of messages is a conversation"));
    }
    Ok(workload)
}

/// The turns of a conversation in which the system, a user and a model speak, in words.
#[derive(Deserialize)]
#[serde(try_from = "Vec<Said>")]
struct Turns(Vec<Said>);

impl TryFrom<Vec<Said>> for Turns {
    type Error = &'static str;

    fn try_from(said: Vec<Said>) -> Result<Self, Self::Error> {
        for said in &said {
            match said.by {
                Speaker::System | Speaker::User | Speaker::Assistant => {}
                Speaker::Tool => return Err("a turn of a tool, which cannot be said again"),
                Speaker::Other => {
                    return Err("a turn of neither `user`, `assistant` nor `system`");
                }
            }
        }
        Ok(Self(said))
    }
}

/// What a system prompt sets, what the user said, each time, and what was answered.
struct Conversation {
    system: Option<String>,
    turns: Vec<(String, Option<String>)>,
}

impl From<Turns> for Conversation {
    /// What was said one after the other by the same is one turn; what was answered to nobody, and what
    /// the system said later, is left out.
    fn from(Turns(said): Turns) -> Self {
        let mut conversation = Self { system: None, turns: Vec::new() };
        let add = |text: &mut String, more: &str| {
            text.push_str("\n\n");
            text.push_str(more);
        };
        for Said { by, text: value } in said {
            match (by, conversation.turns.last_mut()) {
                (Speaker::System, None) => match &mut conversation.system {
                    Some(system) => add(system, &value),
                    system => *system = Some(value),
                },
                (Speaker::System, Some(_)) | (Speaker::Assistant, None) => {}
                // There are none.
                (Speaker::Tool | Speaker::Other, _) => {}
                (Speaker::User, Some((user, None))) => add(user, &value),
                (Speaker::User, _) => conversation.turns.push((value, None)),
                (Speaker::Assistant, Some((_, Some(answer)))) => add(answer, &value),
                (Speaker::Assistant, Some((_, answer))) => *answer = Some(value),
            }
        }
        conversation
    }
}

/// The request that a conversation makes; `None` where nothing in it is answered.
fn request(
    conversation: &Conversation,
    index: usize,
    manner: Manner,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Option<PromptRequest>> {
    let unsalted = Sampling { salt: None, ..*sampling };
    let mut rng = unsalted.rng(TURNS, index as u64);
    let mut turns = Vec::new();
    for (said, answer) in conversation.turns.iter().take(manner.most_turns()) {
        let recorded = match (answer, sampling.tokenizer) {
            (Some(answer), Some(tokenizer)) if manner.output.is_none() => {
                Some(tokenizer.count_output(answer)?.max(1))
            }
            _ => None,
        };
        let output = manner.output.map(|length| length.draw(&mut rng));
        // Without words there is nothing to send, and without a length nothing to ask for.
        let Some(output_tokens) = output.or(recorded).filter(|_| !said.trim().is_empty()) else {
            break;
        };
        let think = manner.think.draw(&mut rng);
        turns.push(FollowUp { text: said.clone(), output_tokens, think });
    }
    let mut turns = turns.into_iter();
    let Some(first) = turns.next() else { return Ok(None) };
    let mut prompt = Prompt::Text(first.text);
    if let Some(system) = &conversation.system {
        prompt.put_before(system, sampling.chat);
    }
    let prompt_tokens = sampling.count(&prompt)?;
    let mut request = PromptRequest::single(prompt, prompt_tokens, first.output_tokens);
    request.follow_ups = turns.collect();
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::*;
    use crate::files::Files;
    use crate::tokenizer::Tokenizer;
    use crate::workload::Dataset;

    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap());

    fn sampling(salt: Option<&str>) -> Sampling<'_> {
        static FILES: LazyLock<Files> = LazyLock::new(Files::only_here);
        let tokenizer = Some(&*TOKENIZER);
        Sampling { files: &FILES, tokenizer, chat: true, requests: Some(20), seed: 0, salt }
    }

    fn made_up(max_turns: Option<u32>) -> Dataset {
        Dataset::MultiTurn {
            conversations: Conversations::MadeUp {
                turns: Length::Uniform { min: 2, max: 5 },
                input: Length::Fixed(100),
                follow_up: Length::Uniform { min: 10, max: 30 },
                prefix_tokens: 50,
            },
            output: Some(Length::Fixed(8)),
            think: ThinkTime::Fixed(Duration::from_secs(2)),
            max_turns,
        }
    }

    fn of_file(text: &str, output: Option<Length>, max_turns: Option<u32>) -> Sampled {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talks.json");
        std::fs::write(&path, text).unwrap();
        let dataset = Dataset::MultiTurn {
            conversations: Conversations::Recorded(Source::new(path.to_str().unwrap())),
            output,
            think: ThinkTime::default(),
            max_turns,
        };
        dataset.sample(&sampling(None)).map_err(|error| format!("{error:#}"))
    }

    type Sampled = Result<Workload, String>;

    /// What is said in a conversation: the first prompt, then each later turn, with lengths of answers.
    fn said(request: &PromptRequest) -> Vec<(String, u32)> {
        let first = (request.prompt.text().into_owned(), request.output_tokens);
        let later = request.follow_ups.iter().map(|turn| (turn.text.clone(), turn.output_tokens));
        std::iter::once(first).chain(later).collect()
    }

    #[test]
    fn every_turn_has_exactly_its_length() {
        let workload = made_up(None).sample(&sampling(Some("salt"))).unwrap();
        let mut lengths = BTreeSet::new();
        for request in &workload.requests {
            assert_eq!(TOKENIZER.count(&request.prompt, true).unwrap(), 150);
            assert!((1..=4).contains(&request.follow_ups.len()));
            lengths.insert(request.turns());
            for follow_up in &request.follow_ups {
                let tokens = TOKENIZER.count_output(&follow_up.text).unwrap();
                assert!((10..=30).contains(&tokens), "{tokens}");
                assert_eq!((follow_up.output_tokens, follow_up.think.as_secs()), (8, 2));
            }
        }
        assert_eq!(lengths, BTreeSet::from([2, 3, 4, 5]));
        let short = made_up(Some(2)).sample(&sampling(Some("salt"))).unwrap();
        assert!(short.requests.iter().all(|request| request.turns() == 2));
    }

    #[test]
    fn the_salt_changes_the_words_of_a_conversation_and_nothing_else() {
        let of = |salt| made_up(None).sample(&sampling(salt)).unwrap();
        assert_eq!(of(None), of(None));
        let (one, two) = (of(Some("a")), of(Some("b")));
        assert_eq!(one.hash, two.hash, "it is the same work");
        for (one, two) in one.requests.iter().zip(&two.requests) {
            assert_ne!(one.prompt, two.prompt);
            assert_ne!(one.follow_ups[0].text, two.follow_ups[0].text);
            assert_eq!(one.follow_ups.len(), two.follow_ups.len());
            let beginning = |request: &PromptRequest| request.prompt.text()[..40].to_owned();
            assert_ne!(beginning(one), beginning(two), "no prefix cache can carry over");
        }
        let other = Dataset::MultiTurn {
            conversations: Conversations::MadeUp {
                turns: Length::Uniform { min: 2, max: 5 },
                input: Length::Fixed(100),
                follow_up: Length::Fixed(20),
                prefix_tokens: 50,
            },
            output: Some(Length::Fixed(8)),
            think: ThinkTime::default(),
            max_turns: None,
        };
        assert_ne!(other.sample(&sampling(None)).unwrap().hash, of(None).hash);
    }

    #[test]
    fn what_users_said_is_sent_and_what_was_answered_says_how_long_answers_are() {
        let sharegpt = r#"[{"id": "1", "conversations": [
            {"from": "gpt", "value": "to nobody"},
            {"from": "human", "value": "How are you?"}, {"from": "gpt", "value": "Well, and you?"},
            {"from": "human", "value": "Well,"}, {"from": "human", "value": "too."},
            {"from": "chatgpt", "value": "Good."}, {"from": "human", "value": "unanswered"}]}]"#;
        let messages = r#"{"messages": [{"role": "user", "content": "How are you?"}, {"role":
            "assistant", "content": "Well, and you?"}, {"role": "user", "content": "Well,\n\ntoo."},
            {"role": "assistant", "content": "Good."}, {"role": "user", "content": "unanswered"}]}"#
            .replace("            ", "")
            .replace('\n', "");
        let tokens = |text: &str| TOKENIZER.count_output(text).unwrap();
        let turn = |text: &str, answer: u32| (text.to_owned(), answer);
        for text in [sharegpt, &messages] {
            let workload = of_file(text, None, None).unwrap();
            assert_eq!(
                said(&workload.requests[0]),
                [
                    turn("How are you?", tokens("Well, and you?")),
                    turn("Well,\n\ntoo.", tokens("Good.")),
                ]
            );
            let fixed = of_file(text, Some(Length::Fixed(7)), None).unwrap();
            assert_eq!(said(&fixed.requests[0]).len(), 3, "any turn can be sent");
            assert_eq!(said(&of_file(text, None, Some(1)).unwrap().requests[0]).len(), 1);
        }
    }

    #[test]
    fn what_the_system_says_comes_before_the_first_turn_and_the_salt_before_that() {
        let text = r#"{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Bye"}]}"#;
        let workload = of_file(text, None, None).unwrap();
        let salted = workload.as_sent(&sampling(Some("s"))).unwrap();
        assert_eq!(said(&salted.requests[0])[0].0, "[s] Be brief.\n\nHi");
        assert_eq!(said(&salted.requests[0])[1].0, "Bye");
        assert_eq!(salted.hash, workload.hash);
        let again = workload.requests[0].after(["Hello."].into_iter(), true).unwrap();
        assert_eq!(again.prompt.text(), "Be brief.\n\nHi\n\nHello.\n\nBye");
        assert!(workload.requests[0].after(["a", "b"].into_iter(), true).is_none());
    }

    #[test]
    fn what_is_said_or_waited_for_later_is_part_of_the_hash() {
        let file = |last: &str| {
            let text = format!(
                r#"[{{"conversations": [{{"from": "human", "value": "a"}}, {{"from": "gpt", "value": "b"}},
                {{"from": "human", "value": "{last}"}}, {{"from": "gpt", "value": "d"}}]}}]"#
            );
            of_file(&text, None, None).unwrap().hash
        };
        assert_eq!(file("c"), file("c"));
        assert_ne!(file("c"), file("e"));
    }

    const GOOD: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;

    #[test]
    fn a_malformed_conversation_is_left_out_and_named() {
        for (bad, parts) in [
            (r#"{"talk": []}"#, &["line 2", "no `conversations`", "expected"][..]),
            (
                r#"{"messages": [{"role": "tool", "content": "a"}]}"#,
                &["line 2, column 48", "a turn of a tool"],
            ),
            (r#"{"messages": [{"role": "x", "content": "a"}]}"#, &["neither `user`"]),
            (r#"{"messages": [{"role": "user"}]}"#, &["a turn without a text", "\"content\""]),
        ] {
            let workload = of_file(&format!("{GOOD}\n{bad}\n{GOOD}"), None, None).unwrap();
            assert_eq!(workload.requests.len(), 2, "{bad}");
            let [note] = &workload.notes[..] else { panic!("{bad}: {:?}", workload.notes) };
            for part in ["1 of the 3"].iter().chain(parts) {
                assert!(note.contains(part), "{bad}\nmisses {part}:\n{note}");
            }
            let error = of_file(&format!("{bad}\n{bad}"), None, None).unwrap_err();
            assert!(
                error.contains("none of its 2") && error.contains("2 are malformed"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_damaged_file_names_the_line() {
        for (text, part) in [
            (format!("{GOOD}\n{}", &GOOD[..40]), "line 2"),
            (GOOD[..40].to_owned(), "EOF"),
            (r#"[{"conversations": []}]"#.to_owned(), "none of its 1 conversations"),
            (format!("{GOOD}\n{{\"id\": {}", "[".repeat(100_000)), "line 2, column"),
        ] {
            let error = of_file(&text, None, None).unwrap_err();
            assert!(error.contains(part) && error.len() < 700, "{text}\nmisses {part}:\n{error}");
        }
    }

    #[test]
    fn a_line_may_be_the_messages_themselves() {
        let line = |text: &str| {
            format!(
                r#"[{{"role": "user", "content": "{text}"}}, {{"role": "assistant", "content": "b"}}]"#
            )
        };
        let one = of_file(&line("Hi"), None, None).unwrap();
        assert_eq!(said(&one.requests[0])[0].0, "Hi");
        for text in [
            format!("{}\n{}\n", line("Hi"), line("Ho")),
            format!("[{},\n{}]", line("Hi"), line("Ho")),
            format!("{}\n{}", line("Hi").replace(',', ",\n"), line("Ho")),
        ] {
            let workload = of_file(&text, None, None).unwrap();
            let mut all: Vec<String> =
                workload.requests.iter().map(|request| said(request)[0].0.clone()).collect();
            all.sort();
            assert_eq!(all, ["Hi", "Ho"], "{text}");
        }
    }

    #[test]
    fn without_a_tokenizer_lengths_have_to_be_set() {
        let source = Conversations::Recorded(Source::new("fixtures/sharegpt.json"));
        let sampling = Sampling { tokenizer: None, ..sampling(None) };
        let manner = Manner { output: None, think: ThinkTime::default(), max_turns: None };
        let error = sample(&source, manner, &sampling).unwrap_err().to_string();
        assert!(error.contains("set `tokenizer`") && error.contains("`output_tokens`"), "{error}");
        let manner = Manner { output: Some(Length::Fixed(5)), ..manner };
        assert_eq!(sample(&source, manner, &sampling).unwrap().requests.len(), 20);
    }
}
