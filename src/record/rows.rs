//! The rows that a run writes: one a step, one an evaluation, one a sampled response.
//!
//! What is measured on draws from q carries the prefix `q_`: it flatters q. What a method does not have
//! (a method without a mixture has no α) is null. Log-probabilities, divergences and entropies are in nats.

use super::frame::record;

record! {
    /// One training step.
    pub struct StepRow {
        pub step: i64,
        /// What the run was charged so far: responses drawn or read; rewards that its updates or its target looked at;
        /// floating-point operations, 2 a parameter and token forward and 4 backward; seconds. What only the diagnostics
        /// need is not charged.
        pub samples: i64,
        pub reward_calls: i64,
        pub flops_forward: f64,
        pub flops_backward: f64,
        pub seconds_charged: f64,
        /// Response tokens of this step.
        pub tokens: i64,
        /// Responses that the update learned from, and, where some are rejected, the share that was accepted.
        pub learned: i64,
        pub acceptance: Option<f64>,
        /// Whether less than 1% was accepted, or the raw weights were worth less than 1% of the draws, or than two of them.
        pub starved: bool,
        /// True reward of the drawn responses: mean and standard deviation; then after shaping.
        pub q_reward: f64,
        pub q_reward_sd: f64,
        pub q_reward_shaped: f64,
        pub q_reward_shaped_sd: f64,
        /// Mean length of the drawn responses, in tokens, and the share that ended by itself.
        pub q_length: f64,
        pub q_ended: f64,
        /// log π_θ − log π_init of a drawn response, mean.
        pub q_kl_init: Option<f64>,
        /// α over the tokens of the step.
        pub alpha_mean: Option<f64>,
        pub alpha_sd: Option<f64>,
        pub alpha_q05: Option<f64>,
        pub alpha_q25: Option<f64>,
        pub alpha_q50: Option<f64>,
        pub alpha_q75: Option<f64>,
        pub alpha_q95: Option<f64>,
        /// Counts in 20 equal bins of [0, 1].
        pub alpha_histogram: Vec<f64>,
        /// Share of tokens at which the rule had no regular root.
        pub alpha_irregular: Option<f64>,
        /// 1/Σ p²/q and 1/Σ t²/q, means over tokens, and their logarithms' means.
        pub ess_p: Option<f64>,
        pub ess_t: Option<f64>,
        pub log_ess_p: Option<f64>,
        pub log_ess_t: Option<f64>,
        /// ESS_p/ESS_t over tokens: mean, sd, geometric mean, share in [0.9, 1.1].
        pub ess_ratio: Option<f64>,
        pub ess_ratio_sd: Option<f64>,
        pub ess_ratio_geometric: Option<f64>,
        pub ess_ratio_near_1: Option<f64>,
        pub q_kl_p: Option<f64>,
        pub q_kl_t: Option<f64>,
        pub entropy_p: Option<f64>,
        pub entropy_t: Option<f64>,
        pub entropy_q: Option<f64>,
        /// Weights of the method's level, before its treatment and after.
        pub w_raw_max: Option<f64>,
        pub w_raw_min: Option<f64>,
        pub w_raw_mean: Option<f64>,
        pub w_raw_cv: Option<f64>,
        pub w_max: Option<f64>,
        pub w_min: Option<f64>,
        pub w_mean: Option<f64>,
        pub w_cv: Option<f64>,
        /// (Σw)²/(nΣw²) of raw and treated weights: over the tokens, over prefixes, over responses.
        pub ess_token_raw: Option<f64>,
        pub ess_token: Option<f64>,
        pub ess_prefix_raw: Option<f64>,
        pub ess_prefix: Option<f64>,
        pub ess_sequence_raw: Option<f64>,
        pub ess_sequence: Option<f64>,
        /// Of the update's first pass; null where nothing was to be learned from.
        pub loss: Option<f64>,
        pub gradient_norm: Option<f64>,
        /// Σ‖g_i − ḡ‖²/(m−1) over the microbatches: the variance of one microbatch's gradient.
        pub gradient_variance: Option<f64>,
        pub learning_rate: f64,
        /// β of the divergence from π_init.
        pub kl_coefficient: f64,
        /// The largest |log π_θ| difference between rollout and training.
        pub log_prob_gap: Option<f64>,
        /// With speculation: the share of the tested drafted tokens that was accepted (null where none was drafted), and the
        /// tokens that a response got from one reading of the target.
        pub draft_acceptance: Option<f64>,
        pub tokens_per_verification: Option<f64>,
        /// Rewards that the target computed in this step, and those that it knew from before.
        pub target_reward_calls: i64,
        pub target_reward_hits: i64,
        /// Wall time of this step.
        pub seconds_rollout: f64,
        pub seconds_reward: f64,
        pub seconds_reference: f64,
        pub seconds_update: f64,
        pub seconds: f64,
        /// The process's largest resident memory so far.
        pub peak_memory_mb: f64,
    }
}

record! {
    /// π_θ on held-out prompts, by its own responses at temperature 1.
    pub struct EvaluationRow {
        pub step: i64,
        /// What the training was charged so far, as in the rows of its steps; FLOPs forward and backward.
        pub samples: i64,
        pub reward_calls: i64,
        pub flops: f64,
        pub seconds_charged: f64,
        pub reward: f64,
        pub reward_sd: f64,
        /// KL(π_θ‖π_init) a response: exact over the vocabulary at every visited prefix, and the
        /// estimators k1, k2 and k3 from the drawn tokens.
        pub kl: f64,
        pub kl_k1: f64,
        pub kl_k2: f64,
        pub kl_k3: f64,
        /// Mean entropy of π_θ a token.
        pub entropy: f64,
        /// Distinct unigrams and bigrams as a share of all.
        pub distinct_1: f64,
        pub distinct_2: f64,
        pub length: f64,
        pub ended: f64,
        pub seconds: f64,
    }
}

record! {
    /// One held-out response.
    pub struct SampleRow {
        pub step: i64,
        pub index: i64,
        pub family: String,
        pub prompt: String,
        pub response: String,
        pub reward: f64,
        pub ended: bool,
    }
}

record! {
    /// One run of a plan.
    pub struct PlanRow {
        pub run: String,
        pub task: String,
        pub method: String,
        pub seed: i64,
        /// The most steps, and samples; a budget may end the run before.
        pub steps: i64,
        pub samples: i64,
        pub budget: Option<String>,
        pub done: bool,
    }
}
