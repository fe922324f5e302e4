//! `config.json`: what is honoured, what is inert, and what is refused by name.

use qstar::models::RopeScaling;
use qstar::nn::Gelu;

use super::*;

fn read(fields: Value) -> anyhow::Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    write(&path, fields.to_string());
    Config::read(&path)
}

/// `fields` with some of them replaced.
fn with(fields: &Value, more: Value) -> Value {
    let (Value::Object(mut fields), Value::Object(more)) = (fields.clone(), more) else { panic!("objects") };
    fields.extend(more);
    Value::Object(fields)
}

fn without(fields: &Value, name: &str) -> Value {
    let mut fields = fields.clone();
    fields.as_object_mut().unwrap().remove(name).unwrap();
    fields
}

/// All that transformers 5.23's `GPT2Config().to_dict()` holds.
fn gpt2_fields() -> Value {
    json!({
        "transformers_version": "5.23.0", "architectures": null, "output_hidden_states": false, "return_dict": true,
        "dtype": null, "chunk_size_feed_forward": 0, "is_encoder_decoder": false,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "problem_type": null,
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": null,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-05, "initializer_range": 0.02, "summary_type": "cls_index", "summary_use_proj": true,
        "summary_activation": null, "summary_proj_to_labels": true, "summary_first_dropout": 0.1,
        "scale_attn_weights": true, "use_cache": true, "bos_token_id": 50256, "eos_token_id": 50256,
        "pad_token_id": null, "scale_attn_by_inverse_layer_idx": false, "reorder_and_upcast_attn": false,
        "add_cross_attention": false, "tie_word_embeddings": true, "_name_or_path": "", "model_type": "gpt2",
        "output_attentions": false
    })
}

/// All that transformers 5.23's `LlamaConfig().to_dict()` holds.
fn llama_fields() -> Value {
    json!({
        "transformers_version": "5.23.0", "architectures": null, "output_hidden_states": false, "return_dict": true,
        "dtype": null, "chunk_size_feed_forward": 0, "is_encoder_decoder": false,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "problem_type": null,
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048,
        "initializer_range": 0.02, "rms_norm_eps": 1e-06, "use_cache": true, "pad_token_id": null, "bos_token_id": 1,
        "eos_token_id": 2, "pretraining_tp": 1, "tie_word_embeddings": false,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "attention_bias": false,
        "attention_dropout": 0.0, "mlp_bias": false, "head_dim": 128, "_name_or_path": "", "model_type": "llama",
        "output_attentions": false
    })
}

#[test]
fn transformers_defaults_are_read() {
    assert_eq!(read(gpt2_fields()).unwrap(), Config::Gpt2(Gpt2Config::default()));
    let llama =
        LlamaConfig { max_position_embeddings: 2048, rms_norm_eps: 1e-6, head_dim: Some(128), ..Default::default() };
    assert_eq!(read(llama_fields()).unwrap(), Config::Llama(llama));
}

#[test]
fn old_files_are_read() {
    // The fields of gpt2-medium's and gpt2-xl's files, and of distilgpt2's.
    let old = json!({"n_ctx": 1024, "n_special": 0, "predict_special_tokens": true, "output_past": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "_num_labels": 1});
    assert_eq!(read(with(&gpt2_fields(), old)).unwrap(), Config::Gpt2(Gpt2Config::default()));
    // The first conversions of LLaMA 1.
    let first = json!({"architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 11008, "initializer_range": 0.02, "max_sequence_length": 2048,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": -1,
        "rms_norm_eps": 1e-06, "torch_dtype": "float16", "transformers_version": "4.27.0.dev0", "use_cache": true,
        "vocab_size": 32000});
    let Config::Llama(config) = read(first).unwrap() else { panic!("a LLaMA") };
    assert_eq!((config.max_position_embeddings, config.num_key_value_heads, config.head_dim()), (2048, 32, 128));
}

/// Transformers 5 and 4 write the same model in two spellings.
#[test]
fn both_spellings_of_the_fixtures_say_the_same() {
    for (name, scaling) in [
        ("llama-1", RopeScaling::None),
        ("llama-2", RopeScaling::None),
        ("llama-bias", RopeScaling::None),
        ("llama-reward", RopeScaling::None),
        ("llama-linear", RopeScaling::Linear { factor: 2.5 }),
        (
            "llama-3",
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 64,
            },
        ),
    ] {
        let read = |file: &str| match Config::read(&fixture(name).join(file)).unwrap() {
            // Old files leave the width of a head out.
            Config::Llama(c) => LlamaConfig { head_dim: Some(c.head_dim()), ..c },
            other => panic!("{other:?}"),
        };
        let config = read("config.json");
        assert_eq!(config, read("config.v4.json"), "{name}");
        assert_eq!(config.rope_scaling, scaling);
        assert_eq!((config.attention_bias, config.mlp_bias), (name == "llama-bias", name == "llama-bias"));
        assert_eq!(config.head_dim(), if name == "llama-3" { 12 } else { 6 });
        assert_eq!(config.rope_theta, if name == "llama-3" { 500_000.0 } else { 10_000.0 });
    }
    for name in ["gpt-neox", "gpt-neox-sequential", "gpt-neox-reward"] {
        let read = |file: &str| Config::read(&fixture(name).join(file)).unwrap();
        assert_eq!(read("config.json"), read("config.v4.json"), "{name}");
    }
    for (name, gelu, inner, tied) in [("gpt2", Gelu::Tanh, 56, true), ("gpt2-gelu", Gelu::Erf, 96, false)] {
        let Config::Gpt2(config) = Config::read(&fixture(name).join("config.json")).unwrap() else { panic!("a GPT-2") };
        assert_eq!((config.activation_function, config.inner(), config.tie_word_embeddings), (gelu, inner, tied));
    }
}

#[test]
fn what_is_written_is_read_again() {
    for name in
        ["gpt2", "gpt2-gelu", "gpt-neox", "gpt-neox-sequential", "llama-1", "llama-3", "llama-linear", "llama-bias"]
    {
        let config = Config::read(&fixture(name).join("config.json")).unwrap();
        assert_eq!(Config::from_fields(config.to_fields().unwrap()).unwrap(), config, "{name}");
    }
}

#[test]
fn fields_that_are_not_honoured_are_named() {
    let (gpt2, llama) = (gpt2_fields(), llama_fields());
    for (base, more, parts) in [
        (&gpt2, json!({"scale_attn_weights": false}), ["scale_attn_weights", "false"]),
        (&gpt2, json!({"scale_attn_by_inverse_layer_idx": true}), ["scale_attn_by_inverse_layer_idx", "true"]),
        (&gpt2, json!({"add_cross_attention": true}), ["add_cross_attention", "true"]),
        (&gpt2, json!({"pruned_heads": {"0": [1]}}), ["pruned_heads", "{\"0\":[1]}"]),
        (&gpt2, json!({"activation_function": "relu"}), ["activation_function", "relu"]),
        (&gpt2, json!({"n_head": 7}), ["n_head", "7"]),
        (&gpt2, json!({"n_head": 0}), ["n_head", "0"]),
        (&gpt2, json!({"n_embd": "768"}), ["n_embd", "\"768\""]),
        (&gpt2, json!({"attention_window": 128}), ["attention_window", "128"]),
        (&gpt2, json!({"quantization_config": {"bits": 4}}), ["quantization_config", "{\"bits\":4}"]),
        (&llama, json!({"pretraining_tp": 2}), ["pretraining_tp", "2"]),
        (&llama, json!({"hidden_act": "gelu"}), ["hidden_act", "gelu"]),
        (&llama, json!({"sliding_window": 4096}), ["sliding_window", "4096"]),
        (&llama, json!({"num_key_value_heads": 5}), ["num_key_value_heads", "5"]),
        (&llama, json!({"head_dim": 127}), ["head_dim", "127"]),
        (&llama, json!({"head_dim": null, "num_attention_heads": 31, "num_key_value_heads": 31}), ["head_dim", "31"]),
        (&llama, json!({"num_attention_heads": 0, "head_dim": null}), ["num_attention_heads", "0"]),
        (&llama, json!({"partial_rotary_factor": 0.5}), ["partial_rotary_factor", "0.5"]),
        (&llama, json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}), ["rope_parameters", "yarn"]),
        (
            &without(&llama, "rope_parameters"),
            json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
            ["rope_scaling", "dynamic"],
        ),
    ] {
        assert_error(read(with(base, more)), &[&["config.json"], parts.as_slice()].concat());
    }
    assert_error(read(without(&gpt2, "n_layer")), &["config.json", "n_layer"]);
    assert_error(read(without(&llama, "hidden_size")), &["config.json", "hidden_size"]);
}

#[test]
fn files_that_are_no_configuration() {
    assert_error(read(json!({"model_type": "bart"})), &["config.json", "\"bart\"", "gpt2", "llama"]);
    assert_error(read(json!({"vocab_size": 3})), &["config.json", "model_type is missing"]);
    assert_error(read(json!([1])), &["config.json", "not a JSON object"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    assert_error(Config::read(&path), &["config.json", "cannot be read"]);
    write(&path, "{\"model_type\": ");
    assert_error(Config::read(&path), &["config.json", "not a JSON object"]);
}
