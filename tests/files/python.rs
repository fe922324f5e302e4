//! The other side: transformers loads what was saved, and what torch saved is read. `QSTAR_PYTHON` names a Python with
//! torch, transformers and safetensors; without it these tests print that they are skipped.

use std::process::Command;

use candle_core::{DType, Device};
use qstar::models::{Architecture, Head, Purpose, canonical_names, load_reward_model, read_model, save_model};

use super::*;

/// Runs a script with arguments and returns what it prints, or nothing where there is no Python.
fn python(script: &str, arguments: &[&Path]) -> Option<String> {
    let Ok(python) = std::env::var("QSTAR_PYTHON") else {
        println!("skipped: QSTAR_PYTHON does not name a Python with torch and transformers");
        return None;
    };
    let output = Command::new(python)
        .arg("-c")
        .arg(script)
        .args(arguments)
        .env("HF_HUB_OFFLINE", "1")
        .env("TRANSFORMERS_VERBOSITY", "error")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Loads each folder, prints a line of what is amiss with its names, and writes the model's own parameters beside it.
const LOAD: &str = r#"
import json, sys, transformers
from safetensors.torch import save_file
for folder in sys.argv[1:]:
    config = transformers.AutoConfig.from_pretrained(folder)
    model, info = getattr(transformers, config.architectures[0]).from_pretrained(folder, output_loading_info=True)
    amiss = {key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    names = set(dict(model.named_parameters()))
    parameters = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items() if k in names}
    save_file(parameters, folder + "/loaded.safetensors")
    print(json.dumps(dict(amiss, dtype=str(model.dtype), config=config.to_dict(), labels=config.num_labels)))
"#;

#[test]
fn transformers_loads_what_was_saved() {
    let with_head = |model: &LanguageModel| {
        let mut all = tensors(model);
        all.retain(|name, _| !["lm_head.weight", "embed_out.weight"].contains(&name.as_str()));
        all.insert("score.weight".into(), noise(&[1, 8], 5));
        all
    };
    let reward = |name: &str, class| {
        let model = load_reward_model(&super::folder(&fixture(name)), Head::Stored).unwrap();
        (model.config, model.params.tensors().into_iter().collect(), class)
    };
    let models = [
        (gpt2().config, tensors(&gpt2()), "GPT2LMHeadModel"),
        (llama().config, tensors(&llama()), "LlamaForCausalLM"),
        (gpt_neox().config, tensors(&gpt_neox()), "GPTNeoXForCausalLM"),
        (gpt2().config, with_head(&gpt2()), "GPT2ForSequenceClassification"),
        (llama().config, with_head(&llama()), "LlamaForSequenceClassification"),
        (gpt_neox().config, with_head(&gpt_neox()), "GPTNeoXForSequenceClassification"),
        reward("bert", "BertForSequenceClassification"),
        reward("roberta", "RobertaForSequenceClassification"),
        reward("distilbert", "DistilBertForSequenceClassification"),
        reward("deberta-v2", "DebertaV2ForSequenceClassification"),
        reward("deberta-plain", "DebertaV2ForSequenceClassification"),
    ];
    let out = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for (config, all, class) in models {
        for (dtype, limit) in [(DType::F32, u64::MAX), (DType::F32, 700), (DType::BF16, u64::MAX), (DType::F16, 300)] {
            let all: Tensors = all.iter().map(|(n, t)| (n.clone(), t.to_dtype(dtype).unwrap())).collect();
            let path = out.path().join(cases.len().to_string());
            save_model(&path, &config, &all, None, limit).unwrap();
            cases.push((path, all, class, dtype));
        }
    }
    let folders: Vec<&Path> = cases.iter().map(|(path, ..)| path.as_path()).collect();
    let Some(said) = python(LOAD, &folders) else { return };
    assert_eq!(said.lines().count(), cases.len());
    for (said, (path, all, class, dtype)) in said.lines().zip(cases) {
        let said: Value = serde_json::from_str(said).unwrap();
        for amiss in ["missing_keys", "unexpected_keys", "mismatched_keys"] {
            assert_eq!(said[amiss], json!([]), "{class} {amiss}");
        }
        assert_eq!(said["config"]["architectures"], json!([class]));
        let name = match dtype {
            DType::BF16 => "torch.bfloat16",
            DType::F16 => "torch.float16",
            _ => "torch.float32",
        };
        assert_eq!(said["dtype"], name);
        if class.ends_with("Classification") {
            assert_eq!(said["labels"], 1);
        }
        let loaded = out.path().join("loaded");
        fs::create_dir_all(&loaded).unwrap();
        fs::rename(path.join("loaded.safetensors"), loaded.join("model.safetensors")).unwrap();
        let mut loaded = open(&loaded).unwrap().read_all(dtype, &Device::Cpu).unwrap();
        if class == "GPTNeoXForCausalLM" {
            // In memory transformers 5 has another name for what it saves as embed_out.
            let head = loaded.remove("lm_head.weight").unwrap();
            loaded.insert("embed_out.weight".into(), head);
        }
        assert_same(&loaded, &all);
    }
}

#[test]
fn transformers_reads_the_configurations_that_we_write() {
    let read = r#"
import json, sys, transformers
for folder in sys.argv[1:]:
    print(json.dumps(transformers.AutoConfig.from_pretrained(folder).to_dict()))
"#;
    let out = tempfile::tempdir().unwrap();
    let names = [
        "gpt2",
        "gpt2-gelu",
        "gpt-neox",
        "gpt-neox-sequential",
        "llama-1",
        "llama-2",
        "llama-3",
        "llama-linear",
        "llama-bias",
        "bert",
        "roberta",
        "distilbert",
        "deberta-v2",
        "deberta-v3",
        "deberta-plain",
    ];
    let config_of = |name: &str| Config::read(&fixture(name).join("config.json")).unwrap();
    for name in names {
        let origin = fixture(name);
        let tensors = open(&origin).unwrap().read_all(DType::F32, &Device::Cpu).unwrap();
        save_model(&out.path().join(name), &config_of(name), &tensors, Some(&origin), u64::MAX).unwrap();
    }
    let folders = |root: &Path| names.map(|name| root.join(name));
    let run = |root: &Path| python(read, &folders(root).each_ref().map(|path| path.as_path()));
    let Some(ours) = run(out.path()) else { return };
    let theirs = run(&fixture("")).unwrap();
    for ((ours, theirs), name) in ours.lines().zip(theirs.lines()).zip(names) {
        let fields = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (ours, theirs) = (fields(ours), fields(theirs));
        for (field, value) in theirs.as_object().unwrap() {
            if !["transformers_version", "_name_or_path"].contains(&field.as_str()) {
                assert_eq!(ours[field], *value, "{name}: {field}");
            }
        }
        // And all that transformers knows of it is read.
        let path = out.path().join("config.json");
        write(&path, theirs.to_string());
        assert_eq!(Config::read(&path).unwrap(), config_of(name), "{name}");
    }
}

/// Writes, for every architecture, what transformers saves as base model, as language model and as reward model.
const SAVE: &str = r#"
import sys, pathlib, torch, transformers as t
out = pathlib.Path(sys.argv[1])
small = dict(vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
deberta = dict(small, relative_attention=True, position_buckets=4, norm_rel_ebd="layer_norm", share_att_key=True,
               pos_att_type="p2c|c2p", position_biased_input=False, max_position_embeddings=8)
for name, config, classes in [
    ("gpt2", t.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2, num_labels=1),
        ("GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification")),
    ("llama", t.LlamaConfig(**small, num_labels=1), ("LlamaModel", "LlamaForCausalLM", "LlamaForSequenceClassification")),
    ("gpt_neox", t.GPTNeoXConfig(**small, num_labels=1),
        ("GPTNeoXModel", "GPTNeoXForCausalLM", "GPTNeoXForSequenceClassification")),
    ("bert", t.BertConfig(**small, max_position_embeddings=8, num_labels=1),
        ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")),
    ("roberta", t.RobertaConfig(**small, max_position_embeddings=8, num_labels=1),
        ("RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification")),
    ("distilbert", t.DistilBertConfig(vocab_size=11, dim=8, hidden_dim=12, n_layers=2, n_heads=2,
                                      max_position_embeddings=8, num_labels=1),
        ("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification")),
    ("deberta-v2", t.DebertaV2Config(**deberta, num_labels=1),
        ("DebertaV2Model", "DebertaV2ForMaskedLM", "DebertaV2ForSequenceClassification")),
    ("deberta-v2", t.DebertaV2Config(**deberta, legacy=False, num_labels=1), (None, "DebertaV2ForMaskedLM", None)),
]:
    for kind, cls in zip(("base", "language", "reward"), classes):
        if cls:
            suffix = "" if getattr(config, "legacy", True) else "-new"
            getattr(t, cls)(config).save_pretrained(out / f"{name}.{kind}{suffix}")
"#;

#[test]
fn what_transformers_saves_of_every_architecture_becomes_every_model() {
    let out = tempfile::tempdir().unwrap();
    if python(SAVE, &[out.path()]).is_none() {
        return;
    }
    let names_in =
        |name: String| -> Vec<String> { open(&out.path().join(name)).unwrap().names().map(str::to_string).collect() };
    for model_type in ["gpt2", "llama", "gpt_neox", "bert", "roberta", "distilbert", "deberta-v2"] {
        let architecture = Architecture::of(model_type).unwrap();
        let reward = names_in(format!("{model_type}.reward"));
        assert!(architecture.is_reward_model(reward.iter().map(String::as_str)), "{model_type}");
        let mut kinds = vec!["base", "language", "reward"];
        if model_type == "deberta-v2" {
            kinds.push("language-new");
        }
        for kind in kinds {
            let stored = names_in(format!("{model_type}.{kind}"));
            let stored = || stored.iter().map(String::as_str);
            let purpose = Purpose::RewardModel(Head::Fresh(0));
            let names = canonical_names(architecture, purpose, true, stored()).unwrap();
            // What is kept and what is drawn together are the reward model, tensor for tensor.
            let mut all: Vec<_> = names.kept.keys().chain(&names.fresh).map(String::as_str).collect();
            all.sort();
            assert_eq!(all, reward.iter().map(String::as_str).collect::<Vec<_>>(), "{model_type} {kind}");
        }
        if ["gpt2", "llama", "gpt_neox"].contains(&model_type) {
            let language = names_in(format!("{model_type}.language"));
            let stored = || language.iter().map(String::as_str);
            let names = canonical_names(architecture, Purpose::LanguageModel, model_type == "gpt2", stored()).unwrap();
            assert_eq!(names.kept.keys().map(String::as_str).collect::<Vec<_>>(), stored().collect::<Vec<_>>());
        }
    }
}

/// Saves a state dict as torch does and as safetensors does: tied, shared, transposed, sliced, of every type; then in
/// torch's old format, nested, and a pickle that would run code.
const PICKLE: &str = r#"
import sys, pathlib, collections, torch
from safetensors.torch import save_file
out = pathlib.Path(sys.argv[1])
g = torch.Generator().manual_seed(0)
embedding = torch.nn.Parameter(torch.randn(5, 4, generator=g))
block = torch.randn(6, 7, 2, generator=g)
state = collections.OrderedDict(
    embedding=embedding, tied=embedding, transposed=torch.randn(3, 5, generator=g).T,
    sliced=block[2:4], tail=block[5], half=torch.randn(3, 2, generator=g).half(), brain=torch.randn(7, generator=g).bfloat16(),
    double=torch.randn(2, generator=g).double(), position_ids=torch.arange(4)[None], mask=torch.ones(2, 2, dtype=torch.uint8),
    scalar=torch.tensor(-1e4), column=torch.randn(3, 1, generator=g))
state._metadata = {"": {"version": 1}}
for name in ("pickle", "old", "nested", "code", "safe"):
    (out / name).mkdir()
torch.save(state, out / "pickle/pytorch_model.bin")
torch.save(state, out / "old/pytorch_model.bin", _use_new_zipfile_serialization=False)
torch.save({"state_dict": state, "epoch": 3}, out / "nested/pytorch_model.bin")
class Code:
    def __reduce__(self):
        return (open, (str(out / "ran"), "w"))
torch.save({"a": Code()}, out / "code/pytorch_model.bin")
save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, out / "safe/model.safetensors")
"#;

#[test]
fn what_torch_saved_is_read_as_safetensors_is() {
    let out = tempfile::tempdir().unwrap();
    if python(PICKLE, &[out.path()]).is_none() {
        return;
    }
    let all = |kind: &str, dtype| open(&out.path().join(kind)).unwrap().read_all(dtype, &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let safe = all("safe", dtype);
        assert_eq!(safe.len(), 12);
        assert_same(&all("pickle", dtype), &safe);
    }
    assert_error(open(&out.path().join("old")), &["old/pytorch_model.bin", "not a zip archive", "python -c"]);
    assert_error(open(&out.path().join("nested")), &["nested/pytorch_model.bin", "no tensors", "python -c"]);
    assert_error(open(&out.path().join("code")), &["code/pytorch_model.bin", "no tensors"]);
    assert!(!out.path().join("ran").exists(), "the pickle's code ran");
    // The command that the message names does what it says.
    let old = out.path().join("old");
    let message = format!("{:#}", open(&old).err().unwrap());
    let command = &message[message.find("python -c").unwrap()..];
    let python = std::env::var("QSTAR_PYTHON").unwrap();
    let status = Command::new("sh").arg("-c").arg(command.replacen("python", &python, 1)).current_dir(&old).status();
    assert!(status.unwrap().success());
    assert_same(&all("old", DType::F32), &all("safe", DType::F32));
}

#[test]
fn a_pickled_model_in_shards_is_read() {
    let save = r#"
import sys, json, pathlib, torch
out = pathlib.Path(sys.argv[1])
from safetensors.torch import load_file
tensors = load_file(out / "model.safetensors")
(out / "model.safetensors").unlink()
weight_map = {}
for i, name in enumerate(sorted(tensors)):
    weight_map[name] = f"pytorch_model-{i % 2 + 1:05}-of-00002.bin"
for file in set(weight_map.values()):
    torch.save({n: t for n, t in tensors.items() if weight_map[n] == file}, out / file)
(out / "pytorch_model.bin.index.json").write_text(json.dumps(dict(metadata={}, weight_map=weight_map)))
"#;
    let path = tempfile::tempdir().unwrap();
    let model = llama();
    save_model(path.path(), &model.config, &tensors(&model), None, u64::MAX).unwrap();
    if python(save, &[path.path()]).is_none() {
        return;
    }
    let stored = read_model(&folder(path.path()), Purpose::LanguageModel, DType::F32, &Device::Cpu).unwrap();
    assert_same(&stored.tensors, &tensors(&model));
}
