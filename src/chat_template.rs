//! A model's chat template as Hugging Face's transformers renders it: messages in, one prompt out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use jiff::ZonedDateTime;
use jiff::fmt::strtime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, context, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::plain::{plain, quoted};
use crate::prompt::{Message, Role};

/// What a model's messages look like in its prompt.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The file that it was read from.
    path: PathBuf,
    /// Whether it can put values into each other deeper than its text does.
    is_deep: bool,
    /// By name, for example `bos_token`.
    special_tokens: Value,
}

/// What the template is called in the errors of the library.
const NAME: &str = "chat_template";

/// What a template may use up for one conversation: an instruction costs 1, and 64 bytes of what it makes
/// cost 1. It bounds time and memory, of a template that never ends too.
const FUEL: u64 = 300_000;
/// What it may use up in addition for each message.
const FUEL_OF_A_MESSAGE: u64 = 2000;
/// What it may use up in addition for each byte of the conversation.
const FUEL_OF_A_BYTE: u64 = 2;
/// No template that is larger than this, bytes, is of a model.
const MOST_SOURCE_BYTES: usize = 1 << 20;
/// The stack that values take which a template has put into each other, as deep as its fuel allows.
const STACK_BYTES: usize = 256 << 20;
/// What a byte of JSON costs in 64ths, as in the library's own filter.
const JSON_BYTES_OF_A_FUEL: u64 = 4;
/// The most that JSON may be indented by.
const MOST_INDENT: usize = 64;
/// JSON that is deeper than this is no conversation.
const DEEPEST: usize = 128;

const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// Reads the template of a model's folder: its `chat_template.jinja`, or what its
    /// `tokenizer_config.json` says. `None` where neither holds one.
    pub fn load(folder: &Path) -> anyhow::Result<Option<Self>> {
        let config = Config::read(folder.join("tokenizer_config.json"))?;
        let path = folder.join("chat_template.jinja");
        let (path, source) = match read_if_there(&path)? {
            Some(source) => (path, source),
            None => match config.template()? {
                Some(source) => (config.path.clone(), source.to_owned()),
                None => return Ok(None),
            },
        };
        if MOST_SOURCE_BYTES < source.len() {
            let most = MOST_SOURCE_BYTES >> 10;
            bail!("the chat template in `{}` is larger than {most} KiB", path.display());
        }
        // Only what a loop keeps in a namespace grows with each time around.
        let is_deep = source.contains("namespace") || DEEPEST << 6 < source.len();
        let environment = environment(&source)
            .with_context(|| format!("read the chat template in `{}`", path.display()))?;
        let special_tokens = config.special_tokens()?;
        Ok(Some(Self { environment, path, is_deep, special_tokens }))
    }

    /// The text of a conversation, which may name its `tools`; with `add_generation_prompt`, up to where
    /// the model begins to answer.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Json>,
        add_generation_prompt: bool,
    ) -> anyhow::Result<String> {
        self.render_at(&ZonedDateTime::now(), messages, tools, add_generation_prompt)
    }

    fn render_at(
        &self,
        now: &ZonedDateTime,
        messages: &[Message],
        tools: Option<&Json>,
        add_generation_prompt: bool,
    ) -> anyhow::Result<String> {
        // An error may hold the values of the template, and has to go where there is room for them.
        let render = || {
            let rendered = self.rendered(now, messages, tools, add_generation_prompt);
            rendered.map_err(|error| self.explained(error.into()))
        };
        if !self.is_deep {
            return render();
        }
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = builder.spawn_scoped(scope, render).context("start a thread")?;
            thread.join().map_err(|_| anyhow!("the chat template ended its thread"))?
        })
    }

    fn rendered(
        &self,
        now: &ZonedDateTime,
        messages: &[Message],
        tools: Option<&Json>,
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let now = now.clone();
        let strftime_now = move |format: &str| {
            strtime::format(format, &now).map_err(|error| {
                Error::new(ErrorKind::InvalidOperation, "strftime").with_source(error)
            })
        };
        let shown: Vec<Shown<'_>> = messages.iter().map(Shown::of).collect();
        let context = context! {
            messages => Serde(&shown),
            add_generation_prompt,
            // Templates tell "none" from "not defined", and transformers defines them always.
            tools => tools.map(Serde),
            documents => (),
            strftime_now => Value::from_function(strftime_now),
            ..self.special_tokens.clone()
        };
        let bytes: usize = shown.iter().map(|message| message.content.len()).sum();
        let fuel = FUEL + FUEL_OF_A_MESSAGE * messages.len() as u64 + FUEL_OF_A_BYTE * bytes as u64;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        environment.get_template(NAME)?.render(context)
    }

    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let path = plain(&self.path.display().to_string());
        let fault = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
        if let Some(Refusal(why)) = error.chain().find_map(|cause| cause.downcast_ref()) {
            let why = quoted(why);
            return anyhow!("the chat template in `{path}` refuses the messages: {why}");
        }
        if fault.is_some_and(|fault| fault.kind() == ErrorKind::OutOfFuel) {
            let line = fault.and_then(Error::line).unwrap_or(1);
            return anyhow!(
                "the chat template in `{path}` takes too much time or memory for one conversation: it was \
                 stopped at line {line}"
            );
        }
        let error = quoted(&format!("{error:#}"));
        anyhow!("render the chat template in `{path}`: {error}")
    }
}

/// A message as transformers shows it to a template: parts are texts, and the arguments of calls are
/// objects.
#[derive(Serialize)]
struct Shown<'a> {
    role: Role,
    content: Cow<'a, str>,
    #[serde(flatten)]
    fields: Cow<'a, serde_json::Map<String, Json>>,
}

impl<'a> Shown<'a> {
    fn of(message: &'a Message) -> Self {
        let mut fields = Cow::Borrowed(&message.fields);
        if fields.contains_key("tool_calls")
            && let Some(Json::Array(calls)) = fields.to_mut().get_mut("tool_calls")
        {
            for call in calls {
                if let Some(arguments) = call.pointer_mut("/function/arguments")
                    && let Some(object) = arguments.as_str().and_then(parsed_object)
                {
                    *arguments = object;
                }
            }
        }
        Self { role: message.role, content: message.text(), fields }
    }
}

fn parsed_object(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok().filter(Json::is_object)
}

/// A template called `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// What `tokenizer_config.json` holds; nothing where it is missing.
struct Config {
    path: PathBuf,
    json: serde_json::Map<String, Json>,
}

impl Config {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let json = match read_if_there(&path)? {
            Some(text) => serde_json::from_str(&text)
                .with_context(|| format!("parse `{}`", path.display()))?,
            None => serde_json::Map::new(),
        };
        Ok(Self { path, json })
    }

    /// Some models have several templates by name.
    fn template(&self) -> anyhow::Result<Option<&str>> {
        let path = self.path.display();
        let of_name = |name| move |entry: &&Json| entry["name"] == name;
        match self.json.get("chat_template") {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(source)) => Ok(Some(source)),
            Some(Json::Array(named)) => {
                let default = named.iter().find(of_name("default"));
                let source = default.and_then(|entry| entry["template"].as_str());
                source.map(Some).with_context(|| {
                    format!("`{path}`: expected a `default` among the templates of `chat_template`")
                })
            }
            Some(_) => bail!("`{path}`: expected a text or a list of templates as `chat_template`"),
        }
    }

    fn special_tokens(&self) -> anyhow::Result<Value> {
        let mut tokens = BTreeMap::new();
        for name in SPECIAL_TOKENS {
            let token = match self.json.get(name) {
                None | Some(Json::Null) => continue,
                Some(Json::String(token)) => Some(token.as_str()),
                Some(token) => token["content"].as_str(),
            };
            let token = token.with_context(|| {
                let path = self.path.display();
                format!("`{path}`: expected a text, or an object with its `content`, as `{name}`")
            })?;
            tokens.insert(name.to_owned(), token.to_owned());
        }
        Ok(Value::from(tokens))
    }
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
    }
}

/// Jinja as transformers sets it up, with the one template.
fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter("tojson", to_json);
    // In Python, nothing is no list, and texts and objects have items.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    environment.add_function("raise_exception", |why: String| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, "the template refuses");
        Err(error.with_source(Refusal(why)))
    });
    // Jinja reads all ends of lines as one.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    environment.add_template_owned(NAME, without_generation_tags(&source))?;
    Ok(environment)
}

/// Training marks the model's own words with `{% generation %}`. Nothing of it is printed; what is
/// set between the tags is not seen after them, as with `{% with %}`.
fn without_generation_tags(source: &str) -> String {
    let mut tags = source.split("{%");
    let mut result = tags.next().unwrap_or_default().to_owned();
    for tag in tags {
        let rest = tag.trim_start_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        let (mark, rest) = tag.split_at(tag.len() - rest.len());
        let word =
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let replaced = match word {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        };
        result.extend(["{%", mark, replaced, &rest[word.len()..]]);
    }
    result
}

/// JSON as Python writes it: with spaces, and nothing escaped for HTML.
fn to_json(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<String, Error> {
    let refused = |what: &str| Error::new(ErrorKind::InvalidOperation, what.to_owned());
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(refused("tojson cannot escape what is not ASCII"));
    }
    options.assert_all_used()?;
    if indent.is_some_and(|indent| MOST_INDENT < indent) {
        return Err(refused("tojson cannot indent so far"));
    }
    if !is_shallow(state, value, DEEPEST)? {
        return Err(refused("tojson cannot write values so deep"));
    }

    let left = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
    let room = left.saturating_mul(JSON_BYTES_OF_A_FUEL);
    let mut json = Bounded { json: Vec::new(), room: usize::try_from(room).unwrap_or(usize::MAX) };
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent);
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Spaced)),
    };
    state.consume_fuel(json.json.len() as u64 / JSON_BYTES_OF_A_FUEL)?;
    if json.is_full() {
        return Err(ErrorKind::OutOfFuel.into());
    }
    let bad = |error| Error::new(ErrorKind::BadSerialization, "tojson").with_source(error);
    written.map_err(bad)?;
    Ok(String::from_utf8_lossy(&json.json).into_owned())
}

/// Whether what holds values is at most `levels` deep. To look at a value costs fuel.
fn is_shallow(state: &State<'_, '_>, value: &Value, levels: usize) -> Result<bool, Error> {
    state.consume_fuel(1)?;
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(true);
    }
    let Some(levels) = levels.checked_sub(1) else { return Ok(false) };
    for inner in value.try_iter()? {
        let inner = if is_map { value.get_item(&inner)? } else { inner };
        if !is_shallow(state, &inner, levels)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// JSON that ends where there is no more room.
struct Bounded {
    json: Vec<u8>,
    room: usize,
}

impl Bounded {
    fn is_full(&self) -> bool {
        self.room <= self.json.len()
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room.saturating_sub(self.json.len()) <= bytes.len() {
            self.room = self.json.len();
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.json.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.begin_array_value(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' -}}
{% endif %}
";

    const LLAMA: &str = r#"{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
"#;

    const GEMMA: &str = "\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role, please') }}{% endif %}\
{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate user/assistant/user') }}{% endif %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<turn>model\n'}}{% endif %}";

    const MISTRAL: &str = r#"{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{#- Only these must alternate. #}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("Roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS]" + tools | tojson }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"] + eos_token }}
    {%- endif %}
{%- endfor %}
"#;

    const QWEN: &str = r#"{%- if tools %}
    {{- 'tools: ' + tools | tojson }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"#;

    const TOKENS: &str = r#"{
        "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "unk_token": null
    }"#;

    fn loaded(files: &[(&str, &str)]) -> anyhow::Result<Option<ChatTemplate>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        ChatTemplate::load(folder.path())
    }

    fn template(source: &str) -> ChatTemplate {
        let files = [("chat_template.jinja", source), ("tokenizer_config.json", TOKENS)];
        loaded(&files).unwrap().unwrap()
    }

    fn messages(of: &[(Role, &str)]) -> Vec<Message> {
        of.iter().map(|&(role, content)| Message::new(role, content)).collect()
    }

    fn rendered(source: &str, of: &[(Role, &str)]) -> anyhow::Result<String> {
        let now = "2024-07-06T12:30:00[UTC]".parse().unwrap();
        template(source).render_at(&now, &messages(of), None, true)
    }

    use Role::{Assistant, System, User};

    #[test]
    fn a_conversation_is_printed_turn_by_turn() {
        let conversation =
            [(System, "Be brief."), (User, " Hi! "), (Assistant, "Hello."), (User, "")];
        assert_eq!(
            rendered(CHATML, &conversation).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n\
             <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\n<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }

    #[test]
    fn the_models_turn_begins_where_it_is_asked_for() {
        let conversation = messages(&[(User, "Hi")]);
        let render = |turn| template(CHATML).render(&conversation, None, turn).unwrap();
        assert_eq!(render(false), "<|im_start|>user\nHi<|im_end|>\n");
        assert_eq!(render(true), render(false) + "<|im_start|>assistant\n");
    }

    #[test]
    fn templates_know_the_date_the_special_tokens_and_that_there_are_no_tools() {
        assert_eq!(
            rendered(LLAMA, &[(User, "Hi\n")]).unwrap(),
            "<s><|start|>system<|end|>\n\nToday Date: 06 Jul 2024\n\n<|eot|>\
             <|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n"
        );
        let with_system = rendered(LLAMA, &[(System, "Be brief."), (User, "Hi")]).unwrap();
        assert!(with_system.contains("\n\nBe brief.<|eot|><|start|>user"), "{with_system}");
        let tokens = "[{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ unk_token is defined }}]";
        assert_eq!(rendered(tokens, &[]).unwrap(), "[<s>|</s>||False]");
    }

    #[test]
    fn what_a_template_refuses_is_an_error_with_its_reason() {
        assert_eq!(
            rendered(GEMMA, &[(User, "a"), (Assistant, "b"), (User, "c")]).unwrap(),
            "<s><turn>user\na<end>\n<turn>model\nb<end>\n<turn>user\nc<end>\n<turn>model\n"
        );
        for (source, conversation, reason) in [
            (GEMMA, [(System, "a"), (User, "b")], "No system role, please"),
            (GEMMA, [(User, "a"), (User, "b")], "Roles must alternate user/assistant/user"),
            (MISTRAL, [(User, "a"), (User, "b")], "Roles must alternate"),
        ] {
            let error = format!("{:#}", rendered(source, &conversation).unwrap_err());
            assert!(error.contains("chat_template.jinja` refuses the messages"), "{error}");
            assert!(error.ends_with(&format!(": {reason}")), "{error}");
        }
    }

    #[test]
    fn namespaces_and_selections_work() {
        let conversation = [(System, "Be brief."), (User, "a"), (Assistant, "b"), (User, "c")];
        assert_eq!(
            rendered(MISTRAL, &conversation).unwrap(),
            "<s>[INST] a[/INST] b</s>[INST] Be brief.\n\nc[/INST]"
        );
    }

    #[test]
    fn slices_and_the_methods_of_strings_work() {
        let conversation =
            [(User, "a"), (Assistant, "<think>\nhm\n</think>\n\nb"), (User, "<tool>c</tool>")];
        assert_eq!(
            rendered(QWEN, &conversation).unwrap(),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</think>\n\nb<|im_end|>\n\
             <|im_start|>user\n<tool>c</tool><|im_end|>\n<|im_start|>assistant\n"
        );
        let conversation = [(System, "Be brief."), (Assistant, "<think>x</think>b"), (User, "c")];
        assert_eq!(
            rendered(QWEN, &conversation).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
             <|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        for (source, expected) in [
            ("{{ [true, none] | tojson }} {{ true }} {{ none }}", "[true, null] True None"),
            ("{{ messages[0] | tojson }}", r#"{"role": "user", "content": "<é> & 'x' \"y\"\n"}"#),
            (
                "{{ {'b': [1, {}], 'a': 2.5} | tojson(indent=2) }}",
                "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": 2.5\n}",
            ),
            ("{{ 'é' | tojson(ensure_ascii=False) }}", "\"é\""),
            ("{{ messages[0].content }}", "<é> & 'x' \"y\"\n"),
            (
                "{{ tools is iterable }} {{ 'a' is iterable }} {{ 'a' is sequence }} {{ 5 is sequence }}",
                "False True True False",
            ),
        ] {
            let rendered = rendered(source, &[(User, "<é> & 'x' \"y\"\n")]).unwrap();
            assert_eq!(rendered, expected, "{source}");
        }
        let escaped = rendered("{{ 'é' | tojson(ensure_ascii=true) }}", &[]).unwrap_err();
        assert!(format!("{escaped:#}").contains("tojson cannot escape"), "{escaped:#}");
    }

    #[test]
    fn loops_can_be_left_and_ends_of_lines_are_one() {
        let source = "{% for message in messages %}\r\n  {% if loop.index0 == 1 %}{% continue %}{% endif %}\r\n\
                      {% if loop.index0 == 3 %}{% break %}{% endif %}\r\n{{ message.content }}\r\n{% endfor %}\r\n";
        let conversation = [(User, "a"), (User, "b"), (User, "c"), (User, "d")];
        assert_eq!(rendered(source, &conversation).unwrap(), "a\nc\n");
    }

    #[test]
    fn marks_of_generated_text_leave_no_trace() {
        let source = "{% for message in messages %}\n\
                      {%- generation -%}\n  {{ message.content }}\n{% endgeneration +%}\n\
                      {% generation %}\n{% set generation = 'x' %}{{ generation }}{%- endgeneration %}\n\
                      {% endfor %}";
        assert_eq!(
            rendered(source, &[(Assistant, "a"), (Assistant, "b")]).unwrap(),
            "a\n\nxb\n\nx"
        );
    }

    #[test]
    fn a_template_is_found_in_either_file() {
        let config = |template: &str| {
            format!(r#"{{"bos_token": "<s>", "add_bos_token": true, "chat_template": {template}}}"#)
        };
        let in_config = r#""{{ bos_token }}{{ messages[0].content }}""#;
        let named = r#"[{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token }}yes"}]"#;
        let jinja = ("chat_template.jinja", "{{ bos_token }}file\n");
        for (files, expected) in [
            (vec![("tokenizer_config.json", config(in_config))], "<s>Hi"),
            (vec![("tokenizer_config.json", config(named))], "<s>yes"),
            (
                vec![("tokenizer_config.json", config(in_config)), (jinja.0, jinja.1.to_owned())],
                "<s>file",
            ),
            (vec![(jinja.0, jinja.1.to_owned())], "file"),
        ] {
            let files: Vec<(&str, &str)> =
                files.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let template = loaded(&files).unwrap().unwrap();
            assert_eq!(template.render(&messages(&[(User, "Hi")]), None, true).unwrap(), expected);
        }
    }

    #[test]
    fn a_model_may_have_no_template() {
        assert!(loaded(&[]).unwrap().is_none());
        assert!(loaded(&[("tokenizer_config.json", TOKENS)]).unwrap().is_none());
        assert!(
            loaded(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]).unwrap().is_none()
        );
        assert!(ChatTemplate::load(Path::new("none")).unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let config = "tokenizer_config.json";
        for (name, text, part) in [
            (config, "{", "EOF while parsing"),
            (config, "[]", "expected a map"),
            (config, r#"{"chat_template": 5}"#, "expected a text or a list of templates"),
            (
                config,
                r#"{"chat_template": [{"name": "rag", "template": ""}]}"#,
                "expected a `default`",
            ),
            (config, r#"{"chat_template": "", "eos_token": 5}"#, "as `eos_token`"),
            (config, r#"{"chat_template": "{% if %}"}"#, "syntax error"),
            ("chat_template.jinja", "\n{{ messages", "syntax error"),
            ("chat_template.jinja", "{{ 'a' | wrong }}", "wrong"),
        ] {
            let loaded = loaded(&[(name, text)]);
            let error = match loaded {
                Ok(template) => template.unwrap().render(&[], None, true).unwrap_err(),
                Err(error) => error,
            };
            let error = format!("{error:#}");
            assert!(error.contains(name) && error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_fault_of_a_template_names_its_file_and_line() {
        let error = rendered("\n{{ messages[0].content + 5 }}", &[(User, "Hi")]).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("chat_template.jinja`") && error.contains("chat_template:2"),
            "{error}"
        );
    }

    #[test]
    fn a_template_that_makes_too_much_is_stopped_and_named() {
        let deep = |levels: u32| {
            format!(
                "{{% set ns = namespace(l=[]) %}}{{% for i in range({levels}) %}}{{% set ns.l = [ns.l] %}}\
                 {{% endfor %}}"
            )
        };
        for (source, why) in [
            (
                "{% set ns = namespace(s='aaaaaaaa') %}\n{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}\
                 {% endfor %}{{ ns.s }}",
                "too much time or memory",
            ),
            ("{% set s = 'x' * 90000000 %}{{ s + s + s + s }}", "too much time or memory"),
            ("{{ 'x' * 1000000000000 }}", "too much time or memory"),
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
                "too much time or memory",
            ),
            (
                "{% macro m(s) %}{{ m(s ~ s) }}{% endmacro %}{{ m('aaaaaaaa') }}",
                "too much time or memory",
            ),
            ("{{ range(99999999) | list | length }}", "chat_template:1"),
            ("{{ ([messages] * 90000000) | tojson | length }}", "too much time or memory"),
            (
                "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}\
                 {% endfor %}{{ ns.l | tojson }}",
                "too much time or memory",
            ),
            ("{{ messages | tojson(indent=999999999) }}", "cannot indent so far"),
            ("{{ ('x' * 1000) | replace('', 'y' * 1000000) }}", "too much time or memory"),
            ("{{ (('x,' * 100000).split(',')) | join('y' * 100000) }}", "too much time or memory"),
            ("{{ ('x' * 1000).replace('', 'y' * 1000000) }}", "too much time or memory"),
            ("{{ '%999999999d' | format(1) }}", "too much time or memory"),
            (&(deep(20_000) + "{{ ns.l | tojson }}"), "so deep"),
            (&(deep(90_000) + "{{ ns.l }}"), "too much time or memory"),
        ] {
            let error = rendered(source, &[(User, "Hi")]).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("chat_template.jinja`"), "{source}: {error}");
            assert!(error.contains(why) && !error.contains('\n'), "{source}: {error}");
        }
    }

    #[test]
    fn a_long_conversation_has_fuel_enough() {
        let long = "word ".repeat(200_000);
        let conversation: Vec<(Role, &str)> =
            (0..20).map(|turn| (if turn % 2 == 0 { User } else { Assistant }, &*long)).collect();
        for source in [CHATML, QWEN, MISTRAL, GEMMA] {
            let length = rendered(source, &conversation).unwrap().len();
            assert!(15 * long.len() < length, "{length}");
        }
    }

    #[test]
    fn what_a_template_says_is_one_plain_line() {
        let source = "{{ raise_exception('\u{1b}[31mred\n::error::x' ~ 'y' * 9000) }}";
        let error = format!("{:#}", rendered(source, &[]).unwrap_err());
        assert!(error.contains("refuses the messages: \\u{1b}[31mred ::error::xyyy"), "{error}");
        assert!(error.len() < 500 && !error.contains(['\n', '\u{1b}']), "{error}");
    }

    #[test]
    fn templates_see_tools_calls_and_texts_of_parts() {
        let source = "{% for m in messages %}{{ m.role }}:{{ m.content }}\
            {% for call in m.tool_calls %}{{ call.function.name }}({{ call.function.arguments.city }})\
            {% endfor %};{% endfor %}{{ tools | tojson }}";
        let messages: Vec<Message> = serde_json::from_str(
            r#"[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
                {"role": "assistant", "content": null, "tool_calls":
                    [{"function": {"name": "f", "arguments": "{\"city\": \"Bonn\"}"}}]},
                {"role": "tool", "content": "42", "tool_call_id": "c"}]"#,
        )
        .unwrap();
        let tools = serde_json::json!([{ "type": "function" }]);
        let rendered = template(source).render(&messages, Some(&tools), true).unwrap();
        assert_eq!(rendered, r#"user:a;assistant:f(Bonn);tool:42;[{"type": "function"}]"#);
    }

    #[test]
    fn roles_are_written_as_the_servers_read_them() {
        let message = Message::new(Assistant, "Hi");
        let json = r#"{"role":"assistant","content":"Hi"}"#;
        assert_eq!(serde_json::to_string(&message).unwrap(), json);
        assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
    }
}
