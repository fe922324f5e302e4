//! The rotary embedding's fields of `config.json`, in the three spellings that there are.
//!
//! Transformers 5 writes one field `rope_parameters` with `rope_type`, `rope_theta` and the rest. Older files have
//! `rope_theta` and `rope_scaling`, whose `rope_type` was first called `type`; GPT-NeoX called the base
//! `rotary_emb_base` and the part of a head that turns `rotary_pct`.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::strict::short;

/// How the frequencies θ^(−2i/d) are changed to reach beyond the length of pretraining.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    #[default]
    #[serde(rename = "default")]
    None,
    /// Every frequency divided by `factor` (Chen et al. 2023, arXiv:2306.15595).
    Linear { factor: f64 },
    /// Long wavelengths divided by `factor`, short ones kept, those between blended (LLaMA 3.1).
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: usize },
}

/// What the fields say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// The base θ of the frequencies.
    pub theta: f64,
    /// The part of each head that turns, in (0, 1].
    pub partial: f64,
    pub scaling: RopeScaling,
}

/// The older names of an architecture's fields, and what transformers takes where they are absent.
pub struct OlderNames {
    pub theta: &'static str,
    pub partial: &'static str,
    pub default_theta: f64,
    pub default_partial: f64,
}

/// Takes all fields of the rotary embedding out of a configuration's fields.
///
/// # Errors
/// A scaling that is not computed here, a field of it that is missing or not known, two fields that contradict each
/// other: they are named.
pub fn take(fields: &mut Map<String, Value>, names: &OlderNames) -> Result<RopeParameters> {
    let new = take_object(fields, "rope_parameters")?;
    let old = take_object(fields, "rope_scaling")?;
    let (name, mut rope) = match (new, old) {
        (Some(new), Some(old)) => {
            ensure!(new == old, "fields rope_parameters and rope_scaling are both there and differ");
            ("rope_parameters", new)
        }
        (Some(new), None) => ("rope_parameters", new),
        (None, Some(old)) => ("rope_scaling", old),
        (None, None) => ("rope_parameters", Map::new()),
    };
    let theta = number(fields.remove(names.theta), rope.remove("rope_theta"), names.theta, names.default_theta)?;
    let partial = number(
        fields.remove(names.partial),
        rope.remove("partial_rotary_factor"),
        names.partial,
        names.default_partial,
    )?;
    ensure!(theta > 0.0, "field {} is {theta}; it must be positive", names.theta);
    ensure!(partial > 0.0 && partial <= 1.0, "field {} is {partial}; it must be in (0, 1]", names.partial);
    let scaling = scaling(rope).with_context(|| format!("field {name}"))?;
    Ok(RopeParameters { theta, partial, scaling })
}

/// An object or nothing.
fn take_object(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Map<String, Value>>> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => bail!("field {name} is {}; it must be an object or null", short(&other)),
    }
}

/// A number that may be given beside the object, in it, or not at all.
fn number(outside: Option<Value>, inside: Option<Value>, name: &str, default: f64) -> Result<f64> {
    let read = |value: Value| match value.as_f64() {
        Some(number) => Ok(number),
        None => bail!("field {name} is {}; it must be a number", short(&value)),
    };
    let given = |value: Option<Value>| value.filter(|v| !v.is_null()).map(read).transpose();
    match (given(outside)?, given(inside)?) {
        (Some(a), Some(b)) if a != b => bail!("field {name} is {a} in one place and {b} in another"),
        (Some(a), _) | (None, Some(a)) => Ok(a),
        (None, None) => Ok(default),
    }
}

fn scaling(mut rope: Map<String, Value>) -> Result<RopeScaling> {
    let kind = match (rope.remove("rope_type"), rope.remove("type")) {
        (Some(a), Some(b)) if a != b => bail!("rope_type is {} and type is {}", short(&a), short(&b)),
        (Some(kind), _) | (None, Some(kind)) => kind,
        (None, None) => "default".into(),
    };
    ensure!(
        ["default", "linear", "llama3"].iter().any(|known| kind == *known),
        "rope_type is {}; only default, linear and llama3 are computed",
        short(&kind)
    );
    if let ("default", Some((name, value))) = (kind.as_str().unwrap_or_default(), rope.iter().next()) {
        bail!("{name} is {}, which means nothing for the rope_type default", short(value))
    }
    rope.insert("rope_type".into(), kind);
    let scaling: RopeScaling = serde_json::from_value(Value::Object(rope))?;
    match scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => ensure!(factor > 0.0, "factor is {factor}; it must be positive"),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            ensure!(factor > 0.0, "factor is {factor}; it must be positive");
            ensure!(
                0.0 < low_freq_factor && low_freq_factor < high_freq_factor,
                "low_freq_factor is {low_freq_factor} and high_freq_factor {high_freq_factor}; the first must be \
                 positive and the smaller one"
            );
            ensure!(original_max_position_embeddings > 0, "original_max_position_embeddings is 0");
        }
    }
    Ok(scaling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NEOX: OlderNames =
        OlderNames { theta: "rotary_emb_base", partial: "rotary_pct", default_theta: 10_000.0, default_partial: 0.25 };
    const LLAMA: OlderNames = OlderNames {
        theta: "rope_theta",
        partial: "partial_rotary_factor",
        default_theta: 10_000.0,
        default_partial: 1.0,
    };

    fn read(fields: Value, names: &OlderNames) -> Result<RopeParameters> {
        let Value::Object(mut fields) = fields else { panic!("an object") };
        let rope = take(&mut fields, names);
        if rope.is_ok() {
            assert!(fields.is_empty(), "{fields:?} is left");
        }
        rope
    }

    #[test]
    fn all_spellings_say_the_same() {
        let llama3 = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let with = |more: Value| {
            let (mut object, Value::Object(more)) = (llama3.as_object().unwrap().clone(), more) else { panic!() };
            object.extend(more);
            object
        };
        let expected = RopeParameters {
            theta: 500_000.0,
            partial: 1.0,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            },
        };
        for fields in [
            json!({"rope_parameters": with(json!({"rope_type": "llama3", "rope_theta": 500000.0}))}),
            json!({"rope_theta": 500000, "rope_scaling": with(json!({"rope_type": "llama3"}))}),
            json!({"rope_theta": 500000, "rope_scaling": with(json!({"type": "llama3", "rope_type": "llama3"}))}),
        ] {
            assert_eq!(read(fields, &LLAMA).unwrap(), expected);
        }
        let quarter = RopeParameters { theta: 10_000.0, partial: 0.25, scaling: RopeScaling::None };
        for fields in [
            json!({}),
            json!({"rotary_emb_base": 10000, "rotary_pct": 0.25, "rope_scaling": null}),
            json!({"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.25, "rope_type": "default"}}),
        ] {
            assert_eq!(read(fields, &NEOX).unwrap(), quarter);
        }
        let linear = read(json!({"rope_scaling": {"type": "linear", "factor": 2}}), &LLAMA).unwrap();
        assert_eq!(linear.scaling, RopeScaling::Linear { factor: 2.0 });
    }

    #[test]
    fn what_is_not_computed_or_contradicts_itself_is_named() {
        for (fields, parts) in [
            (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), ["rope_scaling", "dynamic"]),
            (json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}), ["rope_parameters", "yarn"]),
            (json!({"rope_scaling": {"rope_type": "longrope"}}), ["rope_scaling", "longrope"]),
            (json!({"rope_scaling": {"rope_type": "linear"}}), ["rope_scaling", "missing field `factor`"]),
            (json!({"rope_scaling": {"rope_type": "linear", "factor": 2, "beta": 1}}), ["rope_scaling", "beta"]),
            (json!({"rope_scaling": {"rope_type": "default", "factor": 2}}), ["rope_scaling", "factor is 2"]),
            (json!({"rope_scaling": {"rope_type": "linear", "factor": 0}}), ["rope_scaling", "factor is 0"]),
            (json!({"rope_scaling": 7}), ["rope_scaling", "7"]),
            (json!({"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}), ["rope_theta", "is 1 in one place"]),
            (json!({"rope_theta": -1.0}), ["rope_theta", "-1"]),
            (json!({"partial_rotary_factor": 1.5}), ["partial_rotary_factor", "1.5"]),
            (
                json!({"rope_scaling": {"rope_type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"}}),
                ["rope_scaling", "differ"],
            ),
        ] {
            let message = format!("{:#}", read(fields, &LLAMA).unwrap_err());
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
