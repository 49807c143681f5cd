//! Published and own traces of requests: when each came, how long its prompt and its answer were.
//! Pure but for the opening of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Length;
use crate::plain::quoted;

/// How a trace is to be read, where its file does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Tokens that one of a row's `hash_ids` stands for; `None` for what is usual where it comes from.
    pub block_tokens: Option<NonZeroU32>,
    /// What its times count; `None` for what is usual.
    pub unit: Option<TimeUnit>,
}

/// What the times of a trace count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    const ALL: [Self; 4] = [Self::S, Self::Ms, Self::Us, Self::Ns];

    /// As it is written in configs and flags, and at the end of a column's name.
    fn symbol(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::S => "seconds",
            Self::Ms => "milliseconds",
            Self::Us => "microseconds",
            Self::Ns => "nanoseconds",
        }
    }

    fn per_second(self) -> f64 {
        match self {
            Self::S => 1.0,
            Self::Ms => 1e3,
            Self::Us => 1e6,
            Self::Ns => 1e9,
        }
    }
}

/// The requests of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// How its file was written.
    pub format: TraceFormat,
    /// How its times were.
    pub times: Times,
    /// Tokens that one of [`Row::blocks`] stands for.
    pub block_tokens: NonZeroU32,
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
    /// What its prompt is made of, where the trace says it: each number names so many tokens as
    /// [`Trace::block_tokens`] says, the last one perhaps fewer. Prompts that begin with the same numbers begin with the
    /// same tokens.
    pub blocks: Option<Box<[u64]>>,
}

/// How a trace is written. The first line of its file says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// The CSV files of Azure's LLM inference traces.
    Azure,
    /// The JSON lines of Mooncake's traces, with the blocks of each prompt, if any.
    Mooncake,
    /// The JSON lines of Qwen-Bailian's traces, with the blocks of each prompt.
    Bailian,
    /// The CSV files of BurstGPT.
    BurstGpt,
    /// CSV of one's own.
    Csv,
    /// JSON lines of one's own.
    Jsonl,
}

impl TraceFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Azure => "a trace of Azure's",
            Self::Mooncake => "a trace of Mooncake's",
            Self::Bailian => "a trace of Qwen-Bailian's",
            Self::BurstGpt => "a trace of BurstGPT's",
            Self::Csv => "CSV of your own",
            Self::Jsonl => "JSON lines of your own",
        }
    }

    /// Tokens of a block, unless the plan says.
    fn block_tokens(self) -> NonZeroU32 {
        const USUAL: NonZeroU32 = NonZeroU32::new(512).unwrap();
        const OF_BAILIAN: NonZeroU32 = NonZeroU32::new(16).unwrap();
        match self {
            Self::Bailian => OF_BAILIAN,
            Self::Azure | Self::Mooncake | Self::BurstGpt | Self::Csv | Self::Jsonl => USUAL,
        }
    }
}

/// How the times of a trace are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As dates.
    Dates,
    /// As numbers, as the column's name, the format or the plan says.
    Said(TimeUnit),
    /// As numbers without a unit.
    Assumed(TimeUnit),
}

impl Trace {
    /// Reads the file of a trace, row by row.
    pub fn read(path: &Path, reading: Reading) -> anyhow::Result<Self> {
        let named = || format!("trace `{}`", path.display());
        let file = File::open(path).with_context(named)?;
        Self::parse(BufReader::new(file), reading).with_context(named)
    }

    /// Reads a trace from what its file holds. The errors name the line, not the file.
    pub fn parse(mut reader: impl BufRead, reading: Reading) -> anyhow::Result<Self> {
        let first_line = read_first_line(&mut reader)?;
        let is_json = first_line.trim_start().starts_with('{');
        let read = if is_json {
            read_json(&first_line, reader, reading)?
        } else {
            read_csv(&first_line, reader, reading)?
        };
        let Read { format, clock, block_tokens, rows } = read;
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
        let times = match clock {
            Clock::Calendar => Times::Dates,
            Clock::Count { unit, said: true } => Times::Said(unit),
            Clock::Count { unit, said: false } => Times::Assumed(unit),
        };
        Ok(Self { format, times, block_tokens, rows, failed })
    }

    /// How it was read, and what it is then, in a line.
    pub fn recognised(&self) -> String {
        let times = match self.times {
            Times::Dates => "times are dates".to_owned(),
            Times::Said(unit) => format!("times are in {}", unit.name()),
            Times::Assumed(unit) => {
                format!("times are taken as {} (`time_unit` sets another unit)", unit.name())
            }
        };
        let has_blocks = self.rows.iter().any(|row| row.blocks.is_some());
        let blocks = match has_blocks {
            true => format!(", blocks are of {} tokens", self.block_tokens),
            false => String::new(),
        };
        format!("{}, {times}{blocks}: {}", self.format.name(), self.span())
    }

    /// What makes its unit of time doubtful, if anything.
    pub fn doubt(&self) -> Option<String> {
        let Times::Assumed(unit) = self.times else { return None };
        let (span, requests) = (self.last().as_secs_f64(), self.rows.len() as f64);
        let too_long = LONGEST_SPAN < span;
        let too_short = 100.0 <= requests && MOST_PER_SECOND * span < requests;
        (too_long || too_short).then(|| {
            format!(
                "the times of the trace are taken as {}, and it has {}: if that is not so, set `time_unit`",
                unit.name(),
                self.span()
            )
        })
    }

    fn span(&self) -> String {
        let (span, requests) = (self.last().as_secs_f64(), self.rows.len());
        let rate = if 0.0 < span {
            format!(", {:.3} a second", requests as f64 / span)
        } else {
            String::new()
        };
        format!("{requests} requests in {span} s{rate}")
    }

    fn last(&self) -> Duration {
        self.rows.last().map(|row| row.at).unwrap_or_default()
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
            let at = Duration::try_from_secs_f64(row.at.as_secs_f64() / factor).ok();
            row.at = at.filter(|at| *at <= LONGEST_REPLAY).with_context(|| {
                format!("the trace replayed {factor} times as fast takes longer than a century")
            })?;
        }
        Ok(self)
    }
}

/// Later times would overflow where they are added to others.
const LONGEST_REPLAY: Duration = Duration::from_secs(100 * 366 * 86_400);
/// A trace that is longer than this, seconds, is likely of another unit of time.
const LONGEST_SPAN: f64 = 40.0 * 86_400.0;
/// A trace of more requests in a second than this is, too.
const MOST_PER_SECOND: f64 = 100_000.0;

/// A first line longer than this is of no trace.
const MAX_FIRST_LINE_BYTES: u64 = 1 << 20;
/// A later line longer than this is of none, too.
const MAX_LINE_BYTES: u64 = 64 << 20;

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

/// What a file holds.
struct Read {
    format: TraceFormat,
    clock: Clock,
    block_tokens: NonZeroU32,
    /// `None` where a row has no output.
    rows: Vec<Option<Row>>,
}

fn read_csv(first_line: &str, rest: impl BufRead, reading: Reading) -> anyhow::Result<Read> {
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
    let columns = Columns::of_csv(&names).and_then(|it| it.read_as(reading)).context("line 1")?;

    let mut sizes = Sizes::of(&columns, reading);
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        if record.iter().eq([""]) {
            continue;
        }
        let line = || format!("line {}", reader.position().line() - 1);
        if record.len() != names.len() {
            let (expected, found) = (names.len(), record.len());
            let columns = quoted(&names.join("`, `"));
            bail!("{}: expected {expected} columns (`{columns}`), found {found}", line());
        }
        let cell = |column: &str| {
            let index = names.iter().position(|name| *name == column)?;
            record.get(index)
        };
        let row = columns.row(cell).with_context(line)?;
        sizes.add(row.as_ref(), line);
        rows.push(row);
    }
    sizes.check(columns.blocks)?;
    let (format, clock, block_tokens) = (columns.format, columns.clock, sizes.block_tokens);
    Ok(Read { format, clock, block_tokens, rows })
}

fn read_json(first_line: &str, rest: impl BufRead, reading: Reading) -> anyhow::Result<Read> {
    let first = json_fields(first_line.as_bytes()).context("line 1")?;
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let columns = Columns::of_json(&names).and_then(|it| it.read_as(reading)).context("line 1")?;

    let mut reader = first_line.as_bytes().chain(rest);
    let mut sizes = Sizes::of(&columns, reading);
    let mut rows = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        ensure!((read as u64) < MAX_LINE_BYTES, "line {number}: longer than any row of a trace");
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let row = json_fields(line)
            .and_then(|fields| columns.row(|column| fields.get(column).map(|value| value.get())));
        let place = || format!("line {number}");
        let row = row.with_context(place)?;
        sizes.add(row.as_ref(), place);
        rows.push(row);
    }
    sizes.check(columns.blocks)?;
    let (format, clock, block_tokens) = (columns.format, columns.clock, sizes.block_tokens);
    Ok(Read { format, clock, block_tokens, rows })
}

/// Whether the blocks of all rows are of one size, and of which.
struct Sizes {
    block_tokens: NonZeroU32,
    /// The sizes that would fit all rows.
    least: u32,
    most: u32,
    /// What is wrong with the first row that the size does not fit.
    first_misfit: Option<String>,
}

impl Sizes {
    fn of(columns: &Columns<'_>, reading: Reading) -> Self {
        let block_tokens = reading.block_tokens.unwrap_or(columns.format.block_tokens());
        Self { block_tokens, least: 1, most: u32::MAX, first_misfit: None }
    }

    fn add(&mut self, row: Option<&Row>, place: impl Fn() -> String) {
        let Some((row, blocks)) = row.and_then(|row| Some((row, row.blocks.as_ref()?))) else {
            return;
        };
        let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        let tokens = row.input_tokens;
        let (least, most) = match count {
            0 => (u32::MAX, 0),
            1 => (tokens, u32::MAX),
            // All but the last of them are full.
            _ => (tokens.div_ceil(count), tokens.div_ceil(count - 1) - 1),
        };
        (self.least, self.most) = (self.least.max(least), self.most.min(most));
        let needed = tokens.div_ceil(self.block_tokens.get());
        if needed != count && self.first_misfit.is_none() {
            self.first_misfit = Some(format!(
                "{}: {tokens} tokens are {needed} blocks of {}, not {count}",
                place(),
                self.block_tokens
            ));
        }
    }

    fn check(&self, column: Option<&str>) -> anyhow::Result<()> {
        let (Some(misfit), Some(column)) = (&self.first_misfit, column) else { return Ok(()) };
        let column = quoted(column);
        let (least, most) = (self.least, self.most);
        ensure!(
            least <= most,
            "{misfit}: no one size of a block fits the `{column}` of all rows, so that the file is damaged"
        );
        // Engines use powers of two.
        let power = least.checked_next_power_of_two().filter(|power| *power <= most);
        bail!(
            "{misfit}: blocks of {} tokens fit the `{column}` of all rows: set `block_tokens = {size}`, or \
             give `--trace-block-tokens {size}`",
            if least == most { least.to_string() } else { format!("{least} to {most}") },
            size = power.unwrap_or(least)
        )
    }
}

fn json_fields(line: &[u8]) -> anyhow::Result<BTreeMap<String, &RawValue>> {
    serde_json::from_slice(line).map_err(|error| {
        if error.is_eof() {
            anyhow!("the JSON ends too early: is the file complete?")
        } else {
            let found = String::from_utf8_lossy(line);
            anyhow!("expected one JSON object, found `{}`", quoted(&found))
        }
    })
}

/// What a column for the time holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// Dates with a time of day, in UTC where they name no offset.
    Calendar,
    /// Numbers; whether their unit is said, by the format, the column's name or the plan.
    Count { unit: TimeUnit, said: bool },
}

impl Clock {
    const fn of(unit: TimeUnit) -> Self {
        Self::Count { unit, said: true }
    }

    fn expected(self) -> String {
        match self {
            Self::Calendar => {
                "a date and time like `2023-11-16 18:17:03.9799600`, after 1970".to_owned()
            }
            Self::Count { unit, .. } => format!("a number of {}, not below zero", unit.name()),
        }
    }

    /// The time since a moment that is the same for all rows.
    fn read(self, text: &str) -> Option<Duration> {
        match self {
            Self::Count { unit, .. } => {
                let number: f64 = text.parse().ok()?;
                Duration::try_from_secs_f64(number / unit.per_second()).ok()
            }
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
    clock: Clock::of(TimeUnit::S),
    input: "Request tokens",
    output: "Response tokens",
    blocks: None,
};

const MOONCAKE: Columns<'static> = Columns {
    format: TraceFormat::Mooncake,
    time: "timestamp",
    clock: Clock::of(TimeUnit::Ms),
    input: "input_length",
    output: "output_length",
    blocks: Some("hash_ids"),
};

/// The same without blocks: what the columns count stays.
const MOONCAKE_WITHOUT_BLOCKS: Columns<'static> = Columns { blocks: None, ..MOONCAKE };

/// The columns of [`MOONCAKE`], and those of a chat.
const BAILIAN: Columns<'static> =
    Columns { format: TraceFormat::Bailian, clock: Clock::of(TimeUnit::S), ..MOONCAKE };
const OF_BAILIAN: [&str; 2] = ["chat_id", "parent_chat_id"];
const BLOCKS: &str = "hash_ids";

const TIME: [&str; 4] = ["time", "timestamp", "arrival", "arrival_time"];
const INPUT: [&str; 4] = ["input", "input_tokens", "input_length", "prompt_tokens"];
const OUTPUT: [&str; 4] = ["output", "output_tokens", "output_length", "completion_tokens"];

const KNOWN: &str = "a trace of Azure (CSV: TIMESTAMP, ContextTokens, GeneratedTokens), of Mooncake \
    (JSON lines: timestamp in milliseconds, input_length, output_length, hash_ids), of Qwen-Bailian (JSON \
    lines: the same with chat_id and parent_chat_id, and seconds), of BurstGPT (CSV: Timestamp, \
    Request tokens, Response tokens), or CSV with a header or JSON lines of one's own, with a time \
    (time, timestamp, arrival or arrival_time, in seconds, or in the unit of _ms, _us or _ns at the end), \
    an input (input, input_tokens, input_length or prompt_tokens) and an output (output, \
    output_tokens, output_length or completion_tokens)";

impl<'a> Columns<'a> {
    fn of_csv(names: &[&'a str]) -> anyhow::Result<Self> {
        let published = AZURE.spelled_in(names).or_else(|| BURST_GPT.spelled_in(names));
        let published = published.or_else(|| Self::with_blocks(names));
        published.map_or_else(|| Self::own(names, TraceFormat::Csv), Ok)
    }

    fn of_json(names: &[&'a str]) -> anyhow::Result<Self> {
        Self::with_blocks(names).map_or_else(|| Self::own(names, TraceFormat::Jsonl), Ok)
    }

    fn with_blocks(names: &[&'a str]) -> Option<Self> {
        let is_bailian = OF_BAILIAN.iter().all(|column| names.contains(column));
        let bailian = is_bailian.then(|| BAILIAN.spelled_in(names)).flatten();
        let mooncake = bailian.or_else(|| MOONCAKE.spelled_in(names));
        mooncake.or_else(|| MOONCAKE_WITHOUT_BLOCKS.spelled_in(names))
    }

    /// The same columns, with the unit of time that the plan says.
    fn read_as(self, reading: Reading) -> anyhow::Result<Self> {
        let Some(unit) = reading.unit else { return Ok(self) };
        let name = self.time.to_ascii_lowercase();
        let in_name = TimeUnit::ALL.iter().find(|unit| unit_in_name(&name, **unit).is_some());
        match (self.clock, in_name) {
            (Clock::Calendar, _) => bail!(
                "column `{}` holds dates, which have no unit: leave out `time_unit`",
                quoted(self.time)
            ),
            (Clock::Count { .. }, Some(other)) if *other != unit => bail!(
                "column `{}` is named as {}, and `time_unit` says {}",
                quoted(self.time),
                other.name(),
                unit.name()
            ),
            (Clock::Count { .. }, _) => Ok(Self { clock: Clock::of(unit), ..self }),
        }
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
        let blocks = names.iter().copied().find(|name| name.eq_ignore_ascii_case(BLOCKS));
        Ok(Self { format, time, clock, input, output, blocks })
    }

    /// A row from the texts of its cells; `None` where it has no output.
    fn row<'c>(&self, cell: impl Fn(&str) -> Option<&'c str>) -> anyhow::Result<Option<Row>> {
        let at = value(&cell, self.time, &self.clock.expected(), |text| self.clock.read(text))?;
        let count = |text: &str| text.parse::<u32>().ok();
        let output_tokens =
            value(&cell, self.output, "a whole number of tokens, not below zero", count)?;
        if output_tokens == 0 {
            return Ok(None);
        }
        let count =
            |text: &str| count(text).filter(|tokens| (1..=Length::LONGEST).contains(tokens));
        let expected = "a whole number of tokens, at least one and no more than a model takes";
        let input_tokens = value(&cell, self.input, expected, count)?;
        let blocks = match self.blocks {
            Some(column) => Some(value(&cell, column, "the whole numbers of blocks", |text| {
                serde_json::from_str::<Box<[u64]>>(text).ok()
            })?),
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
    let shown = || quoted(column);
    let text = cell(column).with_context(|| format!("no `{}`: expected {expected}", shown()))?;
    read(text).with_context(|| {
        format!("column `{}`: expected {expected}, found `{}`", shown(), quoted(text))
    })
}

/// The clock of a column that is named like a time.
fn own_clock(name: &str) -> Option<Clock> {
    let name = name.to_ascii_lowercase();
    let of_unit = |unit: TimeUnit| Some((unit_in_name(&name, unit)?, unit));
    let (name, clock) = match TimeUnit::ALL.into_iter().find_map(of_unit) {
        Some((name, unit)) => (name, Clock::of(unit)),
        None => (name.as_str(), Clock::Count { unit: TimeUnit::S, said: false }),
    };
    TIME.contains(&name).then_some(clock)
}

/// The name of a column without the unit at its end, if that is it.
fn unit_in_name(name: &str, unit: TimeUnit) -> Option<&str> {
    name.strip_suffix(unit.symbol())?.strip_suffix('_')
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
            quoted(&names.join("`, `"))
        ),
        (Some((first, _)), Some((second, _))) => {
            let (first, second) = (quoted(first), quoted(second));
            bail!("columns `{first}` and `{second}` are both for the {what}: expected one of them")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Trace> {
        Trace::parse(text.as_bytes(), Reading::default())
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
        Trace::read(&Path::new("fixtures/traces").join(name), Reading::default()).unwrap()
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
    fn the_same_columns_count_the_same_with_and_without_blocks() {
        for text in [
            r#"{"timestamp": 0, "input_length": 20, "output_length": 5, "hash_ids": [0]}
               {"timestamp": 20, "input_length": 20, "output_length": 5, "hash_ids": [1]}"#,
            r#"{"timestamp": 0, "input_length": 20, "output_length": 5}
               {"timestamp": 20, "input_length": 20, "output_length": 5}"#,
            "timestamp,input_length,output_length\n0,20,5\n20,20,5\n",
        ] {
            let trace = parse(text).unwrap();
            assert_eq!(trace.times, Times::Said(TimeUnit::Ms), "{text}");
            assert_eq!(numbers(&trace)[1].0, 20.0, "{text}");
        }
    }

    #[test]
    fn qwen_bailians_traces_count_seconds_and_blocks_of_16_tokens() {
        let trace = parse(
            r#"{"chat_id": 1, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 33, "output_length": 2, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]}
               {"chat_id": 2, "parent_chat_id": 1, "timestamp": 2.75, "input_length": 16, "output_length": 2, "type": "text", "turn": 2, "hash_ids": [1]}"#,
        )
        .unwrap();
        assert_eq!((trace.format, trace.block_tokens.get()), (TraceFormat::Bailian, 16));
        assert_eq!(numbers(&trace), [(0.0, 33, 2), (1250.0, 16, 2)]);
    }

    #[test]
    fn the_plan_says_the_unit_of_time_and_the_size_of_blocks() {
        let of = |text: &str, unit, block_tokens| {
            let block_tokens = NonZeroU32::new(block_tokens);
            Trace::parse(text.as_bytes(), Reading { unit, block_tokens })
        };
        let csv = "time,input,output\n0,20,3\n1000,20,3\n";
        for (unit, ms) in
            [(TimeUnit::S, 1e6), (TimeUnit::Ms, 1e3), (TimeUnit::Us, 1.0), (TimeUnit::Ns, 1e-3)]
        {
            let trace = of(csv, Some(unit), 0).unwrap();
            assert_eq!((numbers(&trace)[1].0, trace.times), (ms, Times::Said(unit)));
        }
        let mooncake =
            r#"{"timestamp": 0, "input_length": 40, "output_length": 5, "hash_ids": [0, 1, 10]}"#;
        let error = format!("{:#}", of(mooncake, None, 0).unwrap_err());
        assert!(error.contains("blocks of 14 to 19 tokens fit"), "{error}");
        assert!(error.contains("set `block_tokens = 16`"), "{error}");
        assert_eq!(of(mooncake, None, 16).unwrap().rows[0].blocks.as_ref().unwrap().len(), 3);
        let own = "{\"time_s\": 0, \"input\": 40, \"output\": 5, \"hash_ids\": [0, 1, 10]}";
        assert_eq!(of(own, None, 16).unwrap().rows[0].blocks.as_ref().unwrap().len(), 3);
        for (text, part) in [
            ("time_ms,input,output\n0,20,3\n", "column `time_ms` is named as milliseconds"),
            (
                "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,4808,10",
                "`TIMESTAMP` holds dates",
            ),
        ] {
            let error = format!("{:#}", of(text, Some(TimeUnit::S), 0).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_a_trace_is_taken_for_is_said_and_an_unlikely_unit_of_time_is_doubted() {
        let own = |times: [u64; 2]| {
            parse(&format!("time,input,output\n{},1,1\n{},1,1\n", times[0], times[1])).unwrap()
        };
        assert_eq!(
            own([0, 40]).recognised(),
            "CSV of your own, times are taken as seconds (`time_unit` sets another unit): \
             2 requests in 40 s, 0.050 a second"
        );
        assert_eq!(own([0, 40]).doubt(), None);
        assert!(own([0, 3_600_000]).doubt().unwrap().contains("set `time_unit`"));
        let burst = "time,input,output\n".to_owned() + &"5,1,1\n".repeat(200);
        assert!(parse(&burst).unwrap().doubt().is_some());
        let told = sample("mooncake.jsonl").recognised();
        let begins =
            "a trace of Mooncake's, times are in milliseconds, blocks are of 512 tokens: 60";
        assert!(told.starts_with(begins), "{told}");
    }

    #[test]
    fn names_of_columns_are_shown_in_one_plain_line() {
        let error = error("\"\u{1b}[31m\n::error::x\",b\n1,2");
        assert!(!error.contains(['\u{1b}', '\n']), "{error}");
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
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e-300] {
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
                "line 3: column `ContextTokens`: expected a whole number of tokens, at least one",
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
                "line 2: 513 tokens are 2 blocks of 512, not 1: no one size of a block fits",
            ),
            (
                format!("{mooncake}[0,1,2]}}"),
                "line 1: 513 tokens are 2 blocks of 512, not 3: blocks of 171 to 256 tokens fit the \
                 `hash_ids` of all rows: set `block_tokens = 256`",
            ),
            (
                format!("{mooncake}[]}}"),
                "line 1: 513 tokens are 2 blocks of 512, not 0: no one size",
            ),
            (format!("{mooncake}[0,-1]}}"), "line 1: column `hash_ids`: expected"),
            (format!("{csv}2,4000000000,3\n"), "line 4: column `input`: expected a whole number"),
            (format!("{csv}1e300,20,3\n"), "line 4: column `time`: expected a number of seconds"),
            (format!("{csv}2,1e300,3\n"), "line 4: column `input`: expected a whole number"),
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
        let packed =
            Trace::parse(&b"\x1f\x8b\x08\x00"[..], Reading::default()).unwrap_err().to_string();
        assert!(packed.contains("unpack a compressed file"), "{packed}");
        let damaged = &b"time,input,output\n1,20,3\n2,\xff,3\n"[..];
        let damaged = Trace::parse(damaged, Reading::default()).unwrap_err();
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
        let missing = Trace::read(Path::new("none.csv"), Reading::default()).unwrap_err();
        assert!(format!("{missing:#}").contains("trace `none.csv`"), "{missing:#}");
        let path = Path::new("fixtures/tokenizer.json");
        let error = format!("{:#}", Trace::read(path, Reading::default()).unwrap_err());
        assert!(error.contains("trace `fixtures/tokenizer.json`: line 1"), "{error}");
    }
}
