//! A whole run on real dialogues, with a policy and a reward model made from scratch: small, so that it takes seconds.

use qstar::experiment::{Scratch, TargetName, TextExpert, TextModels, TextSources, World, text_data};
use qstar::method::{DPO, Method, QSTAR, SFT, Source as ResponseSource};
use qstar::models::{Config, Gpt2Config, RewardModel, save_reward_folder};
use qstar::progress::Progress;
use qstar::ranks::Ranks;
use qstar::record;
use qstar::tasks::Split;
use qstar::tasks::data::hh_rlhf;
use qstar::train::{HeldOut, Run, RunConfig, RunSpec, StepConfig, Supervised};

use crate::cache::dataset_file;

#[test]
fn a_policy_from_scratch_is_trained_on_dialogues() {
    if dataset_file(hh_rlhf::REPOSITORY, &hh_rlhf::Part::HelpfulBase.file(false)).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let sources = TextSources::default();
    let training = Supervised { steps: 30, batch: 8, learning_rate: 3e-3, warmup_steps: 3 };
    let sizes =
        Scratch { vocabulary: 400, width: 32, layers: 1, heads: 2, positions: 96, block: 64, training, seed: 0 };
    let made = sizes.make(&text_data(folder.path(), "dialogue", &sources).unwrap().pools, &path("policy")).unwrap();
    // Between a uniform guess and what no model of this size reaches.
    assert!(made.held_out_loss < 400f64.ln() && made.held_out_loss > 1.0, "{made:?}");
    assert!((made.held_out_bits_per_byte - made.held_out_loss / 2f64.ln()).abs() < made.held_out_loss, "{made:?}");

    let config =
        Gpt2Config { vocab_size: 400, n_positions: 96, n_embd: 16, n_layer: 1, n_head: 2, ..Default::default() };
    save_reward_folder(&RewardModel::new(Config::Gpt2(config), 1).unwrap(), &path("reward")).unwrap();
    std::fs::copy(path("policy").join("tokenizer.json"), path("reward").join("tokenizer.json")).unwrap();

    let name = |name: &str| path(name).to_str().unwrap().to_string();
    let models = TextModels {
        policy: name("policy"),
        expert: TextExpert::Trained(Supervised { steps: 5, batch: 4, learning_rate: 1e-3, warmup_steps: 1 }),
        reward: Some(name("reward")),
        prompt_tokens: 48,
        response_tokens: 48,
        chat: false,
        lora: None,
        recompute: false,
        precision: Default::default(),
        cuda: false,
        spread: false,
    };
    let world = World::text(&path("data"), "dialogue", &models, &sources, &Ranks::alone()).unwrap();
    let step = StepConfig { prompts: 4, responses: 2, microbatches: 2, ..Default::default() };
    let config = RunConfig {
        steps: 2,
        budget: None,
        max_kl: None,
        patience: None,
        keep_best: false,
        evaluate_every: 2,
        evaluation_prompts: 8,
        evaluate_on: HeldOut::Test,
        checkpoint_every: 2,
        step,
    };
    let read = Method { source: ResponseSource::Demonstrations, ..SFT };
    for method in [QSTAR, read, DPO] {
        let spec = RunSpec::new(&*world.task, method.clone(), 1, config, &world.models).unwrap();
        let run = Run::new(&path("runs"), spec).unwrap();
        run.train(&*world.task, &world.models, &Progress::new("run", 2)).unwrap();
        let rows = record::evaluations(&run.folder).unwrap();
        let rewards = rows.column("reward").unwrap().f64().unwrap();
        assert!(rewards.iter().all(|reward| reward.is_some_and(|r| r > 0.0 && r < 1.0)), "{rows}");
        // Data are read once, however many responses a drawn prompt would get.
        let samples = rows.column("samples").unwrap().i64().unwrap().get(rows.height() - 1).unwrap();
        assert_eq!(samples, if method.name == "sft" { 8 } else { 16 }, "{}", method.name);
    }

    // Adapters train beside frozen weights, those of the expert too.
    let lora = qstar::models::LoraConfig { rank: 2, alpha: 4.0, dropout: 0.0, targets: vec!["c_attn".into()] };
    let models = TextModels { lora: Some(lora), recompute: true, ..models };
    let world = World::text(&path("data"), "dialogue", &models, &sources, &Ranks::alone()).unwrap();
    let spec = RunSpec::new(&*world.task, QSTAR, 1, config, &world.models).unwrap();
    let run = Run::new(&path("runs"), spec).unwrap();
    run.train(&*world.task, &world.models, &Progress::new("adapters", 2)).unwrap();
    // Beside targets that are trained from the adapted policy, too.
    for target in [TargetName::RewardSoftmax, TargetName::Conditional] {
        let world = world.clone().with_target_named(&path("data"), target).unwrap();
        let spec = RunSpec::new(&*world.task, QSTAR, 2, RunConfig { steps: 1, ..config }, &world.models).unwrap();
        let run = Run::new(&path("runs"), spec).unwrap();
        run.train(&*world.task, &world.models, &Progress::new(target.name(), 1)).unwrap();
    }

    // As chats, with the template that lies beside the policy's weights, and not without one.
    let chats = TextModels { chat: true, lora: None, ..models.clone() };
    let error =
        format!("{:#}", World::text(&path("data"), "dialogue", &chats, &sources, &Ranks::alone()).err().unwrap());
    assert!(error.contains("chat_template.jinja") && error.contains(&name("policy")), "{error}");
    let template = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ eos_token }}{% endfor %}\
                    {% if add_generation_prompt %}assistant: {% endif %}";
    std::fs::write(path("policy").join("chat_template.jinja"), template).unwrap();
    std::fs::write(path("policy").join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
    let chat = World::text(&path("data"), "dialogue", &chats, &sources, &Ranks::alone()).unwrap();
    assert_ne!(chat.task.identity(), world.task.identity());
    let prompt = chat.task.prompt(Split::Test, 0);
    assert!(prompt.text.starts_with("user: ") && prompt.text.ends_with("<|endoftext|>assistant: "), "{}", prompt.text);
    for method in [QSTAR, DPO] {
        let spec = RunSpec::new(&*chat.task, method, 3, RunConfig { steps: 1, ..config }, &chat.models).unwrap();
        let run = Run::new(&path("runs"), spec).unwrap();
        run.train(&*chat.task, &chat.models, &Progress::new("chats", 1)).unwrap();
        let rows = record::evaluations(&run.folder).unwrap();
        let rewards = rows.column("reward").unwrap().f64().unwrap();
        assert!(rewards.iter().all(|reward| reward.is_some_and(|r| r > 0.0 && r < 1.0)), "{rows}");
    }

    let stranger = TextModels { expert: TextExpert::Model("openai-community/gpt2".into()), ..models };
    let error =
        format!("{:#}", World::text(&path("data"), "dialogue", &stranger, &sources, &Ranks::alone()).err().unwrap());
    assert!(error.contains("different tokenizers"), "{error}");
}
