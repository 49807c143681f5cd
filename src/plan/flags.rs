//! Flags in, a plan of one case out: what MAX's `benchmark_serving.py` would run.

use std::net::Ipv6Addr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum as _;

use super::backend::api_key;
use super::telemetry;
use super::{
    Address, AddressSource, Asked, Backend, Case, DEFAULT_API_KEY_ENV, DEFAULT_TIMEOUT, Gate,
    Model, NO_WARM_UP, NamedDataset, Outputs, Plan, PlanError, SearchOptions, Server,
    TokenizerChoice, arrivals_of, course_of, load_of, missing, name, on_goodput, pairs, quick,
    size, slo_fault, with_no_errors, workload,
};
use crate::config;
use crate::flags::Flags;
use crate::load::Load;
use crate::nearest::did_you_mean;
use crate::sim::{Preset, SimConfig};
use crate::tls::TlsOptions;
use crate::wire::{BackendKind, ProtocolKind};
use crate::workload::DatasetKind;

/// The plan of the one case that `flags` describe.
pub(super) fn plan(flags: &Flags) -> Result<Plan, PlanError> {
    let case = case(flags).map_err(PlanError::Flags)?;
    let results = flags.result_dir.clone().unwrap_or_else(|| PathBuf::from("results"));
    let asked = flags.warm_up.is_some_and(|warm_up| !warm_up.is_none());
    let notes = match case.load {
        Load::Infinite if asked => vec![NO_WARM_UP.to_owned()],
        _ => Vec::new(),
    };
    let mut cases = vec![case];
    if flags.quick {
        cases.iter_mut().for_each(quick);
    }
    if flags.aa {
        pairs::with_itself(&mut cases, flags).map_err(PlanError::Flags)?;
    }
    let outputs = Outputs::new(flags, &config::Report::default(), &results);
    Ok(Plan { cases, results, outputs, notes })
}

/// What to say where the tokenizer that the flags name is not there.
pub(super) fn missing_tokenizer(flags: &Flags) -> Option<PlanError> {
    let fault = TokenizerChoice::of(flags.tokenizer.clone()).missing()?;
    Some(PlanError::Flags(format!("--tokenizer: {fault}")))
}

/// What to say where the dataset that the flags name is not there.
pub(super) fn missing_dataset(flags: &Flags) -> Option<PlanError> {
    let fault = missing::dataset(flags.dataset_path.as_deref()?)?;
    Some(PlanError::Flags(format!("--dataset-path: {fault}")))
}

/// Why these flags make no sense, whatever the plan file holds.
pub(super) fn check(flags: &Flags) -> Result<(), String> {
    match &flags.model_alias {
        Some(alias) if !flags.name_a_model() => Err(format!(
            "--model-alias `{alias}` is a name for the model of --model or --served-model-name, and \
             neither is given; in a plan file, write models = [{{ id = \"...\", alias = \"{alias}\" }}]"
        )),
        _ => Ok(()),
    }
}

fn case(flags: &Flags) -> Result<Case, String> {
    let kind = kind_of(flags)?;
    let model = match model(flags)? {
        Some(model) => model,
        None if kind == BackendKind::Sim => Model::embedded(),
        None => return Err("--model is missing: what does the server call the model?".to_owned()),
    };
    let backend = backend(flags, kind)?;
    let workload = workload(flags)?;
    let load = load_of(flags).unwrap_or(match workload.dataset.kind() {
        DatasetKind::Trace => Load::Trace { cap: None },
        _ => Load::Infinite,
    });
    if let Some(slo) = on_goodput(&flags.slo) {
        return Err(format!(
            "--slo `{slo}` needs goodput objectives for each request, and those need a plan file: \
             set for example goodput = {{ ttft = \"500ms\" }} there"
        ));
    }
    if let Some(fault) = slo_fault(&load, &flags.slo) {
        return Err(format!("--slo: {fault}"));
    }
    if let Some(fault) = workload.fault(backend.protocol, &load) {
        return Err(fault);
    }
    let course = course_of(&load, flags, Asked::default());
    let trials = flags.trials.map_or(1, NonZeroUsize::get);
    let search = SearchOptions::of(&load, flags.search_steps, flags.search_precision);
    if let Some(fault) = size::fault(&load, &course, trials, search.steps) {
        return Err(format!("the flags ask for too much: {fault}"));
    }
    Ok(Case {
        name: format!("{}/{}/{}@{load}", backend.name, model.alias, workload.name),
        tokenizer: TokenizerChoice::of(flags.tokenizer.clone()),
        missing_tokenizer: missing_tokenizer(flags),
        backend: Arc::new(backend),
        model,
        workload,
        course,
        load: load.clone(),
        arrivals: arrivals_of(flags.arrivals.unwrap_or_default(), flags.burstiness)
            .map_err(|error| format!("--burstiness: {error}"))?,
        trials,
        until_decided: flags.until_decided.filter(|_| !flags.quick),
        strict: flags.strict,
        against: None,
        gate: Gate::of(None, flags.min_effect, Vec::new()),
        search,
        seed: flags.seed.unwrap_or(0),
        slos: with_no_errors(flags.slo.clone()),
        goodput: None,
        timeout: flags.timeout.unwrap_or(DEFAULT_TIMEOUT),
        stall_timeout: flags.stall_timeout,
        details: !flags.no_details,
        gpu: (flags.collect_gpu_stats || flags.require_gpu).then(|| telemetry::by_flags(flags)),
    })
}

/// The kind that `--backend` names.
pub(super) fn kind_of(flags: &Flags) -> Result<BackendKind, String> {
    let Some(text) = flags.backend.as_deref() else { return Ok(BackendKind::Modular) };
    BackendKind::from_str(text, false).map_err(|_| {
        let kinds = BackendKind::value_variants().iter().map(|kind| kind.name());
        let kinds: Vec<&str> = kinds.collect();
        format!(
            "--backend `{text}` is neither a backend of the plan file nor a kind: use {}{}",
            kinds.join(", "),
            did_you_mean(text, kinds.iter().copied())
        )
    })
}

/// The model that flags name; `None` where they name none, an error if it makes no name.
pub(super) fn model(flags: &Flags) -> Result<Option<Model>, String> {
    let served = flags.served_model_name.as_deref();
    let Some(source) = flags.model.as_deref().or(served) else { return Ok(None) };
    let id = served.unwrap_or(source).to_owned();
    let (flag, alias) = match &flags.model_alias {
        Some(alias) => ("--model-alias", alias.clone()),
        None => ("--model", name::of_model(source)),
    };
    if alias.is_empty() && flags.model_alias.is_none() {
        return Err(format!(
            "--model `{source}` holds nothing that a case's name may hold: give it a name with \
             --model-alias"
        ));
    }
    match name::fault(&alias) {
        Some(fault) => Err(format!("{flag}: {fault}")),
        None => Ok(Some(Model { id, alias, source: source.to_owned() })),
    }
}

/// The TLS that flags ask for, over that of the file; an error names the flag.
pub(super) fn tls(flags: &Flags, written: TlsOptions) -> Result<TlsOptions, String> {
    let Flags { ca, client_cert, client_key, insecure, .. } = flags;
    let asked = ca.is_some() || client_cert.is_some() || client_key.is_some() || *insecure;
    if !asked {
        return Ok(written);
    }
    let options = TlsOptions {
        ca: ca.clone().or(written.ca),
        cert: client_cert.clone().or(written.cert),
        key: client_key.clone().or(written.key),
        insecure: *insecure || written.insecure,
    };
    let known = options.client_config();
    known.map_err(|error| format!("--ca, --client-cert, --client-key: {error:#}"))?;
    Ok(options)
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
    let port = flags.port.unwrap_or(8000);
    // An IPv6 address stands in brackets in a URL only.
    Some(match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("http://[{address}]:{port}"),
        Err(_) => format!("http://{host}:{port}"),
    })
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
        tls: tls(flags, TlsOptions::default())?,
        address_source: AddressSource::CommandLine,
        ready_timeout: flags.ready_timeout.unwrap_or_default(),
        ..Backend::plain(kind, protocol, server)
    })
}

fn workload(flags: &Flags) -> Result<NamedDataset, String> {
    let kind = workload::kind(flags, DatasetKind::default());
    let asked = workload::Asked::default().or_flags(kind, flags);
    let dataset = asked.dataset(kind).map_err(|fault| {
        let flag = match fault.key {
            "path" => "--dataset-path",
            "range_ratio" => "--random-range-ratio",
            "prefixes" => "--prefix-repetition-num-prefixes",
            "suffix_tokens" => "--prefix-repetition-suffix-len",
            "prefix_tokens" => "--sonnet-prefix-len",
            "speed" => "--trace-speed",
            "turns" => "--random-num-turns",
            key => key,
        };
        format!("{flag}: {}", fault.message)
    })?;
    let salt = flags.salt.clone().unwrap_or_default();
    let missing_file = missing_dataset(flags);
    Ok(NamedDataset { name: kind.name().to_owned(), dataset, missing_file, system: None, salt })
}

#[cfg(test)]
mod tests {
    use super::super::tests::flags;
    use super::*;
    use crate::workload::{Conversations, Dataset, Length, PromptForm, Source, ThinkTime};

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
        let (source, output) = (Source::new("d.json"), None);
        assert_eq!(case.workload.dataset, Dataset::ShareGpt { source, output });
        assert_eq!(case.slos, [crate::slo::Slo::no_errors()]);
        assert!(case.details && !case.backend.require_server);
    }

    #[test]
    fn a_trace_is_sent_at_its_times_where_no_load_is_asked_for() {
        let trace = format!("{TARGET} --dataset-name trace");
        assert_eq!(case_of(&trace).name, "modular/m/trace@trace");
        assert_eq!(case_of(&format!("{trace} --request-rate inf")).load, Load::Infinite);
        let error = plan(&flags(&format!("{TARGET} --request-rate trace"))).unwrap_err();
        assert!(error.to_string().contains("a workload of the dataset trace"), "{error}");
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
            ("--host ::1", "http://[::1]:8000/v1/completions"),
            ("--host [::1] --port 9", "http://[::1]:9/v1/completions"),
            ("--host 2001:db8::2 --port 9", "http://[2001:db8::2]:9/v1/completions"),
            ("--host 127.0.0.1", "http://127.0.0.1:8000/v1/completions"),
            ("--endpoint /x?api-version=1", "http://localhost:8000/x?api-version=1"),
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
        let Dataset::ShareGpt { output, .. } = case.workload.dataset else { panic!() };
        assert_eq!(output, Some(Length::Fixed(4)));
        assert!(!case.details && case.backend.require_server);
    }

    #[test]
    fn an_error_names_the_flag() {
        for (line, parts) in [
            ("--dataset-path d --tokenizer t", &["--model is missing"][..]),
            ("--model m --dataset-name custom", &["--dataset-path", "custom", "name it"]),
            ("--model m --dataset-name random --random-range-ratio 1", &["--random-range-ratio"]),
            ("--model a/@ --dataset-path d --tokenizer t", &["--model `a/@`", "--model-alias"]),
            ("--model m --model-alias m@1 --dataset-path d", &["--model-alias: `m@1`", "'@'"]),
            ("--model m --request-rate 1e-300", &["ask for too much", "below 1e-6"]),
            ("--model m --dataset-path d --ca none.pem", &["--ca", "`none.pem`"]),
            ("--model m --dataset-path d --client-key k.pem", &["--client-cert", "go together"]),
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
    fn a_model_has_an_id_for_the_server_a_name_for_cases_and_a_tokenizer() {
        for (line, id, name, tokenizer) in [
            ("--model org/m", "org/m", "m", "org/m"),
            ("--model s@2024", "s@2024", "s-2024", "s@2024"),
            ("--model s@2024 --model-alias s", "s@2024", "s", "s@2024"),
            ("--model org/m --served-model-name tiny", "tiny", "m", "org/m"),
            ("--served-model-name tiny", "tiny", "tiny", "tiny"),
        ] {
            let case = case_of(&format!("{line} --dataset-path d.json"));
            assert_eq!(case.model.id, id, "{line}");
            assert_eq!(case.name, format!("modular/{name}/sharegpt@inf"), "{line}");
            assert_eq!(case.tokenizer_id().as_deref(), Some(tokenizer), "{line}");
        }
    }

    #[test]
    fn who_is_trusted_can_be_said_by_flags() {
        let case = case_of(&format!("{TARGET} --insecure"));
        assert!(case.backend.tls.insecure);
        assert_eq!(case_of(TARGET).backend.tls, TlsOptions::default());
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
    fn the_tokenizer_is_that_of_the_model_unless_another_or_none_is_named() {
        let of = |line: &str| case_of(&format!("--model org/m {line}"));
        assert_eq!(of("").tokenizer, TokenizerChoice::OfModel);
        assert_eq!(of("").tokenizer_id().unwrap(), "org/m");
        assert_eq!(of("--tokenizer none").tokenizer, TokenizerChoice::None);
        assert_eq!(of("--tokenizer t.json").tokenizer_id().unwrap(), "t.json");
    }

    #[test]
    fn each_dataset_has_its_flags_and_the_defaults_of_those_scripts() {
        let dataset = |line: &str| case_of(&format!("--model org/m {line}")).workload.dataset;
        let fixed = Length::Fixed;
        let form = PromptForm::Text;
        assert_eq!(
            dataset("--dataset-name random"),
            Dataset::Random { input: fixed(1024), output: fixed(128), prefix_tokens: 0, form }
        );
        let line = "--random-input-len 100 --random-output-len 9 --random-range-ratio 0.1 \
                    --random-prefix-len 5 --sonnet-input-len 7";
        let input = Length::Uniform { min: 90, max: 111 };
        assert_eq!(
            dataset(&format!("--dataset-name random {line}")),
            Dataset::Random {
                input,
                output: Length::Uniform { min: 8, max: 10 },
                prefix_tokens: 5,
                form
            }
        );
        assert_eq!(
            dataset("--dataset-name sonnet"),
            Dataset::Sonnet {
                source: None,
                input_tokens: 550,
                prefix_tokens: 200,
                output: fixed(150)
            }
        );
        assert_eq!(
            dataset("--dataset-name prefix_repetition"),
            Dataset::PrefixRepetition {
                prefix_tokens: 256,
                suffix_tokens: 256,
                prefixes: 10,
                output: fixed(128),
                form
            }
        );
        let made_up = |turns, input, prefix_tokens| Conversations::MadeUp {
            turns: fixed(turns),
            input: fixed(input),
            follow_up: fixed(input),
            prefix_tokens,
        };
        let case = case_of("--model org/m --dataset-name random --num-chat-sessions 5");
        assert_eq!(
            (case.name.as_str(), case.course.requests),
            ("modular/m/multi_turn@inf", Some(5))
        );
        let Dataset::MultiTurn { conversations, output, .. } = case.workload.dataset else {
            panic!()
        };
        assert_eq!((conversations, output), (made_up(4, 1024, 0), Some(fixed(128))));
        let line = "--num-chat-sessions 5 --random-num-turns 3 --delay-between-chat-turns 250 \
                    --random-input-len 10 --random-output-len 9 --random-prefix-len 5";
        assert_eq!(
            dataset(&format!("--dataset-name random {line}")),
            Dataset::MultiTurn {
                conversations: made_up(3, 10, 5),
                output: Some(fixed(9)),
                think: ThinkTime::Fixed(std::time::Duration::from_millis(250)),
                max_turns: None,
            }
        );
        let line = "--num-chat-sessions 5 --dataset-path talks.json";
        let Dataset::MultiTurn { conversations, .. } = dataset(line) else { panic!() };
        assert_eq!(conversations, Conversations::Recorded(Source::new("talks.json")));
        let Dataset::ShareGpt { source, .. } = dataset("") else { panic!() };
        assert!(source.to_string().starts_with("hf://datasets/"), "{source}");
    }

    #[test]
    fn the_embedded_engine_needs_no_model_and_no_address() {
        let case = case_of("--backend sim --dataset-path d.json --tokenizer t.json");
        assert_eq!(case.name, "sim/sim/sharegpt@inf");
        assert!(matches!(case.backend.server, Server::Sim(_)));
    }
}
