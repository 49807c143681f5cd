//! A line of JSON for each request of a case, in a file, as soon as it has ended. A thread of its own writes
//! them, so that no request waits for a disk; of prompts and answers they hold nothing.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::record::{Outcome, RequestRecord};

/// How long a line may wait in memory where few come.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// The file of a case that runs.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Entries,
    thread: JoinHandle<io::Result<()>>,
}

/// Takes what is to be written; never waits.
#[derive(Clone, Debug)]
pub struct Entries(Sender<Message>);

/// A part of a case: a trial, one of two servers that are measured in turn, a step of a search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The backend's name.
    pub backend: String,
    /// Its load, as in a case's name.
    pub load: String,
    /// Decides its prompts and arrivals.
    pub seed: u64,
}

#[derive(Debug)]
enum Message {
    /// The requests to come are of this part.
    Part(Part),
    Request(Box<Request>),
    End,
}

/// One request. Offsets count from the start of its part; what is not known is `null`.
#[derive(Debug, Serialize)]
struct Request {
    index: usize,
    turn: u32,
    warm_up: bool,
    scheduled_s: f64,
    sent_s: f64,
    first_token_s: Option<f64>,
    ended_s: f64,
    connect_ms: Option<f64>,
    resent: bool,
    ttft_ms: Option<f64>,
    e2e_ms: Option<f64>,
    chunks: usize,
    /// By the server.
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    failure: Option<String>,
    message: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    part: Option<&'a Part>,
    #[serde(flatten)]
    request: &'a Request,
}

impl Journal {
    /// Begins the file. What is there is never overwritten: it is of a run that was killed.
    ///
    /// # Errors
    ///
    /// If there can be no such file, or no thread.
    pub fn start(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::create_new(path)?;
        Self::write_to(path, file)
    }

    fn write_to(path: &Path, file: File) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("servebench-journal".to_owned());
        let thread =
            thread.spawn(move || write(&receiver, BufWriter::with_capacity(1 << 16, file)))?;
        Ok(Self { path: path.to_owned(), entries: Entries(sender), thread })
    }

    /// Where requests are told.
    pub fn entries(&self) -> Entries {
        self.entries.clone()
    }

    /// Ends the file when all that was told is in it. Returns its path, and the error where it could not be
    /// written to its end.
    pub fn finish(self) -> (PathBuf, io::Result<()>) {
        // It may have gone already.
        let _ = self.entries.0.send(Message::End);
        let written = self.thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        (self.path, written)
    }
}

impl Entries {
    /// The requests that end from now on are of this part.
    pub fn begin(&self, part: Part) {
        let _ = self.0.send(Message::Part(part));
    }

    /// A request has ended.
    pub fn end(&self, record: &RequestRecord) {
        // After an error nobody listens, and the end of the file says so.
        let _ = self.0.send(Message::Request(Box::new(Request::new(record))));
    }
}

impl Request {
    fn new(record: &RequestRecord) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let completed = record.completed();
        let (failure, message) = match &record.outcome {
            Outcome::Completed => (None, None),
            Outcome::Failed { failure, message } => {
                (Some(failure.to_string()), Some(message.clone()))
            }
        };
        let usage = record.stream.usage;
        Self {
            index: record.index,
            turn: record.turn,
            warm_up: record.warm_up,
            scheduled_s: record.scheduled.as_secs_f64(),
            sent_s: record.sent.as_secs_f64(),
            first_token_s: record.stream.chunks.first().map(|chunk| chunk.at.as_secs_f64()),
            ended_s: record.ended.as_secs_f64(),
            connect_ms: record.connect.map(ms),
            resent: record.resent,
            ttft_ms: completed.map(|completed| ms(completed.ttft())),
            e2e_ms: completed.map(|completed| ms(completed.e2e())),
            chunks: record.stream.chunks.len(),
            input_tokens: usage.and_then(|usage| usage.prompt_tokens),
            output_tokens: usage.and_then(|usage| usage.completion_tokens),
            failure,
            message,
        }
    }
}

/// Writes what comes until the end, or until it cannot.
fn write(messages: &Receiver<Message>, mut file: BufWriter<File>) -> io::Result<()> {
    let mut part = None;
    let mut flushed = Clock::start();
    loop {
        let left = FLUSH_AFTER.saturating_sub(flushed.now());
        // Also where lines never stop coming.
        if left.is_zero() {
            file.flush()?;
            flushed = Clock::start();
            continue;
        }
        match messages.recv_timeout(left) {
            Ok(Message::Part(next)) => part = Some(next),
            Ok(Message::Request(request)) => {
                let line = Line { part: part.as_ref(), request: &request };
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::record::tests::{completed, failed};
    use crate::record::{Failure, Usage};

    fn part(seed: u64) -> Part {
        Part { backend: "sim".to_owned(), load: "4qps".to_owned(), seed }
    }

    #[test]
    fn each_request_is_a_line_with_its_times_and_without_its_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.jsonl");
        let journal = Journal::start(&path).unwrap();
        let entries = journal.entries();
        entries.begin(part(7));
        let mut record = completed(&[60, 70, 80]);
        record.stream.text = "an answer".to_owned();
        record.stream.usage =
            Some(Usage { prompt_tokens: Some(12), completion_tokens: Some(3), ..Usage::default() });
        entries.end(&record);
        entries.begin(part(8));
        entries.end(&failed(Failure::Timeout));
        let (written_to, written) = journal.finish();
        written.unwrap();
        assert_eq!(written_to, path);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("an answer"), "{text}");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |line: usize, fields: &[&str]| -> Value {
            fields.iter().map(|field| lines[line][*field].clone()).collect()
        };
        let times = ["sent_s", "first_token_s", "ended_s", "ttft_ms", "e2e_ms"];
        assert_eq!(of(0, &times), serde_json::json!([0.01, 0.06, 0.085, 50.0, 70.0]));
        let counts = ["seed", "backend", "chunks", "input_tokens", "output_tokens", "failure"];
        assert_eq!(of(0, &counts), serde_json::json!([7, "sim", 3, 12, 3, null]));
        let of_failed = ["seed", "ttft_ms", "output_tokens", "failure", "message"];
        assert_eq!(
            of(1, &of_failed),
            serde_json::json!([8, null, null, "timeout", "it said timeout"])
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn lines_are_in_the_file_while_the_case_still_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let journal = Journal::start(&path).unwrap();
        journal.entries().end(&completed(&[60]));
        let clock = Clock::start();
        while std::fs::read_to_string(&path).unwrap().lines().count() == 0 {
            assert!(clock.now() < Duration::from_secs(30), "it is flushed twice a second");
            std::thread::sleep(Duration::from_millis(20));
        }
        journal.finish().1.unwrap();
    }

    #[test]
    fn lines_are_in_the_file_while_others_keep_coming() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let journal = Journal::start(&path).unwrap();
        let clock = Clock::start();
        while std::fs::metadata(&path).unwrap().len() == 0 {
            journal.entries().end(&completed(&[60]));
            assert!(clock.now() < Duration::from_secs(30), "it is flushed twice a second");
            std::thread::sleep(Duration::from_millis(20));
        }
        journal.finish().1.unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{}").unwrap();
        let error = Journal::start(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_stops_nobody_and_is_told_at_the_end() {
        let journal = Journal::write_to(Path::new("/dev/full"), File::create("/dev/full").unwrap());
        let journal = journal.unwrap();
        let entries = journal.entries();
        for _ in 0..10_000 {
            entries.end(&completed(&[60, 70]));
        }
        let error = journal.finish().1.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
