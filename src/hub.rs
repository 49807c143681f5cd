//! Files on the Hugging Face Hub: downloaded once, and kept in the Hub's own cache folder, which is
//! shared with Python's `huggingface_hub`.
//!
//! The `hf-hub` crate does not do: its 1.0 brings 105 crates with it (Xet, aws-lc) and begins a download
//! that was cut from the start, its 0.5 checks neither size nor hash, knows no offline run and shows the
//! token in its `Debug`.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE,
};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::loopback::is_loopback;
use crate::secret::Secret;
use crate::tls::TlsOptions;

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;

const ENDPOINT: &str = "https://huggingface.co";
const REVISION: &str = "main";
const FORM: &str = "the form is hf://[datasets/]ORG/NAME[@REVISION]/PATH";

/// How long the Hub may be silent, also in the middle of a file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the Hub is asked about a file that is not in the cache.
const ASK_TRIES: u32 = 3;
/// How often a download may be cut with nothing gained in between.
const DOWNLOAD_TRIES: u32 = 5;
/// The pause after the first try that failed; it doubles with each.
const PAUSE: Duration = Duration::from_millis(500);
/// How often to look whether another process has finished the same download.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MAX_REDIRECTS: usize = 10;

/// A file in a repository on the Hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubFile {
    kind: RepoKind,
    /// `org/name`.
    id: String,
    /// A branch, a tag or a commit.
    revision: String,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RepoKind {
    Model,
    Dataset,
}

impl HubFile {
    /// Reads `hf://[datasets/]ORG/NAME[@REVISION]/PATH`, as Python's `HfFileSystem` writes it. A `/`
    /// within the revision is written `%2F`, but for that in `refs/pr/1` and `refs/convert/parquet`.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let read = || {
            let rest = url.strip_prefix("hf://").context(FORM)?;
            match rest.split_once('/') {
                Some(("datasets", rest)) => Self::of(RepoKind::Dataset, rest),
                Some(("models", rest)) => Self::of(RepoKind::Model, rest),
                Some((kind @ ("spaces" | "buckets" | "kernels"), _)) => {
                    bail!("only models and datasets are read, and these are {kind}")
                }
                _ => Self::of(RepoKind::Model, rest),
            }
        };
        read().with_context(|| format!("`{url}` names no file on the Hugging Face Hub"))
    }

    /// The file at `path` of the model `id`, which is `ORG/NAME` or `ORG/NAME@REVISION`.
    pub fn of_model(id: &str, path: &str) -> anyhow::Result<Self> {
        Self::of(RepoKind::Model, &format!("{id}/{path}"))
            .with_context(|| format!("`{id}` names no model on the Hugging Face Hub"))
    }

    fn of(kind: RepoKind, text: &str) -> anyhow::Result<Self> {
        let (org, rest) = text.split_once('/').context(FORM)?;
        let end = rest.find(['@', '/']).context(FORM)?;
        let (name, rest) = (&rest[..end], &rest[end..]);
        let (revision, path) = match rest.strip_prefix('@') {
            Some(rest) => split_revision(rest)?,
            None => (REVISION.to_owned(), &rest[1..]),
        };
        let id = format!("{org}/{name}");
        if !is_id(org, name) {
            bail!("`{id}` cannot be a repository; {FORM}");
        }
        if !goes_down(&revision) {
            bail!("`{revision}` cannot be a revision; {FORM}");
        }
        if !goes_down(path) {
            bail!("`{path}` cannot be a file; {FORM}");
        }
        Ok(Self { kind, id, revision, path: path.to_owned() })
    }

    /// What stands before the id in a URL.
    fn prefix(&self) -> &'static str {
        match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        }
    }

    /// The repository's folder in the cache.
    fn folder(&self) -> String {
        let kind = match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        format!("{kind}--{}", self.id.replace('/', "--"))
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}{}", self.prefix(), self.id)?;
        if self.revision != REVISION {
            let escaped = match special_revision(&self.revision) {
                Some(length) if length == self.revision.len() => self.revision.clone(),
                _ => self.revision.replace('%', "%25").replace('/', "%2F"),
            };
            write!(f, "@{escaped}")?;
        }
        write!(f, "/{}", self.path)
    }
}

/// The revision and the path of what follows an `@`.
fn split_revision(text: &str) -> anyhow::Result<(String, &str)> {
    let special = special_revision(text).filter(|length| text[*length..].starts_with('/'));
    let end = special.or_else(|| text.find('/')).context(FORM)?;
    let revision = percent_encoding::percent_decode_str(&text[..end]).decode_utf8();
    Ok((revision.context("the revision is no UTF-8")?.into_owned(), &text[end + 1..]))
}

/// The length of the `refs/pr/1` or `refs/convert/parquet` at the beginning of `text`.
fn special_revision(text: &str) -> Option<usize> {
    let (start, rest) = ["refs/pr/", "refs/convert/"]
        .iter()
        .find_map(|start| Some((*start, text.strip_prefix(start)?)))?;
    Some(start.len() + rest.find('/').unwrap_or(rest.len()))
}

/// Whether the Hub allows such an id. A `--` would be taken for a `/` in the cache.
fn is_id(org: &str, name: &str) -> bool {
    let allowed = |part: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.len() <= 96
            && part.starts_with(word)
            && part.ends_with(word)
            && part.chars().all(|c| word(c) || c == '-' || c == '.')
            && !part.contains("--")
            && !part.contains("..")
    };
    let kinds = ["models", "datasets", "spaces", "buckets", "kernels"];
    allowed(org) && allowed(name) && !name.ends_with(".git") && !kinds.contains(&org)
}

/// Whether `text`, put below a folder, stays there on every system.
fn goes_down(text: &str) -> bool {
    text.split('/').all(|part| {
        let normal = Path::new(part).components().eq([Component::Normal(part.as_ref())]);
        normal && !part.contains(|c: char| c == '\\' || c.is_control())
    })
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes of the file that are here, those of earlier runs included.
    pub bytes: u64,
    /// Bytes of the whole file, where the Hub says so.
    pub total: Option<u64>,
}

/// A file of the Hub on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// The commit that it is of.
    pub commit: String,
    /// What the user should know: that the Hub could not be asked whether there is a newer one.
    pub note: Option<String>,
}

/// The Hub, and its cache on this machine.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: Url,
    token: Option<Token>,
    offline: bool,
    cache: PathBuf,
    patience: Duration,
    pause: Duration,
}

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    /// The variable or the file that it is from.
    source: String,
}

impl Hub {
    /// The Hub as the environment describes it to Python's `huggingface_hub`: `HF_ENDPOINT`,
    /// `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(|name| std::env::var_os(name))
    }

    fn read(lookup: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let path = |name: &str| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &str| lookup(name)?.into_string().ok();
        let user = path(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        // A `~` that no shell has seen.
        let folder = |name: &str| {
            let path = path(name)?;
            match (path.strip_prefix("~"), &user) {
                (Ok(rest), Some(user)) => Some(user.join(rest)),
                _ => Some(path),
            }
        };
        let home = folder("HF_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(user.as_ref()?.join(".cache").join("huggingface")));
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .context("there is no folder for files of the Hugging Face Hub: set HF_HOME")?;
        let offline = text("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
        });
        let token_path = || folder("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")));
        let token = match text("HF_TOKEN").and_then(|text| Token::new(&text, "HF_TOKEN")) {
            _ if offline => None,
            Some(token) => Some(token),
            None => token_path().map(|path| Token::load(&path)).transpose()?.flatten(),
        };
        let endpoint = text("HF_ENDPOINT").filter(|value| !value.is_empty());
        Ok(Self {
            endpoint: endpoint_url(endpoint.as_deref().unwrap_or(ENDPOINT))?,
            token,
            offline,
            cache,
            patience: PATIENCE,
            pause: PAUSE,
        })
    }

    /// The same Hub, of which only the cache is used.
    #[must_use]
    pub fn offline(self) -> Self {
        Self { offline: true, ..self }
    }

    /// The file on this machine: from the cache, or else downloaded into it. Blocks; `progress` is told
    /// of a download only.
    ///
    /// A download that was cut goes on where it ended, now or in a later run. Two processes do not
    /// download the same file at once. Where the Hub cannot be asked for news, the cache must do, and
    /// the note says so.
    pub fn fetch(
        &self,
        file: &HubFile,
        progress: &mut dyn FnMut(Downloaded),
    ) -> anyhow::Result<Fetched> {
        let cached = self.cached(file);
        match cached {
            // What a commit holds never changes.
            Some(found) if self.offline || is_commit(&file.revision) => Ok(found),
            None if self.offline => Err(anyhow::Error::new(NoSuchFile(format!(
                "{file} is not in the cache {}, and this run is offline (HF_HUB_OFFLINE, or a run in \
                 miniature): run once without",
                self.cache.display()
            )))),
            cached => {
                let transfer = Transfer::new(self, file)?;
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                runtime.enable_all().build()?.block_on(transfer.run(cached, progress))
            }
        }
    }

    /// The file as the cache holds it at the wanted revision.
    fn cached(&self, file: &HubFile) -> Option<Fetched> {
        let folder = self.cache.join(file.folder());
        let commit = if is_commit(&file.revision) {
            file.revision.clone()
        } else {
            fs::read_to_string(folder.join("refs").join(&file.revision)).ok()?.trim().to_owned()
        };
        let path = folder.join("snapshots").join(&commit).join(&file.path);
        (is_name(&commit) && path.is_file()).then_some(Fetched { path, commit, note: None })
    }

    /// The URL of the endpoint's that `parts` lead to, each one step.
    fn url<'a>(&self, file: &'a HubFile, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        // A URL of HTTP always has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            path.extend(file.prefix().split_terminator('/'));
            path.extend(file.id.split('/')).extend(parts);
        }
        url
    }
}

fn endpoint_url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let url = url.context("HF_ENDPOINT is no http:// or https:// URL of a Hub")?;
    if !url.username().is_empty() || url.password().is_some() {
        bail!("HF_ENDPOINT holds a name or a password: give a token in HF_TOKEN instead");
    }
    Ok(url)
}

/// Whether a revision is a commit in full.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether what the server calls a commit or a blob can be a file's name.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(allowed)
}

/// Whether the file is there, and of that size.
fn is_whole(path: &Path, size: Option<u64>) -> bool {
    let right =
        |found: fs::Metadata| found.is_file() && size.is_none_or(|size| size == found.len());
    path.metadata().is_ok_and(right)
}

impl Token {
    /// `None` for a blank.
    fn new(text: &str, source: impl fmt::Display) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self { secret: Secret::new(text), source: source.to_string() })
    }

    /// `None` where there is no such file.
    fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self::new(&text, path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error)
                .with_context(|| format!("read the Hugging Face token in {}", path.display())),
        }
    }
}

/// The repository, or the cache of an offline run, has no such file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoSuchFile(String);

/// Why an answer of the Hub is of no use.
enum Trouble {
    /// It may be better soon.
    Passing(String),
    Lasting(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Lasting(error)
    }
}

/// What the Hub says about a file.
struct Source {
    commit: String,
    /// Names the content.
    etag: String,
    size: Option<u64>,
}

/// One file on its way.
struct Transfer<'a> {
    hub: &'a Hub,
    file: &'a HubFile,
    http: reqwest::Client,
    bearer: Option<HeaderValue>,
    /// That of the repository in the cache.
    folder: PathBuf,
}

impl<'a> Transfer<'a> {
    fn new(hub: &'a Hub, file: &'a HubFile) -> anyhow::Result<Self> {
        let bearer = |token: &Token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.secret.reveal()))
                .ok()
                .with_context(|| format!("the token in {} cannot be sent", token.source))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("servebench/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(hub.patience)
            .read_timeout(hub.patience)
            .tls_backend_preconfigured(TlsOptions::default().client_config()?)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&hub.endpoint) {
            http = http.no_proxy();
        }
        Ok(Self {
            hub,
            file,
            http: http.build().context("set up the HTTP client")?,
            bearer: hub.token.as_ref().map(bearer).transpose()?,
            folder: hub.cache.join(file.folder()),
        })
    }

    async fn run(
        &self,
        cached: Option<Fetched>,
        progress: &mut dyn FnMut(Downloaded),
    ) -> anyhow::Result<Fetched> {
        let mut tries = 0;
        let source = loop {
            let why = match self.ask().await {
                Ok(source) => break source,
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => why,
            };
            let (file, endpoint) = (self.file, shown(&self.hub.endpoint));
            if let Some(found) = cached {
                let note = format!(
                    "{file} is taken from the cache (commit {}): {endpoint} cannot be asked for a newer \
                     one ({why})",
                    found.commit
                );
                return Ok(Fetched { note: Some(note), ..found });
            }
            tries += 1;
            if tries == ASK_TRIES {
                bail!(
                    "{file} is not in the cache {}, and {endpoint} cannot be asked for it: {why}; look \
                     at the network, the proxy and HF_ENDPOINT, or try again later",
                    self.hub.cache.display()
                );
            }
            self.pause(tries).await;
        };
        let path = self.folder.join("snapshots").join(&source.commit).join(&self.file.path);
        if is_whole(&path, source.size) {
            // The folder may be one that only others write.
            let _ = self.set_ref(&source.commit);
        } else {
            self.bring(&source, &path, progress).await?;
        }
        Ok(Fetched { path, commit: source.commit, note: None })
    }

    /// Puts the file, which is not in the cache at this commit, there.
    async fn bring(
        &self,
        source: &Source,
        path: &Path,
        progress: &mut dyn FnMut(Downloaded),
    ) -> anyhow::Result<()> {
        let blob = self.folder.join("blobs").join(&source.etag);
        let incomplete = self.folder.join("blobs").join(format!("{}.incomplete", source.etag));
        let place = || format!("write to the cache {}", self.hub.cache.display());
        fs::create_dir_all(self.folder.join("blobs")).with_context(place)?;
        let _lock = self.lock(source, &incomplete, progress).await.with_context(place)?;
        if !is_whole(&blob, source.size) {
            self.download(source, &incomplete, progress).await?;
            fs::rename(&incomplete, &blob).with_context(place)?;
        }
        self.link(source, &blob, path).with_context(place)?;
        self.set_ref(&source.commit).with_context(place)
    }

    /// Asks what the revision holds at the path.
    async fn ask(&self) -> Result<Source, Trouble> {
        let answer = self.send(Method::HEAD, self.resolve(&self.file.revision), None).await?;
        let redirected = answer.status().is_redirection();
        if !redirected && !answer.status().is_success() {
            return Err(self.refused(&answer));
        }
        let commit = header(&answer, "x-repo-commit").filter(|commit| is_name(commit));
        let etag = header(&answer, "x-linked-etag").or_else(|| header(&answer, ETAG.as_str()));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let (Some(commit), Some(etag)) = (commit, etag.filter(|etag| is_name(etag))) else {
            return Err(Trouble::Lasting(anyhow::anyhow!(
                "{}: {} does not answer as the Hugging Face Hub does (with a commit and an etag): look \
                 at HF_ENDPOINT, and at the proxy",
                self.file,
                shown(answer.url())
            )));
        };
        let length = || header(&answer, CONTENT_LENGTH.as_str()).filter(|_| !redirected);
        let size = header(&answer, "x-linked-size").or_else(length);
        Ok(Source {
            commit: commit.to_owned(),
            etag: etag.to_owned(),
            size: size.and_then(|size| size.parse().ok()),
        })
    }

    fn resolve(&self, revision: &str) -> Url {
        let parts = ["resolve", revision].into_iter().chain(self.file.path.split('/'));
        self.hub.url(self.file, parts.collect::<Vec<_>>())
    }

    /// Sends a request, and sends it on where it is redirected. Only the Hub gets the token.
    async fn send(
        &self,
        method: Method,
        mut url: Url,
        start: Option<u64>,
    ) -> Result<Response, Trouble> {
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.http.request(method.clone(), url.clone());
            // The size and the hash are those of the plain content.
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(start) = start {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            if let Some(bearer) = self.bearer.as_ref().filter(|_| self.is_at_hub(&url)) {
                request = request.header(AUTHORIZATION, bearer.clone());
            }
            let answer = request.send().await.map_err(|error| self.cut(error))?;
            let location = header(&answer, LOCATION.as_str());
            let next = location.filter(|_| answer.status().is_redirection());
            let Some(next) = next.and_then(|next| url.join(next).ok()) else { return Ok(answer) };
            // Of a file that is kept elsewhere the Hub itself says what it is.
            let known = method == Method::HEAD && header(&answer, "x-repo-commit").is_some();
            if known && !self.is_at_hub(&next) {
                return Ok(answer);
            }
            url = next;
        }
        Err(Trouble::Lasting(anyhow::anyhow!(
            "{}: {} redirects in circles",
            self.file,
            shown(&self.hub.endpoint)
        )))
    }

    fn is_at_hub(&self, url: &Url) -> bool {
        url.origin() == self.hub.endpoint.origin()
    }

    /// Without the URL: what signs that of a file kept elsewhere is a secret.
    fn cut(&self, error: reqwest::Error) -> Trouble {
        Trouble::Passing(self.redact(format!("{:#}", anyhow::Error::from(error.without_url()))))
    }

    fn redact(&self, text: String) -> String {
        match &self.hub.token {
            Some(token) => token.secret.redact(text),
            None => text,
        }
    }

    /// What an answer that holds no file means.
    fn refused(&self, answer: &Response) -> Trouble {
        let (file, status, endpoint) = (self.file, answer.status(), shown(&self.hub.endpoint));
        let (revision, page) = (&file.revision, self.hub.url(file, []));
        let at_hub = self.is_at_hub(answer.url());
        let token = self.hub.token.as_ref().filter(|_| at_hub).map(|token| &token.source);
        let says = header(answer, "x-error-message").unwrap_or_default();
        let says = self.redact(says.chars().take(300).collect());
        let says = if says.is_empty() { status.to_string() } else { format!("{status}: {says}") };
        Trouble::Lasting(match (header(answer, "x-error-code"), status.as_u16(), token) {
            (Some("RevisionNotFound"), ..) => {
                anyhow::anyhow!("{file}: the repository has no revision `{revision}`: see {page}")
            }
            (Some("EntryNotFound"), ..) => anyhow::Error::new(NoSuchFile(format!(
                "{file}: the repository holds no such file at the revision `{revision}`: see {}",
                self.hub.url(file, ["tree", revision])
            ))),
            (Some("RepoNotFound"), _, None) => anyhow::anyhow!(
                "{file}: {endpoint} has no such repository, or it is private: look at its name, or set \
                 HF_TOKEN to a token that may read it"
            ),
            (Some("RepoNotFound"), _, Some(source)) => anyhow::anyhow!(
                "{file}: {endpoint} has no such repository, or the token in {source} may not read it: \
                 look at its name, or give another token"
            ),
            (Some("GatedRepo"), _, None) => {
                anyhow::anyhow!("{file} is gated: accept its terms at {page} and set HF_TOKEN")
            }
            (Some("GatedRepo"), _, Some(source)) => anyhow::anyhow!(
                "{file} is gated, and the token in {source} may not read it: accept its terms at {page} \
                 as the user whom the token is of"
            ),
            (None, 401 | 403, None) if at_hub => anyhow::anyhow!(
                "{file} is private or gated ({says}): accept its terms at {page} and set HF_TOKEN"
            ),
            (None, 401 | 403, Some(source)) => anyhow::anyhow!(
                "{file}: the token in {source} may not read it ({says}): accept its terms at {page}, or \
                 give another token"
            ),
            (None, 404, _) if at_hub => anyhow::anyhow!(
                "{file}: {endpoint} has no such repository, revision or file ({says}): see {page}"
            ),
            (_, 408 | 429 | 500.., _) => {
                return Trouble::Passing(format!("{} answers {says}", shown(answer.url())));
            }
            _ => anyhow::anyhow!("{file}: {} answers {says}", shown(answer.url())),
        })
    }

    /// Waits until nobody else downloads the file. Where there are no locks, two downloads write the
    /// same bytes to the same places.
    async fn lock(
        &self,
        source: &Source,
        incomplete: &Path,
        progress: &mut dyn FnMut(Downloaded),
    ) -> io::Result<File> {
        // The place and the kind of Python's locks.
        let folder = self.hub.cache.join(".locks").join(self.file.folder());
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.lock", source.etag));
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        while let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            if let Ok(found) = incomplete.metadata() {
                progress(Downloaded { bytes: found.len(), total: source.size });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(file)
    }

    /// Makes `incomplete` whole, from where it ends.
    async fn download(
        &self,
        source: &Source,
        incomplete: &Path,
        progress: &mut dyn FnMut(Downloaded),
    ) -> anyhow::Result<()> {
        let file = self.file;
        let place = || format!("write {}", incomplete.display());
        let mut part = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(incomplete)
            .with_context(place)?;
        let mut have = part.metadata().with_context(place)?.len();
        if source.size.is_none_or(|size| size < have) {
            restart(&mut part, &mut have)?;
        }
        let mut tries = 0;
        while source.size != Some(have) {
            let before = have;
            match self.receive(source, &mut part, &mut have, progress).await {
                // Less than was asked for, as it may be.
                Ok(StatusCode::PARTIAL_CONTENT)
                    if before < have && source.size.is_some_and(|size| have < size) => {}
                Ok(_) => {
                    if let Some(size) = source.size.filter(|size| *size != have) {
                        let _ = fs::remove_file(incomplete);
                        let sent = if have < size { have.to_string() } else { "more".to_owned() };
                        bail!(
                            "{file} is to have {size} bytes, and the server sent {sent}: what came is \
                             thrown away; try again"
                        );
                    }
                    break;
                }
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => {
                    tries = if before < have { 1 } else { tries + 1 };
                    if tries == DOWNLOAD_TRIES {
                        bail!(
                            "the download of {file} is given up, {tries} tries have brought nothing \
                             more: {why}; the {have} bytes that came are kept, and the next run goes on \
                             from there"
                        );
                    }
                    self.pause(tries).await;
                }
            }
        }
        if source.etag.len() == 64 && source.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let found =
                sha256(&mut part).with_context(|| format!("read {}", incomplete.display()))?;
            if !found.eq_ignore_ascii_case(&source.etag) {
                let _ = fs::remove_file(incomplete);
                bail!(
                    "{file} is to have the SHA-256 {}, and what came has {found}: it is thrown away; \
                     try again",
                    source.etag
                );
            }
        }
        // The name must not outlive a power cut that the content does not.
        part.sync_all().with_context(place)
    }

    /// Receives one answer into `part`, of which `have` bytes are right. Returns once the answer has
    /// ended as it should; `have` is then beyond the size if it was too long.
    async fn receive(
        &self,
        source: &Source,
        part: &mut File,
        have: &mut u64,
        progress: &mut dyn FnMut(Downloaded),
    ) -> Result<StatusCode, Trouble> {
        // By the commit: a branch may have moved since.
        let url = self.resolve(&source.commit);
        let mut answer = self.send(Method::GET, url, Some(*have).filter(|have| 0 < *have)).await?;
        let status = answer.status();
        match status {
            StatusCode::PARTIAL_CONTENT if range_start(&answer) == Some(*have) => {}
            // It knows no ranges and begins again.
            StatusCode::OK => restart(part, have)?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                restart(part, have)?;
                return Err(Trouble::Passing(format!(
                    "{} does not give the range that was asked for",
                    shown(answer.url())
                )));
            }
            _ => return Err(self.refused(&answer)),
        }
        part.seek(SeekFrom::Start(*have)).context("go on in the incomplete file")?;
        progress(Downloaded { bytes: *have, total: source.size });
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.cut(error))? {
            let bytes = *have + chunk.len() as u64;
            if source.size.is_some_and(|size| size < bytes) {
                *have = bytes;
                break;
            }
            part.write_all(&chunk).with_context(|| format!("write {}", self.file))?;
            *have = bytes;
            progress(Downloaded { bytes, total: source.size });
        }
        Ok(status)
    }

    /// Puts a relative link to the blob at `path`, or a copy of it where links cannot be.
    fn link(&self, source: &Source, blob: &Path, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let up = std::iter::repeat_n("..", 1 + self.file.path.split('/').count());
        let target: PathBuf = up.chain(["blobs", &source.etag]).collect();
        let made = tempfile::Builder::new().make_in(folder, |path| {
            symlink(&target, path).or_else(|_| fs::copy(blob, path).map(drop))
        })?;
        made.persist(path)?;
        Ok(())
    }

    /// Notes what the revision points to.
    fn set_ref(&self, commit: &str) -> io::Result<()> {
        let path = self.folder.join("refs").join(&self.file.revision);
        if self.file.revision == commit
            || fs::read_to_string(&path).is_ok_and(|noted| noted == commit)
        {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut made = tempfile::Builder::new().make_in(folder, |path| File::create_new(path))?;
        made.write_all(commit.as_bytes())?;
        made.persist(&path)?;
        Ok(())
    }

    /// Waits after the `tries`-th try.
    async fn pause(&self, tries: u32) {
        tokio::time::sleep(self.hub.pause * 2_u32.pow(tries - 1)).await;
    }
}

/// Throws away what `part` has, if anything.
fn restart(part: &mut File, have: &mut u64) -> anyhow::Result<()> {
    if 0 < *have {
        part.set_len(0).context("empty the incomplete file")?;
        *have = 0;
    }
    Ok(())
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Where the bytes of an answer begin in the file.
fn range_start(answer: &Response) -> Option<u64> {
    let range = header(answer, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

/// A URL without what may be secret in it.
fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn sha256(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use tempfile::TempDir;

    use super::*;
    use crate::lock::lock;

    const COMMIT: &str = "0123456789012345678901234567890123456789";
    const TOKEN: &str = "hf_abcdefgh";

    /// A request that a server has got.
    #[derive(Clone, Debug)]
    struct Asked {
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        /// How many of the method came before.
        nth: usize,
    }

    impl Asked {
        fn header(&self, name: &str) -> Option<&str> {
            let mut headers = self.headers.iter();
            headers.find_map(|(held, value)| (held == name).then_some(value.as_str()))
        }

        fn is(&self, method: &str, nth: usize) -> bool {
            self.method == method && self.nth == nth
        }
    }

    /// What a server answers.
    #[derive(Default)]
    struct Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
        /// How much of the body is sent before the connection is cut.
        cut: Option<usize>,
        /// How long the body takes to come.
        delay: Duration,
    }

    impl Answer {
        fn of(status: u16) -> Self {
            Self { status, ..Self::default() }
        }

        fn with(mut self, name: &'static str, value: impl ToString) -> Self {
            self.headers.retain(|(held, _)| *held != name);
            self.headers.push((name, value.to_string()));
            self
        }

        fn without_length(self) -> Self {
            let mut answer = self.with("transfer-encoding", "chunked");
            answer.headers.retain(|(name, _)| *name != "content-length");
            answer
        }

        fn status(self, status: u16) -> Self {
            Self { status, ..self }
        }

        fn send(&self, to: &mut TcpStream, with_body: bool) -> io::Result<()> {
            write!(to, "HTTP/1.1 {} .\r\nconnection: close\r\n", self.status)?;
            for (name, value) in &self.headers {
                write!(to, "{name}: {value}\r\n")?;
            }
            let framed =
                |(name, _): &(&str, String)| ["content-length", "transfer-encoding"].contains(name);
            if !self.headers.iter().any(framed) {
                write!(to, "content-length: {}\r\n", self.body.len())?;
            }
            write!(to, "\r\n")?;
            if with_body {
                std::thread::sleep(self.delay);
                to.write_all(&self.body[..self.cut.unwrap_or(self.body.len())])?;
            }
            Ok(())
        }
    }

    /// A server on a socket of this machine, which lives until the tests end.
    struct Server {
        url: String,
        asked: Arc<Mutex<Vec<Asked>>>,
    }

    impl Server {
        fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::new(Mutex::new(Vec::new()));
            let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    // Who asked may have gone.
                    std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer).ok());
                }
            });
            Self { url, asked }
        }

        fn asked(&self, method: &str) -> Vec<Asked> {
            let all = lock(&self.asked);
            all.iter().filter(|asked| asked.method == method).cloned().collect()
        }

        /// The ranges that were asked for, of all the downloads.
        fn ranges(&self) -> Vec<Option<String>> {
            let range = |asked: &Asked| asked.header("range").map(str::to_owned);
            self.asked("GET").iter().map(range).collect()
        }
    }

    fn serve(
        mut stream: TcpStream,
        log: &Mutex<Vec<Asked>>,
        answer: &dyn Fn(&Asked) -> Answer,
    ) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let asked = {
            let mut log = lock(log);
            let nth = log.iter().filter(|before| before.method == method).count();
            log.push(Asked { method, path, headers, nth });
            log[log.len() - 1].clone()
        };
        answer(&asked).send(&mut stream, asked.method != "HEAD")
    }

    fn content() -> Vec<u8> {
        (0..10_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    fn hash(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The Hub's answer about a file that it keeps itself.
    fn kept(asked: &Asked, body: &[u8]) -> Answer {
        let answer = Answer::of(200)
            .with("x-repo-commit", COMMIT)
            .with("etag", format!("\"{}\"", hash(body)))
            .with("content-length", body.len());
        if asked.method == "HEAD" {
            return answer;
        }
        let Some(range) = asked.header("range") else {
            return Answer { body: body.to_owned(), ..answer };
        };
        let start: usize = range["bytes=".len()..].trim_end_matches('-').parse().unwrap();
        let answer = Answer { status: 206, body: body[start..].to_owned(), ..answer };
        let (last, length) = (body.len() - 1, body.len());
        answer
            .with("content-range", format!("bytes {start}-{last}/{length}"))
            .with("content-length", length - start)
    }

    /// A hub at `url` with a cache of its own.
    fn hub(url: &str) -> (Hub, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (hub_in(url, folder.path()), folder)
    }

    fn hub_in(url: &str, cache: &Path) -> Hub {
        Hub {
            endpoint: url.parse().unwrap(),
            token: None,
            offline: false,
            cache: cache.to_owned(),
            patience: Duration::from_secs(5),
            pause: Duration::from_millis(1),
        }
    }

    fn with_token(hub: Hub) -> Hub {
        Hub { token: Token::new(TOKEN, "HF_TOKEN"), ..hub }
    }

    fn file() -> HubFile {
        HubFile::of_model("org/model", "tokenizer.json").unwrap()
    }

    fn fetch(hub: &Hub) -> anyhow::Result<Fetched> {
        hub.fetch(&file(), &mut |_| {})
    }

    /// How `fetch` fails, and that it does not tell the token.
    fn failure(hub: &Hub) -> String {
        let text = format!("{:#}", fetch(hub).unwrap_err());
        assert!(text.contains("hf://org/model/tokenizer.json"), "{text}");
        assert!(!text.contains(TOKEN), "{text}");
        text
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_url_of_a_file_is_read_and_written_as_python_does_it() {
        for (url, kind, id, revision, path) in [
            (
                "hf://org/model/tokenizer.json",
                RepoKind::Model,
                "org/model",
                "main",
                "tokenizer.json",
            ),
            ("hf://datasets/o/n@v1.0/d/f.json", RepoKind::Dataset, "o/n", "v1.0", "d/f.json"),
            ("hf://o/n@refs/pr/12/d/f", RepoKind::Model, "o/n", "refs/pr/12", "d/f"),
            (
                "hf://o/n@refs/convert/parquet/f",
                RepoKind::Model,
                "o/n",
                "refs/convert/parquet",
                "f",
            ),
            ("hf://o/n@fix%2Fit/f", RepoKind::Model, "o/n", "fix/it", "f"),
            ("hf://o/n@refs/f", RepoKind::Model, "o/n", "refs", "f"),
            ("hf://o/n@100%25/a@b c?#.json", RepoKind::Model, "o/n", "100%", "a@b c?#.json"),
            ("hf://o-1/N_a.b/f", RepoKind::Model, "o-1/N_a.b", "main", "f"),
        ] {
            let file = HubFile::parse(url).unwrap();
            let (id, revision, path) = (id.to_owned(), revision.to_owned(), path.to_owned());
            assert_eq!(file, HubFile { kind, id, revision, path });
            assert_eq!(file.to_string(), url);
        }
        let file = HubFile::parse("hf://models/o/n@main/f").unwrap();
        assert_eq!(file.to_string(), "hf://o/n/f");
        assert_eq!(HubFile::of_model("o/n@main", "f").unwrap(), file);
    }

    #[test]
    fn what_names_no_file_on_the_hub_is_refused() {
        for (url, fault) in [
            ("https://huggingface.co/o/n/f", "the form is hf://"),
            ("hf://", "the form is hf://"),
            ("hf://gpt2/tokenizer.json", "the form is hf://"),
            ("hf://o/n", "the form is hf://"),
            ("hf://o/n@v1", "the form is hf://"),
            ("hf://o/n@/f", "`` cannot be a revision"),
            ("hf://o/n@..%2F..%2Fx/f", "`../../x` cannot be a revision"),
            ("hf://o/n/", "`` cannot be a file"),
            ("hf://o/n/a//b", "`a//b` cannot be a file"),
            ("hf://o/n/../x", "`../x` cannot be a file"),
            ("hf://o/n/a\\b", "cannot be a file"),
            ("hf://o/n--m/f", "`o/n--m` cannot be a repository"),
            ("hf://o/.n/f", "`o/.n` cannot be a repository"),
            ("hf:///n/f", "`/n` cannot be a repository"),
            ("hf://o/n.git/f", "`o/n.git` cannot be a repository"),
            ("hf://spaces/o/n/f", "only models and datasets are read"),
        ] {
            let error = format!("{:#}", HubFile::parse(url).unwrap_err());
            assert!(error.contains(fault) && error.contains(url), "{url}: {error}");
        }
        assert!(HubFile::of_model("datasets/o", "n/f").is_err());
        assert!(HubFile::of_model("gpt2", "tokenizer.json").is_err());
    }

    #[test]
    fn the_environment_says_what_it_says_to_python() {
        let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        fs::write(&token_file, "hf_from_a_file\n").unwrap();
        let folder = folder.path().to_str().unwrap();
        let token_file = token_file.to_str().unwrap();
        let read = |set: &[(&str, &str)]| {
            let held =
                |name: &str| set.iter().find(|(held, _)| *held == name).map(|(_, v)| v.into());
            Hub::read(held)
        };
        let cache = |set: &[(&str, &str)]| read(set).unwrap().cache;
        let set = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "~/c"),
            ("XDG_CACHE_HOME", "/d"),
            (home, "/e"),
        ];
        assert_eq!(cache(&set), Path::new("/a"));
        assert_eq!(cache(&set[1..]), Path::new("/b"));
        assert_eq!(cache(&set[2..]), Path::new("/e/c/hub"));
        assert_eq!(cache(&set[3..]), Path::new("/d/huggingface/hub"));
        assert_eq!(cache(&set[4..]), Path::new("/e/.cache/huggingface/hub"));
        assert!(read(&[]).unwrap_err().to_string().contains("set HF_HOME"));

        let token = |set: &[(&str, &str)]| {
            let token = read(set).unwrap().token?;
            Some((token.secret.reveal().to_owned(), token.source))
        };
        let from_file = Some(("hf_from_a_file".to_owned(), token_file.to_owned()));
        let set = [("HF_TOKEN", " x\n"), ("HF_TOKEN_PATH", token_file), ("HF_HOME", "/none")];
        assert_eq!(token(&set), Some(("x".to_owned(), "HF_TOKEN".to_owned())));
        assert_eq!(token(&set[1..]), from_file);
        assert_eq!(token(&set[2..]), None);
        assert_eq!(token(&[("HF_TOKEN", ""), ("HF_HOME", folder)]), from_file);

        let offline = |value| read(&[(home, "/e"), ("HF_HUB_OFFLINE", value)]).unwrap().offline;
        assert!(["1", "true", "YES", "on"].into_iter().all(offline));
        assert!(!["0", "", "no"].into_iter().any(offline));

        let endpoint =
            |value| read(&[(home, "/e"), ("HF_ENDPOINT", value)]).map(|hub| hub.endpoint);
        assert_eq!(endpoint("").unwrap().as_str(), "https://huggingface.co/");
        assert_eq!(endpoint("http://[::1]:8080/hf/").unwrap().as_str(), "http://[::1]:8080/hf/");
        for wrong in ["huggingface.co", "ftp://x", "https://me:hf_x@huggingface.co"] {
            let error = endpoint(wrong).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("hf_x"), "{error}");
        }
    }

    #[test]
    fn a_fresh_download_lands_in_the_layout_of_python() {
        let server = Server::start(|asked| kept(asked, &content()));
        let (hub, folder) = hub(&format!("{}/below/", server.url));
        let file = HubFile::parse("hf://datasets/org/name@refs/pr/1/dir/a b.json").unwrap();
        let mut seen = Vec::new();
        let fetched = hub.fetch(&file, &mut |at| seen.push(at)).unwrap();

        let repo = folder.path().join("datasets--org--name");
        let blob = repo.join("blobs").join(hash(&content()));
        assert_eq!(fetched.path, repo.join("snapshots").join(COMMIT).join("dir").join("a b.json"));
        assert_eq!((fetched.commit.as_str(), fetched.note), (COMMIT, None));
        assert_eq!(fs::read(&fetched.path).unwrap(), content());
        assert_eq!(fs::read(&blob).unwrap(), content());
        assert_eq!(names(&repo.join("blobs")), [hash(&content())]);
        assert_eq!(fs::read_to_string(repo.join("refs/refs/pr/1")).unwrap(), COMMIT);
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(&fetched.path).unwrap(),
            Path::new("../../../blobs").join(hash(&content()))
        );

        let total = Some(content().len() as u64);
        assert_eq!(seen[0], Downloaded { bytes: 0, total });
        assert_eq!(seen.last(), Some(&Downloaded { bytes: content().len() as u64, total }));
        assert!(seen.is_sorted_by_key(|at| at.bytes));
        let (heads, gets) = (server.asked("HEAD"), server.asked("GET"));
        let below = "/below/datasets/org/name/resolve";
        assert_eq!(heads[0].path, format!("{below}/refs%2Fpr%2F1/dir/a%20b.json"));
        assert_eq!(gets[0].path, format!("{below}/{COMMIT}/dir/a%20b.json"));
        assert_eq!(gets[0].header("accept-encoding"), Some("identity"));
    }

    #[test]
    fn what_is_in_the_cache_is_not_downloaded_again() {
        let server = Server::start(|asked| kept(asked, &content()));
        let (hub, folder) = hub(&server.url);
        let first = fetch(&hub).unwrap();
        let count = |method| server.asked(method).len();
        assert_eq!((count("HEAD"), count("GET")), (1, 1));
        assert_eq!(fetch(&hub).unwrap(), first);
        assert_eq!((count("HEAD"), count("GET")), (2, 1));
        // A commit needs no question.
        let pinned = HubFile::of_model(&format!("org/model@{COMMIT}"), "tokenizer.json").unwrap();
        assert_eq!(hub.fetch(&pinned, &mut |_| {}).unwrap(), first);
        assert_eq!((count("HEAD"), count("GET")), (2, 1));
        // The same content elsewhere.
        let same = HubFile::of_model("org/model", "d/other.json").unwrap();
        let other = hub.fetch(&same, &mut |_| {}).unwrap();
        assert_eq!(fs::read(other.path).unwrap(), content());
        assert_eq!((count("HEAD"), count("GET")), (3, 1));
        // A blob that was cut short by something else.
        let blob = folder.path().join("models--org--model/blobs").join(hash(&content()));
        fs::write(&blob, "short").unwrap();
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        assert_eq!((count("HEAD"), count("GET")), (4, 2));
    }

    #[test]
    fn a_cut_download_goes_on_where_it_ended() {
        let server = Server::start(|asked| {
            let cut = [Some(1000), Some(0), Some(500)].get(asked.nth).copied().flatten();
            Answer { cut, ..kept(asked, &content()) }
        });
        let (hub, _folder) = hub(&server.url);
        let mut seen = Vec::new();
        let fetched = hub.fetch(&file(), &mut |at| seen.push(at.bytes)).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), content());
        let from = |start: &str| Some(format!("bytes={start}-"));
        assert_eq!(server.ranges(), [None, from("1000"), from("1000"), from("1500")]);
        assert!(seen.is_sorted());
    }

    #[test]
    fn another_run_goes_on_where_the_last_one_ended() {
        let server = Server::start(|asked| {
            let cut = (asked.nth < 5).then_some(if asked.nth == 0 { 1000 } else { 0 });
            Answer { cut, ..kept(asked, &content()) }
        });
        let (first, folder) = hub(&server.url);
        let error = failure(&first);
        assert!(error.contains("5 tries have brought nothing more"), "{error}");
        assert!(error.contains("the 1000 bytes that came are kept"), "{error}");
        let second = hub_in(&server.url, folder.path());
        assert_eq!(fs::read(fetch(&second).unwrap().path).unwrap(), content());
        assert_eq!(server.ranges().last().unwrap().as_deref(), Some("bytes=1000-"));
        assert_eq!(names(&folder.path().join("models--org--model/blobs")), [hash(&content())]);
    }

    #[test]
    fn a_download_that_falls_silent_is_taken_up_again() {
        let server = Server::start(|asked| {
            let delay = Duration::from_millis(if asked.is("GET", 0) { 600 } else { 0 });
            Answer { delay, ..kept(asked, &content()) }
        });
        let (hub, _folder) = hub(&server.url);
        let hub = Hub { patience: Duration::from_millis(200), ..hub };
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        assert_eq!(server.ranges(), [None, None]);
    }

    #[test]
    fn a_server_without_ranges_sends_the_file_from_the_start() {
        let server = Server::start(|asked| {
            let mut plain = asked.clone();
            plain.headers.retain(|(name, _)| name != "range");
            let cut = asked.is("GET", 0).then_some(1000);
            Answer { cut, ..kept(&plain, &content()) }
        });
        let (hub, _folder) = hub(&server.url);
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        assert_eq!(server.ranges(), [None, Some("bytes=1000-".to_owned())]);
    }

    #[test]
    fn a_server_that_gives_less_than_was_asked_for_is_asked_for_the_rest() {
        let server = Server::start(|asked| {
            let mut answer = kept(asked, &content());
            match asked.method.as_str() {
                "GET" if asked.nth == 0 => Answer { cut: Some(1000), ..answer },
                "GET" if 15_000 < answer.body.len() => {
                    answer.body.truncate(15_000);
                    answer.with("content-length", 15_000)
                }
                _ => answer,
            }
        });
        let (hub, _folder) = hub(&server.url);
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        let starts: Vec<_> = server.ranges().into_iter().flatten().collect();
        assert_eq!(starts, ["bytes=1000-", "bytes=16000-", "bytes=31000-"]);
    }

    #[test]
    fn a_range_that_is_refused_is_given_up() {
        for refusal in [416, 206] {
            let server = Server::start(move |asked| match asked.header("range") {
                Some(_) => Answer::of(refusal),
                None => {
                    Answer { cut: asked.is("GET", 0).then_some(1000), ..kept(asked, &content()) }
                }
            });
            let (hub, _folder) = hub(&server.url);
            assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
            assert_eq!(server.ranges(), [None, Some("bytes=1000-".to_owned()), None]);
        }
    }

    #[test]
    fn a_file_of_another_size_or_content_than_announced_is_thrown_away() {
        let (short, long, other) = (vec![1; 4], vec![1; 40_004], vec![1; 40_000]);
        for (sent, fault) in [
            (short, "is to have 40000 bytes, and the server sent 4:"),
            (long, "is to have 40000 bytes, and the server sent more:"),
            (other, "is to have the SHA-256"),
        ] {
            let server = Server::start(move |asked| {
                let body = if asked.is("GET", 0) { &sent } else { &content() };
                kept(asked, body)
            });
            let (hub, folder) = hub(&server.url);
            let error = failure(&hub);
            assert!(error.contains(fault) && error.contains("try again"), "{error}");
            let repo = folder.path().join("models--org--model");
            assert!(names(&repo.join("blobs")).is_empty());
            assert!(!repo.join("snapshots").exists() && !repo.join("refs").exists());
            assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        }
    }

    #[test]
    fn a_file_of_unknown_size_and_hash_is_taken_as_it_comes() {
        let server = Server::start(|asked| {
            let answer = kept(asked, &content());
            if asked.method == "HEAD" {
                return answer.with("etag", "W/\"abc\"").without_length();
            }
            Answer { cut: asked.is("GET", 0).then_some(1000), ..answer }
        });
        let (hub, folder) = hub(&server.url);
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        assert_eq!(names(&folder.path().join("models--org--model/blobs")), ["abc"]);
        assert_eq!(server.ranges(), [None, Some("bytes=1000-".to_owned())]);
    }

    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        let quoted = format!("Invalid credentials: {TOKEN}");
        for (status, code, message, token, saying) in [
            (401, "GatedRepo", "", false, "is gated: accept its terms at {} and set HF_TOKEN"),
            (
                403,
                "GatedRepo",
                "",
                true,
                "the token in HF_TOKEN may not read it: accept its terms at {}",
            ),
            (401, "RepoNotFound", "", false, "has no such repository, or it is private"),
            (404, "RepoNotFound", "", true, "or the token in HF_TOKEN may not read it"),
            (404, "RevisionNotFound", "", true, "the repository has no revision `main`: see {}"),
            (
                404,
                "EntryNotFound",
                "",
                false,
                "no such file at the revision `main`: see {}/tree/main",
            ),
            (404, "", "", false, "has no such repository, revision or file"),
            (401, "", "", false, "accept its terms at {} and set HF_TOKEN"),
            (
                401,
                "",
                &quoted,
                true,
                "the token in HF_TOKEN may not read it (401 Unauthorized: Invalid",
            ),
            (403, "", "Not yours.", true, "may not read it (403 Forbidden: Not yours.)"),
            (418, "", "I am a teapot.", false, "answers 418 I'm a teapot: I am a teapot."),
            (503, "", "", true, "answers 503 Service Unavailable; look at the network"),
        ] {
            let message = message.to_owned();
            let server = Server::start(move |_| {
                let answer = Answer::of(status);
                let answer =
                    if code.is_empty() { answer } else { answer.with("x-error-code", code) };
                answer.with("x-error-message", &message)
            });
            let (mut hub, _folder) = hub(&server.url);
            if token {
                hub = with_token(hub);
            }
            let error = failure(&hub);
            let saying = saying.replace("{}", &format!("{}/org/model", server.url));
            assert!(error.contains(&saying), "{status} {code}: {error}");
        }
    }

    #[test]
    fn what_does_not_answer_as_the_hub_does_is_no_hub() {
        for (name, value) in [("x-repo-commit", ""), ("x-repo-commit", ".."), ("etag", "\"../x\"")]
        {
            let server = Server::start(move |asked| kept(asked, &content()).with(name, value));
            let (hub, folder) = hub(&server.url);
            let error = failure(&hub);
            assert!(error.contains("look at HF_ENDPOINT"), "{error}");
            assert!(names(folder.path()).is_empty());
        }
    }

    #[test]
    fn offline_only_the_cache_is_asked() {
        let server = Server::start(|asked| kept(asked, &content()));
        let (online, folder) = hub(&server.url);
        let offline = Hub { offline: true, ..hub_in(&server.url, folder.path()) };
        let error = failure(&offline);
        assert!(error.contains("this run is offline"), "{error}");
        assert!(server.asked("HEAD").is_empty());
        let fetched = fetch(&online).unwrap();
        assert_eq!(fetch(&offline).unwrap(), fetched);
        let pinned = HubFile::of_model(&format!("org/model@{COMMIT}"), "tokenizer.json").unwrap();
        assert_eq!(offline.fetch(&pinned, &mut |_| {}).unwrap(), fetched);
        assert_eq!(server.asked("HEAD").len(), 1);
    }

    #[test]
    fn a_hub_out_of_reach_is_replaced_by_the_cache() {
        let server = Server::start(|asked| {
            if asked.is("HEAD", 0) || asked.method == "GET" {
                kept(asked, &content())
            } else {
                Answer::of(502)
            }
        });
        let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nowhere = format!("http://{nowhere}");
        let (hub, folder) = hub(&server.url);
        let away = hub_in(&nowhere, folder.path());
        let error = failure(&away);
        assert!(error.contains("refused") && error.contains("HF_ENDPOINT"), "{error}");
        let fetched = fetch(&hub).unwrap();
        for (hub, why) in [(away, "refused"), (hub, "answers 502 Bad Gateway")] {
            let again = fetch(&hub).unwrap();
            let note = again.note.unwrap();
            assert!(
                note.contains("hf://org/model/tokenizer.json is taken from the cache"),
                "{note}"
            );
            assert!(note.contains(COMMIT) && note.contains(why), "{note}");
            assert_eq!((again.path, again.commit), (fetched.path.clone(), fetched.commit.clone()));
        }
    }

    #[test]
    fn a_hub_that_stumbles_is_asked_again() {
        let server =
            Server::start(
                |asked| {
                    if asked.nth == 0 { Answer::of(503) } else { kept(asked, &content()) }
                },
            );
        let (hub, _folder) = hub(&server.url);
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
    }

    #[test]
    fn the_token_goes_to_the_hub_and_to_nobody_else() {
        let elsewhere = Server::start(|asked| kept(asked, &content()));
        let to = format!("{}/blob?signature=secret", elsewhere.url);
        let server = Server::start(move |asked| {
            if !asked.path.starts_with("/moved") {
                // To another name of the same repository.
                return Answer::of(307).with("location", format!("/moved{}", asked.path));
            }
            Answer::of(302)
                .with("location", &to)
                .with("x-repo-commit", COMMIT)
                .with("x-linked-etag", format!("\"{}\"", hash(&content())))
                .with("x-linked-size", content().len())
        });
        let (hub, _folder) = hub(&server.url);
        let hub = with_token(hub);
        assert_eq!(fs::read(fetch(&hub).unwrap().path).unwrap(), content());
        let all = [server.asked("HEAD"), server.asked("GET")].concat();
        assert_eq!(all.len(), 4);
        let bearer = format!("Bearer {TOKEN}");
        assert!(all.iter().all(|asked| asked.header("authorization") == Some(&bearer)), "{all:?}");
        let outside = elsewhere.asked("GET");
        assert_eq!(outside.len(), 1);
        assert_eq!(outside[0].header("authorization"), None);
        assert!(elsewhere.asked("HEAD").is_empty());
        assert!(!format!("{hub:?}").contains(TOKEN));
    }

    #[test]
    fn a_mirror_that_sends_on_to_the_hub_is_followed_without_the_token() {
        let elsewhere = Server::start(|asked| kept(asked, &content()));
        let to = elsewhere.url.clone();
        let mirror = Server::start(move |asked| {
            Answer::of(308).with("location", format!("{to}{}", asked.path))
        });
        let (hub, _folder) = hub(&mirror.url);
        assert_eq!(fs::read(fetch(&with_token(hub)).unwrap().path).unwrap(), content());
        assert_eq!(elsewhere.asked("HEAD")[0].header("authorization"), None);
        assert_eq!(elsewhere.asked("GET")[0].header("authorization"), None);

        let circle = Server::start(|asked| Answer::of(302).with("location", &asked.path));
        let (hub, _folder) = self::hub(&circle.url);
        let error = failure(&hub);
        assert!(error.contains("redirects in circles"), "{error}");
    }

    #[test]
    fn what_keeps_the_file_is_named_when_it_refuses_and_its_url_is_not() {
        let elsewhere = Server::start(|_| Answer::of(403));
        let (to, named) = (format!("{}/x?signature=secret", elsewhere.url), elsewhere.url.clone());
        let server =
            Server::start(move |asked| kept(asked, &content()).with("location", &to).status(302));
        let (hub, _folder) = hub(&server.url);
        let error = failure(&with_token(hub));
        assert!(error.contains(&format!("{named} answers 403 Forbidden")), "{error}");
        assert!(!error.contains("signature"), "{error}");
    }

    #[test]
    fn those_who_fetch_at_once_download_once() {
        let server = Server::start(|asked| {
            let delay = Duration::from_millis(if asked.method == "GET" { 150 } else { 0 });
            Answer { delay, ..kept(asked, &content()) }
        });
        let (hub, folder) = hub(&server.url);
        std::thread::scope(|scope| {
            let hubs = [(); 4].map(|()| hub_in(&server.url, folder.path()));
            let all = hubs.map(|hub| scope.spawn(move || fetch(&hub)));
            for one in all {
                assert_eq!(fs::read(one.join().unwrap().unwrap().path).unwrap(), content());
            }
        });
        drop(hub);
        assert_eq!(server.asked("GET").len(), 1);
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_not_shown() {
        let (hub, _folder) = hub("http://127.0.0.1:9");
        let hub = Hub { token: Token::new("hf_abc\u{7}defgh", "HF_TOKEN"), ..hub };
        let error = format!("{:#}", fetch(&hub).unwrap_err());
        assert_eq!(error, "the token in HF_TOKEN cannot be sent");
    }
}
