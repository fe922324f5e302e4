//! The engine that renders chat templates, as transformers sets Jinja2 up: its white space, its functions and filters,
//! and methods of Python's strings and dictionaries.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// The name of the only template, as errors show it.
pub(super) const NAME: &str = "chat template";

/// What a rendering may cost: a message takes some thirty instructions, and 64 bytes cost as much as one. A template
/// that would not end stops within seconds. What this does not stop: one that nests a value thousands of times and
/// prints it exhausts the stack.
const FUEL: u64 = 250_000;

/// Of values that `tojson` writes: deeper ones would exhaust the stack.
const DEPTH: usize = 64;

/// An environment with the template.
///
/// # Errors
/// What is no template.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment.add_template_owned(NAME, without_generation(source))?;
    Ok(environment)
}

/// Python's methods. `str.format` is not among them: a width in it takes memory that nothing limits.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if name == "format" {
        return Err(Error::new(ErrorKind::UnknownMethod, "str.format is not given to chat templates"));
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// transformers' blocks around what the assistant writes, as blocks that the engine has: with the same white space
/// around them, and with variables of their own. Which tokens are the assistant's is found otherwise.
fn without_generation(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let Some(length) = rest[begin..].find("%}") else { break };
        let (before, inside, after) = (&rest[..begin], &rest[begin + 2..begin + length], &rest[begin + length..]);
        let name = inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let inside = match name {
            "generation" => inside.replace(name, "with"),
            "endgeneration" => inside.replace(name, "endwith"),
            _ => inside.to_string(),
        };
        written.extend([before, "{%", &inside]);
        rest = after;
    }
    written + rest
}

/// As Python's `json.dumps` with `ensure_ascii=False`, which transformers puts in place of Jinja's filter for HTML.
fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson: ensure_ascii=True is not given to chat templates",
        ));
    }
    options.assert_all_used()?;
    let mut written = String::new();
    write_json(state, &mut written, value, indent.map(|indent| indent.min(DEPTH)), 1)?;
    Ok(written)
}

fn write_json(state: &State, to: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    let is_map = match value.kind() {
        ValueKind::Map => true,
        ValueKind::Seq | ValueKind::Iterable => false,
        _ => return write(state, to, &scalar(value)?),
    };
    if depth > DEPTH {
        return Err(Error::new(ErrorKind::BadSerialization, "tojson: the value is nested too deeply"));
    }
    // Between two items, and before the first and behind the last one.
    let line = |depth: usize| indent.map_or(String::new(), |indent| format!("\n{}", " ".repeat(indent * depth)));
    let mut is_empty = true;
    to.push(if is_map { '{' } else { '[' });
    for item in value.try_iter()? {
        if !is_empty {
            to.push_str(if indent.is_some() { "," } else { ", " });
        }
        is_empty = false;
        write(state, to, &line(depth))?;
        if is_map {
            write(state, to, &quoted(&item.to_string()))?;
            to.push_str(": ");
        }
        let item = if is_map { value.get_item(&item)? } else { item };
        write_json(state, to, &item, indent, depth + 1)?;
    }
    if !is_empty {
        to.push_str(&line(depth - 1));
    }
    to.push(if is_map { '}' } else { ']' });
    Ok(())
}

/// Pays for what is written: a value that holds one thing often is longer than it is large.
fn write(state: &State, to: &mut String, text: &str) -> Result<(), Error> {
    state.consume_fuel(1 + text.len() as u64 / 64)?;
    to.push_str(text);
    Ok(())
}

fn scalar(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::None => Ok("null".to_string()),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_string()),
        ValueKind::Number => Ok(value.to_string()),
        ValueKind::String => Ok(quoted(&value.to_string())),
        other => Err(Error::new(ErrorKind::BadSerialization, format!("tojson: {other} is not JSON"))),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        environment(source)?.get_template(NAME)?.render(minijinja::context! { text => "x".repeat(1000) })
    }

    #[test]
    fn generation_blocks_are_their_bodies() {
        for (source, written) in [
            ("a\n  {% generation %}\n  b\n  {% endgeneration %}\nc", "a\n  b\nc"),
            ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
            ("{%generation%}{% set x = 1 %}{{ x }}{%endgeneration%}{{ x }}", "1"),
            (
                "{# {% generation %} #}{{ '{%' }}{{ 'generation' }}{% if 1 %} generation {% endif %}",
                "{%generation generation ",
            ),
            ("no block {% ", "error"),
        ] {
            assert_eq!(render(source).unwrap_or("error".into()), written, "{source}");
        }
    }

    /// Whatever a template does, it ends soon, in little memory.
    #[test]
    fn a_hostile_template_ends() {
        let fuel = [
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "{% set s = namespace(t='aaaaaaaa') %}{% for i in range(9999) %}{% set s.t = s.t ~ s.t %}{% endfor %}",
            "{% set s = namespace(t=1) %}{% for i in range(60) %}{% set s.t=[s.t, s.t] %}{% endfor %}{{ s.t|tojson }}",
            "{{ ([text * 999] * 99999) | tojson }}",
            "{{ ([[[[[[[1]]]]]]] * 99999) | tojson(indent=64) }}",
            "{{ 'a' * 99999999999 }}",
            "{{ '%999999999d' | format(1) }}",
            "{{ text.replace('', text * 9999) }}",
            "{% for i in range(99999) %}{{ text * 1000 }}{% endfor %}",
        ];
        let refused = [
            "{% macro f() %}{% for i in range(9) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{{ '{:>99999999999}'.format('a') }}",
            "{{ range(10 ** 12) | list }}",
            "{% set s = namespace(t=1) %}{% for i in range(9999) %}{% set s.t = [s.t] %}{% endfor %}{{ s.t|tojson }}",
            "{% include '/etc/passwd' %}",
            "{% import 'os' as os %}",
        ];
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(99_999), ")".repeat(99_999));
        for source in fuel.iter().chain(&refused).copied().chain([&deep[..]]) {
            let begin = Instant::now();
            let error = render(source).unwrap_err();
            assert!(begin.elapsed() < Duration::from_secs(20), "{source}");
            assert!(!fuel.contains(&source) || error.kind() == ErrorKind::OutOfFuel, "{source}: {error}");
        }
    }

    #[test]
    fn json_is_pythons() {
        let source =
            "{{ {'b': [1, 2.5, none], 'a': {'x': '<\\u00e9\"\\n'}, 'c': []} | tojson }}{{ [1] | tojson(indent=2) }}";
        let written = "{\"b\": [1, 2.5, null], \"a\": {\"x\": \"<é\\\"\\n\"}, \"c\": []}[\n  1\n]";
        assert_eq!(render(source).unwrap(), written);
        for wrong in ["{{ text.split | tojson }}", "{{ 1 | tojson(ensure_ascii=true) }}", "{{ 1 | tojson(colour=1) }}"]
        {
            assert!(render(wrong).is_err(), "{wrong}");
        }
    }
}
