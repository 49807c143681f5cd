//! How the requests of a case are put: the fields of their bodies, less those that the server would not have.
//! Pure.

use serde_json::{Map, Value};

use crate::config::StreamOptions;
use crate::plan::{Backend, Case};
use crate::wire::{LengthField, ProtocolKind, Request};
use crate::workload::PromptRequest;

/// Fields without which there is nothing to ask.
const NEEDED: [&str; 9] = [
    "model",
    "prompt",
    "messages",
    "input",
    "inputs",
    "text_input",
    "stream",
    PARAMETERS,
    // Of a chat message, which a server may name.
    "content",
];
/// The field below which some protocols have theirs.
const PARAMETERS: &str = "parameters";
/// How long an answer may be, as each protocol has it.
const LENGTHS: [&str; 4] =
    ["max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"];
/// What a server that names no field may not know, the likeliest first.
const DOUBTFUL: [&str; 6] =
    ["stream_options", "ignore_eos", "ignore_eos_token", "min_tokens", "min_length", "temperature"];
/// Words of a server that does not know a field. One that has a length itself at fault says none of them.
const UNKNOWN: [&str; 12] = [
    "unsupported",
    "not supported",
    "not support",
    "unknown",
    "unrecognized",
    "unrecognised",
    "unexpected",
    "extra",
    "not permitted",
    "not allowed",
    "deprecated",
    "instead",
];

/// How the requests of a case are put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    length_field: LengthField,
    /// The other name of the length was refused.
    is_renamed: bool,
    left_out: Vec<String>,
    /// What the server would not have, for the reader of the numbers.
    pub notes: Vec<String>,
}

impl Manners {
    /// As the plan says.
    pub fn of(backend: &Backend) -> Self {
        Self {
            length_field: backend.length_field,
            is_renamed: false,
            left_out: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The body of one request: the protocol's own fields, those of the data over them, and the backend's
    /// extra ones over all.
    pub fn body(&self, case: &Case, request: &PromptRequest) -> Vec<u8> {
        let mut body = self.own(case, request);
        body.extend(case.backend.extra_body.clone());
        Value::Object(body).to_string().into_bytes()
    }

    /// The protocol's own fields and those of the data.
    fn own(&self, case: &Case, request: &PromptRequest) -> Map<String, Value> {
        let backend = &case.backend;
        let mut body = backend.protocol.body(&Request {
            model: &case.model.id,
            prompt: &request.prompt,
            output_tokens: request.output_tokens,
            length_field: self.length_field,
            ignore_eos: backend.ignore_eos,
            min_tokens: backend.min_tokens,
            include_usage: backend.stream_options != StreamOptions::Off,
        });
        backend.protocol.add_fields(&request.fields, &mut body);
        for field in &self.left_out {
            body.remove(field);
            if let Some(Value::Object(parameters)) = body.get_mut(PARAMETERS) {
                parameters.remove(field);
            }
        }
        body
    }

    /// What to try after the server has refused `request`, with `body`, which holds what it says for people as
    /// `message`: without the field that it names, or without one that it may not know. `None` where nothing
    /// is left.
    pub fn milder(
        &self,
        case: &Case,
        request: &PromptRequest,
        body: &[u8],
        message: &str,
    ) -> Option<Self> {
        let backend = &case.backend;
        let said = String::from_utf8_lossy(body);
        let insists = backend.stream_options == StreamOptions::On;
        let own = self.own(case, request);
        let parameters = own.get(PARAMETERS).and_then(Value::as_object);
        let fields = own.keys().chain(parameters.into_iter().flat_map(Map::keys));
        let optional: Vec<&str> = fields
            .map(String::as_str)
            .filter(|field| !NEEDED.contains(field) && !backend.extra_body.contains_key(*field))
            .filter(|field| *field != "stream_options" || !insists)
            .collect();
        let chat = backend.protocol == ProtocolKind::Chat;
        let renames = chat && !self.is_renamed;
        // The name that is to be used is no name that is refused.
        let other_length = match self.length_field {
            LengthField::MaxTokens => LengthField::MaxCompletionTokens,
            LengthField::MaxCompletionTokens => LengthField::MaxTokens,
        };
        let own_length = self.length_field.name();
        let sends_length = optional.contains(&own_length);
        if renames && sends_length && names(&said, "max_completion_tokens") {
            return Some(self.renamed(other_length, message));
        }
        let lower = said.to_lowercase();
        let is_unknown = UNKNOWN.iter().any(|word| lower.contains(word));
        let droppable = |field: &&&str| !LENGTHS.contains(*field) || is_unknown;
        let parameter = parameter(body);
        let by_parameter = optional.iter().find(|field| parameter.as_deref() == Some(**field));
        let by_name = || optional.iter().filter(droppable).find(|field| names(&said, field));
        match by_parameter.filter(droppable).or_else(by_name) {
            Some(field) if LENGTHS.contains(field) && renames => {
                Some(self.renamed(other_length, message))
            }
            Some(field) => Some(self.without(field, message)),
            None => {
                let doubtful = DOUBTFUL.iter().find(|field| optional.contains(field));
                doubtful.map(|field| self.without(field, message))
            }
        }
    }

    /// In what requests differ from those that the plan asks for; `None` where they do not.
    pub fn changes(&self) -> Option<String> {
        let quoted: Vec<String> = self.left_out.iter().map(|field| format!("`{field}`")).collect();
        let without = (!quoted.is_empty()).then(|| format!("without {}", quoted.join(", ")));
        let with = self.is_renamed.then(|| format!("with `{}`", self.length_field.name()));
        let changes: Vec<String> = with.into_iter().chain(without).collect();
        (!changes.is_empty()).then(|| changes.join(" and "))
    }

    fn renamed(&self, length_field: LengthField, message: &str) -> Self {
        let (old, new) = (self.length_field.name(), length_field.name());
        let note = format!("the server refuses `{old}`: `{new}` is sent ({message})");
        let notes = self.notes.iter().cloned().chain([note]).collect();
        Self { length_field, is_renamed: true, notes, ..self.clone() }
    }

    fn without(&self, field: &str, message: &str) -> Self {
        let so = match field {
            "stream_options" => "token counts are not asked for",
            "ignore_eos" | "ignore_eos_token" | "min_tokens" | "min_length" => {
                "answers may end before their length"
            }
            "temperature" => "answers are drawn at the server's own temperature",
            field if LENGTHS.contains(&field) => "answers are as long as the server makes them",
            _ => "it is not sent",
        };
        let mut milder = self.clone();
        milder.left_out.push(field.to_owned());
        milder.notes.push(format!("the server refuses `{field}`: {so} ({message})"));
        milder
    }
}

/// Whether a text holds a word.
fn names(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

/// The field that an error object says is at fault, in the places where servers say it: `error.param`, or the
/// end of FastAPI's `detail[0].loc`.
fn parameter(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let of_error = body.pointer("/error/param").or(body.get("param"));
    let of_detail = || body.pointer("/detail/0/loc")?.as_array()?.last();
    Some(of_error.or_else(of_detail)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plan::Plan;
    use crate::prompt::Prompt;

    /// A case of a backend of this kind, with `more` said of it.
    fn case(kind: &str, more: &str) -> Case {
        let plan = format!(
            "[[backend]]\nname = \"b\"\nkind = \"{kind}\"\nbase_url = \"http://h\"\nmodels = [\"m\"]\n{more}\n\
             [[workload]]\nname = \"w\"\ndataset = \"random\"\n[[bench]]\nloads = [\"1conc\"]"
        );
        Plan::parse(&plan).unwrap().cases.remove(0)
    }

    fn request() -> PromptRequest {
        PromptRequest::single(Prompt::Text("hi".to_owned()), None, 8)
    }

    /// The optional fields that are left, refusal by refusal.
    fn refused(case: &Case, bodies: &[&str]) -> Vec<String> {
        let mut manners = Some(Manners::of(&case.backend));
        let mut left = Vec::new();
        for body in bodies {
            let milder = |manners: Manners| manners.milder(case, &request(), body.as_bytes(), body);
            manners = manners.and_then(milder);
            left.push(match &manners {
                None => "nothing".to_owned(),
                Some(manners) => {
                    let own = manners.own(case, &request());
                    let of_parameters = own.get(PARAMETERS).and_then(Value::as_object);
                    let all = own.keys().chain(of_parameters.into_iter().flat_map(Map::keys));
                    let optional = all.filter(|field| !NEEDED.contains(&field.as_str()));
                    optional.map(String::as_str).collect::<Vec<_>>().join(" ")
                }
            });
        }
        left
    }

    #[test]
    fn the_fields_of_the_data_go_over_those_of_the_protocol_and_below_those_of_the_plan() {
        let fields = json!({
            "temperature": 0.7, "tools": [{"type": "function", "function": {"name": "f"}}], "top_p": 0.5,
        });
        let request = PromptRequest { fields: fields.as_object().unwrap().clone(), ..request() };
        let of = |kind: &str| -> Value {
            let case = case(kind, "extra_body = { top_p = 0.9 }");
            serde_json::from_slice(&Manners::of(&case.backend).body(&case, &request)).unwrap()
        };
        let chat = of("openai-chat");
        assert_eq!(
            (&chat["temperature"], &chat["tools"]),
            (&fields["temperature"], &fields["tools"])
        );
        assert_eq!(chat["top_p"], 0.9);
        let text = of("openai");
        assert_eq!((&text["temperature"], &text["tools"]), (&json!(0.7), &Value::Null));
        let responses = of("openai-responses");
        assert_eq!(responses["tools"], json!([{"type": "function", "name": "f"}]));
        let tgi = of("tgi");
        assert_eq!((&tgi["temperature"], &tgi["tools"]), (&Value::Null, &Value::Null));
    }

    const USUAL: &str = "max_tokens temperature ignore_eos min_tokens stream_options";

    #[test]
    fn the_field_that_the_server_names_is_left_out_or_renamed() {
        for (body, gone, new) in [
            ("Unrecognized argument: ignore_eos", "ignore_eos", ""),
            ("Unknown field stream_options", "stream_options", ""),
            ("extra inputs are not permitted: min_tokens", "min_tokens", ""),
            ("'temperature' does not support 0.0 with this model", "temperature", ""),
            (r#"{"error":{"message":"Invalid","param":"temperature"}}"#, "temperature", ""),
            (
                r#"{"detail":[{"loc":["body","ignore_eos"],"msg":"temperature is fine"}]}"#,
                "ignore_eos",
                "",
            ),
            ("use 'max_completion_tokens' instead", "max_tokens", "max_completion_tokens"),
            ("Unsupported parameter: 'max_tokens'", "max_tokens", "max_completion_tokens"),
        ] {
            let case = case("vllm-chat", "");
            let left = refused(&case, &[body]).remove(0);
            let mut left: Vec<&str> = left.split(' ').collect();
            let mut expected: Vec<&str> = USUAL.split(' ').filter(|field| *field != gone).collect();
            expected.extend((!new.is_empty()).then_some(new));
            left.sort_unstable();
            expected.sort_unstable();
            assert_eq!(left, expected, "{body}");
        }
    }

    #[test]
    fn several_are_left_out_in_turn_until_nothing_is_left_to_leave_out() {
        let case = case("openai-chat", "");
        let no_tokens = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
        let no_temperature = "Unsupported value: 'temperature'. Only the default (1) is supported.";
        let left = refused(&case, &[no_tokens, no_temperature, "no", "no"]);
        let lasts = ["stream_options", "max_completion_tokens"];
        for last in lasts {
            assert!(names(&left[1], last), "{left:?}");
        }
        assert!(!names(&left[1], "temperature") && !names(&left[1], "max_tokens"), "{left:?}");
        assert_eq!(&left[2..], ["max_completion_tokens", "nothing"]);
    }

    #[test]
    fn where_it_names_none_what_it_may_not_know_is_left_out_one_by_one() {
        let left = refused(&case("vllm-chat", ""), &["no"; 5]);
        for (left, gone) in left.iter().zip(DOUBTFUL.iter().filter(|field| USUAL.contains(**field)))
        {
            assert!(!names(left, gone), "{gone}: {left}");
        }
        assert_eq!(left[3..], ["max_tokens", "nothing"]);
    }

    #[test]
    fn a_field_that_the_plan_insists_on_stays() {
        for (more, body) in [
            ("stream_options = \"on\"", "stream_options"),
            ("extra_body = { temperature = 0.5 }", "temperature"),
        ] {
            let case = case("openai-chat", more);
            let left = refused(&case, &[body, body, body]);
            assert!(left.contains(&"nothing".to_owned()), "{left:?}");
            let manners = Manners::of(&case.backend);
            let milder = manners.milder(&case, &request(), body.as_bytes(), body);
            let body_sent = milder.unwrap_or(manners).body(&case, &request());
            assert!(names(&String::from_utf8(body_sent).unwrap(), body), "{more}");
        }
    }

    #[test]
    fn a_length_that_is_too_long_is_no_field_that_is_unknown() {
        let case = case("openai", "stream_options = \"off\"");
        let too_long = "max_tokens must be at most 4";
        let left = refused(&case, &[too_long, too_long]);
        assert_eq!(left, ["max_tokens", "nothing"], "temperature is only a guess");
        let unknown = "unknown field max_tokens";
        assert_eq!(refused(&case, &[unknown]), ["temperature"]);
    }

    #[test]
    fn fields_below_parameters_are_left_out_too() {
        let left = refused(&case("tgi", ""), &["unknown field `ignore_eos_token`"]);
        assert!(
            !names(&left[0], "ignore_eos_token") && names(&left[0], "max_new_tokens"),
            "{left:?}"
        );
    }

    #[test]
    fn what_was_left_out_is_noted_with_the_servers_word() {
        let case = Case { backend: Arc::clone(&case("vllm", "").backend), ..case("vllm", "") };
        let said = "stream_options: not today";
        let milder = Manners::of(&case.backend).milder(&case, &request(), said.as_bytes(), said);
        let expected = "the server refuses `stream_options`: token counts are not asked for \
                        (stream_options: not today)";
        assert_eq!(milder.unwrap().notes, [expected]);
    }
}
