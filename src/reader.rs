//! The reads of one response, each with its stamp, in; what the stream brought and how it ended out.
//! Pure: knows no socket and no clock.

use std::time::Duration;

use crate::record::{Chunk, Failure, FinishReason, Outcome, Stream};
use crate::wire::{self, Event, EventError, EventName, ProtocolKind, SseParser};

/// Reads one streamed response.
#[derive(Debug)]
pub struct StreamReader {
    protocol: ProtocolKind,
    shape: Shape,
    state: State,
}

/// The longest answer in one block, bytes.
const LONGEST_BLOCK: usize = 4 * 1024 * 1024;

/// What a response is.
#[derive(Debug)]
enum Shape {
    /// Nothing of it has come but white space.
    Unknown,
    /// A stream of events.
    Events(SseParser),
    /// A JSON text: a server that does not stream.
    Block(Vec<u8>),
}

/// Apart from the parser, so that the parser can call into it.
#[derive(Debug, Default)]
struct State {
    stream: Stream,
    /// The event that is being read; kept for its room.
    event: Event,
    bytes: usize,
    last_read: Duration,
    events: usize,
    done: bool,
    error: Option<(Failure, String)>,
    tokens: TokenCounts,
    /// The choice whose text is kept: the first of which something came.
    main_choice: Option<u32>,
    /// The choices that were seen and those that ended, as in [`Event`].
    seen: u64,
    finished: u64,
    /// How many choices were asked for; 0 and 1 are one.
    asked_choices: u32,
    /// The read that completed the last event with output or an end.
    last_part: Duration,
    text: Repetition,
    reasoning: Repetition,
}

/// Whether each text so far begins with all of the text before it, as where a server sends all of an answer again and
/// again.
#[derive(Clone, Copy, Debug, Default)]
struct Repetition {
    /// Texts so far.
    texts: u32,
    /// Those that were longer than the one before.
    longer: u32,
    /// A text did not begin with the one before.
    broken: bool,
    /// The length of the last text, and of the one before it.
    last: usize,
    before: usize,
}

impl Repetition {
    /// From so many texts on it is no coincidence, and the texts before are dropped at once.
    const CERTAIN: u32 = 8;
    /// A text so long is not repeated by chance.
    const LONG: usize = 8;

    /// Adds `text` to `whole`, the texts so far.
    fn add(&mut self, whole: &mut String, text: &str) {
        if text.is_empty() {
            return;
        }
        let previous = &whole[whole.len() - self.last..];
        // Half a character at its end is whole in the next text.
        self.broken |= !text.starts_with(previous.trim_end_matches('\u{fffd}'));
        self.longer += u32::from(0 < self.texts && previous.len() < text.len());
        self.texts += 1;
        self.before = std::mem::replace(&mut self.last, text.len());
        if !self.broken && Self::CERTAIN <= self.longer {
            whole.clear();
        }
        whole.push_str(text);
    }

    /// Leaves of `whole` the last text alone where it is the whole answer; says whether it is.
    fn keep_last(self, whole: &mut String) -> bool {
        let accumulates = self.accumulates();
        if accumulates {
            whole.drain(..whole.len() - self.last);
        }
        accumulates
    }

    /// Whether the last text is the whole answer because all texts accumulate.
    fn accumulates(self) -> bool {
        let enough = if self.texts == 2 { Self::LONG <= self.before } else { 2 <= self.longer };
        !self.broken && 0 < self.longer && enough
    }

    /// Whether the last text only repeats the texts before it.
    fn ends_with_all(self, whole: &str) -> bool {
        Self::LONG <= self.last
            && 3 <= self.texts
            && whole.len() == 2 * self.last
            && whole.as_bytes()[..self.last] == whole.as_bytes()[self.last..]
    }
}

/// Whether the server counts tokens event by event.
#[derive(Clone, Copy, Debug)]
enum TokenCounts {
    /// So far every event with output came with a count; this is the last one.
    Counted(u32),
    /// One came without.
    Unknown,
}

impl Default for TokenCounts {
    fn default() -> Self {
        Self::Counted(0)
    }
}

impl StreamReader {
    /// A reader of a response that has not begun.
    pub fn new(protocol: ProtocolKind) -> Self {
        Self { protocol, shape: Shape::Unknown, state: State::default() }
    }

    /// The same for an answer of `choices` choices, which ends only when each of them has ended.
    pub fn of_choices(mut self, choices: u32) -> Self {
        self.state.asked_choices = choices;
        self
    }

    /// Takes the bytes of one read and its stamp.
    pub fn feed(&mut self, bytes: &[u8], at: Duration) {
        let Self { protocol, shape, state } = self;
        state.bytes += bytes.len();
        state.last_read = at;
        let mut bytes = bytes;
        if let Shape::Unknown = shape {
            // White space before the response means nothing, however it is cut.
            bytes = bytes.trim_ascii_start();
            match bytes.first() {
                None => return,
                Some(b'{' | b'[') => *shape = Shape::Block(Vec::new()),
                Some(_) => *shape = Shape::Events(SseParser::default()),
            }
        }
        let too_long = match shape {
            Shape::Events(parser) => {
                parser.feed(bytes, |name, data| state.event(*protocol, name, data, at));
                parser.is_too_long()
            }
            Shape::Block(block) => {
                block.extend_from_slice(bytes);
                LONGEST_BLOCK < block.len()
            }
            Shape::Unknown => false,
        };
        if too_long {
            let message = "an event of the response does not end".to_owned();
            state.error.get_or_insert((Failure::BadJson, message));
        }
    }

    /// How many events with output came.
    pub fn events(&self) -> usize {
        self.state.stream.chunks.len()
    }

    /// How much text came.
    pub fn text_bytes(&self) -> usize {
        self.state.stream.text.len() + self.state.stream.reasoning.len()
    }

    /// How many choices were seen; at least one.
    pub fn choices(&self) -> usize {
        self.state.stream.choices.max(1) as usize
    }

    /// Gives the answer up.
    pub fn fail(&mut self, failure: Failure, message: String) {
        self.state.error.get_or_insert((failure, message));
    }

    /// Whether nothing more needs to be read: the end mark came, or an error.
    pub fn is_done(&self) -> bool {
        self.state.done || self.state.error.is_some()
    }

    /// Whether the answer has ended, though more of the response may come: usage, an end mark.
    pub fn has_finished(&self) -> bool {
        self.state.has_finished()
    }

    /// When the last part of an answer that has ended came.
    pub fn finished_at(&self) -> Option<Duration> {
        self.has_finished().then_some(self.state.last_part)
    }

    /// What the stream brought, and how it ended. `interrupted` is why reading stopped before the
    /// response ended; `None` where it ended by itself.
    pub fn finish(
        mut self,
        at: Duration,
        interrupted: Option<(Failure, String)>,
    ) -> (Stream, Outcome) {
        let mut complete = interrupted.is_none() && self.protocol.ends_with_response();
        if interrupted.is_none() && !self.is_done() {
            let Self { protocol, shape, state } = &mut self;
            match shape {
                Shape::Unknown => {}
                Shape::Events(parser) => {
                    // Half an event at the end of a response is no bad JSON but a response cut short.
                    parser.finish(|name, data| state.event(*protocol, name, data, at));
                    if matches!(state.error, Some((Failure::BadJson, _))) {
                        state.error = None;
                    }
                }
                Shape::Block(block) => {
                    state.stream.one_block = true;
                    state.event(*protocol, EventName::Other, block, state.last_read);
                    complete = true;
                }
            }
        }
        self.state.end(complete, interrupted)
    }
}

impl State {
    fn has_finished(&self) -> bool {
        self.seen != 0
            && self.seen & !self.finished == 0
            && self.asked_choices.min(u64::BITS) <= self.finished.count_ones()
    }

    fn event(&mut self, protocol: ProtocolKind, name: EventName, data: &[u8], at: Duration) {
        self.events += 1;
        // What follows the end mark or an error is no part of the answer.
        if self.done || self.error.is_some() || name == EventName::KeepAlive {
            return;
        }
        if name == EventName::Error {
            let mut message = wire::error_message(data);
            if message.is_empty() {
                message.push_str("an event named error, without a message");
            }
            self.error = Some((Failure::ServerError, message));
            return;
        }
        match protocol.read(data, &mut self.event) {
            Ok(()) => self.add(at),
            Err(EventError::Server(message)) => self.error = Some((Failure::ServerError, message)),
            Err(EventError::BadJson(message)) => self.error = Some((Failure::BadJson, message)),
        }
    }

    /// Adds what the current event brought.
    fn add(&mut self, at: Duration) {
        let event = &mut self.event;
        let total = event.usage.and_then(|usage| usage.completion_tokens);
        if event.has_output() {
            let tokens = event.tokens.or(match (self.tokens, total) {
                (TokenCounts::Counted(before), Some(total)) => total.checked_sub(before),
                _ => None,
            });
            self.tokens = match (tokens, total) {
                (Some(_), Some(total)) => TokenCounts::Counted(total),
                _ => TokenCounts::Unknown,
            };
            self.stream.chunks.push(Chunk { at, tokens });
        }
        if !event.text.is_empty() {
            self.stream.first_answer.get_or_insert(at);
        }
        if event.has_output() || event.finished != 0 {
            self.last_part = at;
        }
        self.seen |= event.seen;
        // What goes on has not ended, whatever was said before.
        let one = event.seen == 0 && event.has_output();
        self.finished &= !if one { 1 } else { event.with_output };
        self.finished |= event.finished;
        self.stream.choices = self.seen.count_ones();
        self.stream.other_output |= event.other_output;
        // The texts of several choices are not mixed.
        if (event.seen != 0 || event.has_output())
            && *self.main_choice.get_or_insert(event.choice) == event.choice
        {
            self.text.add(&mut self.stream.text, &event.text);
            self.reasoning.add(&mut self.stream.reasoning, &event.reasoning);
        }
        self.stream.usage = event.usage.or(self.stream.usage);
        let reason = event.finish_reason.take();
        self.stream.finish_reason = wire::worse(self.stream.finish_reason.take(), reason);
        self.done = event.done;
    }

    /// Leaves of texts that repeat each other what was generated.
    fn drop_repetition(&mut self) {
        let Stream { text, reasoning, chunks, choices, accumulated, .. } = &mut self.stream;
        *accumulated = self.reasoning.keep_last(reasoning) | self.text.keep_last(text);
        if !*accumulated && *choices <= 1 && self.text.ends_with_all(text) {
            text.truncate(self.text.last);
            chunks.pop();
            *accumulated = true;
        }
    }

    /// `complete`: the end of the response is that of a complete answer.
    fn end(mut self, complete: bool, interrupted: Option<(Failure, String)>) -> (Stream, Outcome) {
        self.drop_repetition();
        let finished = self.has_finished();
        let ended_well = complete || self.done || finished;
        let failure = if let Some(error) = self.error {
            Some(error)
        } else if let Some(FinishReason::Failed(word)) = &self.stream.finish_reason {
            Some((Failure::ServerError, format!("finish_reason {word}")))
        } else if self.done || finished {
            // The answer was complete before reading stopped.
            None
        } else if let Some(interrupted) = interrupted {
            Some(interrupted)
        } else if self.events == 0 && 0 < self.bytes {
            Some((Failure::BadJson, "the response is no event stream".to_owned()))
        } else if !ended_well {
            let events = self.stream.chunks.len();
            let message = format!(
                "the response ended after {events} events with output, without finish_reason or \
                 [DONE]"
            );
            Some((Failure::Truncated, message))
        } else {
            None
        };
        let outcome = match failure {
            Some((failure, message)) => Outcome::Failed { failure, message },
            None if self.stream.chunks.is_empty() => Outcome::Failed {
                failure: Failure::Empty,
                message: "the response ended well and held no output".to_owned(),
            },
            None => Outcome::Completed,
        };
        (self.stream, outcome)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::ms;

    /// Reads `parts`, the first at 1 ms, the next at 2 ms and so on.
    fn read(protocol: ProtocolKind, parts: &[&[u8]]) -> (Stream, Outcome) {
        let mut reader = StreamReader::new(protocol);
        for (n, part) in (1..).zip(parts) {
            reader.feed(part, ms(n));
        }
        reader.finish(ms(parts.len() as u64 + 1), None)
    }

    fn failure(outcome: &Outcome) -> Option<Failure> {
        match outcome {
            Outcome::Completed => None,
            Outcome::Failed { failure, .. } => Some(*failure),
        }
    }

    const COMPLETIONS: &str = include_str!("../fixtures/completions.sse");
    const CHAT: &str = include_str!("../fixtures/chat.sse");

    #[test]
    fn a_stream_is_read_the_same_wherever_it_is_cut() {
        for (protocol, text, answer) in [
            (ProtocolKind::Completions, COMPLETIONS, "caf\u{e9} \u{1f600}  ok"),
            (ProtocolKind::Chat, CHAT, "Hi \u{4f60}\u{597d}"),
        ] {
            for stream in [text.to_owned(), text.replace('\n', "\r\n")] {
                let bytes = stream.as_bytes();
                let (whole, outcome) = read(protocol, &[bytes]);
                assert_eq!((whole.text.as_str(), outcome), (answer, Outcome::Completed));
                for cut in 0..=bytes.len() {
                    let (cut_stream, outcome) = read(protocol, &[&bytes[..cut], &bytes[cut..]]);
                    assert_eq!(outcome, Outcome::Completed, "cut at {cut}");
                    assert_eq!(cut_stream.text, whole.text, "cut at {cut}");
                    assert_eq!(cut_stream.reasoning, whole.reasoning, "cut at {cut}");
                    assert_eq!(cut_stream.usage, whole.usage, "cut at {cut}");
                    assert_eq!(cut_stream.chunks.len(), whole.chunks.len(), "cut at {cut}");
                }
                let bytes: Vec<&[u8]> = bytes.chunks(1).collect();
                let (by_byte, outcome) = read(protocol, &bytes);
                assert_eq!((by_byte.text, outcome), (whole.text, Outcome::Completed));
            }
        }
    }

    #[test]
    fn a_stream_cut_short_at_any_byte_is_never_a_success() {
        for (protocol, stream) in
            [(ProtocolKind::Completions, COMPLETIONS), (ProtocolKind::Chat, CHAT)]
        {
            let complete = stream.find("finish_reason\":\"").unwrap();
            for end in 0..complete {
                let (_, outcome) = read(protocol, &[&stream.as_bytes()[..end]]);
                let failure = failure(&outcome).expect("half a stream is a failure");
                let expected = [Failure::Truncated, Failure::BadJson];
                assert!(expected.contains(&failure), "{failure} at {end}");
            }
        }
    }

    #[test]
    fn only_generated_output_moves_the_clock() {
        let parts: [&[u8]; 5] = [
            b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            b"data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
            b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
            b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            b"data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
        ];
        let (stream, outcome) = read(ProtocolKind::Chat, &parts);
        assert_eq!(outcome, Outcome::Completed);
        let at: Vec<Duration> = stream.chunks.iter().map(|chunk| chunk.at).collect();
        assert_eq!(at, [ms(2), ms(3)]);
        assert_eq!(stream.first_answer, Some(ms(3)));
    }

    fn completion(text: &str, total: Option<u32>) -> String {
        let usage = total.map(|total| format!(r#","usage":{{"completion_tokens":{total}}}"#));
        let usage = usage.unwrap_or_default();
        format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]{usage}}}\n\n")
    }

    fn tokens_of_chunks(events: &[String]) -> Vec<Option<u32>> {
        let (stream, _) = read(ProtocolKind::Completions, &[events.concat().as_bytes()]);
        stream.chunks.iter().map(|chunk| chunk.tokens).collect()
    }

    #[test]
    fn running_counts_give_the_tokens_of_each_chunk() {
        let events = [completion("a", Some(3)), completion("b", Some(4)), completion("c", Some(8))];
        assert_eq!(tokens_of_chunks(&events), [Some(3), Some(1), Some(4)]);
    }

    #[test]
    fn a_count_on_the_last_chunk_alone_says_nothing_of_that_chunk() {
        let events = [completion("a", None), completion("b", None), completion("c", Some(8))];
        assert_eq!(tokens_of_chunks(&events), [None, None, None]);
    }

    #[test]
    fn every_bad_ending_has_its_reason() {
        let a = completion("a", None);
        for (stream, expected) in [
            (format!("{a}data: {{\"error\":{{\"message\":\"oom\"}}}}\n\n"), Failure::ServerError),
            (format!("{a}data: {{\"cho\n\ndata: [DONE]\n\n"), Failure::BadJson),
            (a.clone(), Failure::Truncated),
            (format!("{a}data: {{\"choices\":[{{\"te"), Failure::Truncated),
            ("data: [DONE]\n\n".to_owned(), Failure::Empty),
            (String::new(), Failure::Truncated),
            (r#"{"choices":[{"text":"all at"#.to_owned(), Failure::BadJson),
            (r#"{"error":{"message":"oom"}}"#.to_owned(), Failure::ServerError),
            (r#"{"object":"list"}"#.to_owned(), Failure::Empty),
            (r#"{"object":"error","message":"oom"}"#.to_owned(), Failure::ServerError),
            (format!("{a}event: error\ndata: oom\n\n"), Failure::ServerError),
            (format!("{a}event: Error\ndata:\n\ndata: [DONE]\n\n"), Failure::ServerError),
            (
                format!("{a}data: {{\"code\":9,\"msg\":\"oom\"}}\n\ndata: [DONE]\n\n"),
                Failure::ServerError,
            ),
            ("<html>a gateway's page</html>".to_owned(), Failure::BadJson),
        ] {
            let (_, outcome) = read(ProtocolKind::Completions, &[stream.as_bytes()]);
            assert_eq!(failure(&outcome), Some(expected), "{stream}");
        }
    }

    #[test]
    fn reading_takes_time_in_proportion_to_what_is_read() {
        let read_lines = |bytes: usize| {
            let clock = crate::clock::Clock::start();
            let mut reader = StreamReader::new(ProtocolKind::Chat);
            let part = vec![b'x'; 64];
            for _ in 0..bytes / part.len() {
                reader.feed(&part, ms(1));
            }
            clock.now().as_secs_f64()
        };
        let least = |bytes| (0..5).map(|_| read_lines(bytes)).fold(f64::INFINITY, f64::min);
        let (short, long) = (least(1 << 20), least(8 << 20));
        assert!(long < 30.0 * short, "8 MiB of one line took {:.0} times 1 MiB", long / short);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic_and_no_cut_changes_what_it_reads(
            protocol in prop::sample::select(ProtocolKind::ALL.to_vec()),
            stream in prop::collection::vec(prop_oneof![
                Just(COMPLETIONS.to_owned()),
                Just(CHAT.to_owned()),
                Just("data: [DONE]\n\n".to_owned()),
                "data: ?\\{[\"a-z:,\\[\\]{}0-9]{0,40}\n\n",
                "[ -~\r\n\u{e9}]{0,30}",
                "[{\\[][ -~]{0,30}",
            ], 0..4),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = stream.concat().into_bytes();
            for (place, byte) in flips {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            let mut cuts: Vec<usize> =
                cuts.into_iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (whole, whole_outcome) = read(protocol, &[&bytes]);
            let (cut, cut_outcome) = read(protocol, &parts);
            prop_assert_eq!(failure(&cut_outcome), failure(&whole_outcome));
            prop_assert_eq!(cut.text, whole.text);
            prop_assert_eq!(cut.reasoning, whole.reasoning);
            prop_assert_eq!(cut.usage, whole.usage);
            prop_assert_eq!(cut.chunks.len(), whole.chunks.len());
        }
    }

    #[test]
    fn an_answer_in_one_block_is_an_answer_whose_end_alone_is_known() {
        for (protocol, block) in [
            (
                ProtocolKind::Completions,
                r#"{"choices":[{"text":" a b"}],"usage":{"completion_tokens":2}}"#,
            ),
            (
                ProtocolKind::Chat,
                r#"{"choices":[{"message":{"content":" a b"}}],"usage":{"completion_tokens":2}}"#,
            ),
            (
                ProtocolKind::Responses,
                r#"{"object":"response","output":[{"type":"message","content":[{"type":"output_text",
                    "text":" a b"}]}],"usage":{"output_tokens":2}}"#,
            ),
            (ProtocolKind::Triton, r#"{"model_name":"ensemble","text_output":" a b"}"#),
            (ProtocolKind::Tgi, r#"[{"generated_text":" a b","details":{"generated_tokens":2}}]"#),
        ] {
            for cut in 0..block.len() {
                let (stream, outcome) =
                    read(protocol, &[&block.as_bytes()[..cut], &block.as_bytes()[cut..]]);
                assert_eq!(outcome, Outcome::Completed, "{block}");
                assert!(stream.one_block, "{block}");
                assert_eq!((stream.text.as_str(), stream.chunks.len()), (" a b", 1), "{block}");
                let counted = stream.usage.and_then(|usage| usage.completion_tokens);
                assert_eq!(counted.is_some(), protocol != ProtocolKind::Triton, "{block}");
            }
        }
    }

    #[test]
    fn texts_that_accumulate_are_read_once() {
        let stream = |texts: &[&str]| {
            let events: Vec<String> = texts.iter().map(|text| completion(text, None)).collect();
            let (stream, outcome) = read(
                ProtocolKind::Completions,
                &[(events.concat() + "data: [DONE]\n\n").as_bytes()],
            );
            assert_eq!(outcome, Outcome::Completed);
            (stream.text, stream.chunks.len(), stream.accumulated)
        };
        let growing: Vec<String> = (1..30).map(|n| " word".repeat(n)).collect();
        let growing: Vec<&str> = growing.iter().map(String::as_str).collect();
        for (texts, text, chunks, accumulated) in [
            (&["a", "a b", "a b c"][..], "a b c", 3, true),
            (&["Once upon", "Once upon a time"], "Once upon a time", 2, true),
            (&growing, growing.last().unwrap(), 29, true),
            (&["Once", " upon", " a", "Once upon a"], "Once upon a", 3, true),
            (&["caf\u{fffd}", "caf\u{e9} a", "caf\u{e9} au lait"], "caf\u{e9} au lait", 3, true),
            (&["a", "b", "c"], "abc", 3, false),
            (&["a", "a", "a"], "aaa", 3, false),
            (&["ha", "ha", "haha"], "hahahaha", 3, false),
            (&["a", "ab", "c"], "aabc", 3, false),
            (&["a", "ab"], "aab", 2, false),
            (&["a"], "a", 1, false),
        ] {
            assert_eq!(stream(texts), (text.to_owned(), chunks, accumulated), "{texts:?}");
        }
    }

    #[test]
    fn reasoning_that_accumulates_is_read_once_and_the_answer_after_it_too() {
        let delta = |field: &str, text: &str| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"{field}\":\"{text}\"}}}}]}}\n\n")
        };
        let events = [
            delta("reasoning_content", "let"),
            delta("reasoning_content", "let me"),
            delta("reasoning_content", "let me see"),
            delta("content", "It"),
            delta("content", "It is"),
            delta("content", "It is so"),
            "data: [DONE]\n\n".to_owned(),
        ];
        let (stream, outcome) = read(ProtocolKind::Chat, &[events.concat().as_bytes()]);
        assert_eq!(outcome, Outcome::Completed);
        let texts = (stream.reasoning.as_str(), stream.text.as_str());
        assert_eq!((texts, stream.accumulated), (("let me see", "It is so"), true));
    }

    #[test]
    fn an_answer_that_goes_on_after_a_finish_reason_has_not_ended() {
        let event = |text: &str, reason: &str| {
            format!(
                "data: {{\"choices\":[{{\"text\":\"{text}\",\"finish_reason\":{reason}}}]}}\n\n"
            )
        };
        let usage = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n".to_owned();
        let empty = event("", "null");
        let mut reader = StreamReader::new(ProtocolKind::Completions);
        for (at, part, finished) in [
            (1, event("a", "\"running\""), Some(ms(1))),
            (2, event("b", "null"), None),
            (3, event("c", "\"stop\""), Some(ms(3))),
            (4, event("d", "\"stop\""), Some(ms(4))),
            (5, usage, Some(ms(4))),
            (6, empty, Some(ms(4))),
        ] {
            reader.feed(part.as_bytes(), ms(at));
            assert_eq!(reader.finished_at(), finished, "{part}");
        }
        let cut = event("a", "\"running\"") + &event("b", "null");
        let (_, outcome) = read(ProtocolKind::Completions, &[cut.as_bytes()]);
        assert_eq!(failure(&outcome), Some(Failure::Truncated));
    }

    #[test]
    fn an_answer_of_several_choices_ends_when_each_of_those_asked_for_has_ended() {
        let event = |index: u32| {
            format!(
                "data: {{\"choices\":[{{\"index\":{index},\"text\":\"a\",\"finish_reason\":\"stop\"}}]}}\n\n"
            )
        };
        let mut reader = StreamReader::new(ProtocolKind::Completions).of_choices(2);
        reader.feed(event(0).as_bytes(), ms(1));
        assert_eq!(reader.finished_at(), None);
        reader.feed(event(1).as_bytes(), ms(2));
        assert_eq!(reader.finished_at(), Some(ms(2)));
        assert_eq!(reader.finish(ms(3), None).1, Outcome::Completed);
    }

    #[test]
    fn the_texts_of_several_choices_are_not_mixed() {
        let event = |index: u32, text: &str, reason: &str| {
            format!(
                "data: {{\"choices\":[{{\"index\":{index},\"text\":\"{text}\",\"finish_reason\":{reason}}}]}}\n\n"
            )
        };
        let begun = event(0, "a", "null") + &event(1, "x", "null") + &event(0, "b", "\"stop\"");
        let (stream, outcome) = read(ProtocolKind::Completions, &[begun.as_bytes()]);
        assert_eq!(failure(&outcome), Some(Failure::Truncated), "the second choice has no end");
        assert_eq!((stream.text.as_str(), stream.choices), ("ab", 2));
        let whole = begun + &event(1, "y", "\"length\"");
        let (stream, outcome) = read(ProtocolKind::Completions, &[whole.as_bytes()]);
        assert_eq!((outcome, stream.text.as_str()), (Outcome::Completed, "ab"));
        assert_eq!(stream.chunks.len(), 4);
    }

    #[test]
    fn a_finish_reason_that_is_a_failure_fails_the_answer() {
        for (reason, done, expected) in [
            ("abort", true, Some(Failure::ServerError)),
            ("error", false, Some(Failure::ServerError)),
            ("timeout", true, Some(Failure::ServerError)),
            ("stop", false, None),
            ("bored", false, None),
            ("", false, Some(Failure::Truncated)),
            ("", true, None),
        ] {
            let end = if done { "data: [DONE]\n\n" } else { "" };
            let stream = format!(
                "data: {{\"choices\":[{{\"text\":\"a\",\"finish_reason\":\"{reason}\"}}]}}\n\n{end}"
            );
            let (_, outcome) = read(ProtocolKind::Completions, &[stream.as_bytes()]);
            assert_eq!(failure(&outcome), expected, "{reason:?} {done}");
        }
    }

    #[test]
    fn what_only_keeps_the_connection_open_is_skipped() {
        for noise in [
            "data:\n\n",
            "data: : ping\n\n",
            "event: ping\ndata: 7\n\n",
            "data: ping\n\n",
            "data: [PING]\n\n",
            "data: null\n\n",
            "data: {}\n\n",
            "data: {\"type\":\"ping\"}\n\n",
            "event: Heartbeat\ndata: 7\n\n",
            ": x\n\n",
        ] {
            let stream = format!("{noise}{}{noise}data: [DONE]\n\n", completion("a", None));
            for protocol in [ProtocolKind::Completions, ProtocolKind::Chat] {
                let stream = stream
                    .replace("\"text\":\"a\"", "\"text\":\"a\",\"delta\":{\"content\":\"a\"}");
                let (stream, outcome) = read(protocol, &[stream.as_bytes()]);
                assert_eq!((stream.text.as_str(), outcome), ("a", Outcome::Completed), "{noise:?}");
            }
        }
    }

    #[test]
    fn half_a_character_is_read_as_the_replacement_character() {
        let stream =
            completion(r"a\ud83d", None) + &completion(r"\ude00b", None) + "data: [DONE]\n\n";
        let (stream, outcome) = read(ProtocolKind::Completions, &[stream.as_bytes()]);
        assert_eq!((stream.text.as_str(), outcome), ("a\u{fffd}\u{fffd}b", Outcome::Completed));
    }

    #[test]
    fn white_space_before_a_response_means_nothing_however_it_is_cut() {
        for (response, text) in [
            (" \r\n{\"choices\":[{\"text\":\"a\"}]}".to_owned(), "a"),
            (format!("\n  {}data: [DONE]\n\n", completion("a", None)), "a"),
        ] {
            for cut in 0..response.len() {
                let (head, tail) = response.as_bytes().split_at(cut);
                let (stream, outcome) = read(ProtocolKind::Completions, &[head, tail]);
                assert_eq!((stream.text.as_str(), outcome), (text, Outcome::Completed), "{cut}");
            }
        }
    }

    #[test]
    fn either_end_mark_will_do() {
        let finished = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n";
        let done = format!("{}data: [DONE]\n\n", completion("a", None));
        let done_without_blank_line = format!("{}data: [DONE]", completion("a", None));
        for stream in [finished, &done, &done_without_blank_line] {
            let (_, outcome) = read(ProtocolKind::Completions, &[stream.as_bytes()]);
            assert_eq!(outcome, Outcome::Completed, "{stream}");
        }
    }

    #[test]
    fn an_interruption_after_the_end_mark_does_not_undo_the_answer() {
        for (stream, expected) in [
            (completion("a", None), Some(Failure::Timeout)),
            (format!("{}data: [DONE]\n\n", completion("a", None)), None),
        ] {
            let mut reader = StreamReader::new(ProtocolKind::Completions);
            reader.feed(stream.as_bytes(), ms(1));
            let late = (Failure::Timeout, "late".to_owned());
            let (_, outcome) = reader.finish(ms(2), Some(late));
            assert_eq!(failure(&outcome), expected);
        }
    }
}
