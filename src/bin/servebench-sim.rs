//! The simulated server as a command of its own.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use servebench::sim::{Dialect, Figure, Lexicon, Preset, SimConfig, SimServer};
use servebench::tokenizer::Tokenizer;

/// A simulated LLM server: OpenAI's API and vLLM's metrics, without a model.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Deployment to resemble
    #[arg(long, value_enum, default_value = "small")]
    preset: Preset,
    /// Name of a model, may be repeated [default: answer to every name]
    #[arg(long, value_name = "ID")]
    model: Vec<String>,
    /// Decides every draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Most sequences that run at a time [default: by preset]
    #[arg(long, value_name = "N")]
    max_batch: Option<NonZeroUsize>,
    /// Speed at which prompts are read [default: by preset]
    #[arg(long, value_name = "RATE", value_parser = |text: &str| Figure::PrefillTokensPerS.parse(text))]
    prefill_tokens_per_s: Option<f64>,
    /// What a step costs [default: by preset]
    #[arg(long, value_name = "MS", value_parser = |text: &str| Figure::DecodeBaseMs.parse(text))]
    decode_base_ms: Option<f64>,
    /// What a step costs more for each sequence [default: by preset]
    #[arg(long, value_name = "MS", value_parser = |text: &str| Figure::DecodePerSequenceMs.parse(text))]
    decode_per_sequence_ms: Option<f64>,
    /// Room for prompts and answers [default: by preset]
    #[arg(long, value_name = "TOKENS")]
    kv_cache_tokens: Option<NonZeroU64>,
    /// A step takes up to this fraction more or less [default: by preset]
    #[arg(long, value_name = "FRACTION", value_parser = |text: &str| Figure::Jitter.parse(text))]
    jitter: Option<f64>,
    /// A tokenizer.json or a model's folder [default: about four bytes a token]
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    dialect: Dialect,
}

impl Cli {
    fn config(&self) -> anyhow::Result<SimConfig> {
        let mut config = SimConfig::preset(self.preset);
        config.models.clone_from(&self.model);
        config.seed = self.seed;
        config.dialect = self.dialect;
        if let Some(max_batch) = self.max_batch {
            config.max_batch = max_batch.get();
        }
        if let Some(rate) = self.prefill_tokens_per_s {
            config.prefill_tokens_per_s = rate;
        }
        if let Some(ms) = self.decode_base_ms {
            config.decode_base = Duration::from_secs_f64(ms / 1e3);
        }
        if let Some(ms) = self.decode_per_sequence_ms {
            config.decode_per_sequence = Duration::from_secs_f64(ms / 1e3);
        }
        if let Some(tokens) = self.kv_cache_tokens {
            config.kv_cache_tokens = tokens.get();
        }
        if let Some(jitter) = self.jitter {
            config.jitter = jitter;
        }
        if let Some(path) = &self.tokenizer {
            config.lexicon = Lexicon::Tokenizer(Tokenizer::load(path)?.shared());
        }
        Ok(config)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let config = cli.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the server says that it listens: from then on it may be told to stop.
        let stop = stop_signal()?;
        let address = SocketAddr::new(cli.host, cli.port);
        let server = SimServer::start(config, address)
            .with_context(|| format!("start a server on {address}"))?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "listening on {}", server.base_url())?;
        stdout.flush()?;
        drop(stdout);
        stop.await?;
        server.stop();
        Ok(())
    })
}

/// Resolves on Ctrl-C or, where there is one, SIGTERM.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = io::Result<()>>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

/// Resolves on Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = io::Result<()>>> {
    Ok(tokio::signal::ctrl_c())
}
