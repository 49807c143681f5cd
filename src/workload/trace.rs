//! Published and own traces of requests: when each came, how long its prompt and its answer were.
//! Pure but for the opening of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

/// Tokens that one of [`Row::blocks`] stands for.
pub const BLOCK_TOKENS: u32 = 512;

/// The requests of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// How its file was written.
    pub format: TraceFormat,
    /// By time; rows of the same time in the order of the file. Never empty.
    pub rows: Vec<Row>,
    /// Rows of the file without an output token: the service had failed, and they are left out.
    pub failed: usize,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it came, counted from the first row.
    pub at: Duration,
    /// The length of its prompt; at least one.
    pub input_tokens: u32,
    /// The length of its answer; at least one.
    pub output_tokens: u32,
    /// What its prompt is made of, where the trace says it: each number names [`BLOCK_TOKENS`]
    /// tokens, the last one perhaps fewer. Prompts that begin with the same numbers begin with the
    /// same tokens.
    pub blocks: Option<Box<[u64]>>,
}

/// How a trace is written. The first line of its file says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// The CSV files of Azure's LLM inference traces.
    Azure,
    /// The JSON lines of Mooncake's traces, with the blocks of each prompt.
    Mooncake,
    /// The CSV files of BurstGPT.
    BurstGpt,
    /// CSV of one's own.
    Csv,
    /// JSON lines of one's own.
    Jsonl,
}

impl Trace {
    /// Reads the file of a trace, row by row.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let named = || format!("trace `{}`", path.display());
        let file = File::open(path).with_context(named)?;
        Self::parse(BufReader::new(file)).with_context(named)
    }

    /// Reads a trace from what its file holds. The errors name the line, not the file.
    pub fn parse(mut reader: impl BufRead) -> anyhow::Result<Self> {
        let first_line = read_first_line(&mut reader)?;
        let is_json = first_line.trim_start().starts_with('{');
        let (format, rows) =
            if is_json { read_json(&first_line, reader)? } else { read_csv(&first_line, reader)? };

        let read = rows.len();
        let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
        let failed = read - rows.len();
        rows.sort_by_key(|row| row.at);
        let Some(first) = rows.first().map(|row| row.at) else {
            bail!("it holds no request that got an answer: {failed} of its {read} rows got none");
        };
        for row in &mut rows {
            row.at -= first;
        }
        Ok(Self { format, rows, failed })
    }

    /// The rows from `from` on and before `to`; their times count from `from`.
    pub fn windowed(mut self, from: Duration, to: Option<Duration>) -> anyhow::Result<Self> {
        let last = self.rows.last().map(|row| row.at).unwrap_or_default();
        self.rows.retain(|row| from <= row.at && to.is_none_or(|to| row.at < to));
        ensure!(
            !self.rows.is_empty(),
            "no request of the trace is from {from:?} on{}: its last one is at {last:?}",
            to.map(|to| format!(" and before {to:?}")).unwrap_or_default()
        );
        for row in &mut self.rows {
            row.at -= from;
        }
        Ok(self)
    }

    /// The same rows, `factor` times as fast.
    pub fn sped_up(mut self, factor: f64) -> anyhow::Result<Self> {
        ensure!(
            0.0 < factor && factor.is_finite(),
            "a trace cannot be replayed {factor} times as fast: give a number above zero"
        );
        for row in &mut self.rows {
            row.at = Duration::try_from_secs_f64(row.at.as_secs_f64() / factor)
                .with_context(|| format!("the trace replayed {factor} times as fast"))?;
        }
        Ok(self)
    }
}

/// A first line longer than this is of no trace.
const MAX_FIRST_LINE_BYTES: u64 = 1 << 20;

/// The first line with its end and without a byte order mark.
fn read_first_line(reader: &mut impl BufRead) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    reader.take(MAX_FIRST_LINE_BYTES).read_until(b'\n', &mut bytes)?;
    let line = String::from_utf8(bytes).ok().context(
        "line 1: expected text: unpack a compressed file, save a table of another kind as CSV",
    )?;
    let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
    ensure!(!line.trim().is_empty(), "line 1: expected {KNOWN}, found an empty line or file");
    Ok(line.to_owned())
}

type Rows = (TraceFormat, Vec<Option<Row>>);

fn read_csv(first_line: &str, rest: impl BufRead) -> anyhow::Result<Rows> {
    // The last line ends like all others, so that the count of lines is right there too.
    let reader = first_line.as_bytes().chain(rest).chain(&b"\n"[..]);
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        // Lines of two ends would be miscounted; trimming takes the other end.
        .terminator(csv::Terminator::Any(b'\n'))
        .from_reader(reader);
    let header = reader.headers()?.clone();
    let names: Vec<&str> = header.iter().collect();
    let columns = Columns::of_csv(&names).context("line 1")?;

    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        if record.iter().eq([""]) {
            continue;
        }
        let line = || format!("line {}", reader.position().line() - 1);
        if record.len() != names.len() {
            let (expected, found) = (names.len(), record.len());
            let columns = names.join("`, `");
            bail!("{}: expected {expected} columns (`{columns}`), found {found}", line());
        }
        let cell = |column: &str| {
            let index = names.iter().position(|name| *name == column)?;
            record.get(index)
        };
        rows.push(columns.row(cell).with_context(line)?);
    }
    Ok((columns.format, rows))
}

fn read_json(first_line: &str, rest: impl BufRead) -> anyhow::Result<Rows> {
    let first = json_fields(first_line.as_bytes()).context("line 1")?;
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let columns = Columns::of_json(&names).context("line 1")?;

    let mut reader = first_line.as_bytes().chain(rest);
    let mut rows = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let row = json_fields(line)
            .and_then(|fields| columns.row(|column| fields.get(column).map(|value| value.get())));
        rows.push(row.with_context(|| format!("line {number}"))?);
    }
    Ok((columns.format, rows))
}

fn json_fields(line: &[u8]) -> anyhow::Result<BTreeMap<String, &RawValue>> {
    serde_json::from_slice(line).map_err(|error| {
        if error.is_eof() {
            anyhow!("the JSON ends too early: is the file complete?")
        } else {
            let found = String::from_utf8_lossy(line);
            anyhow!("expected one JSON object, found `{}`", shortened(&found))
        }
    })
}

/// What a column for the time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// Dates with a time of day, in UTC where they name no offset.
    Calendar,
    Seconds,
    Milliseconds,
}

impl Clock {
    fn expected(self) -> &'static str {
        match self {
            Self::Calendar => "a date and time like `2023-11-16 18:17:03.9799600`, after 1970",
            Self::Seconds => "a number of seconds, not below zero",
            Self::Milliseconds => "a number of milliseconds, not below zero",
        }
    }

    /// The time since a moment that is the same for all rows.
    fn read(self, text: &str) -> Option<Duration> {
        let seconds = |scale: f64| {
            let number: f64 = text.parse().ok()?;
            Duration::try_from_secs_f64(number / scale).ok()
        };
        match self {
            Self::Seconds => seconds(1.0),
            Self::Milliseconds => seconds(1e3),
            Self::Calendar => {
                let with_offset = text.parse::<Timestamp>();
                let timestamp = with_offset.or_else(|_| {
                    let civil: DateTime = text.parse()?;
                    TimeZone::UTC.to_timestamp(civil)
                });
                Duration::try_from(timestamp.ok()?.as_duration()).ok()
            }
        }
    }
}

/// Where the values of a row are, by the names that the file gives its columns.
#[derive(Debug)]
struct Columns<'a> {
    format: TraceFormat,
    time: &'a str,
    clock: Clock,
    input: &'a str,
    output: &'a str,
    blocks: Option<&'a str>,
}

const AZURE: Columns<'static> = Columns {
    format: TraceFormat::Azure,
    time: "TIMESTAMP",
    clock: Clock::Calendar,
    input: "ContextTokens",
    output: "GeneratedTokens",
    blocks: None,
};

const BURST_GPT: Columns<'static> = Columns {
    format: TraceFormat::BurstGpt,
    time: "Timestamp",
    clock: Clock::Seconds,
    input: "Request tokens",
    output: "Response tokens",
    blocks: None,
};

const MOONCAKE: Columns<'static> = Columns {
    format: TraceFormat::Mooncake,
    time: "timestamp",
    clock: Clock::Milliseconds,
    input: "input_length",
    output: "output_length",
    blocks: Some("hash_ids"),
};

const TIME: [&str; 4] = ["time", "timestamp", "arrival", "arrival_time"];
const INPUT: [&str; 4] = ["input", "input_tokens", "input_length", "prompt_tokens"];
const OUTPUT: [&str; 4] = ["output", "output_tokens", "output_length", "completion_tokens"];

const KNOWN: &str = "a trace of Azure (CSV: TIMESTAMP, ContextTokens, GeneratedTokens), of Mooncake \
    (JSON lines: timestamp, input_length, output_length, hash_ids), of BurstGPT (CSV: Timestamp, \
    Request tokens, Response tokens), or CSV with a header or JSON lines of one's own, with a time \
    (time, timestamp, arrival or arrival_time, in seconds, or in milliseconds with _ms at the end), \
    an input (input, input_tokens, input_length or prompt_tokens) and an output (output, \
    output_tokens, output_length or completion_tokens)";

impl<'a> Columns<'a> {
    fn of_csv(names: &[&'a str]) -> anyhow::Result<Self> {
        let published = AZURE.spelled_in(names).or_else(|| BURST_GPT.spelled_in(names));
        published.map_or_else(|| Self::own(names, TraceFormat::Csv), Ok)
    }

    fn of_json(names: &[&'a str]) -> anyhow::Result<Self> {
        MOONCAKE.spelled_in(names).map_or_else(|| Self::own(names, TraceFormat::Jsonl), Ok)
    }

    /// The same columns as a file spells them; `None` where it lacks one.
    fn spelled_in<'n>(&self, names: &[&'n str]) -> Option<Columns<'n>> {
        let spelled =
            |column: &str| names.iter().copied().find(|name| name.eq_ignore_ascii_case(column));
        let blocks = match self.blocks {
            Some(column) => Some(spelled(column)?),
            None => None,
        };
        let (time, input, output) =
            (spelled(self.time)?, spelled(self.input)?, spelled(self.output)?);
        Some(Columns { format: self.format, time, clock: self.clock, input, output, blocks })
    }

    fn own(names: &[&'a str], format: TraceFormat) -> anyhow::Result<Self> {
        let one_of = |known: [&'static str; 4]| {
            move |name: &str| known.iter().any(|one| one.eq_ignore_ascii_case(name)).then_some(())
        };
        let (time, clock) = the_one(names, "time", own_clock)?;
        let (input, ()) = the_one(names, "input", one_of(INPUT))?;
        let (output, ()) = the_one(names, "output", one_of(OUTPUT))?;
        Ok(Self { format, time, clock, input, output, blocks: None })
    }

    /// A row from the texts of its cells; `None` where it has no output.
    fn row<'c>(&self, cell: impl Fn(&str) -> Option<&'c str>) -> anyhow::Result<Option<Row>> {
        let at = value(&cell, self.time, self.clock.expected(), |text| self.clock.read(text))?;
        let count = |text: &str| text.parse::<u32>().ok();
        let output_tokens =
            value(&cell, self.output, "a whole number of tokens, not below zero", count)?;
        if output_tokens == 0 {
            return Ok(None);
        }
        let count = |text: &str| count(text).filter(|tokens| *tokens != 0);
        let input_tokens =
            value(&cell, self.input, "a whole number of tokens, at least one", count)?;
        let blocks = match self.blocks {
            Some(column) => {
                let blocks = input_tokens.div_ceil(BLOCK_TOKENS);
                let expected = format!(
                    "the whole numbers of {blocks} blocks, as {input_tokens} tokens are \
                     {blocks} blocks of {BLOCK_TOKENS}"
                );
                Some(value(&cell, column, &expected, |text| {
                    let ids: Box<[u64]> = serde_json::from_str(text).ok()?;
                    (ids.len() == blocks as usize).then_some(ids)
                })?)
            }
            None => None,
        };
        Ok(Some(Row { at, input_tokens, output_tokens, blocks }))
    }
}

fn value<'c, T>(
    cell: impl Fn(&str) -> Option<&'c str>,
    column: &str,
    expected: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> anyhow::Result<T> {
    let text = cell(column).with_context(|| format!("no `{column}`: expected {expected}"))?;
    read(text).with_context(|| {
        format!("column `{column}`: expected {expected}, found `{}`", shortened(text))
    })
}

/// The clock of a column that is named like a time.
fn own_clock(name: &str) -> Option<Clock> {
    let name = name.to_ascii_lowercase();
    let (name, clock) = match name.strip_suffix("_ms") {
        Some(name) => (name, Clock::Milliseconds),
        None => (name.strip_suffix("_s").unwrap_or(&name), Clock::Seconds),
    };
    TIME.contains(&name).then_some(clock)
}

/// The one column that `read` takes for what it is looking for.
fn the_one<'a, T>(
    names: &[&'a str],
    what: &str,
    read: impl Fn(&str) -> Option<T>,
) -> anyhow::Result<(&'a str, T)> {
    let mut found = names.iter().filter_map(|name| Some((*name, read(name)?)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => bail!(
            "no column for the {what} among `{}`: expected {KNOWN}",
            shortened(&names.join("`, `"))
        ),
        (Some((first, _)), Some((second, _))) => {
            bail!("columns `{first}` and `{second}` are both for the {what}: expected one of them")
        }
    }
}

/// So much of a text as an error may hold.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Trace> {
        Trace::parse(text.as_bytes())
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    /// Milliseconds, input and output of each row.
    fn numbers(trace: &Trace) -> Vec<(f64, u32, u32)> {
        let numbers = |row: &Row| (row.at.as_secs_f64() * 1e3, row.input_tokens, row.output_tokens);
        trace.rows.iter().map(numbers).collect()
    }

    fn sample(name: &str) -> Trace {
        Trace::read(&Path::new("fixtures/traces").join(name)).unwrap()
    }

    #[test]
    fn azures_traces_count_in_ticks_of_100_ns_with_or_without_an_offset() {
        for text in [
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n\
             2023-11-16 18:17:04.0319601,3180,8",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 23:59:59.999999+00:00,4808,10\n\
             2024-05-11 00:00:00.0519991+00:00,3180,8\n",
        ] {
            let trace = parse(text).unwrap();
            assert_eq!(trace.format, TraceFormat::Azure);
            assert_eq!(numbers(&trace), [(0.0, 4808, 10), (52.0001, 3180, 8)], "{text}");
        }
    }

    #[test]
    fn mooncakes_rows_come_with_their_blocks() {
        let trace = parse(
            r#"{"timestamp": 3000, "input_length": 513, "output_length": 5, "hash_ids": [0, 7]}
               {"timestamp": 4500, "input_length": 512, "output_length": 6, "hash_ids": [0]}"#,
        )
        .unwrap();
        assert_eq!(trace.format, TraceFormat::Mooncake);
        assert_eq!(numbers(&trace), [(0.0, 513, 5), (1500.0, 512, 6)]);
        let blocks: Vec<_> = trace.rows.iter().map(|row| row.blocks.as_deref()).collect();
        assert_eq!(blocks, [Some(&[0, 7][..]), Some(&[0])]);
    }

    #[test]
    fn burst_gpts_failures_are_counted_and_left_out() {
        for (header, session) in [("", ""), ("Session ID,Elapsed time,", "a1,3.25,")] {
            let row = |time, model, tokens| format!("{time},{session}{model},{tokens},API log\n");
            let text = format!(
                "Timestamp,{header}Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            ) + &row("5", "ChatGPT", "472,18,490")
                + &row("45.25", "GPT-4", "0,0,0")
                + &row("118.5", "GPT-4", "417,276,693");
            let trace = parse(&text).unwrap();
            assert_eq!((trace.format, trace.failed), (TraceFormat::BurstGpt, 1));
            assert_eq!(numbers(&trace), [(0.0, 472, 18), (113_500.0, 417, 276)]);
        }
    }

    #[test]
    fn own_traces_name_their_columns_in_any_order() {
        for (header, row) in [
            ("time,input,output", "1.5,20,3"),
            ("output_tokens,timestamp_s,input_tokens", "3,1.5,20"),
            ("Prompt_Tokens,model,Completion_Tokens,Arrival", "20,\"a, b\",3,1.5"),
            ("arrival_time_ms, input_length, output_length", "1500, 20, 3"),
        ] {
            let trace = parse(&format!("{header}\n{row}\n{}", row.replace("1.5", "2"))).unwrap();
            let later = if header.contains("_ms") { 0.0 } else { 500.0 };
            assert_eq!(trace.format, TraceFormat::Csv);
            assert_eq!(numbers(&trace), [(0.0, 20, 3), (later, 20, 3)], "{header}");
        }
        let trace = parse(
            r#"{"arrival": 1, "prompt_tokens": 20, "completion_tokens": 3, "model": {"a": [1]}}
               {"completion_tokens": 4, "arrival": 1.25, "prompt_tokens": 21}"#,
        )
        .unwrap();
        assert_eq!(trace.format, TraceFormat::Jsonl);
        assert_eq!(numbers(&trace), [(0.0, 20, 3), (250.0, 21, 4)]);
        let text = r#"{"timestamp_ms": 1, "input": 20, "output": 3}"#;
        assert_eq!(parse(text).unwrap().format, TraceFormat::Jsonl);
    }

    #[test]
    fn rows_are_sorted_by_time_and_stay_in_order_within_it() {
        let trace = parse("time,input,output\n5,1,1\n2,2,1\n5,3,1\n2,4,1\n").unwrap();
        let expected = [(0.0, 2, 1), (0.0, 4, 1), (3000.0, 1, 1), (3000.0, 3, 1)];
        assert_eq!(numbers(&trace), expected);
    }

    #[test]
    fn ends_of_lines_blank_lines_and_a_byte_order_mark_do_not_matter() {
        let csv = "time,input,output\n1,20,3\n2,20,4";
        let json = "{\"time\":1,\"input\":20,\"output\":3}\n{\"time\":2,\"input\":20,\"output\":4}";
        for text in [csv, json] {
            let expected = parse(text).unwrap();
            for same in [
                format!("{text}\n"),
                format!("{text}\r\n\r\n\n  \n"),
                text.replace('\n', "\r\n"),
                format!("\u{feff}{text}"),
            ] {
                assert_eq!(parse(&same).unwrap(), expected, "{same:?}");
            }
        }
    }

    #[test]
    fn a_window_keeps_its_rows_and_counts_from_its_beginning() {
        let trace = parse("time,input,output\n0,1,1\n10,2,1\n15,3,1\n20,4,1\n").unwrap();
        let window = |from, to: Option<u64>| {
            let seconds = Duration::from_secs;
            trace.clone().windowed(seconds(from), to.map(seconds))
        };
        assert_eq!(numbers(&window(5, Some(20)).unwrap()), [(5000.0, 2, 1), (10_000.0, 3, 1)]);
        assert_eq!(numbers(&window(10, Some(15)).unwrap()), [(0.0, 2, 1)]);
        assert_eq!(window(15, None).unwrap().rows.len(), 2);
        assert_eq!(window(0, None).unwrap(), trace);
        let error = window(30, Some(40)).unwrap_err().to_string();
        assert!(error.contains("from 30s on and before 40s: its last one is at 20s"), "{error}");
        assert!(window(10, Some(10)).is_err());
    }

    #[test]
    fn a_trace_can_be_sped_up_and_slowed_down() {
        let trace = parse("time,input,output\n0,1,1\n10,2,1\n").unwrap();
        let last = |factor| trace.clone().sped_up(factor).map(|trace| trace.rows[1].at);
        assert_eq!(last(4.0).unwrap(), Duration::from_millis(2500));
        assert_eq!(last(0.5).unwrap(), Duration::from_secs(20));
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            assert!(last(factor).unwrap_err().to_string().contains("times as fast"), "{factor}");
        }
    }

    #[test]
    fn columns_that_no_format_has_are_named_with_the_formats() {
        for (text, parts) in [
            ("a,b\n1,2", &["line 1: no column for the time", "`a`, `b`", "Azure", "BurstGPT"][..]),
            ("time,b\n1,2", &["line 1: no column for the input among `time`, `b`"]),
            ("time,input\n1,2", &["no column for the output", "completion_tokens"]),
            ("time,arrival,input,output\n", &["`time` and `arrival` are both for the time"]),
            (r#"{"when":1,"input":2}"#, &["line 1: no column for the time", "`when`", "Mooncake"]),
            (r#"[{"time":1}]"#, &["no column for the time", r#"`[{"time":1}]`"#, "JSON lines"]),
        ] {
            let error = error(text);
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn a_damaged_row_is_named_by_line_and_column() {
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03,4808,10\r\n";
        let csv = "time,input,output\n\n1,20,3\n";
        let json = "{\"time_ms\":1,\"input\":20,\"output\":3}\n\n";
        let mooncake = r#"{"timestamp":0,"input_length":513,"output_length":5,"hash_ids":"#;
        for (text, expected) in [
            (
                format!("{azure}yesterday,1,2"),
                "line 3: column `TIMESTAMP`: expected a date and time",
            ),
            (
                format!("{azure}1969-12-31 23:59:59,1,2"),
                "line 3: column `TIMESTAMP`: expected a date",
            ),
            (format!("{azure}2023-11"), "line 3: expected 3 columns (`TIMESTAMP`, `ContextTokens`"),
            (
                format!("{azure}2023-11-16 18:17:04,x,2\r\n"),
                "line 3: column `ContextTokens`: expected a whole number of tokens, at least one, found `x`",
            ),
            (format!("{csv}2,20,3,4\n"), "line 4: expected 3 columns"),
            (
                format!("{csv}2,0,3\n"),
                "line 4: column `input`: expected a whole number of tokens, at",
            ),
            (format!("{csv}2,20,-3\n"), "line 4: column `output`: expected a whole number"),
            (format!("{csv}2,20,3.5\n"), "line 4: column `output`: expected a whole number"),
            (format!("{csv}-2,20,3\n"), "line 4: column `time`: expected a number of seconds, not"),
            (format!("{csv}nan,20,3\n"), "line 4: column `time`: expected a number of seconds"),
            (format!("{csv},20,3\n"), "line 4: column `time`: expected a number of seconds"),
            (
                format!("{json}{{\"time_ms\":\"1\",\"input\":20,\"output\":3}}"),
                "line 3: column `time_ms`: expected a number of milliseconds, not below zero, found `\"1\"`",
            ),
            (
                format!("{json}{{\"time_ms\":1,\"input\":20}}"),
                "line 3: no `output`: expected a whole",
            ),
            (format!("{json}{{\"time_ms\":1,\"inp"), "line 3: the JSON ends too early"),
            (format!("{json}1,20,3"), "line 3: expected one JSON object, found `1,20,3`"),
            (
                format!("{mooncake}[0,1]}}\n{mooncake}[0]}}"),
                "line 2: column `hash_ids`: expected the whole numbers of 2 blocks",
            ),
            (format!("{mooncake}[0,1,2]}}"), "513 tokens are 2 blocks of 512, found `[0,1,2]`"),
            (format!("{mooncake}[0,-1]}}"), "line 1: column `hash_ids`: expected"),
        ] {
            let error = error(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_trace_without_a_request_is_refused() {
        for (text, expected) in [
            ("", "line 1: expected a trace of Azure"),
            ("\n", "found an empty line or file"),
            ("time,input,output\n", "0 of its 0 rows got none"),
            ("time,input,output\n1,20,0\n", "1 of its 1 rows got none"),
        ] {
            assert!(error(text).contains(expected), "{text}: {}", error(text));
        }
        let packed = Trace::parse(&b"\x1f\x8b\x08\x00"[..]).unwrap_err().to_string();
        assert!(packed.contains("unpack a compressed file"), "{packed}");
        let damaged = Trace::parse(&b"time,input,output\n1,20,3\n2,\xff,3\n"[..]).unwrap_err();
        assert!(format!("{damaged:#}").contains("line 3"), "{damaged:#}");
    }

    #[test]
    fn the_samples_are_read_whole() {
        for (name, format, rows, failed) in [
            ("azure.csv", TraceFormat::Azure, 60, 0),
            ("mooncake.jsonl", TraceFormat::Mooncake, 60, 0),
            ("burstgpt.csv", TraceFormat::BurstGpt, 54, 6),
        ] {
            let trace = sample(name);
            assert_eq!((trace.format, trace.rows.len(), trace.failed), (format, rows, failed));
            assert!(trace.rows.is_sorted_by_key(|row| row.at));
        }
        assert_eq!(numbers(&sample("azure.csv"))[1], (4314.579, 396, 109));
    }

    #[test]
    fn errors_name_the_file() {
        let missing = Trace::read(Path::new("none.csv")).unwrap_err();
        assert!(format!("{missing:#}").contains("trace `none.csv`"), "{missing:#}");
        let path = Path::new("fixtures/tokenizer.json");
        let error = format!("{:#}", Trace::read(path).unwrap_err());
        assert!(error.contains("trace `fixtures/tokenizer.json`: line 1"), "{error}");
    }
}
