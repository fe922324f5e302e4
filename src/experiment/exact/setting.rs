//! One exact world: a policy, a target, the initial policy and a reward for every sequence.

use anyhow::{Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::tabular::Tabular;
use super::tree::{Next, Tree};
use crate::seed::{self, Purpose};

/// Standard deviations of Gaussian logits: of the initial policy, of what the policy has moved away from it, and of
/// what the expert got wrong.
const INITIAL: f64 = 1.0;
const MOVED: f64 = 0.5;
const EXPERT_NOISE: f64 = 0.5;
/// The expert is a tilt with so many times the β of the world.
const EXPERT_BETA: f64 = 3.0;

/// What a stream of random numbers makes.
#[derive(Clone, Copy)]
enum Stream {
    Initial,
    Policy,
    Target,
    Reward,
    Expert,
}

/// A policy π_θ = p, a target t, π_init and rewards, all over the sequences of one tree, with the objective
/// J = E_π\[r\] − β·KL(π‖π_init). Parameters are the logits of the policy's table, one row of V a prefix.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: String,
    pub seed: u64,
    pub tree: Tree,
    pub initial: Tabular,
    pub policy: Tabular,
    pub target: Tabular,
    /// A number in \[0, 1\] for every sequence.
    pub rewards: Vec<f64>,
    pub beta: f64,
}

impl Setting {
    /// The world of a seed, with the policy itself as target, under the name `same`.
    ///
    /// The initial policy has Gaussian logits of standard deviation 1, the policy is that plus Gaussian logits of 1/2.
    /// The reward is the logistic function of a sum over the tokens and over neighbouring tokens, each with a Gaussian
    /// score of its own.
    ///
    /// # Errors
    /// A β that is negative or not finite.
    ///
    /// ```
    /// use qstar::experiment::exact::{Setting, Tree};
    /// let setting = Setting::new(&Tree::new(3, 4, false)?, 0, 0.1)?.with_gap("medium", 1.0);
    /// assert_eq!(setting.rewards.len(), 81);
    /// # anyhow::Ok(())
    /// ```
    pub fn new(tree: &Tree, seed: u64, beta: f64) -> Result<Self> {
        ensure!(beta.is_finite() && beta >= 0.0, "β weighs a penalty and must not be negative: {beta}");
        let initial = gaussian(tree, seed, Stream::Initial, INITIAL);
        let policy = plus(&initial, &gaussian(tree, seed, Stream::Policy, MOVED));
        let policy = Tabular::from_logits(policy);
        Ok(Self {
            name: "same".to_owned(),
            seed,
            tree: tree.clone(),
            initial: Tabular::from_logits(initial),
            target: policy.clone(),
            policy,
            rewards: rewards(tree, seed),
            beta,
        })
    }

    /// The six pairs of this world: `near`, `medium` and `far` (gap 0.3, 1, 2), `expert`, `tilted` and `same`. They have
    /// one policy, and so one ∇J and one on-policy variance.
    ///
    /// # Errors
    /// As [`Setting::with_tilt`].
    pub fn pairs(&self) -> Result<Vec<Setting>> {
        Ok(vec![
            self.with_gap("near", 0.3),
            self.with_gap("medium", 1.0),
            self.with_gap("far", 2.0),
            self.with_expert()?,
            self.with_tilt("tilted", self.beta)?,
            self.with_target("same", self.policy.clone()),
        ])
    }

    /// Another target under another name.
    pub fn with_target(&self, name: &str, target: Tabular) -> Setting {
        Setting { name: name.to_owned(), target, ..self.clone() }
    }

    /// A target that knows nothing of the reward: the policy's logits plus `gap` times standard Gaussians, the same
    /// ones at every gap.
    pub fn with_gap(&self, name: &str, gap: f64) -> Setting {
        let moved = gaussian(&self.tree, self.seed, Stream::Target, gap);
        self.with_target(name, Tabular::from_logits(plus(&self.table(&self.policy), &moved)))
    }

    /// The target t ∝ π_init·exp(r/β): with the β of J the maximiser of J. Its table is exact
    /// ([`Tabular::from_sequences`]).
    ///
    /// # Errors
    /// A β that is not positive.
    pub fn with_tilt(&self, name: &str, beta: f64) -> Result<Setting> {
        Ok(self.with_target(name, self.tilt(beta)?))
    }

    /// A second model that is better than the policy and not the best, under the name `expert`: the table of a tilt with
    /// three times the β of J, plus Gaussian logits of standard deviation 1/2.
    ///
    /// # Errors
    /// As [`Setting::with_tilt`].
    pub fn with_expert(&self) -> Result<Setting> {
        let tilt = self.table(&self.tilt(EXPERT_BETA * self.beta)?);
        let wrong = gaussian(&self.tree, self.seed, Stream::Expert, EXPERT_NOISE);
        Ok(self.with_target("expert", Tabular::from_logits(plus(&tilt, &wrong))))
    }

    /// E_π\[r\] of one of the tables of this world.
    pub fn expected_reward(&self, table: &Tabular) -> f64 {
        table.of_sequences(&self.tree).iter().zip(&self.rewards).map(|(x, r)| x.exp() * r).sum()
    }

    /// J of the policy.
    pub fn objective(&self) -> f64 {
        self.policy.of_sequences(&self.tree).iter().zip(self.returns()).map(|(x, r)| x.exp() * r).sum()
    }

    /// r − β log(π_θ/π_init) of every sequence: what takes the place of the reward in every estimator.
    pub fn returns(&self) -> Vec<f64> {
        let (policy, initial) = (self.policy.of_sequences(&self.tree), self.initial.of_sequences(&self.tree));
        let of = |((r, p), i): ((&f64, f64), f64)| r - self.beta * (p - i);
        self.rewards.iter().zip(policy).zip(initial).map(of).collect()
    }

    /// ∇J with respect to the logits of the policy's table, `[prefixes × V]`, by the policy gradient theorem: the
    /// probability of the prefix times π(v)·(Q(v) − Σ π Q), with Q the mean return of what goes on with v.
    pub fn gradient(&self) -> Vec<f64> {
        let (tree, v) = (&self.tree, self.tree.vocabulary());
        let (returns, reached) = (self.returns(), self.policy.of_prefixes(tree));
        let mut value = vec![0.0; tree.prefixes()];
        let mut gradient = vec![0.0; tree.prefixes() * v];
        for prefix in (0..tree.prefixes()).rev() {
            let of = |next: &Next| match *next {
                Next::Prefix(longer) => value[longer],
                Next::End(sequence) => returns[sequence],
            };
            let q: Vec<f64> = tree.next(prefix).iter().map(of).collect();
            let row: Vec<f64> = self.policy.row(prefix).iter().map(|x| x.exp()).collect();
            let mean: f64 = row.iter().zip(&q).map(|(p, q)| p * q).sum();
            value[prefix] = mean;
            for token in 0..v {
                gradient[prefix * v + token] = reached[prefix].exp() * row[token] * (q[token] - mean);
            }
        }
        gradient
    }

    fn tilt(&self, beta: f64) -> Result<Tabular> {
        ensure!(beta.is_finite() && beta > 0.0, "a tilt by r/β needs a positive β: {beta}");
        let mass: Vec<f64> =
            self.initial.of_sequences(&self.tree).iter().zip(&self.rewards).map(|(x, r)| x + r / beta).collect();
        Ok(Tabular::from_sequences(&self.tree, &mass))
    }

    fn table(&self, of: &Tabular) -> Vec<Vec<f64>> {
        (0..self.tree.prefixes()).map(|prefix| of.row(prefix).to_vec()).collect()
    }
}

fn rewards(tree: &Tree, seed: u64) -> Vec<f64> {
    let v = tree.vocabulary();
    let mut rng = stream(seed, Stream::Reward);
    let scores = normal(&mut rng, v, 1.0);
    let neighbours: Vec<Vec<f64>> = (0..v).map(|_| normal(&mut rng, v, 1.0)).collect();
    let reward = |path: &Vec<super::Step>| {
        let alone: f64 = path.iter().map(|step| scores[step.token]).sum();
        let together: f64 = path.windows(2).map(|two| neighbours[two[0].token][two[1].token]).sum();
        1.0 / (1.0 + (-alone - together).exp())
    };
    tree.paths().iter().map(reward).collect()
}

fn gaussian(tree: &Tree, seed: u64, of: Stream, scale: f64) -> Vec<Vec<f64>> {
    let mut rng = stream(seed, of);
    (0..tree.prefixes()).map(|_| normal(&mut rng, tree.vocabulary(), scale)).collect()
}

fn stream(seed: u64, of: Stream) -> ChaCha8Rng {
    seed::rng(seed, Purpose::Exact, of as u64, 0)
}

fn normal(rng: &mut ChaCha8Rng, count: usize, scale: f64) -> Vec<f64> {
    let one = |_| {
        let z: f64 = StandardNormal.sample(rng);
        scale * z
    };
    (0..count).map(one).collect()
}

fn plus(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}
