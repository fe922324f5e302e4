//! From a pair and a rule to α and every quantity that follows from it.

use anyhow::{Result, ensure};

use super::{Pair, Rule, Solver};

/// Newton converges in 4 to 8 steps from 1/2; bisection inside it needs at most 60.
const MAX_STEPS: u32 = 100;

/// Below this variance of log p − log t the two distributions are the same in f64.
const SAME: f64 = 1e-30;

/// What the search for α came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A root, or a rule that needs none.
    Ok,
    /// p = t: every α gives the same q, and the answer is 1/2.
    Same,
    /// The supports differ so that no root lies in [0, 1]: α is the nearer end.
    NoRoot,
    /// The steps ran out before the root was known to machine precision.
    NotConverged,
}

/// α and the diagnostics of q_α. Entropies, divergences and log ESS are in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

struct Root {
    alpha: f64,
    status: Status,
    iterations: u32,
}

impl Pair {
    /// Chooses α by `rule` and computes every diagnostic of q_α.
    ///
    /// # Errors
    /// A fixed α that is not in [0, 1].
    pub fn solve(&self, rule: &Rule) -> Result<Solution> {
        let at = |alpha| Root { alpha, status: Status::Ok, iterations: 0 };
        let root = match *rule {
            Rule::Fixed(alpha) => {
                ensure!((0.0..=1.0).contains(&alpha), "a fixed alpha must lie in [0, 1]: {alpha}");
                at(alpha)
            }
            Rule::Entropy => {
                let total = self.entropy_p + self.entropy_t;
                at(if total > 0.0 { self.entropy_p / total } else { 0.5 })
            }
            Rule::KlSymmetry(solver) => self.root_of_k1(solver),
            Rule::EssBalance => self.root_of_ess_difference(),
        };
        Ok(self.diagnose(root))
    }

    fn diagnose(&self, root: Root) -> Solution {
        let alpha = root.alpha;
        let m = self.moments(alpha);
        let outside = |is_outside: bool, log_ess: f64| {
            if is_outside { f64::NEG_INFINITY } else { log_ess.min(0.0) }
        };
        Solution {
            alpha,
            status: root.status,
            iterations: root.iterations,
            k: m.k,
            k1: m.k1,
            k2: m.k2,
            // Rounding may leave −1e-17 where the divergence is zero.
            kl_p: (-(1.0 - alpha) * m.k1 - m.k).max(0.0),
            kl_t: (alpha * m.k1 - m.k).max(0.0),
            log_ess_p: outside(self.p_outside, -m.k - self.moments(2.0 - alpha).k),
            log_ess_t: outside(self.t_outside, -m.k - self.moments(-alpha).k),
            entropy_p: self.entropy_p,
            entropy_t: self.entropy_t,
            entropy_q: self.entropy_q(alpha, m.k).max(0.0),
        }
    }

    /// K' rises from K'(0) to K'(1); on equal supports these are −KL(t‖p) and KL(p‖t).
    fn root_of_k1(&self, solver: Solver) -> Root {
        let rising = |alpha: f64| {
            let m = self.moments(alpha);
            (m.k1, m.k2)
        };
        match solver {
            Solver::Newton => self.rising_root(rising),
            Solver::Bisection(rounds) => self.without_regular_root(rising).unwrap_or_else(|| {
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..rounds {
                    let middle = 0.5 * (low + high);
                    if rising(middle).0 > 0.0 { high = middle } else { low = middle }
                }
                Root { alpha: 0.5 * (low + high), status: Status::Ok, iterations: rounds }
            }),
        }
    }

    /// K(−α) − K(2−α) rises strictly in α.
    fn root_of_ess_difference(&self) -> Root {
        self.rising_root(|alpha| {
            let (t, p) = (self.moments(-alpha), self.moments(2.0 - alpha));
            (t.k - p.k, p.k1 - t.k1)
        })
    }

    /// The answer where there is no single root inside of \[0, 1\]: equal distributions, and supports so
    /// different that the rising function keeps its sign.
    fn without_regular_root(&self, f: impl Fn(f64) -> (f64, f64)) -> Option<Root> {
        if !self.p_outside && !self.t_outside {
            // On equal supports the sign always changes.
            let same = self.moments(0.5).k2 < SAME;
            return same.then_some(Root { alpha: 0.5, status: Status::Same, iterations: 1 });
        }
        let (at_0, at_1) = (f(0.0).0, f(1.0).0);
        let no_root = at_0 > 0.0 || at_1 < 0.0 || (at_0 == 0.0 && at_1 == 0.0);
        no_root.then(|| {
            let alpha = match at_0.abs().total_cmp(&at_1.abs()) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5, // q is the same for every α
            };
            Root { alpha, status: Status::NoRoot, iterations: 2 }
        })
    }

    /// The root in \[0, 1\] of a rising function given with its slope: safeguarded Newton from 1/2.
    fn rising_root(&self, f: impl Fn(f64) -> (f64, f64)) -> Root {
        if let Some(root) = self.without_regular_root(&f) {
            return root;
        }
        let mut iterations = 0;
        let (mut low, mut high, mut alpha) = (0.0, 1.0, 0.5);
        for _ in 0..MAX_STEPS {
            let (value, slope) = f(alpha);
            iterations += 1;
            if value == 0.0 {
                return Root { alpha, status: Status::Ok, iterations };
            }
            if value > 0.0 {
                high = alpha
            } else {
                low = alpha
            }
            let newton = alpha - value / slope;
            let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
            // Newton's error after the step is of the order of its square.
            if (next - alpha).abs() < 1e-9 && next == newton || high - low < 1e-15 {
                return Root { alpha: next, status: Status::Ok, iterations };
            }
            alpha = next;
        }
        Root { alpha, status: Status::NotConverged, iterations }
    }
}
