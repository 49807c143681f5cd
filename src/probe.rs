//! What is asked of a server beside the load: whether it is there, and what it serves. Nothing here is on
//! the clock.

use std::time::Duration;

use anyhow::Context as _;
use http::HeaderMap;
use http::header::SERVER;
use serde::Deserialize;
use url::Url;

use crate::headers;
use crate::loopback::is_loopback;
use crate::plan::{Address, Backend};
use crate::secret::{Secret, redact_all};
use crate::tls;
use crate::wire::BackendKind;

mod reach;

pub use reach::Reach;

/// A longer answer about models or a version is not looked at.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// The most redirects to the same server that are followed.
const MOST_REDIRECTS: usize = 10;

/// Asks one backend.
#[derive(Clone, Debug)]
pub struct Probe {
    http: reqwest::Client,
    secrets: Vec<Secret>,
}

impl Probe {
    /// A probe of the backend, whose server is at `url`.
    pub fn new(backend: &Backend, url: &Url) -> anyhow::Result<Self> {
        let headers: HeaderMap = headers::of(backend, url)?.into_iter().collect();
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(backend.connect_timeout)
            .tls_backend_preconfigured(backend.tls.client_config()?)
            .redirect(same_origin());
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        if backend.http2 && url.scheme() == "http" {
            // Without TLS nobody negotiates the version.
            builder = builder.http2_prior_knowledge();
        }
        let http = builder.build().context("set up the HTTP client")?;
        Ok(Self { http, secrets: backend.secrets() })
    }

    /// Whether anything answers at `url`.
    pub async fn reach(&self, url: Url, patience: Duration) -> Reach {
        let error = match self.http.get(url).timeout(patience).send().await {
            Ok(answer) => return Reach::Answers(answer.status().as_u16()),
            Err(error) => error.without_url(),
        };
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            message.push_str(&format!(": {deeper}"));
            cause = deeper.source();
        }
        message.push_str(tls::hint(&error));
        Reach::of(&error, patience, redact_all(&self.secrets, message))
    }

    /// Whether `url` answers that all is well.
    pub async fn is_ok(&self, url: Url, patience: Duration) -> bool {
        let answer = self.http.get(url).timeout(patience).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// The models that the server says it serves; `None` where it does not say.
    pub async fn models(&self, url: Url, patience: Duration) -> Option<Vec<ServedModel>> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<ServedModel>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            List(List),
            Bare(Vec<ServedModel>),
        }
        let response = self.http.get(url).timeout(patience).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        match serde_json::from_slice(&body_of(response).await?).ok()? {
            Answer::List(List { data: models }) | Answer::Bare(models) => Some(models),
        }
    }

    /// The version that the server says it is: of the engine, or else the product and version that its
    /// answers bear. `None` where it does not say, or not within `patience`.
    pub async fn version(
        &self,
        kind: BackendKind,
        address: &Address,
        patience: Duration,
    ) -> Option<String> {
        let mut product = None;
        for (path, field) in version_fields(kind) {
            let request = self.http.get(address.beside(path)).timeout(patience);
            // A server that does not answer here will not answer there.
            let response = request.send().await.ok()?;
            let header = response.headers().get(SERVER).and_then(|header| header.to_str().ok());
            product = product.or(header.map(str::to_owned));
            if let Some(version) = field_of(response, field).await {
                return shown(redact_all(&self.secrets, version));
            }
        }
        // The name of a framework alone tells no version.
        let product = product.filter(|product| product.contains('/'))?;
        shown(redact_all(&self.secrets, product))
    }
}

/// A model of a server.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServedModel {
    /// What the server calls it.
    pub id: String,
    /// What else it answers to.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Whose it says it is.
    #[serde(default)]
    pub owned_by: Option<String>,
}

impl ServedModel {
    /// Whether a request may call it so. Proxies list a pattern for all that they pass on, Ollama has tags
    /// of which `latest` is understood, some list a path, and an adapter or a variant may follow a colon.
    pub fn is_called(&self, name: &str) -> bool {
        self.aliases.iter().chain([&self.id]).any(|known| {
            let known = known.strip_prefix("models/").unwrap_or(known);
            let name = name.strip_prefix("models/").unwrap_or(name);
            match known.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => {
                    known.strip_suffix(":latest").unwrap_or(known) == name
                        || name
                            .strip_prefix(known)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
                }
            }
        })
    }

    /// Whether it is llama.cpp that serves it, which answers to any name.
    pub fn is_of_llama_cpp(&self) -> bool {
        self.owned_by.as_deref() == Some("llamacpp")
    }
}

/// Follows redirects within an origin: no other is told the headers of the plan.
fn same_origin() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let same = attempt.previous().iter().all(|url| url.origin() == attempt.url().origin());
        if same && attempt.previous().len() <= MOST_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// Where servers tell their version, and the field that holds it.
fn version_fields(kind: BackendKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        BackendKind::Sglang | BackendKind::SglangChat => {
            &[("/server_info", "version"), ("/get_server_info", "version")]
        }
        BackendKind::LlamaCpp | BackendKind::LlamaCppChat => &[("/props", "build_info")],
        BackendKind::TrtLlm => &[("/v2", "version")],
        BackendKind::Tgi => &[("/info", "version")],
        BackendKind::Modular
        | BackendKind::ModularChat
        | BackendKind::Vllm
        | BackendKind::VllmChat
        | BackendKind::Sim => &[("/version", "version")],
        // Anybody's: there is no page that all of them have.
        BackendKind::OpenAi | BackendKind::OpenAiChat | BackendKind::OpenAiResponses => &[],
    }
}

/// A text field of an answer in JSON.
async fn field_of(response: reqwest::Response, field: &str) -> Option<String> {
    if !response.status().is_success() {
        return None;
    }
    let answer: serde_json::Value = serde_json::from_slice(&body_of(response).await?).ok()?;
    Some(answer.get(field)?.as_str()?.to_owned())
}

/// The body of an answer; `None` where it breaks off, or is longer than any that is of use.
async fn body_of(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if LONGEST_ANSWER < body.len() {
            return None;
        }
    }
    Some(body)
}

/// A version as it may stand in a report; `None` for one that says nothing.
fn shown(version: String) -> Option<String> {
    let plain = version.chars().filter(|character| !character.is_control()).take(100);
    let plain = plain.collect::<String>().trim().to_owned();
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::environment::server_version;
    use crate::plan::Plan;
    use crate::sim::{Preset, SimConfig, SimServer};

    const PATIENCE: Duration = Duration::from_secs(5);

    /// What a backend of this kind says its version is.
    fn version(kind: &str, base_url: &str, patience: Duration) -> Option<String> {
        let plan = Plan::parse(&format!(
            r#"
            defaults = {{ requests = 1, tokenizer = "fixtures/tokenizer.json" }}
            [[backend]]
            name = "b"
            kind = "{kind}"
            base_url = "{base_url}"
            headers = {{ x-key = "sk-12345" }}
            models = ["m"]
            [[workload]]
            name = "w"
            path = "fixtures/sharegpt.json"
            [[bench]]
            loads = ["1conc"]
            "#
        ))
        .unwrap();
        let backend = &plan.cases[0].backend;
        let address = Address::new(base_url, "/v1/completions").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(server_version(backend, &address, patience))
    }

    /// A server that answers each path with a head and a body; the others with 404.
    fn serve(answers: &'static [(&'static str, &'static str, &'static str)]) -> String {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap();
                let known = answers.iter().find(|(known, ..)| *known == path);
                let (_, head, body) = known.unwrap_or(&("", "404 Not Found", ""));
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }

    #[test]
    fn a_model_is_called_by_its_id_its_aliases_and_what_is_understood() {
        for (id, aliases, name, called) in [
            ("m", &[][..], "m", true),
            ("m", &[], "n", false),
            ("m", &[], "m2", false),
            ("/models/m.gguf", &["m"], "m", true),
            ("llama3:latest", &[], "llama3", true),
            ("llama3:8b", &[], "llama3", false),
            ("llama3", &[], "llama3:8b", true),
            ("base", &[], "base:adapter", true),
            ("models/gemini", &[], "gemini", true),
            ("gemini", &[], "models/gemini", true),
            ("*", &[], "anything", true),
            ("openai/*", &[], "openai/gpt", true),
            ("openai/*", &[], "gpt", false),
        ] {
            let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            let model = ServedModel { id: id.to_owned(), aliases, owned_by: None };
            assert_eq!(model.is_called(name), called, "{id} {name}");
        }
    }

    #[test]
    fn servers_say_their_version_in_their_own_places() {
        let url = serve(&[
            ("/version", "200 OK", r#"{"version":"0.11.0"}"#),
            ("/get_server_info", "200 OK", r#"{"model_path":"m","version":"0.5.3"}"#),
            ("/props", "200 OK", r#"{"build_info":"b6823-a1b2c3d4"}"#),
            ("/info", "200 OK", r#"{"model_id":"m","version":"3.3.6","sha":null}"#),
            ("/v2", "200 OK", r#"{"name":"triton","version":"2.60.0","extensions":[]}"#),
        ]);
        for (kind, said) in [
            ("vllm", "0.11.0"),
            ("modular-chat", "0.11.0"),
            ("sglang", "0.5.3"),
            ("llama-cpp", "b6823-a1b2c3d4"),
            ("tgi", "3.3.6"),
            ("trt-llm", "2.60.0"),
        ] {
            assert_eq!(version(kind, &url, PATIENCE).as_deref(), Some(said), "{kind}");
        }
        let sim = SimServer::start(
            SimConfig::preset(Preset::Small),
            SocketAddr::from(([127, 0, 0, 1], 0)),
        );
        let said = version("vllm", &sim.unwrap().base_url(), PATIENCE);
        assert_eq!(said.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_product_in_the_header_is_better_than_nothing_and_a_framework_is_not() {
        let of = |url: &str| version("vllm", url, PATIENCE);
        let url = serve(&[("/version", "404 Not Found\r\nserver: engine/1.2", "{}")]);
        assert_eq!(of(&url).as_deref(), Some("engine/1.2"));
        let url = serve(&[("/version", "200 OK\r\nserver: uvicorn", r#"{"version":7}"#)]);
        assert_eq!(of(&url), None);
        let url = serve(&[("/version", "200 OK", "no JSON")]);
        assert_eq!(of(&url), None);
        let url = serve(&[("/version", "200 OK", r#"{"version":"\u001b[31m"}"#)]);
        assert_eq!(of(&url).as_deref(), Some("[31m"), "nothing that a terminal obeys");
        let url = serve(&[("/version", "200 OK", r#"{"version":"for sk-12345"}"#)]);
        assert_eq!(of(&url).as_deref(), Some("for [redacted]"));
    }

    #[test]
    fn a_server_that_does_not_answer_has_no_version() {
        assert_eq!(version("vllm", "http://127.0.0.1:1", PATIENCE), None);
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, answered) = mpsc::channel();
        thread::spawn(move || sender.send(version("sglang", &url, Duration::from_millis(100))));
        // It is asked at one place only.
        assert_eq!(answered.recv_timeout(PATIENCE), Ok(None));
    }
}
