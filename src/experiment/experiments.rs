//! The experiments of the study: which methods, with which targets, at which sizes. Each is a plan for a preset.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::plan::{Arm, Part, Plan};
use super::speculation::{FURTHER_BLOCKS, FURTHER_SCALE, deepened};
use super::{Folders, Preset, TargetName, World};
use crate::method::{
    ENTROPY, ESS_BALANCE, Level, Method, OFF_POLICY, ON_POLICY, Over, QSTAR, REINFORCE, SFT, SNR_MAX, STUDY, Source,
    Treatment, UNIFORM, Weight,
};
use crate::mixture::{Rule, Solver};
use crate::rollout::{Proposal, Speculation};
use crate::target::{BestOfN, Expert};
use crate::train::RunConfig;

/// An experiment that trains policies. What is shared between two of them is trained once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experiment {
    /// All methods, with an expert and with a target made from the reward alone, at the common setting and at each
    /// method's own (notebook 01).
    Main,
    /// How α is chosen (02).
    Rules,
    /// How weights are treated (03).
    Weights,
    /// What π_t is (04).
    Targets,
    /// Policies of other sizes (05).
    Scale,
    /// Drawing with and without speculation, for a target that costs several times as much as the policy (06).
    Speculation,
    /// A long training (07).
    Long,
}

impl Experiment {
    pub const ALL: [Experiment; 7] =
        [Self::Main, Self::Rules, Self::Weights, Self::Targets, Self::Scale, Self::Speculation, Self::Long];

    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Rules => "rules",
            Self::Weights => "weights",
            Self::Targets => "targets",
            Self::Scale => "scale",
            Self::Speculation => "speculation",
            Self::Long => "long",
        }
    }

    /// What it asks.
    pub fn question(self) -> &'static str {
        match self {
            Self::Main => "from which distribution should responses be drawn?",
            Self::Rules => "how should α be chosen, and at which temperature be drawn?",
            Self::Weights => "what should be done to the weights?",
            Self::Targets => "what should the policy be mixed with?",
            Self::Scale => "does it depend on the size of the policy, the task, the number of samples?",
            Self::Speculation => "does speculative sampling train the same policy in less time?",
            Self::Long => "what happens in a long training?",
        }
    }

    /// Its plan for a preset. What has to be trained before (a target, a policy of another size) is trained once and kept in
    /// `data/cache`.
    ///
    /// # Errors
    /// Models or data that are not there.
    pub fn plan(self, preset: &Preset, folders: &Folders) -> Result<Plan> {
        let data = &folders.data;
        let world = World::of(preset, data)?;
        let common = |methods: &[Method], world: World| Part::new(world, methods, preset.run, preset.ablation_seeds);
        let with_target = |part: Part, target: TargetName| -> Result<Part> {
            let world = part.world.clone().with_target_named(data, target)?;
            Ok(Part { world, target: target.to_string(), ..part })
        };
        let parts = match self {
            Self::Main => {
                let part = || Part { seeds: preset.seeds, search: preset.search(), ..common(&STUDY, world.clone()) };
                preset.targets.iter().map(|target| with_target(part(), *target)).collect::<Result<_>>()?
            }
            Self::Rules => {
                let mut part = common(&rules(), world);
                part.arms.extend(TEMPERATURES.map(|temperature| tempered(&preset.run, temperature)));
                vec![part]
            }
            Self::Weights => vec![common(&weights(), world)],
            Self::Targets => {
                let of = |target| with_target(common(&[SFT, OFF_POLICY, QSTAR], world.clone()), target);
                let mut parts: Vec<Part> = TargetName::ALL.into_iter().map(of).collect::<Result<_>>()?;
                parts[0].arms.insert(0, Arm::common(REINFORCE, preset.run));
                let best = common(&[best_of_n(preset.run.step.responses)], world);
                parts.push(Part { target: "best_of_n".to_string(), ..best });
                parts
            }
            Self::Scale => {
                let methods = [REINFORCE, ON_POLICY, ENTROPY, QSTAR];
                let mut parts = vec![common(&methods, world)];
                for policy in &preset.policies {
                    parts.push(common(&methods, World::of_size(preset, policy, data)?));
                }
                parts
            }
            Self::Speculation => vec![speculation(preset, world)?],
            Self::Long => {
                let long = preset.long;
                let config = RunConfig { steps: long.steps, evaluate_every: long.evaluate_every, ..preset.run };
                vec![Part::new(world, &[REINFORCE, ON_POLICY, QSTAR], config, long.seeds)]
            }
        };
        Ok(Plan {
            name: format!("{} {}", preset.name, self.name()),
            parts,
            runs: folders.runs.clone(),
            ranks: preset.ranks.clone(),
        })
    }
}

/// Of q, beside 1.
const TEMPERATURES: [f64; 2] = [0.7, 1.3];

/// The rules for α from the target's side to the policy's, then those that look at both distributions, and a solver that
/// stops early; last the two that win rate and efficiency are held against.
fn rules() -> Vec<Method> {
    let drawn = |name: &'static str, rule| Method {
        name: name.into(),
        source: Source::Drawn(Proposal::Mixture(rule)),
        ..QSTAR
    };
    vec![
        OFF_POLICY,
        drawn("fixed_0.3", Rule::Fixed(0.3)),
        UNIFORM,
        drawn("fixed_0.7", Rule::Fixed(0.7)),
        REINFORCE,
        ENTROPY,
        QSTAR,
        ESS_BALANCE,
        SNR_MAX,
        drawn("qstar_5_rounds", Rule::KlSymmetry(Solver::Bisection(5))),
        ON_POLICY,
        SFT,
    ]
}

fn tempered(run: &RunConfig, temperature: f64) -> Arm {
    let mut config = *run;
    config.step.temperature = temperature;
    Arm::common(Method { name: format!("qstar_T{temperature}").into(), ..QSTAR }, config)
}

/// The study's treatments of the token weight, then the other levels.
fn weights() -> Vec<Method> {
    let weighed = |name: &'static str, level, treatment| Method {
        name: name.into(),
        weight: Weight { level, treatment },
        ..QSTAR
    };
    vec![
        REINFORCE,
        QSTAR,
        weighed("qstar_none", Level::Token, Treatment::None),
        weighed("qstar_raw", Level::Token, Treatment::Raw),
        weighed("qstar_normalized", Level::Token, Treatment::Normalized { over: Over::Batch }),
        weighed("qstar_truncated", Level::Token, Treatment::Truncated { high: 2.0 }),
        weighed("qstar_prefix", Level::Prefix, Treatment::CLIPPED),
        weighed("qstar_sequence", Level::Sequence, Treatment::CLIPPED),
        weighed("qstar_sequence_raw", Level::Sequence, Treatment::Raw),
    ]
}

/// `qstar` with and without speculation. The target is the expert with further blocks that change little and cost much.
fn speculation(preset: &Preset, mut world: World) -> Result<Part> {
    let expert = deepened(&world.expert, FURTHER_BLOCKS, FURTHER_SCALE, 0)?;
    world.models.target = Arc::new(Expert::named("deeper expert", &expert)?);
    let config = RunConfig { steps: preset.run.steps.div_ceil(3), ..preset.run };
    let mut speculative = config;
    speculative.step.speculation = Some(Speculation::fixed(3));
    let arms = vec![
        Arm::common(QSTAR, config),
        Arm::common(Method { name: "qstar_speculative".into(), ..QSTAR }, speculative),
    ];
    Ok(Part {
        target: "deeper_expert".to_string(),
        arms,
        ..Part::new(world, &[], config, preset.ablation_seeds.min(3))
    })
}

/// `qstar` of whole responses: as many learn as elsewhere, out of twice as many.
fn best_of_n(responses: usize) -> Method {
    let best = BestOfN { n: 2 * responses, beta: 0.1, rule: Rule::Q_STAR };
    Method { source: Source::Picked(best), ..QSTAR }
}

impl fmt::Display for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Experiment {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|experiment| experiment.name() == name) {
            Some(experiment) => Ok(experiment),
            None => bail!("unknown experiment {name:?}; known are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}
