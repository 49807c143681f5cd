//! Asks for a page of metrics, over HTTP. Nothing here is on the clock of a request.

use std::time::Duration;

use anyhow::Context as _;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::Response;
use url::Url;

use super::Options;
use crate::clock::Clock;
use crate::loopback::is_loopback;
use crate::secret::{Secret, redact_all};

/// A longer page is not read to its end.
const LONGEST_PAGE: usize = 16 * 1024 * 1024;

/// Why a page was not read. Nothing secret is in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The next time may do.
    Gap(String),
    /// No other time will.
    ForGood(String),
}

/// Asks one address.
#[derive(Clone, Debug)]
pub struct Fetcher {
    http: reqwest::Client,
    url: Url,
    secrets: Vec<Secret>,
    clock: Clock,
}

impl Fetcher {
    /// One that asks as the options say.
    pub fn new(options: &Options, clock: Clock) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        // Some servers send OpenMetrics to whoever takes it at all, which is longer and says no more.
        headers.insert(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4,*/*;q=0.1"));
        for (name, value) in &options.headers {
            let value = HeaderValue::try_from(value.reveal()).ok();
            let name = HeaderName::try_from(name).ok().zip(value);
            let (name, mut value) = name.context("a header of it cannot be sent")?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .tls_backend_preconfigured(options.tls.client_config()?)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&options.url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().context("set up the HTTP client")?;
        let headers = options.headers.iter().map(|(_, value)| value.clone());
        let secrets = headers.chain(Secret::of_url(&options.url)).collect();
        Ok(Self { http, url: options.url.clone(), secrets, clock })
    }

    /// The page, and when its answer began.
    pub async fn page(&self, patience: Duration) -> Result<(Duration, String), Failure> {
        let late = |_| Failure::Gap(format!("no answer within {patience:?}"));
        tokio::time::timeout(patience, self.ask()).await.map_err(late)?
    }

    async fn ask(&self) -> Result<(Duration, String), Failure> {
        let answer = self.http.get(self.url.clone()).send().await;
        let mut response = answer.map_err(|error| self.gap(error))?;
        let at = self.clock.now();
        check(&response)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.gap(error))? {
            body.extend_from_slice(&chunk);
            if LONGEST_PAGE < body.len() {
                let most = LONGEST_PAGE / (1024 * 1024);
                return Err(Failure::ForGood(format!("it is longer than {most} MiB")));
            }
        }
        Ok((at, String::from_utf8_lossy(&body).into_owned()))
    }

    /// With its causes, and without what is secret.
    fn gap(&self, error: reqwest::Error) -> Failure {
        let message = format!("{:#}", anyhow::Error::from(error.without_url()));
        Failure::Gap(redact_all(&self.secrets, message))
    }
}

/// Whether the answer is a page of metrics.
fn check(response: &Response) -> Result<(), Failure> {
    let status = response.status();
    if !status.is_success() {
        let reason = format!("it answers {status}");
        let may_pass = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || status == StatusCode::TOO_MANY_REQUESTS;
        return Err(if may_pass { Failure::Gap(reason) } else { Failure::ForGood(reason) });
    }
    let Some(kind) = response.headers().get(CONTENT_TYPE) else { return Ok(()) };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_metrics =
        kind == "application/openmetrics-text" || kind.starts_with("text/") && kind != "text/html";
    if is_metrics {
        Ok(())
    } else {
        Err(Failure::ForGood(format!("it answers with `{kind}`, not with metrics as text")))
    }
}
