//! A real network whose responses can all be enumerated.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use qstar::method::{Dpo, Method, Objective};
use qstar::mixture::{Pair, Rule};
use qstar::models::{Config, Gpt2Config, LanguageModel, Network};
use qstar::nn::Params;
use qstar::target::{BestOfN, Expert};
use qstar::tasks::micro::MicroWorld;
use qstar::tasks::{Prompt, Split, Task};
use qstar::train::{Batch, Gradient, Learned, Sample, Sequences, StepConfig, Trainer};
use tokenizers::Tokenizer;

const V: usize = 4;
const LONGEST: usize = 3;
const STOP: u32 = 0;
/// Of the divergence from π_init.
pub const BETA: f64 = 0.3;

/// A number for every token of every outcome.
pub type Along = Vec<Vec<f64>>;

/// One prompt, all responses to it.
pub struct World {
    task: OnePrompt,
    policy: LanguageModel,
    init: Network,
    target: LanguageModel,
    pub outcomes: Vec<Vec<u32>>,
    pub rewards: Vec<f64>,
    pub log_p: Along,
    pub log_init: Along,
    pub log_t: Along,
    /// ∇ log π_θ of every token of every outcome.
    scores: Vec<Vec<Vec<f64>>>,
}

/// A task of one prompt whose rewards the tests know.
struct OnePrompt {
    micro: MicroWorld,
}

impl Task for OnePrompt {
    fn name(&self) -> &'static str {
        "one-prompt"
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.micro.tokenizer()
    }

    fn stop_tokens(&self) -> &[u32] {
        &[STOP]
    }

    fn max_response_tokens(&self) -> usize {
        LONGEST
    }

    fn prompt(&self, split: Split, index: u64) -> Prompt {
        Prompt { split, index, family: "one", text: String::new(), tokens: vec![3, 1] }
    }

    fn rewards(&self, responses: &[(&Prompt, &[u32])]) -> Result<Vec<f64>> {
        Ok(responses.iter().map(|(_, response)| reward(response)).collect())
    }
}

impl World {
    /// With `stops`, token 0 ends a response; else all have the longest length.
    pub fn new(stops: bool) -> Self {
        let config = Gpt2Config {
            vocab_size: V,
            n_positions: 8,
            n_embd: 8,
            n_layer: 1,
            n_head: 2,
            initializer_range: 0.5,
            ..Default::default()
        };
        let model =
            |seed| LanguageModel::new(Config::Gpt2(config.clone()), seed).unwrap().to_dtype(DType::F64).unwrap();
        let (policy, init, target) = (model(1), model(2).frozen().unwrap(), model(3));
        let task = OnePrompt { micro: MicroWorld::new().unwrap() };
        let outcomes = outcomes(stops);
        let prompt = task.prompt(Split::Train, 0);
        let rewards = outcomes.iter().map(|y| reward(y)).collect();
        let sequences = sequences(&prompt, &outcomes);
        let along = |network: &Network| {
            let log_probs = sequences.log_probs(network, &sequences.hidden(network).unwrap()).unwrap();
            sequences.by_response(&log_probs.to_vec1::<f64>().unwrap())
        };
        let (log_p, log_init) = (along(&policy.network), along(&init));
        let log_t = along(&target.network);
        let scores = outcomes.iter().map(|y| scores(&policy, &prompt, y)).collect();
        Self { task, policy, init, target, outcomes, rewards, log_p, log_init, log_t, scores }
    }

    /// r − β log π_θ/π_init.
    pub fn value(&self, y: usize) -> f64 {
        let kl: f64 = self.log_p[y].iter().zip(&self.log_init[y]).map(|(p, init)| p - init).sum();
        self.rewards[y] - BETA * kl
    }

    /// E_q of a number of the outcome.
    pub fn mean(&self, log_q: &Along, of: impl Fn(usize) -> f64) -> f64 {
        (0..self.outcomes.len()).map(|y| probability(&log_q[y]) * of(y)).sum()
    }

    /// Σ_y q(y) Σ_t coefficient(y, t) ∇ log π_θ(y_t).
    pub fn sum(&self, log_q: &Along, coefficient: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        self.sum_over(|y| probability(&log_q[y]), coefficient)
    }

    pub fn sum_over(&self, mass: impl Fn(usize) -> f64, coefficient: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let mut sum = vec![0.0; self.scores[0][0].len()];
        for (y, tokens) in self.scores.iter().enumerate() {
            for (t, score) in tokens.iter().enumerate() {
                add(&mut sum, score, mass(y) * coefficient(y, t));
            }
        }
        sum
    }

    /// ∇ (E\[r\] − β KL(π_θ‖π_init)).
    pub fn exact_gradient(&self) -> Vec<f64> {
        self.sum(&self.log_p, |y, _| self.value(y))
    }

    /// log q of every outcome's tokens.
    pub fn mixture(&self, rule: &Rule) -> Along {
        self.mix(&self.target.network, rule)
    }

    pub fn mixture_with_itself(&self, rule: &Rule) -> Along {
        self.mix(&self.policy.network, rule)
    }

    fn mix(&self, target: &Network, rule: &Rule) -> Along {
        let prompt = self.task.prompt(Split::Train, 0);
        let next = |network: &Network, prefix: &[u32]| -> Vec<f64> {
            let ids: Vec<u32> = prompt.tokens.iter().chain(prefix).copied().collect();
            let ids = Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu).unwrap();
            let logits = network.logits(&network.hidden(&ids, None).unwrap()).unwrap();
            let row = logits.squeeze(0).unwrap().get(ids.dim(1).unwrap() - 1).unwrap().to_vec1::<f64>().unwrap();
            let z = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            row.iter().map(|x| x - z).collect()
        };
        let of = |y: &Vec<u32>| -> Vec<f64> {
            (0..y.len())
                .map(|t| {
                    let (p, q) = (next(&self.policy.network, &y[..t]), next(target, &y[..t]));
                    let pair = Pair::from_log_probs(&p, &q).unwrap();
                    pair.log_q(pair.solve(rule).unwrap().alpha)[y[t] as usize]
                })
                .collect()
        };
        self.outcomes.iter().map(of).collect()
    }

    /// What the trainer computes for responses drawn with these log-probabilities: minus the gradient of its loss.
    pub fn gradient(&self, method: &Method, log_q: &Along, drawn: &[usize]) -> Vec<f64> {
        let learned = (0..drawn.len()).map(|sample| Learned { sample, picked: None }).collect();
        self.with_trainer(method, drawn.len(), |trainer| trained(trainer, &self.batch(log_q, drawn, learned)))
    }

    /// Its mean over all k-tuples of responses.
    pub fn mean_gradient(&self, method: &Method, log_q: &Along, k: usize) -> Vec<f64> {
        let n = self.outcomes.len();
        self.with_trainer(method, k, |trainer| {
            let mut mean = vec![0.0; self.scores[0][0].len()];
            for tuple in 0..n.pow(k as u32) {
                let drawn: Vec<usize> = (0..k).map(|i| tuple / n.pow(i as u32) % n).collect();
                let mass: f64 = drawn.iter().map(|&y| probability(&log_q[y])).product();
                let learned = (0..k).map(|sample| Learned { sample, picked: None }).collect();
                add(&mut mean, &trained(trainer, &self.batch(log_q, &drawn, learned)), mass);
            }
            mean
        })
    }

    /// The mean over single responses of given masses.
    pub fn mean_of_singles(&self, method: &Method, mass: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut mean = vec![0.0; self.scores[0][0].len()];
        for y in 0..self.outcomes.len() {
            add(&mut mean, &self.gradient(method, &self.log_p, &[y]), mass(y));
        }
        mean
    }

    /// The mean over all pairs of draws and all picks of one of them.
    pub fn mean_of_picks(&self, method: &Method, best: &BestOfN) -> Vec<f64> {
        let n = self.outcomes.len();
        self.with_trainer(method, 1, |trainer| {
            let mut mean = vec![0.0; self.scores[0][0].len()];
            for (a, b) in (0..n * n).map(|i| (i / n, i % n)) {
                let mass = probability(&self.log_p[a]) * probability(&self.log_p[b]);
                let logits = [a, b].map(|y| self.rewards[y] / best.beta);
                let pair = Pair::from_logits_f64(&[0.0, 0.0], &logits).unwrap();
                let log_q = pair.log_q(pair.solve(&best.rule).unwrap().alpha);
                for (pick, other) in [(0, b), (1, a)] {
                    let picked = Some((-(2f64.ln()) - log_q[pick], self.value(other)));
                    let batch = self.batch(&self.log_p, &[a, b], vec![Learned { sample: pick, picked }]);
                    add(&mut mean, &trained(trainer, &batch), mass * log_q[pick].exp());
                }
            }
            mean
        })
    }

    /// The values that the value head gives before every token of every outcome.
    pub fn values(&self, method: &Method) -> Along {
        let sequences = sequences(&self.task.prompt(Split::Train, 0), &self.outcomes);
        let hidden = sequences.hidden(&self.policy.network).unwrap();
        self.with_trainer(method, 1, |trainer| {
            let of = |name: &str| trainer.params().get(name).unwrap().as_detached_tensor();
            let (weight, bias) = (of("value_head.weight"), of("value_head.bias"));
            let values = hidden.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
            sequences.by_response(&values.squeeze(1).unwrap().to_vec1::<f64>().unwrap())
        })
    }

    /// Σ_l λ^l (reward + next value − value) from token t on, with the penalty at every token and the reward at the end.
    pub fn lambda_return(&self, values: &[f64], y: usize, t: usize, lambda: f64) -> f64 {
        let last = self.outcomes[y].len() - 1;
        let delta = |s: usize| {
            let end = if s == last { self.rewards[y] } else { 0.0 };
            let next = if s == last { 0.0 } else { values[s + 1] };
            end - BETA * (self.log_p[y][s] - self.log_init[y][s]) + next - values[s]
        };
        (t..=last).map(|s| lambda.powi((s - t) as i32) * delta(s)).sum()
    }

    /// How far the exact gradient is from differences of the objective, along a direction.
    pub fn objective_by_differences(&self) -> f64 {
        let direction = self.direction();
        let of = |log_p: &Along| -> f64 {
            (0..self.outcomes.len())
                .map(|y| {
                    let kl: f64 = log_p[y].iter().zip(&self.log_init[y]).map(|(p, init)| p - init).sum();
                    probability(&log_p[y]) * (self.rewards[y] - BETA * kl)
                })
                .sum()
        };
        let exact: f64 = self.exact_gradient().iter().zip(&direction).map(|(g, d)| g * d).sum();
        (self.difference(&direction, of) - exact).abs() / exact.abs()
    }

    /// How far the mean gradient of DPO is from differences of its mean loss, along a direction.
    pub fn dpo_by_differences(&self, method: &Method, dpo: &Dpo) -> f64 {
        let n = self.outcomes.len();
        let chance =
            |a: usize, b: usize| 1.0 / (1.0 + ((self.rewards[b] - self.rewards[a]) / 0.2).exp()) / (n * n) as f64;
        let scale = |y: usize| dpo.beta / self.outcomes[y].len() as f64;
        let of = |log_p: &Along| -> f64 {
            let implied =
                |y: usize| scale(y) * log_p[y].iter().zip(&self.log_init[y]).map(|(p, init)| p - init).sum::<f64>();
            let mut loss = 0.0;
            for (a, b) in (0..n * n).map(|i| (i / n, i % n)) {
                let softplus = |x: f64| x.exp().ln_1p();
                let d = implied(a) - implied(b);
                loss += chance(a, b) * ((1.0 - dpo.label_smoothing) * softplus(-d) + dpo.label_smoothing * softplus(d));
            }
            loss
        };
        assert_eq!(method.objective, Objective::Dpo(*dpo));
        let mut mean = vec![0.0; self.scores[0][0].len()];
        self.with_trainer(method, 2, |trainer| {
            for (a, b) in (0..n * n).map(|i| (i / n, i % n)) {
                let learned = (0..2).map(|sample| Learned { sample, picked: None }).collect();
                add(&mut mean, &trained(trainer, &self.batch(&self.log_p, &[a, b], learned)), chance(a, b));
            }
        });
        let direction = self.direction();
        let exact: f64 = mean.iter().zip(&direction).map(|(g, d)| -g * d).sum();
        (self.difference(&direction, of) - exact).abs() / exact.abs()
    }

    /// The central difference of a function of all log π_θ along a direction.
    fn difference(&self, direction: &[f64], of: impl Fn(&Along) -> f64) -> f64 {
        const H: f64 = 1e-5;
        let sequences = sequences(&self.task.prompt(Split::Train, 0), &self.outcomes);
        let moved = |h: f64| {
            let model = self.policy.copy().unwrap();
            let mut at = 0;
            for (_, var) in model.params.iter() {
                let step =
                    Tensor::from_slice(&direction[at..at + var.elem_count()], var.shape(), &Device::Cpu).unwrap();
                at += var.elem_count();
                var.set(&(var.as_detached_tensor() + (step * h).unwrap()).unwrap()).unwrap();
            }
            let log_p = sequences.log_probs(&model.network, &sequences.hidden(&model.network).unwrap()).unwrap();
            of(&sequences.by_response(&log_p.to_vec1::<f64>().unwrap()))
        };
        (moved(H) - moved(-H)) / (2.0 * H)
    }

    fn direction(&self) -> Vec<f64> {
        (0..self.scores[0][0].len()).map(|i| (0.7 * i as f64 + 0.3).sin()).collect()
    }

    fn batch(&self, log_q: &Along, drawn: &[usize], learned: Vec<Learned>) -> Batch {
        let prompts = vec![self.task.prompt(Split::Train, 0)];
        let sample = |&y: &usize| Sample {
            reward: self.rewards[y],
            shaped: self.rewards[y],
            log_q: Some(log_q[y].clone()),
            log_p: Some(self.log_p[y].clone()),
            log_init: self.log_init[y].clone(),
            ..Sample::new(0, self.outcomes[y].clone(), true)
        };
        Batch { prompts, samples: drawn.iter().map(sample).collect(), learned, ..Batch::default() }
    }

    fn with_trainer<R>(&self, method: &Method, k: usize, work: impl FnOnce(&Trainer) -> R) -> R {
        let target = Expert::new(&self.target).unwrap();
        let config =
            StepConfig { prompts: 1, responses: k, microbatches: 1, kl_coefficient: BETA, ..Default::default() };
        let trainer =
            Trainer::new(&self.task, method.clone(), config, 0, &self.policy, &self.init, Some(&target)).unwrap();
        work(&trainer)
    }
}

/// Minus the gradient by the policy's variables: those of a value head are left out.
fn trained(trainer: &Trainer, batch: &Batch) -> Vec<f64> {
    let (gradient, _) = trainer.gradient(batch).unwrap().unwrap();
    minus(&gradient, trainer.params())
}

fn minus(gradient: &Gradient, params: &Params) -> Vec<f64> {
    let own = params.iter().zip(gradient.values()).filter(|((name, _), _)| !name.starts_with("value_head"));
    own.flat_map(|(_, value)| value.flatten_all().unwrap().to_vec1::<f64>().unwrap())
        .map(|g| -g * gradient.scale())
        .collect()
}

/// ∇ log π_θ of each token of a response.
fn scores(policy: &LanguageModel, prompt: &Prompt, y: &[u32]) -> Vec<Vec<f64>> {
    let sequences = sequences(prompt, &[y.to_vec()]);
    let of = |t: usize| {
        let log_probs = sequences.log_probs(&policy.network, &sequences.hidden(&policy.network).unwrap()).unwrap();
        let gradient = Gradient::of(&log_probs.get(t).unwrap().neg().unwrap(), &policy.params).unwrap();
        minus(&gradient, &policy.params)
    };
    (0..y.len()).map(of).collect()
}

fn sequences(prompt: &Prompt, outcomes: &[Vec<u32>]) -> Sequences {
    let pairs: Vec<(&[u32], &[u32])> = outcomes.iter().map(|y| (&prompt.tokens[..], &y[..])).collect();
    Sequences::new(&pairs).unwrap()
}

fn outcomes(stops: bool) -> Vec<Vec<u32>> {
    let (mut whole, mut going) = (Vec::new(), vec![Vec::new()]);
    for length in 1..=LONGEST {
        let mut longer = Vec::new();
        for prefix in &going {
            for token in 0..V as u32 {
                let y: Vec<u32> = prefix.iter().copied().chain([token]).collect();
                let ends = length == LONGEST || (stops && token == STOP);
                if ends { whole.push(y) } else { longer.push(y) }
            }
        }
        going = longer;
    }
    whole
}

fn probability(log_probs: &[f64]) -> f64 {
    log_probs.iter().sum::<f64>().exp()
}

fn add(sum: &mut [f64], x: &[f64], factor: f64) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}

/// ‖a − b‖ / ‖b‖.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

fn reward(response: &[u32]) -> f64 {
    // Below 1, different for nearly all responses.
    let mixed: f64 = response.iter().enumerate().map(|(t, &y)| ((1.7 * t as f64 + 2.3) * f64::from(y + 1)).sin()).sum();
    0.4 + 0.12 * mixed
}
