//! From rewards to advantages.

use crate::metrics::{mean, sd};

/// Each reward less the mean of the other rewards of its prompt (RLOO's baseline, arXiv:2402.14740).
/// `rewards` holds k responses to each prompt, one prompt after the other; with k = 1 there is no baseline.
///
/// # Panics
/// If k is 0 or does not divide the number of rewards.
pub fn leave_one_out(rewards: &[f64], k: usize) -> Vec<f64> {
    assert!(k > 0 && rewards.len().is_multiple_of(k), "{} rewards are not groups of {k}", rewards.len());
    if k == 1 {
        return rewards.to_vec();
    }
    let of_group = |group: &[f64]| -> Vec<f64> {
        let sum: f64 = group.iter().sum();
        group.iter().map(|r| r - (sum - r) / (k - 1) as f64).collect()
    };
    rewards.chunks(k).flat_map(of_group).collect()
}

/// Generalized advantage estimation over one response (Schulman et al. 2016, arXiv:1506.02438), γ = 1:
/// advantages and returns (advantage + value). The value after the last token is 0, for a
/// response that was cut as well as for one that ended.
pub fn generalized_advantages(rewards: &[f64], values: &[f64], lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let n = rewards.len();
    let mut advantages = vec![0.0; n];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..n).rev() {
        let delta = rewards[t] + next_value - values[t];
        advantages[t] = delta + lambda * next_advantage;
        (next_value, next_advantage) = (values[t], advantages[t]);
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

/// Each reward less the mean of its prompt's k rewards (GRPO, arXiv:2402.03300), and with `over_sd` divided by their
/// standard deviation (of k − 1) plus 1e-4. The mean holds the own reward: without `over_sd` this is
/// [`leave_one_out`] times (k − 1)/k. With k = 1 all is 0.
///
/// # Panics
/// If k is 0 or does not divide the number of rewards.
pub fn group_advantages(rewards: &[f64], k: usize, over_sd: bool) -> Vec<f64> {
    assert!(k > 0 && rewards.len().is_multiple_of(k), "{} rewards are not groups of {k}", rewards.len());
    let of_group = |group: &[f64]| -> Vec<f64> {
        let scale = if over_sd { 1.0 / (if k > 1 { sd(group) } else { 0.0 } + 1e-4) } else { 1.0 };
        let mean = mean(group);
        group.iter().map(|r| (r - mean) * scale).collect()
    };
    rewards.chunks(k).flat_map(of_group).collect()
}

/// Shifts and scales to mean 0 and variance 1 (of n − 1, plus 1e-8); fewer than two numbers stay as they are.
pub fn whiten(x: &mut [f64]) {
    if x.len() < 2 {
        return;
    }
    let (mean, variance) = (mean(x), sd(x).powi(2));
    for v in x {
        *v = (*v - mean) / (variance + 1e-8).sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_one_out_leaves_the_own_reward_out() {
        assert_eq!(leave_one_out(&[1.0, 2.0, 6.0, 0.0, 0.0, 3.0], 3), [-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]);
        assert_eq!(leave_one_out(&[0.5, 0.25], 1), [0.5, 0.25]);
    }

    #[test]
    fn gae_is_the_return_less_the_value_at_lambda_1_and_the_td_error_at_lambda_0() {
        let (rewards, values) = ([0.0, 0.5, 1.0], [0.3, 0.2, 0.9]);
        let (a, returns) = generalized_advantages(&rewards, &values, 1.0);
        let expected = [1.5, 1.5, 1.0];
        for t in 0..3 {
            assert!((returns[t] - expected[t]).abs() < 1e-12 && (a[t] - (expected[t] - values[t])).abs() < 1e-12);
        }
        let (a, _) = generalized_advantages(&rewards, &values, 0.0);
        for (a, b) in a.iter().zip([0.0 + 0.2 - 0.3, 0.5 + 0.9 - 0.2, 1.0 - 0.9]) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn whitened_numbers_have_mean_0_and_variance_1() {
        let mut x = [1.0, 2.0, 3.0, 10.0];
        whiten(&mut x);
        assert!(x.iter().sum::<f64>().abs() < 1e-12);
        assert!((x.iter().map(|v| v * v).sum::<f64>() / 3.0 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn group_advantages_by_hand() {
        // Means 2 and 1, standard deviations 1 and √3.
        let rewards = [1.0, 2.0, 3.0, 0.0, 0.0, 3.0];
        assert_eq!(group_advantages(&rewards, 3, false), [-1.0, 0.0, 1.0, -1.0, -1.0, 2.0]);
        let by_sd = group_advantages(&rewards, 3, true);
        assert!((by_sd[0] + 1.0 / 1.0001).abs() < 1e-12 && (by_sd[5] - 2.0 / (3f64.sqrt() + 1e-4)).abs() < 1e-12);
        assert_eq!(group_advantages(&[0.7], 1, true), [0.0]);
        for (group, other) in group_advantages(&rewards, 3, false).iter().zip(leave_one_out(&rewards, 3)) {
            assert!((group - other * 2.0 / 3.0).abs() < 1e-12);
        }
    }
}
