//! Where a server is. Pure.

use url::Url;

/// A base URL and a path below it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    base: Url,
    endpoint: String,
}

impl Address {
    /// Checks both parts; an error says what is wrong, without the URL: it may hold a password.
    pub fn new(base_url: &str, endpoint: &str) -> Result<Self, String> {
        let base = Url::parse(base_url)
            .map_err(|error| format!("the base URL is no URL ({error}): write http://host:port"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err("the base URL must begin with http:// or https://".to_owned());
        }
        if !endpoint.starts_with('/') {
            return Err(format!("the endpoint `{endpoint}` must begin with a slash"));
        }
        Ok(Self { base, endpoint: endpoint.to_owned() })
    }

    /// Where requests are sent.
    pub fn endpoint_url(&self) -> Url {
        self.below(&self.endpoint)
    }

    /// A path of the server. A base URL that ends in `/v1`, as many tools want it, is taken for the
    /// root it means.
    pub fn below(&self, path: &str) -> Url {
        let root = self.base.path().trim_end_matches('/');
        let root = match root.strip_suffix("/v1") {
            Some(shorter) if path.starts_with("/v1/") => shorter,
            _ => root,
        };
        let mut url = self.base.clone();
        url.set_path(&format!("{root}{path}"));
        url
    }

    /// A path that the server has beside its API, such as `/metrics`.
    pub fn beside(&self, path: &str) -> Url {
        let root = self.base.path().trim_end_matches('/');
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", root.strip_suffix("/v1").unwrap_or(root)));
        url
    }

    /// The base URL for showing: without user, password and query, which may be secrets.
    pub fn shown(&self) -> String {
        let mut url = self.base.clone();
        // Both can only fail for URLs without a host, which `new` refuses.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        url.as_str().trim_end_matches('/').to_owned()
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.shown(), self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_the_api_is_not_below_its_version() {
        for (base, url) in [
            ("http://h:8000", "http://h:8000/metrics"),
            ("http://h:8000/v1/", "http://h:8000/metrics"),
            ("https://h/llm/v1", "https://h/llm/metrics"),
        ] {
            assert_eq!(Address::new(base, "/x").unwrap().beside("/metrics").as_str(), url);
        }
    }

    #[test]
    fn the_endpoint_is_below_the_base_url() {
        for (base, url) in [
            ("http://h:8000", "http://h:8000/v1/completions"),
            ("http://h:8000/", "http://h:8000/v1/completions"),
            ("http://h/v1", "http://h/v1/completions"),
            ("https://h/gateway/v1/", "https://h/gateway/v1/completions"),
        ] {
            let address = Address::new(base, "/v1/completions").unwrap();
            assert_eq!(address.endpoint_url().as_str(), url);
        }
    }

    #[test]
    fn a_password_in_the_url_is_not_shown() {
        let address =
            Address::new("https://me:secret@h:1/x?key=secret", "/v1/completions").unwrap();
        assert_eq!(address.shown(), "https://h:1/x");
        assert!(!format!("{address:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (base, endpoint) in
            [("localhost:8000", "/v1"), ("h", "/v1"), ("ftp://h", "/v1"), ("http://h", "v1")]
        {
            assert!(Address::new(base, endpoint).is_err(), "{base} {endpoint}");
        }
    }
}
