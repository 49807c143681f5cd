//! What is asked of a server beside the load: whether it is there, and what it serves. Nothing here is on
//! the clock.

use std::time::Duration;

use anyhow::Context as _;
use http::HeaderMap;
use url::Url;

use crate::headers;
use crate::loopback::is_loopback;
use crate::plan::Backend;
use crate::secret::{Secret, redact_all};

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
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().context("set up the HTTP client")?;
        Ok(Self { http, secrets: backend.secrets().cloned().collect() })
    }

    /// Whether anything answers at `url`; if not, why.
    pub async fn reach(&self, url: Url, patience: Duration) -> Result<(), String> {
        let Err(error) = self.http.get(url).timeout(patience).send().await else { return Ok(()) };
        // With its causes.
        let message = format!("{:#}", anyhow::Error::from(error.without_url()));
        Err(redact_all(&self.secrets, message))
    }

    /// Whether `url` answers that all is well.
    pub async fn is_ok(&self, url: Url, patience: Duration) -> bool {
        let answer = self.http.get(url).timeout(patience).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// The models that the server says it serves; `None` where it does not say.
    pub async fn models(&self, url: Url, patience: Duration) -> Option<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Models {
            data: Vec<Model>,
        }
        #[derive(serde::Deserialize)]
        struct Model {
            id: String,
        }
        let response = self.http.get(url).timeout(patience).send().await.ok()?;
        let models: Models = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
        Some(models.data.into_iter().map(|model| model.id).collect())
    }
}
