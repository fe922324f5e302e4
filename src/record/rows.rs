//! The rows that a run writes: one a step, one an evaluation, one a sampled response.
//!
//! What is measured on draws from q carries the prefix `q_`: it flatters q. What a method does not have
//! (a method without a mixture has no α) is null. Log-probabilities, divergences and entropies are in nats.

use super::frame::record;

record! {
    /// One training step.
    pub struct StepRow {
        /// Number of the training step, from 0.
        pub step: i64,
        /// Responses drawn or read so far, accepted or not; a preference pair is two.
        pub samples: i64,
        /// Rewards that updates or the target have looked at so far.
        pub reward_calls: i64,
        /// Floating-point operations of forward passes so far, 2 a parameter and token.
        pub flops_forward: f64,
        /// Floating-point operations of backward passes so far, 4 a parameter and token.
        pub flops_backward: f64,
        /// Wall time so far, in seconds, without evaluations, checkpoints and what only the diagnostics need.
        pub seconds_charged: f64,
        /// Response tokens of this step.
        pub tokens: i64,
        /// Responses that the update learned from.
        pub learned: i64,
        /// Share of the drawn responses that was accepted, where some are rejected.
        pub acceptance: Option<f64>,
        /// Whether less than 1% was accepted, or the raw weights were worth less than 1% of the draws, or than two of them.
        pub starved: bool,
        /// True reward of the drawn responses, mean, in the unit of the task.
        pub q_reward: f64,
        /// Standard deviation of the true reward over the drawn responses.
        pub q_reward_sd: f64,
        /// Reward of the drawn responses after shaping, mean.
        pub q_reward_shaped: f64,
        /// Standard deviation of the reward after shaping.
        pub q_reward_shaped_sd: f64,
        /// Mean length of the drawn responses, in tokens.
        pub q_length: f64,
        /// Share of the drawn responses that ended by themselves.
        pub q_ended: f64,
        /// log π_θ − log π_init of a drawn response, mean, in nats; null where π_init is not asked: the method does not look at
        /// it, or the divergence costs nothing.
        pub q_kl_init: Option<f64>,
        /// Mean of α over the tokens of the step; α is 1 at the policy and 0 at the target.
        pub alpha_mean: Option<f64>,
        /// Standard deviation of α over the tokens.
        pub alpha_sd: Option<f64>,
        /// 5% of the tokens have an α below this.
        pub alpha_q05: Option<f64>,
        /// A quarter of the tokens has an α below this.
        pub alpha_q25: Option<f64>,
        /// Median of α over the tokens.
        pub alpha_q50: Option<f64>,
        /// A quarter of the tokens has an α above this.
        pub alpha_q75: Option<f64>,
        /// 5% of the tokens have an α above this.
        pub alpha_q95: Option<f64>,
        /// Tokens by their α: counts in 20 equal bins of [0, 1].
        pub alpha_histogram: Vec<f64>,
        /// Share of tokens at which the rule had no regular root.
        pub alpha_irregular: Option<f64>,
        /// ESS of the policy, 1/Σ p²/q as a share of the draws, mean over tokens.
        pub ess_p: Option<f64>,
        /// ESS of the target, 1/Σ t²/q as a share of the draws, mean over tokens.
        pub ess_t: Option<f64>,
        /// Natural logarithm of the ESS of the policy, mean over tokens.
        pub log_ess_p: Option<f64>,
        /// Natural logarithm of the ESS of the target, mean over tokens.
        pub log_ess_t: Option<f64>,
        /// ESS_p/ESS_t, mean over tokens.
        pub ess_ratio: Option<f64>,
        /// Standard deviation of ESS_p/ESS_t over tokens.
        pub ess_ratio_sd: Option<f64>,
        /// Geometric mean of ESS_p/ESS_t over tokens.
        pub ess_ratio_geometric: Option<f64>,
        /// Share of tokens whose ESS_p/ESS_t lies in [0.9, 1.1].
        pub ess_ratio_near_1: Option<f64>,
        /// KL(q‖π_θ) of one token, mean over the drawn prefixes, in nats.
        pub q_kl_p: Option<f64>,
        /// KL(q‖π_t) of one token, mean over the drawn prefixes, in nats.
        pub q_kl_t: Option<f64>,
        /// Entropy of π_θ of one token, mean over the drawn prefixes, in nats.
        pub entropy_p: Option<f64>,
        /// Entropy of π_t of one token, mean over the drawn prefixes, in nats.
        pub entropy_t: Option<f64>,
        /// Entropy of q of one token, mean over the drawn prefixes, in nats.
        pub entropy_q: Option<f64>,
        /// Largest weight of the method's level (token, prefix or response) before its treatment.
        pub w_raw_max: Option<f64>,
        /// Smallest weight before the treatment.
        pub w_raw_min: Option<f64>,
        /// Mean weight before the treatment.
        pub w_raw_mean: Option<f64>,
        /// Coefficient of variation of the weights before the treatment: standard deviation over mean.
        pub w_raw_cv: Option<f64>,
        /// Largest weight after the treatment, as the update used it.
        pub w_max: Option<f64>,
        /// Smallest weight after the treatment.
        pub w_min: Option<f64>,
        /// Mean weight after the treatment.
        pub w_mean: Option<f64>,
        /// Coefficient of variation of the weights after the treatment.
        pub w_cv: Option<f64>,
        /// (Σw)²/(nΣw²) of the raw weights of tokens: the share of them that the weights leave.
        pub ess_token_raw: Option<f64>,
        /// (Σw)²/(nΣw²) of the treated weights of tokens.
        pub ess_token: Option<f64>,
        /// (Σw)²/(nΣw²) of the raw weights of prefixes, products over the tokens so far.
        pub ess_prefix_raw: Option<f64>,
        /// (Σw)²/(nΣw²) of the treated weights of prefixes.
        pub ess_prefix: Option<f64>,
        /// (Σw)²/(nΣw²) of the raw weights of whole responses.
        pub ess_sequence_raw: Option<f64>,
        /// (Σw)²/(nΣw²) of the treated weights of whole responses.
        pub ess_sequence: Option<f64>,
        /// Loss of the update's first pass; null where nothing was to be learned from.
        pub loss: Option<f64>,
        /// Norm of the gradient of the first pass, before it is clipped.
        pub gradient_norm: Option<f64>,
        /// Σ‖g_i − ḡ‖²/(m−1) over the microbatches: the variance of one microbatch's gradient.
        pub gradient_variance: Option<f64>,
        /// Learning rate of this step.
        pub learning_rate: f64,
        /// β of the divergence from π_init in this step.
        pub kl_coefficient: f64,
        /// The largest |log π_θ| difference between rollout and training, in nats.
        pub log_prob_gap: Option<f64>,
        /// With speculation, the share of the tested drafted tokens that was accepted; null where none was drafted.
        pub draft_acceptance: Option<f64>,
        /// With speculation, the tokens that a response got from one reading of the target.
        pub tokens_per_verification: Option<f64>,
        /// Rewards that the target computed in this step.
        pub target_reward_calls: i64,
        /// Rewards that the target looked up in this step because it knew them from before.
        pub target_reward_hits: i64,
        /// Wall time of drawing the responses, in seconds.
        pub seconds_rollout: f64,
        /// Wall time of the rewards, in seconds.
        pub seconds_reward: f64,
        /// Wall time of the log-probabilities of π_init, in seconds.
        pub seconds_reference: f64,
        /// Wall time of the update, in seconds.
        pub seconds_update: f64,
        /// Wall time of the whole step, in seconds: the sum of drawing, rewards, π_init and update.
        pub seconds: f64,
        /// The process's largest resident memory so far, in MB.
        pub peak_memory_mb: f64,
    }
}

record! {
    /// π_θ on held-out prompts, by its own responses at temperature 1.
    pub struct EvaluationRow {
        /// Training steps before this evaluation; 0 is π_init.
        pub step: i64,
        /// Responses drawn or read by the training so far, accepted or not; a preference pair is two.
        pub samples: i64,
        /// Rewards that updates or the target have looked at so far.
        pub reward_calls: i64,
        /// Floating-point operations of the training so far, forward and backward.
        pub flops: f64,
        /// Wall time of the training so far, in seconds, without evaluations and checkpoints.
        pub seconds_charged: f64,
        /// True reward of the held-out responses, mean, in the unit of the task.
        pub reward: f64,
        /// Standard deviation of the true reward over the held-out responses.
        pub reward_sd: f64,
        /// KL(π_θ‖π_init) of a response, in nats: exact over the vocabulary at every visited prefix.
        pub kl: f64,
        /// The same by the estimator k1 from the drawn tokens, log π_θ/π_init.
        pub kl_k1: f64,
        /// The same by the estimator k2 from the drawn tokens, (log π_θ/π_init)²/2.
        pub kl_k2: f64,
        /// The same by the estimator k3 from the drawn tokens, π_init/π_θ − 1 + log π_θ/π_init.
        pub kl_k3: f64,
        /// Entropy of π_θ of one token, mean, in nats.
        pub entropy: f64,
        /// Distinct unigrams of the responses as a share of all.
        pub distinct_1: f64,
        /// Distinct bigrams of the responses as a share of all.
        pub distinct_2: f64,
        /// Mean length of the responses, in tokens.
        pub length: f64,
        /// Share of the responses that ended by themselves.
        pub ended: f64,
        /// Wall time of the evaluation, in seconds.
        pub seconds: f64,
    }
}

record! {
    /// One held-out response.
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct SampleRow {
        /// Training steps before the evaluation that drew the response.
        pub step: i64,
        /// Number of the held-out prompt.
        pub index: i64,
        /// Family of tasks that the prompt is of.
        pub family: String,
        /// The prompt, as text.
        pub prompt: String,
        /// The response of π_θ, as text.
        pub response: String,
        /// True reward of the response, in the unit of the task.
        pub reward: f64,
        /// Whether the response ended by itself.
        pub ended: bool,
    }
}

record! {
    /// One run of a plan.
    pub struct PlanRow {
        /// Number of the run in the plan: what `qstar plan run --id` takes.
        pub id: i64,
        /// Name of the run's folder; null for a tuned arm whose trials are not done, for it depends on the setting.
        pub run: Option<String>,
        /// Task that is trained on.
        pub task: String,
        /// Parameters of π_init.
        pub parameters: i64,
        /// Target π_t that q mixes the policy with.
        pub target: String,
        /// Method that is trained.
        pub method: String,
        /// `common`, `trial-N` of the search for the method's own setting, or `tuned`.
        pub setting: String,
        /// Seed of the run.
        pub seed: i64,
        /// The most steps; a budget may end the run before.
        pub steps: i64,
        /// Samples of the most steps; a budget may end the run before.
        pub samples: i64,
        /// What ends the run before its last step, if anything.
        pub budget: Option<String>,
        /// Steps whose rows are written.
        pub steps_done: i64,
        /// Whether a process is working on it now.
        pub at_work: bool,
        /// Whether it is finished.
        pub done: bool,
    }
}
