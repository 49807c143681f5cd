//! The headers of every request to a backend: our own, and the user's over them.

use anyhow::Context as _;
use base64::Engine as _;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue};
use url::Url;

use crate::plan::Backend;

/// How this client calls itself.
const USER: &str = concat!("servebench/", env!("CARGO_PKG_VERSION"));

/// The headers of requests to `url`. The error names a header that cannot be sent.
pub fn of(backend: &Backend, url: &Url) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = vec![
        (ACCEPT, HeaderValue::from_static("*/*")),
        // Without it any coding may be chosen (RFC 9110, 12.5.3), and a compressed stream has no times.
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (USER_AGENT, HeaderValue::from_static(USER)),
    ];
    let told = told(backend, url)?;
    headers.retain(|(own, _)| told.iter().all(|(name, _)| name != own));
    headers.extend(told);
    Ok(headers)
}

/// What the backend wants to be told in each of them: who is asking, and the user's own.
pub fn told(backend: &Backend, url: &Url) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    let mut set = |name: &str, value: &str| {
        let name = HeaderName::try_from(name)
            .with_context(|| format!("`{name}` is no name of a header"))?;
        let value = HeaderValue::try_from(value)
            .ok()
            .filter(|value| value.to_str().is_ok())
            .with_context(|| format!("the value of the header `{name}` cannot be sent"))?;
        // What is said later, and by the user, holds.
        headers.retain(|(other, _)| *other != name);
        headers.push((name, value));
        anyhow::Ok(())
    };
    if !url.username().is_empty() {
        let password = url.password().unwrap_or_default();
        let pair = format!("{}:{}", unescaped(url.username()), unescaped(password));
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        set(AUTHORIZATION.as_str(), &format!("Basic {pair}"))?;
    }
    if let Some(key) = &backend.api_key {
        set(AUTHORIZATION.as_str(), &format!("Bearer {}", key.reveal()))?;
    }
    for (name, value) in &backend.headers {
        set(name, value.reveal())?;
    }
    Ok(headers)
}

fn unescaped(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
