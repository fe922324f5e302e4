//! A distribution over sequences as a table: log-probabilities of the next token after every prefix.

use super::log_sum_exp;
use super::tree::{Next, Tree};

/// log-probabilities of the next token, one row a prefix of a [`Tree`], in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Tabular {
    rows: Vec<Vec<f64>>,
}

impl Tabular {
    /// From a row of logits for every prefix.
    pub fn from_logits(logits: Vec<Vec<f64>>) -> Self {
        let normalised = |row: Vec<f64>| {
            let log_z = log_sum_exp(row.iter().copied());
            row.into_iter().map(|x| x - log_z).collect()
        };
        Self { rows: logits.into_iter().map(normalised).collect() }
    }

    /// The table of a distribution over whole sequences, given by one log-probability a sequence up to a common
    /// constant: backwards from the ends, the mass of a prefix is the sum over its tokens, and a token's conditional
    /// probability its share of it. Exact: the products along every sequence are the given distribution.
    pub fn from_sequences(tree: &Tree, log_mass: &[f64]) -> Self {
        let mut mass = vec![0.0; tree.prefixes()];
        let mut rows = vec![Vec::new(); tree.prefixes()];
        // Longer prefixes have higher numbers.
        for prefix in (0..tree.prefixes()).rev() {
            let of = |next: &Next| match *next {
                Next::Prefix(longer) => mass[longer],
                Next::End(sequence) => log_mass[sequence],
            };
            let row: Vec<f64> = tree.next(prefix).iter().map(of).collect();
            mass[prefix] = log_sum_exp(row.iter().copied());
            rows[prefix] = row.into_iter().map(|x| x - mass[prefix]).collect();
        }
        Self { rows }
    }

    /// log-probabilities of the token after a prefix, `[V]`.
    pub fn row(&self, prefix: usize) -> &[f64] {
        &self.rows[prefix]
    }

    /// log-probabilities of the tokens of every sequence, `[sequences][tokens]`.
    pub fn along(&self, tree: &Tree) -> Vec<Vec<f64>> {
        let of = |path: &Vec<super::Step>| path.iter().map(|step| self.rows[step.prefix][step.token]).collect();
        tree.paths().iter().map(of).collect()
    }

    /// The log-probability of every sequence.
    pub fn of_sequences(&self, tree: &Tree) -> Vec<f64> {
        self.along(tree).iter().map(|tokens| tokens.iter().sum()).collect()
    }

    /// The log-probability of coming to every prefix.
    pub fn of_prefixes(&self, tree: &Tree) -> Vec<f64> {
        let mut reached = vec![0.0; tree.prefixes()];
        for prefix in 0..tree.prefixes() {
            for (next, log_prob) in tree.next(prefix).iter().zip(&self.rows[prefix]) {
                if let Next::Prefix(longer) = *next {
                    reached[longer] = reached[prefix] + log_prob;
                }
            }
        }
        reached
    }
}
