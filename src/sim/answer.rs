//! The body of an answer: each token is a frame, stamped when the connection takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc::UnboundedReceiver;

use super::chunk::{FinishReason, Format, Usage};
use super::engine::{Engine, Token};
use super::lexicon::AnswerWords;
use super::truth::OpenRecord;
use crate::clock::Clock;

/// An answer under way. One that is dropped before its end is cancelled.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) sequence: u64,
    pub(crate) tokens: UnboundedReceiver<Token>,
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) record: OpenRecord,
    pub(crate) format: Format,
    pub(crate) words: AnswerWords,
    pub(crate) reason: FinishReason,
    pub(crate) prompt_tokens: u32,
    pub(crate) generated: u32,
    pub(crate) stage: Stage,
    /// Text of the tokens that wait for the others of their event.
    pub(crate) held: String,
    pub(crate) held_tokens: u32,
}

/// What comes next of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Everything, in one piece.
    Whole,
    /// The beginning of a stream.
    Opening,
    /// A token of a stream.
    Tokens,
    /// An error in the midst of it.
    Breaking,
    /// The end of a stream.
    Closing,
    /// Nothing.
    Done,
}

impl Answer {
    fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.generated }
    }

    fn poll_token(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Token>> {
        let token = ready!(self.tokens.poll_recv(cx));
        self.generated += 1;
        Poll::Ready(token.ok_or_else(|| io::Error::other("the engine has stopped")))
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<String>>> {
        loop {
            match self.stage {
                Stage::Whole => {
                    while !ready!(self.poll_token(cx))?.last {}
                    let now = self.clock.now();
                    self.record.part_left(now, self.generated as usize);
                    self.record.end(now, false);
                    self.stage = Stage::Done;
                    let text = self.words.text(self.generated as usize);
                    let whole = self.format.whole(&text, self.reason, self.usage());
                    return Poll::Ready(Ok(Some(whole)));
                }
                Stage::Opening => {
                    self.stage = Stage::Tokens;
                    if let Some(opening) = self.format.opening() {
                        self.record.part_left(self.clock.now(), 0);
                        return Poll::Ready(Ok(Some(opening)));
                    }
                }
                Stage::Tokens => {
                    let last = ready!(self.poll_token(cx))?.last;
                    self.held.push_str(self.words.next_word());
                    self.held_tokens += 1;
                    let part = self.format.part(self.generated - 1);
                    // An event holds one kind of output.
                    let full = self.held_tokens == self.format.dialect.tokens_per_chunk.get()
                        || part != self.format.part(self.generated);
                    if last {
                        self.stage = Stage::Closing;
                    } else if !full {
                        continue;
                    }
                    let reason = last.then_some(self.reason);
                    let event = self.format.tokens(part, &self.held, self.usage(), reason);
                    self.record.part_left(self.clock.now(), self.held_tokens as usize);
                    self.held.clear();
                    self.held_tokens = 0;
                    if self
                        .format
                        .dialect
                        .error_after
                        .is_some_and(|tokens| tokens <= self.generated)
                    {
                        self.stage = Stage::Breaking;
                    }
                    return Poll::Ready(Ok(Some(event)));
                }
                Stage::Breaking => {
                    self.stage = Stage::Done;
                    self.engine.cancel(self.sequence);
                    self.record.end(self.clock.now(), true);
                    return Poll::Ready(Ok(Some(self.format.error())));
                }
                Stage::Closing => {
                    self.stage = Stage::Done;
                    self.record.end(self.clock.now(), false);
                    let closing = self.format.closing(self.reason, self.usage());
                    return Poll::Ready(Ok((!closing.is_empty()).then_some(closing)));
                }
                Stage::Done => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = ready!(self.poll_part(cx)).transpose();
        Poll::Ready(part.map(|part| part.map(|text| Frame::data(Bytes::from(text)))))
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.stage != Stage::Done {
            self.engine.cancel(self.sequence);
            self.record.end(self.clock.now(), true);
        }
    }
}
