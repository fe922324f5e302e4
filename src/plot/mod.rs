//! The figures: one function a figure, from a frame to an SVG.
//!
//! Every figure goes from a polars frame of records to a [`Figure`], which shows itself in a notebook and saves
//! itself as SVG and PNG. A method has the same colour and the same mark everywhere ([`style`]).

mod alpha_over_training;
mod axis;
mod canvas;
mod columns;
mod ess_scatter;
mod figure;
mod fonts;
mod over_seeds;
mod reward_curves;
pub mod style;
#[cfg(test)]
mod tests;

pub use alpha_over_training::alpha_over_training;
pub use ess_scatter::ess_scatter;
pub use figure::Figure;
pub use reward_curves::reward_curves;
