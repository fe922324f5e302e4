//! The study's statistics: of frames with known answers, and of real runs, recomputed from their parquet files.

#[path = "study/frames.rs"]
mod frames;
#[path = "study/noise.rs"]
mod noise;
#[path = "study/recomputed.rs"]
mod recomputed;
#[path = "study/synthetic.rs"]
mod synthetic;
