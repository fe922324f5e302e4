//! A table of α* over (H(p), H(t), KL(p‖t)), as one of the places where a search may start.

use std::sync::LazyLock;

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::split::Split;
use super::{Rule, Solver, Start};
use crate::seed::{self, Purpose};

/// Cells of one nat of each entropy, and of one nat of log KL from e^−9 on.
const CELLS: usize = 13;
const LOWEST_LOG_KL: f64 = -9.0;

/// Pairs that fill the table.
const PAIRS: u64 = 6_000;

static TABLE: LazyLock<Vec<(f64, u32)>> = LazyLock::new(|| {
    let mut cells = vec![(0.0, 0); CELLS * CELLS * CELLS];
    let mut split = Split::default();
    for pair in 0..PAIRS {
        let mut rng = seed::rng(0, Purpose::Table, 0, pair);
        let size = 2usize << rng.random_range(0..10);
        let scale = 0.1 * 120f64.powf(rng.random());
        let own: f64 = rng.random::<f64>().powi(2);
        let mut gaussian = || -> f64 { StandardNormal.sample(&mut rng) };
        let policy: Vec<f64> = (0..size).map(|_| scale * gaussian()).collect();
        let target: Vec<f64> = policy.iter().map(|p| (1.0 - own) * p + own * scale * gaussian()).collect();
        let solved =
            split.fill_f64(&policy, &target).and_then(|()| split.root(&Rule::KlSymmetry(Solver::Hermite(Start::Ends))));
        if let Ok(root) = solved {
            let cell = &mut cells[place(split.entropy_p, split.entropy_t, split.ends[1].k1)];
            (cell.0, cell.1) = (cell.0 + root.alpha, cell.1 + 1);
        }
    }
    cells
});

fn place(entropy_p: f64, entropy_t: f64, kl: f64) -> usize {
    let cell = |x: f64| (x.max(0.0) as usize).min(CELLS - 1);
    (cell(entropy_p) * CELLS + cell(entropy_t)) * CELLS + cell(kl.max(1e-300).ln() - LOWEST_LOG_KL)
}

/// The mean α* of the pairs in the same cell; 1/2 where there was none.
pub(super) fn look_up(entropy_p: f64, entropy_t: f64, kl: f64) -> f64 {
    let (sum, count) = TABLE[place(entropy_p, entropy_t, kl)];
    if count == 0 { 0.5 } else { sum / f64::from(count) }
}
