//! The functions of Helm's templates that the chart uses. What Helm's do with other kinds of values is not here: a value of the wrong
//! kind is an error, which a template that calls them is changed for.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{FuncMap, TemplateError, Value};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::{semver, yaml_text};

/// How a `fail` of a template is told from its faults.
pub(crate) const REFUSED: &str = "refused: ";

type Answer = Result<Value, TemplateError>;

/// All but `include`, which needs the templates.
pub(crate) fn all() -> FuncMap {
    let mut functions = FuncMap::new();
    let mut add = |name: &str, function: fn(&[Value]) -> Answer| {
        functions.insert(name.to_owned(), Arc::new(function));
    };
    add("default", |arguments| {
        let [fallback, value] = arguments else { return Err(number_of("default", arguments)) };
        Ok(if value.is_truthy() { value.clone() } else { fallback.clone() })
    });
    add("quote", |arguments| {
        let [value] = arguments else { return Err(number_of("quote", arguments)) };
        Ok(text(Json::from(value.to_string()).to_string()))
    });
    add("toString", |arguments| {
        let [value] = arguments else { return Err(number_of("toString", arguments)) };
        Ok(text(value.to_string()))
    });
    add("fail", |arguments| {
        let [message] = arguments else { return Err(number_of("fail", arguments)) };
        Err(TemplateError::Exec(format!("{REFUSED}{message}")))
    });
    add("has", |arguments| {
        let [wanted, Value::List(items)] = arguments else { return Err(number_of("has", arguments)) };
        Ok(Value::Bool(items.contains(wanted)))
    });
    add("dict", |arguments| {
        let mut fields = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let [Value::String(name), value] = pair else { return Err(number_of("dict", arguments)) };
            fields.insert(Arc::clone(name), value.clone());
        }
        Ok(Value::Map(Arc::new(fields)))
    });
    add("int", |arguments| Ok(Value::Int(whole(arguments, 0)?)));
    add("add", |arguments| {
        let sum = whole(arguments, 0)?.checked_add(whole(arguments, 1)?);
        sum.map(Value::Int).ok_or_else(|| number_of("add", arguments))
    });
    add("sub", |arguments| {
        let rest = whole(arguments, 0)?.checked_sub(whole(arguments, 1)?);
        rest.map(Value::Int).ok_or_else(|| number_of("sub", arguments))
    });
    add("splitList", |arguments| {
        let [Value::String(between), Value::String(whole)] = arguments else {
            return Err(number_of("splitList", arguments));
        };
        let parts: Vec<Value> = whole.split(&**between).map(|part| text(part.to_owned())).collect();
        Ok(Value::List(parts.into()))
    });
    add("last", |arguments| {
        let [Value::List(items)] = arguments else { return Err(number_of("last", arguments)) };
        Ok(items.last().cloned().unwrap_or(Value::Nil))
    });
    add("nindent", |arguments| {
        let [_, Value::String(lines)] = arguments else { return Err(number_of("nindent", arguments)) };
        let width = usize::try_from(whole(arguments, 0)?).map_err(|_| number_of("nindent", arguments))?;
        let margin = format!("\n{}", " ".repeat(width.min(64)));
        Ok(text(format!("{margin}{}", lines.replace('\n', &margin))))
    });
    add("toJson", |arguments| {
        let [value] = arguments else { return Err(number_of("toJson", arguments)) };
        Ok(text(go_json(value)?))
    });
    add("toYaml", |arguments| {
        let [value] = arguments else { return Err(number_of("toYaml", arguments)) };
        Ok(text(yaml_text::block(&json(value)?)))
    });
    add("sha256sum", |arguments| {
        let [Value::String(bytes)] = arguments else { return Err(number_of("sha256sum", arguments)) };
        Ok(text(hex::encode(Sha256::digest(bytes.as_bytes()))))
    });
    add("semverCompare", |arguments| {
        let [Value::String(constraint), Value::String(version)] = arguments else {
            return Err(number_of("semverCompare", arguments));
        };
        semver::satisfies(constraint, version).map(Value::Bool).map_err(fault)
    });
    functions
}

pub(crate) fn text(text: String) -> Value {
    Value::String(text.into())
}

pub(crate) fn fault(why: String) -> TemplateError {
    TemplateError::Exec(why)
}

fn number_of(function: &str, arguments: &[Value]) -> TemplateError {
    let kinds: Vec<&str> = arguments.iter().map(Value::type_name).collect();
    fault(format!("`{function}` is called with ({})", kinds.join(", ")))
}

/// A whole number, whether it stands there as one or as a text, as Helm reads it.
fn whole(arguments: &[Value], at: usize) -> Result<i64, TemplateError> {
    let number = match arguments.get(at) {
        Some(Value::Nil) => Some(0),
        Some(Value::Int(number)) => Some(*number),
        Some(Value::Uint(number)) => i64::try_from(*number).ok(),
        Some(Value::String(digits)) => digits.trim_matches(['[', ']']).parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| number_of("a whole number", arguments))
}

/// From a value of a template to one of YAML.
pub(crate) fn json(value: &Value) -> Result<Json, TemplateError> {
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        Value::Uint(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::String(text) => Json::from(&**text),
        Value::List(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Map(fields) => {
            let fields = fields.iter().map(|(name, value)| Ok((name.to_string(), json(value)?)));
            Json::Object(fields.collect::<Result<_, TemplateError>>()?)
        }
        Value::Function(_) => return Err(fault("a function is no value".to_owned())),
    })
}

/// From YAML to a value of a template.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::Int(number),
            (None, Some(number), _) => Value::Uint(number),
            (None, None, number) => Value::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, of)| (Arc::from(name.as_str()), value(of)));
            Value::Map(Arc::new(fields.collect()))
        }
    }
}

/// JSON as Go writes it: what HTML would take for its own is escaped.
fn go_json(value: &Value) -> Result<String, TemplateError> {
    let text = json(value)?.to_string();
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            other => escaped.push(other),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gotmpl::Template;
    use serde_json::json as j;

    fn run(template: &str) -> String {
        let data = value(&j!({
            "list": ["a", "b"], "map": {"b": 1, "a": ["x", {"z": "1"}], "e": ""}, "port": 10000, "empty": "", "odd": "<a&b>",
            "mapping": {"x": {"y": 1}},
        }));
        let made = Template::new("t").funcs(all()).parse(template).unwrap();
        made.execute_to_string(&data).unwrap_or_else(|error| format!("error: {error}"))
    }

    #[test]
    fn the_functions_do_as_helms_do() {
        for (template, wanted) in [
            (
                "{{ .empty | default \"x\" }}{{ .missing.deeper | default \"y\" }}{{ .port | default 1 }}",
                "xy10000",
            ),
            ("{{ quote \"a\\\"b\" }} {{ .port | quote }}", "\"a\\\"b\" \"10000\""),
            ("{{ has \"a\" .list }} {{ has \"c\" .list }}", "true false"),
            ("{{ sub (add (int .port) 5) 1 }} {{ int \"12\" }}", "10004 12"),
            ("{{ splitList \":\" \"[::]:9092\" | last }}", "9092"),
            ("k:{{ toYaml .map | nindent 2 }}", "k:\n  a:\n  - x\n  - z: \"1\"\n  b: 1\n  e: \"\""),
            (
                "{{ toJson .map }} {{ toJson .odd }}",
                "{\"a\":[\"x\",{\"z\":\"1\"}],\"b\":1,\"e\":\"\"} \"\\u003ca\\u0026b\\u003e\"",
            ),
            ("{{ sha256sum \"a\" }}", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
            ("{{ semverCompare \">=1.30.0-0\" \"v1.36.2\" }}", "true"),
            ("{{ (dict \"a\" .port \"b\" 2).a }}", "10000"),
            ("{{ if eq (toString true) \"true\" }}yes{{ end }}", "yes"),
        ] {
            assert_eq!(run(template), wanted, "{template}");
        }
    }

    #[test]
    fn a_call_that_makes_no_sense_is_a_fault_and_no_panic() {
        for template in [
            "{{ int \"x\" }}",
            "{{ int .list }}",
            "{{ add 9223372036854775807 1 }}",
            "{{ nindent -1 \"x\" }}",
            "{{ nindent \"x\" }}",
            "{{ has 1 2 }}",
            "{{ dict 1 }}",
            "{{ last 1 }}",
            "{{ splitList 1 }}",
            "{{ semverCompare \"~1\" \"2\" }}",
            "{{ sha256sum 1 }}",
            "{{ default }}",
            "{{ quote }}",
            "{{ toYaml }}",
            "{{ toJson 1 2 }}",
            "{{ fail \"no\" }}",
        ] {
            assert!(run(template).starts_with("error: "), "{template}: {}", run(template));
        }
    }
}
