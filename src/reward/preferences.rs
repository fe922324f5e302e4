//! Pairs of token sequences of which one is preferred.

use anyhow::{Context, Result, ensure};

use crate::models::RewardNetwork;

/// Two whole sequences (prompt and response), of which one was preferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    pub chosen: Vec<u32>,
    pub rejected: Vec<u32>,
    /// By how much the chosen one's reward should at least be above the other, as in LLaMA-2 (Touvron et al. 2023,
    /// arXiv:2307.09288, section 3.2.2); 0 for none.
    pub margin: f64,
}

/// Pairs to learn from or to be measured on. A pair of equal sequences says nothing about rewards; such pairs are left
/// out, and counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    pairs: Vec<Preference>,
    /// Where each pair stood in what was given.
    rows: Vec<usize>,
    equal: Vec<usize>,
}

impl Preference {
    /// Without a margin.
    pub fn new(chosen: Vec<u32>, rejected: Vec<u32>) -> Self {
        Self { chosen, rejected, margin: 0.0 }
    }

    /// Both sequences shortened by [`RewardNetwork::keep_end`].
    pub fn keep_end(&self, network: &RewardNetwork) -> Self {
        Self { chosen: network.keep_end(&self.chosen), rejected: network.keep_end(&self.rejected), margin: self.margin }
    }
}

impl Preferences {
    /// # Errors
    /// A margin that is negative or not a number; no pair of two different sequences.
    pub fn new(given: Vec<Preference>) -> Result<Self> {
        let count = given.len();
        let (mut pairs, mut rows, mut equal) = (Vec::new(), Vec::new(), Vec::new());
        for (row, pair) in given.into_iter().enumerate() {
            let margin = pair.margin;
            ensure!(margin.is_finite() && margin >= 0.0, "pair {row}: the margin {margin} is not a number from 0 up");
            if pair.chosen == pair.rejected {
                equal.push(row);
            } else {
                pairs.push(pair);
                rows.push(row);
            }
        }
        ensure!(!pairs.is_empty(), "of {count} pairs none has two different sequences: there is nothing to learn");
        Ok(Self { pairs, rows, equal })
    }

    pub fn pairs(&self) -> &[Preference] {
        &self.pairs
    }

    /// The rows of what was given in which chosen and rejected are equal. They are not among the pairs.
    pub fn equal(&self) -> &[usize] {
        &self.equal
    }

    /// What was left out, in words; none if nothing was.
    pub fn left_out(&self) -> Option<String> {
        const NAMED: usize = 10;
        let named: Vec<_> = self.equal.iter().take(NAMED).map(usize::to_string).collect();
        let more = if self.equal.len() > NAMED { ", ..." } else { "" };
        (!self.equal.is_empty()).then(|| {
            let all = self.pairs.len() + self.equal.len();
            let (left, rows) = (self.equal.len(), named.join(", "));
            format!("{left} of {all} pairs are left out, chosen and rejected are equal: rows {rows}{more}")
        })
    }

    /// # Errors
    /// A sequence that a model cannot read; the row of what was given is named.
    pub fn check(&self, network: &RewardNetwork) -> Result<()> {
        for (pair, row) in self.pairs.iter().zip(&self.rows) {
            for (name, tokens) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
                network.check(tokens).with_context(|| format!("pair {row}, {name}"))?;
            }
        }
        Ok(())
    }
}
