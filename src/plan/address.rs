//! Where a server is. Pure.

use url::Url;

use crate::secret::Secret;

/// A longer place is shown in part, characters.
const LONGEST_SHOWN: usize = 200;

/// A base URL and the URL below it that requests are sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    base: Url,
    endpoint: Url,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// It names no place.
    #[error("it has no Location")]
    NoLocation,
    /// What it names is no URL of HTTP.
    #[error("its Location is no http:// or https:// URL")]
    NoUrl,
    /// It leads from https to http.
    #[error("it leads from https to http, where others can read the prompts: {0}")]
    Downgrade(String),
}

impl Address {
    /// Checks both parts; an error says what is wrong, without the URL: it may hold a password.
    pub fn new(base_url: &str, endpoint: &str) -> Result<Self, String> {
        let mut base = Url::parse(base_url)
            .map_err(|error| format!("the base URL is no URL ({error}): write http://host:port"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err("the base URL must begin with http:// or https://".to_owned());
        }
        base.set_fragment(None);
        let (path, query) = split(endpoint);
        if !path.starts_with('/') {
            return Err(format!("the endpoint `{path}` must begin with a slash"));
        }
        if endpoint.contains('#') {
            return Err(format!("the endpoint `{path}` must not hold a #"));
        }
        Ok(Self { endpoint: joined(&base, path, query), base })
    }

    /// Where requests are sent.
    pub fn endpoint_url(&self) -> Url {
        self.endpoint.clone()
    }

    /// A path of the server, which may have a query. A base URL that ends in `/v1`, as many tools want it, is
    /// taken for the root it means.
    pub fn below(&self, path: &str) -> Url {
        let (path, query) = split(path);
        joined(&self.base, path, query)
    }

    /// A path that the server has beside its API, such as `/metrics`; it may have a query.
    pub fn beside(&self, path: &str) -> Url {
        let (path, query) = split(path);
        let root = self.base.path().trim_end_matches('/');
        with(&self.base, &format!("{}{path}", root.strip_suffix("/v1").unwrap_or(root)), query)
    }

    /// Where the server is that a redirect of the endpoint leads to by `location`, which may be relative. A user
    /// and a password go to the same origin only.
    pub fn redirected(&self, location: Option<&str>) -> Result<Self, RedirectError> {
        let location = location.ok_or(RedirectError::NoLocation)?;
        let mut endpoint = self.endpoint.join(location).map_err(|_| RedirectError::NoUrl)?;
        if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
            return Err(RedirectError::NoUrl);
        }
        if self.endpoint.scheme() == "https" && endpoint.scheme() == "http" {
            return Err(RedirectError::Downgrade(shown(&endpoint)));
        }
        endpoint.set_fragment(None);
        if endpoint.origin() == self.endpoint.origin() {
            set_user(&mut endpoint, self.endpoint.username(), self.endpoint.password());
            return Ok(Self { base: self.base.clone(), endpoint });
        }
        set_user(&mut endpoint, "", None);
        // The root of the API is where it was, unless the redirect tells another.
        let below = self.endpoint.path();
        let below = below.strip_prefix(self.base.path().trim_end_matches('/')).unwrap_or(below);
        let path = endpoint.path().trim_end_matches('/');
        let root = path.strip_suffix(below.trim_end_matches('/')).unwrap_or(self.base.path());
        let base = with(&without_query(&endpoint), root, None);
        Ok(Self { base, endpoint })
    }

    /// Where a redirect says that it leads to, for showing: without user, password and query.
    pub fn shown_location(location: &str) -> String {
        if let Ok(url) = Url::parse(location) {
            return shown(&url).chars().take(LONGEST_SHOWN).collect();
        }
        let place = location.split(['?', '#']).next().unwrap_or_default();
        // `//user:password@host/path` is without its scheme.
        let place = match place.split_once('@') {
            Some((_, place)) if location.starts_with("//") => place,
            _ => place,
        };
        place.chars().filter(|character| !character.is_control()).take(LONGEST_SHOWN).collect()
    }

    /// What it holds that must not be shown.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Secret::of_url(&self.base);
        secrets.extend(Secret::of_url(&self.endpoint));
        secrets
    }

    /// Whether both are of one origin: what one may know, the other may.
    pub fn is_of_origin(&self, other: &Self) -> bool {
        self.endpoint.origin() == other.endpoint.origin()
    }

    /// The base URL for showing: without user, password and query, which may be secrets.
    pub fn shown(&self) -> String {
        shown(&self.base).trim_end_matches('/').to_owned()
    }

    /// The URL of the endpoint for showing, likewise.
    pub fn shown_endpoint(&self) -> String {
        shown(&self.endpoint)
    }
}

/// A path and its query.
fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    }
}

/// The URL of `path` below `base`.
fn joined(base: &Url, path: &str, query: Option<&str>) -> Url {
    let root = base.path().trim_end_matches('/');
    let root = match root.strip_suffix("/v1") {
        Some(shorter) if path.starts_with("/v1/") => shorter,
        _ => root,
    };
    with(base, &format!("{root}{path}"), query)
}

/// `base` with another path, and with `query` beside its own: what both name is as `query` has it.
fn with(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    let Some(query) = query else { return url };
    let key = |part: &str| part.split('=').next().unwrap_or_default().to_owned();
    let named: Vec<String> = query.split('&').map(key).collect();
    let own = base.query().unwrap_or_default().split('&');
    let own = own.filter(|part| !part.is_empty() && !named.contains(&key(part)));
    let all: Vec<&str> = own.chain(query.split('&')).filter(|part| !part.is_empty()).collect();
    url.set_query((!all.is_empty()).then(|| all.join("&")).as_deref());
    url
}

fn set_user(url: &mut Url, name: &str, password: Option<&str>) {
    // Both can only fail for URLs without a host, which no address has.
    let _ = url.set_username(name);
    let _ = url.set_password(password);
}

fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

fn shown(url: &Url) -> String {
    let mut url = without_query(url);
    set_user(&mut url, "", None);
    url.set_fragment(None);
    url.into()
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown_endpoint())
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
            ("http://[::1]:8000", "http://[::1]:8000/v1/completions"),
        ] {
            let address = Address::new(base, "/v1/completions").unwrap();
            assert_eq!(address.endpoint_url().as_str(), url);
        }
    }

    #[test]
    fn a_query_is_kept_whichever_part_has_it() {
        for (base, endpoint, url) in [
            ("http://h", "/x?api-version=1", "http://h/x?api-version=1"),
            ("http://h?api-version=1", "/x", "http://h/x?api-version=1"),
            ("http://h/y?a=1", "/x?b=2&c", "http://h/y/x?a=1&b=2&c"),
            ("http://h?a=1&b=2", "/x?a=3", "http://h/x?b=2&a=3"),
            ("http://h/v1?a=1", "/v1/x?b=%2F", "http://h/v1/x?a=1&b=%2F"),
            ("http://h", "/x?", "http://h/x"),
        ] {
            let address = Address::new(base, endpoint).unwrap();
            assert_eq!(address.endpoint_url().as_str(), url, "{base} {endpoint}");
        }
        let address = Address::new("http://h?a=1", "/x?b=2").unwrap();
        assert_eq!(address.below("/health?c=3").as_str(), "http://h/health?a=1&c=3");
        assert_eq!(address.beside("/metrics").as_str(), "http://h/metrics?a=1");
    }

    #[test]
    fn a_secret_in_the_url_is_not_shown() {
        let address =
            Address::new("https://me:secret@h:1/x?key=secret", "/v1/completions?code=secret");
        let address = address.unwrap();
        assert_eq!(address.shown(), "https://h:1/x");
        assert_eq!(address.shown_endpoint(), "https://h:1/x/v1/completions");
        assert!(!format!("{address:?}").contains("secret"));
    }

    #[test]
    fn a_redirect_leads_to_the_place_that_it_names() {
        for (base, location, endpoint, metrics) in [
            // The path with a slash, as frameworks want it.
            ("http://h/a", "/a/v1/x/", "http://h/a/v1/x/", "http://h/a/metrics"),
            ("http://h", "x/", "http://h/v1/x/", "http://h/metrics"),
            ("http://h?k=1", "http://h/v1/x/", "http://h/v1/x/", "http://h/metrics?k=1"),
            ("http://me:it@h", "/y", "http://me:it@h/y", "http://me:it@h/metrics"),
            // The same by https, as an ingress wants it.
            ("http://h/v1", "https://h/v1/x", "https://h/v1/x", "https://h/metrics"),
            // Another server, whose API is below another path or has another endpoint.
            ("http://h/a", "http://w:1/v1/x", "http://w:1/v1/x", "http://w:1/metrics"),
            ("http://h/a", "http://w:1/b/v1/x#f", "http://w:1/b/v1/x", "http://w:1/b/metrics"),
            ("http://h/a", "http://w:1/other", "http://w:1/other", "http://w:1/a/metrics"),
        ] {
            let address = Address::new(base, "/v1/x").unwrap();
            let found = address.redirected(Some(location)).unwrap();
            assert_eq!(found.endpoint_url().as_str(), endpoint, "{base} {location}");
            assert_eq!(found.beside("/metrics").as_str(), metrics, "{base} {location}");
        }
    }

    #[test]
    fn a_redirect_to_another_origin_gets_no_password_and_no_query() {
        let address = Address::new("http://me:secret@h:1/?key=secret", "/x?code=secret").unwrap();
        for elsewhere in ["http://h:2/x", "https://h:1/x", "//w/x", "http://you:secret@h:2/x"] {
            let found = address.redirected(Some(elsewhere)).unwrap();
            assert!(!found.is_of_origin(&address), "{elsewhere}");
            for url in [found.endpoint_url(), found.below("/v1/models"), found.beside("/metrics")] {
                assert!(!url.as_str().contains("secret"), "{elsewhere}: {url}");
            }
        }
    }

    #[test]
    fn a_location_is_shown_without_what_may_be_secret() {
        for (location, shown) in [
            ("http://h/v1/x/", "http://h/v1/x/"),
            ("https://me:secret@h/x?key=secret#secret", "https://h/x"),
            ("/x/?key=secret", "/x/"),
            ("//me:secret@h/x", "h/x"),
            ("/\u{1b}[31mx", "/[31mx"),
            ("http://h/\u{1b}[31m", "http://h/%1B[31m"),
        ] {
            assert_eq!(Address::shown_location(location), shown, "{location}");
        }
    }

    #[test]
    fn a_redirect_to_nowhere_is_refused() {
        let address = Address::new("https://h", "/x").unwrap();
        for (location, error) in [
            (None, RedirectError::NoLocation),
            (Some("http://"), RedirectError::NoUrl),
            (Some("ftp://h/x"), RedirectError::NoUrl),
            (Some("http://h/x?key"), RedirectError::Downgrade("http://h/x".to_owned())),
        ] {
            assert_eq!(address.redirected(location), Err(error), "{location:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (base, endpoint) in [
            ("localhost:8000", "/v1"),
            ("h", "/v1"),
            ("ftp://h", "/v1"),
            ("http://h", "v1"),
            ("http://h", "?x=/"),
            ("http://h", "/x#y"),
        ] {
            assert!(Address::new(base, endpoint).is_err(), "{base} {endpoint}");
        }
    }
}
