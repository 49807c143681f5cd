//! A model's chat template as Hugging Face's transformers renders it: messages in, one prompt out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use jiff::ZonedDateTime;
use jiff::fmt::strtime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::prompt::Message;

/// What a model's messages look like in its prompt.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The file that it was read from.
    path: PathBuf,
    /// By name, for example `bos_token`.
    special_tokens: Value,
}

/// What the template is called in the errors of the library.
const NAME: &str = "chat_template";

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
        let environment = environment(&source)
            .with_context(|| format!("read the chat template in `{}`", path.display()))?;
        Ok(Some(Self { environment, path, special_tokens: config.special_tokens()? }))
    }

    /// The text of a conversation; with `add_generation_prompt`, up to where the model begins to
    /// answer.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> anyhow::Result<String> {
        self.render_at(&ZonedDateTime::now(), messages, add_generation_prompt)
    }

    fn render_at(
        &self,
        now: &ZonedDateTime,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> anyhow::Result<String> {
        let now = now.clone();
        let strftime_now = move |format: &str| {
            strtime::format(format, &now).map_err(|error| {
                Error::new(ErrorKind::InvalidOperation, "strftime").with_source(error)
            })
        };
        let context = context! {
            messages => Serde(messages),
            add_generation_prompt,
            // Templates tell "none" from "not defined", and transformers defines them always.
            tools => (),
            documents => (),
            strftime_now => Value::from_function(strftime_now),
            ..self.special_tokens.clone()
        };
        let rendered = self.environment.get_template(NAME).and_then(|it| it.render(context));
        rendered.map_err(|error| self.explained(error.into()))
    }

    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        let path = self.path.display();
        match error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()) {
            Some(Refusal(why)) => {
                anyhow!("the chat template in `{path}` refuses the messages: {why}")
            }
            None => error.context(format!("render the chat template in `{path}`")),
        }
    }
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
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        let what = "tojson cannot escape what is not ASCII";
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    options.assert_all_used()?;

    let mut json = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent);
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, Spaced)),
    };
    let bad = |error| Error::new(ErrorKind::BadSerialization, "tojson").with_source(error);
    written.map_err(bad)?;
    Ok(String::from_utf8_lossy(&json).into_owned())
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
        of.iter().map(|&(role, content)| Message { role, content: content.to_owned() }).collect()
    }

    fn rendered(source: &str, of: &[(Role, &str)]) -> anyhow::Result<String> {
        let now = "2024-07-06T12:30:00[UTC]".parse().unwrap();
        template(source).render_at(&now, &messages(of), true)
    }

    use crate::prompt::Role;
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
        let render = |turn| template(CHATML).render(&conversation, turn).unwrap();
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
            assert_eq!(template.render(&messages(&[(User, "Hi")]), true).unwrap(), expected);
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
                Ok(template) => template.unwrap().render(&[], true).unwrap_err(),
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
    fn roles_are_written_as_the_servers_read_them() {
        let message = Message { role: Assistant, content: "Hi".to_owned() };
        let json = r#"{"role":"assistant","content":"Hi"}"#;
        assert_eq!(serde_json::to_string(&message).unwrap(), json);
        assert_eq!(serde_json::from_str::<Message>(json).unwrap(), message);
    }
}
