//! From a pair and a rule to α and every quantity that follows from it.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::quintic::{self, Quintic};
use super::split::{Split, Weighed};
use super::{Moments, Rule, Solver, Start, table};

/// Interpolation takes 1 to 6 evaluations; bisection inside it needs at most 60.
const MAX_STEPS: u32 = 100;

/// Below this variance of log p − log t, and its root as divergence, the two distributions are the same in f64. The
/// variance alone does not tell: it is as small where each side has all its mass on an outcome of its own.
const SAME: f64 = 1e-28;

/// Newton's steps below this are taken: the quintic would be no better, and the rounding of K is in it.
const NEAR: f64 = 1e-4;

/// What the search for α came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// A root, or a rule that needs none.
    Ok,
    /// p = t: every α gives the same q, and the answer is 1/2.
    Same,
    /// The supports differ so that no root lies in [0, 1]: α is the end with the smaller |K'|, and 1/2 where q is the
    /// same for every α.
    NoRoot,
    /// The signal-to-noise ratio is the same for every α: α is q*'s.
    Flat,
    /// The steps ran out before the root was known to rounding.
    NotConverged,
}

/// α and the diagnostics of q. Entropies, divergences and log ESS are in nats.
///
/// Where q was drawn at another temperature than 1, q is the tempered one: KL, ESS and its entropy are those of
/// the distribution that is really drawn from. K and its derivatives are those of the mixture at α.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Solution {
    pub alpha: f64,
    pub status: Status,
    /// The number of times that K' (or the difference of K for ESS balance) was evaluated.
    pub iterations: u32,
    /// K, K' and K'' at α. log Z of q is K.
    pub k: f64,
    pub k1: f64,
    pub k2: f64,
    /// KL(q‖p) and KL(q‖t).
    pub kl_p: f64,
    pub kl_t: f64,
    /// log of 1/Σ p²/q and of 1/Σ t²/q; −∞ where that side has mass outside the support of q.
    pub log_ess_p: f64,
    pub log_ess_t: f64,
    pub entropy_p: f64,
    pub entropy_t: f64,
    pub entropy_q: f64,
    /// ½ Σ |p − t|.
    pub total_variation: f64,
}

/// An α, and how it was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub alpha: f64,
    pub status: Status,
    pub iterations: u32,
}

impl Root {
    pub fn at(alpha: f64, status: Status, iterations: u32) -> Self {
        Self { alpha, status, iterations }
    }
}

impl Split {
    /// α by `rule`. `SnrMax` needs the rows themselves and is not answered here.
    pub fn root(&self, rule: &Rule) -> Result<Root> {
        let at = |alpha| Root::at(alpha, Status::Ok, 0);
        Ok(match *rule {
            Rule::Fixed(alpha) => {
                ensure!((0.0..=1.0).contains(&alpha), "a fixed alpha must lie in [0, 1]: {alpha}");
                at(alpha)
            }
            Rule::Entropy => at(self.alpha_by_entropy()),
            Rule::KlSymmetry(solver) => self.root_of_k1(solver)?,
            Rule::EssBalance => self.root_of_ess_difference(),
            Rule::SnrMax => bail!("SnrMax needs rows of log-probabilities: solve a Pair"),
        })
    }

    fn alpha_by_entropy(&self) -> f64 {
        let total = self.entropy_p + self.entropy_t;
        if total > 0.0 { self.entropy_p / total } else { 0.5 }
    }

    /// K' rises from K'(0) to K'(1); on equal supports these are −KL(t‖p) and KL(p‖t).
    fn root_of_k1(&self, solver: Solver) -> Result<Root> {
        let [at_0, at_1] = self.ends;
        if let Some(root) = self.without_regular_root(|| (at_0.k1, at_1.k1)) {
            return Ok(root);
        }
        let start = match solver {
            Solver::Bisection(rounds) => return Ok(self.bisect(rounds)),
            Solver::Hermite(start) | Solver::Newton(start) => match start {
                Start::Ends => Quintic::through(0.0, at_0, 1.0, at_1).minimum(),
                Start::Entropy => self.alpha_by_entropy(),
                Start::At(alpha) => alpha,
                Start::Table => table::look_up(self.entropy_p, self.entropy_t, at_1.k1),
            },
        };
        ensure!(!start.is_nan(), "the search for alpha cannot start at {start}");
        Ok(self.search(start.clamp(1e-6, 1.0 - 1e-6), matches!(solver, Solver::Newton(_))))
    }

    fn bisect(&self, rounds: u32) -> Root {
        let (mut low, mut high) = (0.0, 1.0);
        let rounds = rounds.min(MAX_STEPS);
        for _ in 0..rounds {
            let middle = 0.5 * (low + high);
            if self.moments(&self.weigh(1.0, middle)).k1 > 0.0 { high = middle } else { low = middle }
        }
        Root::at(0.5 * (low + high), Status::Ok, rounds)
    }

    /// The root of K' from `start`, inside a bracket that shrinks with every evaluation.
    fn search(&self, start: f64, newton: bool) -> Root {
        let (mut low, mut high) = ((0.0, self.ends[0]), (1.0, self.ends[1]));
        let (mut alpha, mut last_step) = (start, f64::INFINITY);
        for iterations in 1..=MAX_STEPS {
            let weighed = self.weigh(1.0, alpha);
            let here = self.moments(&weighed);
            if here.k1 > 0.0 {
                high = (alpha, here)
            } else {
                low = (alpha, here)
            }
            let step = if here.k1 == 0.0 { 0.0 } else { here.k1 / here.k2 };
            // What rounding leaves unknown of α, and what nobody needs to know.
            let needed = (if self.is_f64() { 1e-12 } else { 1e-7 }) / (1.0 + here.k2.sqrt());
            let tolerance = needed + self.alpha_rounding(&weighed);
            // Steps that no longer shrink are rounding, too.
            let stuck = step.abs() >= 0.5 * last_step && step.abs() <= 50.0 * tolerance;
            if step.abs() <= tolerance || stuck || high.0 - low.0 < 1e-15 {
                return Root::at(alpha, Status::Ok, iterations);
            }
            // What Newton's step leaves is half the third cumulant of d over its variance times the step's square. The
            // cumulant is of the order of the standard deviation cubed, or what the ends of the bracket say.
            let k3 = ((high.1.k2 - low.1.k2) / (high.0 - low.0)).abs().max(here.k2.powf(1.5));
            if !self.is_f64() && 2.0 * k3 / here.k2 * step * step <= needed {
                // f32 rows are spared a last evaluation that would only confirm.
                return Root::at((alpha - step).clamp(low.0, high.0), Status::Ok, iterations);
            }
            let inside = alpha - step > low.0 && alpha - step < high.0;
            alpha = if !inside || step.abs() > 0.5 * last_step {
                // On a function this crooked the quintic is no better than Newton's step.
                0.5 * (low.0 + high.0)
            } else if newton || step.abs() < NEAR {
                alpha - step
            } else {
                Quintic::through(low.0, low.1, high.0, high.1).minimum()
            };
            last_step = step.abs();
        }
        Root::at(alpha, Status::NotConverged, MAX_STEPS)
    }

    /// K(−α) − K(2−α) and its slope.
    fn ess_difference(&self, alpha: f64) -> (f64, f64) {
        let t = self.moments(&self.weigh(1.0, -alpha));
        let p = self.moments(&self.weigh(1.0, 2.0 - alpha));
        (t.k - p.k, p.k1 - t.k1)
    }

    /// K(−α) − K(2−α) rises strictly in α: Newton's steps, safeguarded, from the root that the quintic has.
    fn root_of_ess_difference(&self) -> Root {
        if let Some(root) = self.without_regular_root(|| (self.ess_difference(0.0).0, self.ess_difference(1.0).0)) {
            return root;
        }
        let guess = Quintic::through(0.0, self.ends[0], 1.0, self.ends[1]);
        let mut alpha = quintic::rising_root(|alpha| guess.value(-alpha) - guess.value(2.0 - alpha));
        let (mut low, mut high) = (0.0, 1.0);
        let mut last_step = f64::INFINITY;
        for iterations in 1..=MAX_STEPS {
            let (value, slope) = self.ess_difference(alpha);
            if value > 0.0 {
                high = alpha
            } else {
                low = alpha
            }
            let newton = alpha - value / slope;
            let inside = newton > low && newton < high;
            let step = (newton - alpha).abs();
            // Steps that no longer shrink are rounding.
            let rounding = step < 1e-6 && step >= 0.5 * last_step;
            if value == 0.0 || step <= 1e-13 || rounding || high - low < 1e-15 {
                return Root::at(if inside { newton } else { alpha }, Status::Ok, iterations);
            }
            last_step = step;
            alpha = if inside { newton } else { 0.5 * (low + high) };
        }
        Root::at(alpha, Status::NotConverged, MAX_STEPS)
    }

    /// The answer where there is no single root inside of \[0, 1\]: equal distributions, and supports so
    /// different that the rising function keeps its sign. `at_ends` gives its values at 0 and 1.
    fn without_regular_root(&self, at_ends: impl Fn() -> (f64, f64)) -> Option<Root> {
        if !self.p_outside && !self.t_outside {
            // On equal supports the sign always changes.
            // Two sides that have one outcome each, and not the same one, have no variance either.
            let same = self.ends.iter().all(|end| end.k2 < SAME && end.k1.abs() < SAME.sqrt());
            return same.then(|| Root::at(0.5, Status::Same, 0));
        }
        let (at_0, at_1) = at_ends();
        let no_root = at_0 > 0.0 || at_1 < 0.0 || (at_0 == 0.0 && at_1 == 0.0);
        no_root.then(|| {
            let alpha = match at_0.abs().total_cmp(&at_1.abs()) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5, // q is the same for every α
            };
            Root::at(alpha, Status::NoRoot, 0)
        })
    }

    /// Every diagnostic of q_α at temperature `temperature`, and the weights that q is drawn with.
    pub fn diagnose(&self, root: Root, temperature: f64) -> (Solution, Weighed) {
        let alpha = root.alpha;
        let (mixture, [k_beyond_p, k_beyond_t], total_variation) = self.weigh_all(alpha);
        let Moments { k, k1, k2 } = self.moments(&mixture);
        let tempered = temperature != 1.0;
        let q = if tempered { self.weigh(1.0 / temperature, alpha / temperature) } else { mixture };
        // E_q[log q] and, against it, E_q[log p] and E_q[log t].
        let log_q = q.a * q.y + q.b * q.delta - q.log_w;
        let (log_p, log_t) = self.log_probs(q.y, q.delta);
        let (kl_p, kl_t) =
            if tempered { (log_q - log_p, log_q - log_t) } else { (-(1.0 - alpha) * k1 - k, alpha * k1 - k) };
        let outside = |is_outside: bool, log_ess: f64| {
            if is_outside { f64::NEG_INFINITY } else { -not_negative(-log_ess) }
        };
        let (ess_p, ess_t) = if tempered {
            let (a, b) = (2.0 - 1.0 / temperature, alpha / temperature);
            let ess = |b: f64, log_z: f64| 2.0 * log_z - q.log_w - self.weigh(a, b).log_w;
            (ess(2.0 - b, self.log_z_p), ess(-b, self.log_z_t))
        } else {
            (-k - k_beyond_p, -k - k_beyond_t)
        };
        let solution = Solution {
            alpha,
            status: root.status,
            iterations: root.iterations,
            k,
            k1,
            k2,
            // Rounding may leave −1e-17 where the divergence is zero.
            kl_p: not_negative(kl_p),
            kl_t: not_negative(kl_t),
            log_ess_p: outside(self.p_outside, ess_p),
            log_ess_t: outside(self.t_outside, ess_t),
            entropy_p: self.entropy_p,
            entropy_t: self.entropy_t,
            entropy_q: not_negative(-log_q),
            total_variation,
        };
        (solution, q)
    }
}

/// Zero for what rounding left below it. Unlike `max`, it keeps a NaN: a wrong number must not look like a perfect one.
pub(super) fn not_negative(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}
