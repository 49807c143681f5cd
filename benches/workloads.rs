//! What it takes to prepare large workloads: `cargo bench --bench workloads`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::disallowed_methods, reason = "it measures how long something takes")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use servebench::prompt::Prompt;
use servebench::tokenizer::Tokenizer;
use servebench::workload::{Dataset, Length, PromptForm, Sampling, Source};

const MIB: f64 = 1024.0 * 1024.0;
/// Prompts of the made-up dataset, and their length.
const PROMPTS: usize = 100_000;
const TOKENS: u32 = 1024;
/// Size of the file that is read, and how many requests are drawn from it.
const FILE_MIB: usize = 600;
const DRAWN: usize = 1000;

fn main() {
    // `cargo test --benches` is not for this.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let tokenizer = Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap();
    file(&tokenizer);
    random(&tokenizer);
}

/// A file of the size of ShareGPT, of which a thousand requests are drawn.
fn file(tokenizer: &Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.json");
    let conversations = write_conversations(&path);
    let before = peak_mib();
    let begun = Instant::now();
    let source = Source::new(path.to_str().unwrap());
    let dataset = Dataset::ShareGpt { source, output: None };
    let workload = dataset.sample(&Sampling::new(Some(tokenizer), DRAWN, 0)).unwrap();
    assert_eq!(workload.requests.len(), DRAWN);
    println!(
        "sharegpt: {DRAWN} requests from {conversations} conversations in {:.0} MiB: {:.2} s, \
         {} MiB of memory more than before",
        std::fs::metadata(&path).unwrap().len() as f64 / MIB,
        begun.elapsed().as_secs_f64(),
        shown(peak_mib().zip(before).map(|(after, before)| after - before)),
    );
}

/// Conversations in the shape and about the lengths of ShareGPT's.
fn write_conversations(path: &Path) -> usize {
    let words =
        "the quick \\\"brown\\\" fox jumps over a lazy dog while nine other animals look on. ";
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut written, mut count) = (0, 0);
    file.write_all(b"[").unwrap();
    while written < FILE_MIB << 20 {
        let turn = |from: &str, repeats: usize| {
            format!("{{\"from\":\"{from}\",\"value\":\"{count} {}\"}}", words.repeat(repeats))
        };
        let turns: Vec<String> = (0..2 + count % 9)
            .map(|turn_index| match turn_index % 2 {
                0 => turn("human", 1 + count % 7),
                _ => turn("gpt", 4 + count % 13),
            })
            .collect();
        let comma = if count == 0 { "" } else { ",\n" };
        let text = format!("{comma}{{\"id\":\"{count}\",\"conversations\":[{}]}}", turns.join(","));
        file.write_all(text.as_bytes()).unwrap();
        written += text.len();
        count += 1;
    }
    file.write_all(b"]").unwrap();
    count
}

/// Random prompts of an exact length, each of which is then tokenized again.
fn random(tokenizer: &Tokenizer) {
    let dataset = Dataset::Random {
        input: Length::Fixed(TOKENS),
        output: Length::Fixed(128),
        prefix_tokens: 0,
        form: PromptForm::Text,
    };
    let begun = Instant::now();
    let workload = dataset.sample(&Sampling::new(Some(tokenizer), PROMPTS, 0)).unwrap();
    let took = begun.elapsed().as_secs_f64();
    let bytes: usize = workload.requests.iter().map(|request| request.prompt.text().len()).sum();
    println!(
        "random: {PROMPTS} prompts of {TOKENS} tokens, {:.0} MiB of text: {took:.2} s, {} MiB of \
         memory at most",
        bytes as f64 / MIB,
        shown(peak_mib()),
    );
    let begun = Instant::now();
    let exact =
        |prompt: &Prompt| tokenizer.count(prompt, false).is_ok_and(|tokens| tokens == TOKENS);
    let count = workload.requests.iter().filter(|request| exact(&request.prompt)).count();
    println!(
        "random: {count} of {PROMPTS} prompts are of {TOKENS} tokens when they are tokenized again \
         ({:.0} s)",
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(count, PROMPTS);
}

/// The most memory that this process has held; `None` where the system does not say.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
}

fn shown(mib: Option<f64>) -> String {
    mib.map_or_else(|| "n/a".to_owned(), |mib| format!("{mib:.0}"))
}
