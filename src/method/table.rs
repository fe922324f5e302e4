//! The table of methods.
//!
//! In the formulas y is a response to one of the step's prompts, k the number of responses to each, n of all of them; b is
//! the mean of the other rewards of y's prompt; R = r − β log π_θ(y)/π_init(y) is the return, w_t an importance weight.
//! Costs are those of one response: *forward* and *backward* are passes over its tokens by a model of the policy's size.

use std::borrow::Cow::Borrowed;

use super::{Bound, Dpo, Level, Method, Objective, Ppo, Rejection, Source, Surrogate, Treatment, Weight};
use crate::mixture::Rule;
use crate::rollout::Proposal;

/// REINFORCE: the control of all α methods (α = 1).
///
/// **Estimate.** ∇J ≈ (1/n) Σ_y (R(y) − b) Σ_t ∇ log π_θ(y_t), y ∼ π_θ.
///
/// **Source.** Williams 1992; the leave-one-out baseline of Kool et al. 2019 and of Ahmadian et al. 2024,
/// arXiv:2402.14740.
///
/// **Bias.** None: b does not depend on y, and the gradient of log π_θ in R has the mean zero.
///
/// **Cost.** One sample, one reward; forward: drawing, π_init, update; one backward.
pub const REINFORCE: Method = Method {
    name: Borrowed("reinforce"),
    source: Source::Drawn(Proposal::Policy),
    weight: Weight::NONE,
    objective: Objective::Reinforce,
};

/// PPO on responses of the policy.
///
/// **Loss.** The mean over tokens of max(−ρA, −clip(ρ, 1 ± 0.2)A), ρ = π_θ/π_old, plus 0.1 times the clipped squared
/// error of a value head on the policy's own hidden states. A: generalized advantages (γ 1, λ 0.95) of the rewards
/// −β log π_θ/π_init a token and r at the end, whitened over the batch. Four passes over each batch.
///
/// **Source.** Schulman et al. 2017, arXiv:1707.06347; for language models Huang et al. 2024, arXiv:2403.17031.
///
/// **Bias.** The first pass with λ = 1 would give ∇J over the number of tokens, up to the scale of the whitening. λ < 1
/// adds the error of the values; whitening subtracts a mean that holds the own advantage; the mean over *all* tokens weighs by
/// a random length; from the second pass on clipping
/// drops tokens that have moved far.
///
/// **Cost.** One sample, one reward; forward: drawing, π_init, values, four updates; four backward.
pub const ON_POLICY: Method = Method {
    name: Borrowed("on_policy"),
    source: Source::Drawn(Proposal::Policy),
    weight: Weight::NONE,
    objective: Objective::Ppo(Ppo::DEFAULT),
};

/// REINFORCE on responses of the target (α = 0).
///
/// **Estimate.** (1/n) Σ_y (R(y) − b) Σ_t w_t ∇ log π_θ(y_t), y ∼ π_t, w_t = π_θ/π_t of the token, clipped to
/// [0.1, 10].
///
/// **Source.** Off-policy policy gradients (Degris et al. 2012, arXiv:1205.4839); for the clipping see [`Treatment`].
///
/// **Bias.** As for [`QSTAR`], with q = π_t: prefixes and continuations are those of the target. Clipping adds what it
/// cuts. Where the target hardly overlaps with the policy the weights say so: `ess_token_raw` and `ess_sequence_raw`
/// fall, and a run whose raw weights are worth less than 1% of its draws, or than two of them, says that it starves.
///
/// **Cost.** One sample, one reward; forward: drawing (by the target), π_θ, π_init, update; one backward.
pub const OFF_POLICY: Method = Method {
    name: Borrowed("off_policy"),
    source: Source::Drawn(Proposal::Target),
    weight: Weight { level: Level::Token, treatment: Treatment::CLIPPED },
    objective: Objective::Reinforce,
};

/// Maximum likelihood on responses of the policy that a rejection step lets pass.
///
/// **Loss.** −(1/m) Σ log π_θ(y) over the m responses that were accepted, each with probability
/// min(1, π_init(y)/π_θ(y) · exp((r(y) − 1)/β)), β = 0.1.
///
/// **Source.** Statistical rejection sampling (Liu et al. 2023, arXiv:2309.06657), drawn from the current policy.
///
/// **Bias.** None for the gradient of KL(π_t‖π_θ), π_t ∝ π_init exp(r/β), as long as no probability is cut at 1; π_t stays
/// where it is while the policy learns. [`Bound::BatchMax`] needs no bound of the reward and is biased towards the best of
/// each group. Where nothing is accepted there is no update; a run that accepts less than 1% says that it starves. Its β is not that of the RL methods: it is tied to π_init by β = 0.1.
///
/// **Cost.** One sample and one reward, accepted or not; forward: drawing, π_init; update and backward for what was
/// accepted.
pub const REJECTION: Method = Method {
    name: Borrowed("rejection"),
    source: Source::Accepted(Rejection { beta: 0.1, bound: Bound::Reward }),
    weight: Weight::NONE,
    objective: Objective::MaximumLikelihood,
};

/// Imitates the target's own responses.
///
/// **Loss.** −(1/n) Σ_y log π_θ(y), y ∼ π_t. The task's demonstrations instead: [`Source::Demonstrations`].
///
/// **Source.** Supervised fine-tuning; with draws from a model, sequence-level distillation (Kim, Rush 2016,
/// arXiv:1606.07947).
///
/// **Bias.** None for the gradient of KL(π_t‖π_θ). It does not maximise the reward and is not tied to π_init.
///
/// **Cost.** One sample, no reward; forward: drawing (by the target), update; one backward.
pub const SFT: Method = Method {
    name: Borrowed("sft"),
    source: Source::Drawn(Proposal::Target),
    weight: Weight::NONE,
    objective: Objective::MaximumLikelihood,
};

/// Direct preference optimisation on the task's pairs.
///
/// **Loss.** −(1/n) Σ log σ(β log π_θ(y₊)/π_init(y₊) − β log π_θ(y₋)/π_init(y₋)), β = 0.1.
///
/// **Source.** Rafailov et al. 2023, arXiv:2305.18290. Label smoothing and length normalisation are fields of [`Dpo`].
///
/// **Bias.** None for the gradient of its own loss. With endless pairs of full support its minimum is π_init exp(r/β)/Z for
/// the Bradley-Terry reward r; the pairs' responses come from elsewhere than the policy and stay as they are.
///
/// **Cost.** Two samples a pair, no reward (the labels' price is the task's); forward: π_init, update; one backward.
pub const DPO: Method = Method {
    name: Borrowed("dpo"),
    source: Source::Preferences,
    weight: Weight::NONE,
    objective: Objective::Dpo(Dpo::DEFAULT),
};

/// [`QSTAR`] with α = 1/2 for every token, the plain geometric mean.
///
/// **Bias and cost** as [`QSTAR`]; equal to it wherever K is symmetric about 1/2.
pub const UNIFORM: Method = with_rule("uniform", Rule::Fixed(0.5));

/// [`QSTAR`] with α = H(π_θ)/(H(π_θ) + H(π_t)): the less sure of the two weighs more.
///
/// **Bias and cost** as [`QSTAR`].
pub const ENTROPY: Method = with_rule("entropy", Rule::Entropy);

/// REINFORCE on responses of q\*, the Chernoff point between policy and target, chosen anew for every token.
///
/// **Estimate.** (1/n) Σ_y (R(y) − b) Σ_t w_t ∇ log π_θ(y_t), y ∼ q\*, w_t = π_θ(y_t)/q\*(y_t) clipped to [0.1, 10].
///
/// **Source.** The claim under study. The Chernoff point: Nielsen 2011, arXiv:1102.2684; 2022, arXiv:2207.03745.
///
/// **Bias.** The token weight corrects the draw of its own token and leaves prefixes and continuations to q: what it estimates is
/// Σ_t E_{y<t∼q} Σ_{y_t} ∇π_θ(y_t) Q^q(y≤t), not ∇J. The sequence weight ([`Level::Sequence`], [`Treatment::Raw`]) is
/// unbiased, and its variance is why it is not the default. Clipping adds what it cuts. Its rewards and its KL are those
/// of draws from q: look at the held-out ones.
///
/// **Cost.** One sample, one reward; forward: drawing by *two* models, π_init, update; one backward; and the search for α.
pub const QSTAR: Method = with_rule("qstar", Rule::Q_STAR);

/// [`QSTAR`] with the α at which both effective sample sizes are equal: K(2 − α) = K(−α).
///
/// **Bias and cost** as [`QSTAR`].
pub const ESS_BALANCE: Method = with_rule("ess_balance", Rule::EssBalance);

/// [`QSTAR`] with the α that maximises |Φ₁|/√Φ₂ of r = log π_t/π_θ: mostly an end of [0, 1].
///
/// **Bias and cost** as [`QSTAR`]; where every α has the same ratio it takes that of [`QSTAR`].
pub const SNR_MAX: Method = with_rule("snr_max", Rule::SnrMax);

/// PPO on responses of q\*, with log q as the old log-probabilities.
///
/// **Loss.** As [`ON_POLICY`], ρ = π_θ/q\*.
///
/// **Bias.** Besides that of [`ON_POLICY`]: already in the first pass tokens with ρ outside of [0.8, 1.2] have no gradient
/// where their advantage would push them further out.
///
/// **Cost.** As [`ON_POLICY`], drawing by two models.
pub const QSTAR_PPO: Method = Method {
    name: Borrowed("qstar_ppo"),
    source: Source::Drawn(Proposal::Mixture(Rule::Q_STAR)),
    weight: Weight::NONE,
    objective: Objective::Ppo(Ppo::DEFAULT),
};

/// GRPO: a clipped surrogate with the advantage (r − mean)/(sd + 1e-4) of the prompt's responses.
///
/// **Loss.** The mean over responses of the mean over tokens of max(−ρA, −clip(ρ, 1 ± 0.2)A) + β (π_init/π_θ − 1 −
/// log π_init/π_θ).
///
/// **Source.** Shao et al. 2024, arXiv:2402.03300. Other forms are other fields of [`Surrogate`]: no division by the sd,
/// and [`Aggregate::Length`](super::Aggregate::Length), make Dr. GRPO.
///
/// **Bias.** The mean holds the own reward: a factor (k − 1)/k. The sd weighs prompts of small spread more; the mean over a
/// response's tokens weighs long responses less. The divergence's gradient is not that of KL(π_θ‖π_init), see
/// [`KlEstimator::K3`](super::KlEstimator::K3).
///
/// **Cost.** As [`REINFORCE`].
pub const GRPO: Method = Method {
    name: Borrowed("grpo"),
    source: Source::Drawn(Proposal::Policy),
    weight: Weight::NONE,
    objective: Objective::Surrogate(Surrogate::GRPO),
};

/// RLOO: [`REINFORCE`] with a clipped ratio of whole responses.
///
/// **Loss.** (1/n) Σ_y max(−ρA, −clip(ρ, 1 ± 0.2)A), A = R − b, ρ = π_θ(y)/π_old(y).
///
/// **Source.** Ahmadian et al. 2024, arXiv:2402.14740, with the clipping of TRL.
///
/// **Bias.** None in the first pass over a batch, where ρ = 1 and the gradient is that of [`REINFORCE`]; from the second
/// one on as PPO's. One pass is the default.
///
/// **Cost.** As [`REINFORCE`].
pub const RLOO: Method = Method {
    name: Borrowed("rloo"),
    source: Source::Drawn(Proposal::Policy),
    weight: Weight::NONE,
    objective: Objective::Surrogate(Surrogate::RLOO),
};

/// The methods of the study, in the order of its tables.
pub const STUDY: [Method; 9] = [REINFORCE, ON_POLICY, OFF_POLICY, REJECTION, SFT, DPO, UNIFORM, ENTROPY, QSTAR];

/// These, and those beyond the study.
pub const ALL: [Method; 14] = [
    REINFORCE,
    ON_POLICY,
    OFF_POLICY,
    REJECTION,
    SFT,
    DPO,
    UNIFORM,
    ENTROPY,
    QSTAR,
    ESS_BALANCE,
    SNR_MAX,
    QSTAR_PPO,
    GRPO,
    RLOO,
];

const fn with_rule(name: &'static str, rule: Rule) -> Method {
    Method {
        name: Borrowed(name),
        source: Source::Drawn(Proposal::Mixture(rule)),
        weight: Weight { level: Level::Token, treatment: Treatment::CLIPPED },
        objective: Objective::Reinforce,
    }
}
