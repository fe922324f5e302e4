//! Trainings of targets where the answer can be enumerated.

use qstar::models::{Config, Gpt2Config, LanguageModel};
use qstar::rollout::Proposal;
use qstar::target::{Expert, PrefixScorer, SequenceReward, Target, log_probs_along};
use qstar::tasks::micro::MicroWorld;
use qstar::tasks::{Prompt, Split, Task};
use qstar::train::{
    Conditional, Distillation, Keep, PrefixTraining, Supervised, TrainingReward, distill, train_conditional,
    train_prefix_values,
};
use tokenizers::Tokenizer;

use super::{after, reward_of, softmax};

/// Five tokens, one prompt, responses of two tokens.
struct Two {
    words: MicroWorld,
}

const PROMPT: [u32; 2] = [1, 3];
const SIZE: usize = 5;

impl Task for Two {
    fn name(&self) -> &'static str {
        "two"
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.words.tokenizer()
    }

    fn stop_tokens(&self) -> &[u32] {
        &[]
    }

    fn max_response_tokens(&self) -> usize {
        2
    }

    fn prompt(&self, split: Split, index: u64) -> Prompt {
        Prompt { split, index, family: "two", text: String::new(), tokens: PROMPT.to_vec() }
    }

    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> anyhow::Result<Vec<f64>> {
        Ok(responses.iter().map(|(_, response)| reward_of(response)).collect())
    }
}

fn two() -> Two {
    Two { words: MicroWorld::new().unwrap() }
}

fn model(seed: u64, width: usize) -> LanguageModel {
    let config = Gpt2Config {
        vocab_size: SIZE,
        n_positions: 4,
        n_embd: width,
        n_layer: 1,
        n_head: 2,
        initializer_range: 0.3,
        ..Default::default()
    };
    LanguageModel::new(Config::Gpt2(config), seed).unwrap()
}

const TRAINING: PrefixTraining = PrefixTraining {
    prompts: 2048,
    responses: 8,
    steps: 1500,
    batch: 512,
    learning_rate: 2e-2,
    warmup_steps: 20,
    weight_decay: 0.0,
    seed: 1,
};

#[test]
fn a_prefix_scorers_values_are_conditional_expectations() {
    let (task, reference) = (two(), model(1, 16));
    let trained = train_prefix_values(&reference, &task, TrainingReward::True, &TRAINING, "values").unwrap();
    let (first, last) = (&trained.rows[..20], &trained.rows[1480..]);
    let loss = |rows: &[qstar::train::PrefixStepRow]| rows.iter().map(|row| row.loss).sum::<f64>() / 20.0;
    println!(
        "loss {:.5} to {:.5}, explained {:.3} in training, {:.3} held out",
        loss(first),
        loss(last),
        trained.rows[1499].explained_variance,
        trained.held_out_explained_variance
    );
    assert!(loss(last) < 0.8 * loss(first));
    assert!(trained.held_out_explained_variance > 0.3);
    // 2048 · 8 responses, one reward each.
    assert_eq!((trained.spent.samples, trained.spent.reward_calls), (16384, 16384));
    assert!(trained.spent.forward_flops > 0.0 && trained.spent.backward_flops > 0.0);
    // E[r | a] and E[r | a, b], by enumeration; and what the least squares can reach at all: the variance of r given a.
    let network = reference.frozen().unwrap();
    let value = |prefix: &[u32]| {
        let hidden: Vec<f32> = after(&network, prefix).0.into_iter().map(|x| x as f32).collect();
        let hidden = candle_core::Tensor::from_vec(hidden, (1, 16), &candle_core::Device::Cpu).unwrap();
        trained.values.of_all(&hidden).unwrap().remove(0)
    };
    let (mut most, mut checked): (f64, usize) = (0.0, 0);
    let (start, pa) = (value(&PROMPT), softmax(&after(&network, &PROMPT).1));
    for a in 0..SIZE as u32 {
        let prefix = [&PROMPT[..], &[a]].concat();
        let (then, pb) = (value(&prefix), softmax(&after(&network, &prefix).1));
        let expected: f64 = (0..SIZE).map(|b| pb[b] * reward_of(&[a, b as u32])).sum();
        // Of what hardly ever occurs nothing can be learned.
        if pa[a as usize] > 0.01 {
            most = most.max((start[a as usize] - expected).abs());
            checked += 1;
        }
        for b in 0..SIZE {
            if pa[a as usize] * pb[b] > 0.01 {
                most = most.max((then[b] - reward_of(&[a, b as u32])).abs());
                checked += 1;
            }
        }
    }
    println!("{checked} values within {most:.4} of the conditional expectation");
    assert!(checked > 15 && most < 0.03, "{checked} values, the worst {most}");
    // Same seed, same bits.
    let again = train_prefix_values(&reference, &task, TrainingReward::True, &TRAINING, "values").unwrap();
    assert_eq!(again.values.params.digest().unwrap(), trained.values.params.digest().unwrap());
    let (one, two) =
        (PrefixScorer::new(&reference, &trained.values, 0.1), PrefixScorer::new(&reference, &again.values, 0.1));
    assert_eq!(one.unwrap().identity(), two.unwrap().identity());
}

/// The mean reward of a model's responses, by enumeration.
fn exact(model: &LanguageModel) -> f64 {
    let network = model.frozen().unwrap();
    let pa = softmax(&after(&network, &PROMPT).1);
    let of = |a: usize| {
        let pb = softmax(&after(&network, &[&PROMPT[..], &[a as u32]].concat()).1);
        (0..SIZE).map(|b| pa[a] * pb[b] * reward_of(&[a as u32, b as u32])).sum::<f64>()
    };
    (0..SIZE).map(of).sum()
}

#[test]
fn a_conditional_policy_gets_more_reward() {
    let (task, reference) = (two(), model(1, 16));
    let training = Supervised { steps: 150, batch: 64, learning_rate: 5e-3, warmup_steps: 5 };
    let config = Conditional { prompts: 64, responses: 8, keep: Keep::Share(0.25), training, seed: 0 };
    let whole = SequenceReward::of("learned", |sequences| Ok(sequences.iter().map(|s| reward_of(&s[2..])).collect()));
    let before = exact(&reference);
    for reward in [TrainingReward::True, TrainingReward::Learned(&whole)] {
        let trained = train_conditional(&reference, &task, reward, &config, "conditional").unwrap();
        let after = exact(&trained.model);
        println!(
            "exact reward {before:.3} to {after:.3}; drawn {:.3}, kept {:.3}",
            trained.drawn_reward, trained.kept_reward
        );
        // The mean of 512 draws, and the best two of eight of them.
        assert!((trained.drawn_reward - before).abs() < 0.06 && trained.kept == 128);
        assert!((after - trained.kept_reward).abs() < 0.06, "imitation reaches what was kept");
        assert_eq!((trained.spent.samples, trained.spent.reward_calls), (512, 512));
        assert!(trained.target().unwrap().identity().starts_with("conditional "));
    }
    let error = |keep| {
        let config = Conditional { keep, ..config };
        train_conditional(&reference, &task, TrainingReward::True, &config, "conditional")
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(error(Keep::Share(0.0)).contains("(0, 1]"));
    assert!(error(Keep::From(2.0)).contains("no response"));
}

#[test]
fn a_draft_comes_close_to_its_target() {
    let (task, teacher, policy) = (two(), model(1, 16), model(2, 16));
    let (target, draft) = (Expert::new(&teacher).unwrap(), model(3, 8));
    let config =
        Distillation { steps: 300, prompts: 16, responses: 1, learning_rate: 2e-2, seed: 0, ..Default::default() };
    let trained = distill(&target, &policy.frozen().unwrap(), &draft, &task, &config, "draft").unwrap();
    // KL by enumeration of the contexts that a response can pass.
    let prompts: Vec<Vec<u32>> = (0..SIZE).map(|_| PROMPT.to_vec()).collect();
    let responses: Vec<Vec<u32>> = (0..SIZE as u32).map(|a| vec![a, 0]).collect();
    let log_probs = |target: &dyn Target| log_probs_along(target, &prompts, &responses).unwrap().log_probs;
    let kl = |t: &[f64], s: &[f64]| t.iter().zip(s).map(|(t, s)| t.exp() * (t - s)).sum::<f64>();
    let of = |draft: &LanguageModel| {
        let (t, s) = (log_probs(&target), log_probs(&Expert::named("draft", draft).unwrap()));
        t.iter().zip(&s).map(|(t, s)| kl(t, s)).fold(0.0, f64::max)
    };
    let (before, after) = (of(&model(3, 8)), of(&draft));
    println!(
        "the largest KL(target‖draft) of a context {before:.3} to {after:.4}; the last step's mean {:.4}",
        trained.rows[299].kl
    );
    assert!(after < 0.05 && after < 0.1 * before);
    assert_eq!((trained.spent.samples, trained.spent.reward_calls), (300 * 16, 0));
    let stranger = super::gpt2(1);
    let contexts = Proposal::Target;
    let config = Distillation { contexts, ..config };
    let error =
        distill(&target, &policy.frozen().unwrap(), &stranger, &task, &config, "draft").map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("vocabulary of 11") && error.to_string().contains("one of 5"), "{error}");
}
