//! Flags in, a plan of one case out: what MAX's `benchmark_serving.py` would run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum as _;

use super::backend::api_key;
use super::{
    Address, Asked, Backend, Case, DEFAULT_API_KEY_ENV, DEFAULT_TIMEOUT, Model, NamedDataset, Plan,
    PlanError, Server, arrivals_of, course_of, load_of, name, on_goodput, with_no_errors,
};
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
    if let Some(slo) = on_goodput(&flags.slo) {
        return Err(format!(
            "--slo `{slo}` needs goodput objectives for each request, and those need a plan file: \
             set for example goodput = {{ ttft = \"500ms\" }} there"
        ));
    }
    Ok(Case {
        name: format!("{}/{}/{workload}@{load}", backend.name, model.alias),
        tokenizer: tokenizer(flags, &model)?,
        backend: Arc::new(backend),
        model,
        workload: NamedDataset { name: workload, dataset },
        course: course_of(&load, flags, Asked::default()),
        load,
        arrivals: arrivals_of(flags.arrivals.unwrap_or_default(), flags.burstiness)
            .map_err(|error| format!("--burstiness: {error}"))?,
        seed: flags.seed.unwrap_or(0),
        slos: with_no_errors(flags.slo.clone()),
        goodput: None,
        timeout: flags.timeout.unwrap_or(DEFAULT_TIMEOUT),
        stall_timeout: flags.stall_timeout,
        details: !flags.no_details,
    })
}

/// The kind that `--backend` names.
pub(super) fn kind_of(flags: &Flags) -> Result<BackendKind, String> {
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
        None => ProtocolKind::ALL
            .into_iter()
            .find(|protocol| flags.endpoint.as_deref() == Some(protocol.default_endpoint()))
            .unwrap_or(ProtocolKind::Completions),
    };
    let server = if kind == BackendKind::Sim {
        let seed = flags.seed.unwrap_or(0);
        Server::Sim(SimConfig { models: Vec::new(), seed, ..SimConfig::preset(Preset::Small) })
    } else {
        let base_url = base_url(flags).unwrap_or_else(|| "http://localhost:8000".to_owned());
        let endpoint = flags.endpoint.as_deref().unwrap_or(protocol.default_endpoint());
        let address = Address::new(&base_url, endpoint);
        Server::Remote(address.map_err(|error| format!("--base-url and --endpoint: {error}"))?)
    };
    Ok(Backend {
        api_key: api_key(kind, DEFAULT_API_KEY_ENV),
        require_server: flags.require_server,
        ..Backend::plain(kind, protocol, server)
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

#[cfg(test)]
mod tests {
    use super::super::tests::flags;
    use super::*;

    const TARGET: &str = "--model org/m --dataset-path d.json --tokenizer t.json";

    fn case_of(line: &str) -> Case {
        let mut plan = plan(&flags(line)).unwrap();
        assert_eq!(plan.cases.len(), 1);
        plan.cases.remove(0)
    }

    fn url(case: &Case) -> String {
        match &case.backend.server {
            Server::Remote(address) => address.endpoint_url().to_string(),
            server => panic!("{server:?} is not remote"),
        }
    }

    #[test]
    fn what_is_not_said_is_as_in_maxs_script() {
        let case = case_of(TARGET);
        assert_eq!(case.name, "modular/m/sharegpt@inf");
        assert_eq!(case.backend.kind, BackendKind::Modular);
        assert_eq!(url(&case), "http://localhost:8000/v1/completions");
        assert_eq!(case.model.id, "org/m");
        assert_eq!((&case.load, case.course.requests, case.seed), (&Load::Infinite, Some(500), 0));
        let (path, output_tokens) = (PathBuf::from("d.json"), None);
        assert_eq!(case.workload.dataset, Dataset::ShareGpt { path, output_tokens });
        assert_eq!(case.slos, [crate::slo::Slo::no_errors()]);
        assert!(case.details && !case.backend.require_server);
    }

    #[test]
    fn the_endpoint_is_that_of_the_backend() {
        for (kind, endpoint) in [
            ("modular", "/v1/completions"),
            ("vllm", "/v1/completions"),
            ("sglang", "/v1/completions"),
            ("modular-chat", "/v1/chat/completions"),
            ("openai-chat", "/v1/chat/completions"),
        ] {
            let case = case_of(&format!("{TARGET} --backend {kind}"));
            assert_eq!(url(&case), format!("http://localhost:8000{endpoint}"));
            assert_eq!(case.backend.name, kind);
        }
    }

    #[test]
    fn an_address_is_a_url_or_a_host_and_a_port() {
        for (line, expected) in [
            ("--base-url https://h/v1", "https://h/v1/completions"),
            ("--base-url http://h:1 --host x --port 2", "http://h:1/v1/completions"),
            ("--host h", "http://h:8000/v1/completions"),
            ("--port 9", "http://localhost:9/v1/completions"),
            ("--host h --port 9 --endpoint /x", "http://h:9/x"),
        ] {
            assert_eq!(url(&case_of(&format!("{TARGET} {line}"))), expected, "{line}");
        }
    }

    #[test]
    fn every_flag_of_a_case_reaches_it() {
        let case = case_of(&format!(
            "{TARGET} --num-prompts 7 --seed 3 --request-rate 2 --arrivals constant --timeout 9s \
             --stall-timeout 1s --slo ttft.p99~<~1s --slo error_ratio~<~5% --sharegpt-output-len 4 \
             --no-details --require-server"
        ));
        assert_eq!(case.name, "modular/m/sharegpt@2qps");
        assert_eq!((case.course.requests, case.seed), (Some(7), 3));
        assert_eq!(case.arrivals, crate::load::ArrivalProcess::Constant);
        assert_eq!(case.timeout.as_secs(), 9);
        assert_eq!(case.stall_timeout.unwrap().as_secs(), 1);
        let slos: Vec<String> = case.slos.iter().map(ToString::to_string).collect();
        assert_eq!(slos, ["ttft.p99 < 1000ms", "error_ratio < 0.05"]);
        let Dataset::ShareGpt { output_tokens, .. } = case.workload.dataset;
        assert_eq!(output_tokens, Some(4));
        assert!(!case.details && case.backend.require_server);
    }

    #[test]
    fn an_error_names_the_flag() {
        for (line, parts) in [
            ("--dataset-path d --tokenizer t", &["--model is missing"][..]),
            ("--model m --tokenizer t", &["--dataset-path is missing", "sharegpt"]),
            ("--model m --dataset-path d", &["--tokenizer is missing", "`m`", "tokenizer.json"]),
            ("--model a/m@1 --dataset-path d --tokenizer t", &["--model", "`m@1`", "'@'"]),
            ("--model m --dataset-path d --tokenizer t --base-url h:1", &["--base-url", "http://"]),
            (
                "--model m --dataset-path d --tokenizer t --endpoint v1",
                &["--endpoint", "`v1`", "slash"],
            ),
        ] {
            let error = plan(&flags(line)).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{line}\nmisses {part}:\n{error}");
            }
        }
    }

    #[test]
    fn an_objective_on_goodput_needs_a_plan_file() {
        for slo in ["goodput~>~2", "goodput_ratio~>~95%"] {
            let error = plan(&flags(&format!("{TARGET} --slo {slo}"))).unwrap_err().to_string();
            for part in ["--slo `goodput", "need a plan file", "goodput = { ttft = \"500ms\" }"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn a_model_that_is_a_folder_brings_its_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let model = folder.path().to_str().unwrap();
        let case = case_of(&format!("--model {model} --dataset-path d.json"));
        assert_eq!(case.tokenizer, folder.path());
    }

    #[test]
    fn the_embedded_engine_needs_no_model_and_no_address() {
        let case = case_of("--backend sim --dataset-path d.json --tokenizer t.json");
        assert_eq!(case.name, "sim/sim/sharegpt@inf");
        assert!(matches!(case.backend.server, Server::Sim(_)));
    }
}
