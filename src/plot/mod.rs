//! The figures: one function a figure, from a frame to an SVG.
//!
//! Every figure goes from a polars frame of records to a [`Figure`], which shows itself in a notebook and saves
//! itself as SVG and PNG. A method has the same colour and the same mark everywhere ([`style`]).

mod aggregate_intervals;
mod alpha_over_training;
mod alpha_rules;
mod axis;
mod banded_lines;
mod break_even;
mod calibration;
mod canvas;
mod columns;
mod crossing;
mod ess_over_alpha;
mod ess_ratios;
mod ess_scatter;
mod exact_variance;
mod figure;
mod fonts;
mod gradient_noise;
mod intervals;
mod k_and_newton;
mod kl_crossing;
mod log_ess_over_kl;
mod long_training;
mod measured_speedup;
mod multiples;
mod over_seeds;
mod pareto;
mod performance_profile;
mod probability_of_improvement;
mod reward_curves;
mod reward_over_kl;
mod runs;
mod sample_efficiency;
mod scalability;
mod simplex_paths;
mod solver_errors;
#[cfg(test)]
mod study_tests;
pub mod style;
mod targets_by_family;
#[cfg(test)]
mod tests;
mod weights;

pub use aggregate_intervals::aggregate_intervals;
pub use alpha_over_training::alpha_over_training;
pub use alpha_rules::alpha_rules;
pub use break_even::break_even;
pub use calibration::calibration;
pub use ess_over_alpha::ess_over_alpha;
pub use ess_ratios::ess_ratios;
pub use ess_scatter::ess_scatter;
pub use exact_variance::exact_variance;
pub use figure::Figure;
pub use gradient_noise::gradient_noise;
pub use k_and_newton::k_and_newton;
pub use kl_crossing::kl_crossing;
pub use log_ess_over_kl::log_ess_over_kl;
pub use long_training::long_training;
pub use measured_speedup::measured_speedup;
pub use pareto::pareto;
pub use performance_profile::performance_profile;
pub use probability_of_improvement::probability_of_improvement;
pub use reward_curves::reward_curves;
pub use reward_over_kl::reward_over_kl;
pub use sample_efficiency::sample_efficiency;
pub use scalability::scalability;
pub use simplex_paths::simplex_paths;
pub use solver_errors::solver_errors;
pub use targets_by_family::targets_by_family;
pub use weights::weights;
