//! Numbers with their uncertainty, mostly over few seeds: one subject a file.

mod aggregate;
mod agreement;
mod bootstrap;
mod correlation;
mod crossed;
mod distribution;
mod efficiency;
mod learning_curve;
mod moments;
mod multiple;
mod power;
mod t_tests;
#[cfg(test)]
mod tests;

pub use aggregate::{
    Aggregate, probability_of_improvement, resampled_improvement, resampled_share_above, share_above,
    stratified_bootstrap,
};
pub use agreement::{KappaWeights, Scale, cohen_kappa, fleiss_kappa, krippendorff_alpha};
pub use bootstrap::{Resampled, bootstrap, bootstrap_paired, jackknife, jackknife_paired};
pub use correlation::{Correlation, pearson, ranks, spearman};
pub use crossed::bootstrap_gain;
pub(super) use distribution::normal_quantile;
pub use efficiency::{Efficiency, Reading, restricted_mean, sample_efficiency};
pub use learning_curve::{Reached, area_under_curve, samples_to};
pub use moments::{Interval, iqm, mean, quantile, sd, t_interval};
pub(super) use moments::{check_confidence, quantile_of_sorted};
pub use multiple::holm;
pub use power::Design;
pub use t_tests::{TTest, paired_t, welch_t};
