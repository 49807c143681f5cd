//! Flags in, a plan of one case out: what MAX's `benchmark_serving.py` would run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum as _;

use super::{
    Address, Backend, Case, DEFAULT_API_KEY_ENV, DEFAULT_CONNECT_TIMEOUT, DEFAULT_REQUESTS,
    DEFAULT_TIMEOUT, Model, NamedDataset, Plan, PlanError, Server, file, load_of, name,
    with_no_errors,
};
use crate::config::StreamOptions;
use crate::flags::Flags;
use crate::load::Load;
use crate::sim::{Preset, SimConfig};
use crate::wire::{BackendKind, ProtocolKind};
use crate::workload::{Dataset, DatasetKind};

/// The plan of the one case that `flags` describe.
pub(super) fn plan(flags: &Flags) -> Result<Plan, PlanError> {
    let case = case(flags).map_err(PlanError::Flags)?;
    let results = flags.result_dir.clone().unwrap_or_else(|| PathBuf::from("results"));
    Ok(Plan { cases: vec![case], results, notes: Vec::new() })
}

fn case(flags: &Flags) -> Result<Case, String> {
    let kind = kind_of(flags)?;
    let model = match flags.model.as_deref() {
        Some(id) => model(id)?,
        None if kind == BackendKind::Sim => model("sim")?,
        None => return Err("--model is missing: what does the server call the model?".to_owned()),
    };
    let backend = backend(flags, kind)?;
    let (workload, dataset) = dataset(flags)?;
    let load = load_of(flags).unwrap_or(Load::Infinite);
    Ok(Case {
        name: format!("{}/{}/{workload}@{load}", backend.name, model.alias),
        tokenizer: tokenizer(flags, &model)?,
        backend: Arc::new(backend),
        model,
        workload: NamedDataset { name: workload, dataset },
        load,
        arrivals: flags.arrivals.unwrap_or_default(),
        requests: flags.num_prompts.map_or(DEFAULT_REQUESTS, |requests| requests.get()),
        seed: flags.seed.unwrap_or(0),
        slos: with_no_errors(flags.slo.clone()),
        goodput: None,
        timeout: flags.timeout.unwrap_or(DEFAULT_TIMEOUT),
        stall_timeout: flags.stall_timeout,
        details: !flags.no_details,
    })
}

fn kind_of(flags: &Flags) -> Result<BackendKind, String> {
    let Some(text) = flags.backend.as_deref() else { return Ok(BackendKind::Modular) };
    BackendKind::from_str(text, false).map_err(|_| {
        let kinds = BackendKind::value_variants().iter().map(|kind| kind.name());
        format!(
            "--backend `{text}` is neither a backend of the plan file nor a kind: use {}",
            kinds.collect::<Vec<_>>().join(", ")
        )
    })
}

/// A model by its ID; an error if it makes no name.
pub(super) fn model(id: &str) -> Result<Model, String> {
    let alias = name::of_model(id).to_owned();
    match name::fault(&alias) {
        Some(fault) => Err(format!("--model: {fault}")),
        None => Ok(Model { id: id.to_owned(), alias }),
    }
}

/// The base URL that flags give, by itself or as host and port; `None` where they give none.
pub(super) fn base_url(flags: &Flags) -> Option<String> {
    if flags.base_url.is_some() {
        return flags.base_url.clone();
    }
    if flags.host.is_none() && flags.port.is_none() {
        return None;
    }
    let host = flags.host.as_deref().unwrap_or("localhost");
    Some(format!("http://{host}:{}", flags.port.unwrap_or(8000)))
}

fn backend(flags: &Flags, kind: BackendKind) -> Result<Backend, String> {
    let protocol = match kind.protocol() {
        Some(protocol) => protocol,
        // The endpoint says which protocol the embedded engine is to speak.
        None if flags.endpoint.as_deref() == Some(ProtocolKind::Chat.default_endpoint()) => {
            ProtocolKind::Chat
        }
        None => ProtocolKind::Completions,
    };
    let server = if kind == BackendKind::Sim {
        let seed = flags.seed.unwrap_or(0);
        Server::Sim(SimConfig { models: Vec::new(), seed, ..SimConfig::preset(Preset::Small) })
    } else {
        let base_url = base_url(flags).unwrap_or_else(|| "http://localhost:8000".to_owned());
        let endpoint = flags.endpoint.as_deref().unwrap_or(protocol.default_endpoint());
        Server::Remote(Address::new(&base_url, endpoint)?)
    };
    Ok(Backend {
        name: kind.name().to_owned(),
        kind,
        protocol,
        server,
        headers: Vec::new(),
        api_key: file::api_key(kind, DEFAULT_API_KEY_ENV),
        extra_body: serde_json::Map::new(),
        stream_options: StreamOptions::Auto,
        ignore_eos: kind.knows_ignore_eos(),
        min_tokens: false,
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        require_server: flags.require_server,
    })
}

fn dataset(flags: &Flags) -> Result<(String, Dataset), String> {
    match flags.dataset_name.unwrap_or_default() {
        DatasetKind::Sharegpt => {
            let path = flags.dataset_path.clone().ok_or(
                "--dataset-path is missing: the dataset sharegpt is read from a file, for example \
                 ShareGPT_V3_unfiltered_cleaned_split.json",
            )?;
            let output_tokens = flags.sharegpt_output_len.map(|tokens| tokens.get());
            Ok(("sharegpt".to_owned(), Dataset::ShareGpt { path, output_tokens }))
        }
    }
}

/// `--tokenizer`, or the model itself where it is a folder on this machine.
fn tokenizer(flags: &Flags, model: &Model) -> Result<PathBuf, String> {
    if let Some(tokenizer) = &flags.tokenizer {
        return Ok(tokenizer.clone());
    }
    let folder = Path::new(&model.id);
    if folder.join("tokenizer.json").is_file() {
        return Ok(folder.to_owned());
    }
    Err(format!(
        "--tokenizer is missing: prompts are chosen by their length in tokens, and `{}` is no \
         folder with a tokenizer.json; download the model's tokenizer.json and name it",
        model.id
    ))
}
