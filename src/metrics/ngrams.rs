//! How many n-grams two texts share.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Small numbers for tokens: equal tokens have equal numbers.
#[derive(Debug)]
pub(super) struct Vocabulary<T> {
    numbers: FxHashMap<T, u32>,
}

impl<T: Hash + Eq> Vocabulary<T> {
    pub(super) fn new() -> Self {
        Self { numbers: FxHashMap::default() }
    }

    pub(super) fn number(&mut self, token: T) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(token).or_insert(next)
    }
}

/// The n-grams of some texts, of all orders 1 to `orders`: a tree in which the way from the root to a node spells an
/// n-gram.
#[derive(Debug)]
pub(super) struct NgramTree {
    orders: usize,
    /// From (node, token) to the node below.
    below: FxHashMap<(u32, u32), u32>,
    nodes: Vec<Node>,
    texts: u32,
    /// Of texts compared with the tree, so that what one used up does not count for the next.
    queries: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    /// The largest number of times that it stands in one text, and which text that is; the largest in any other.
    most: u32,
    most_in: u32,
    second: u32,
    /// How often the text that is being added has had it.
    here: u32,
    here_in: u32,
    /// How often the query has matched it.
    used: u32,
    used_by: u32,
}

impl NgramTree {
    pub(super) fn new(orders: usize) -> Self {
        Self { orders, below: FxHashMap::default(), nodes: vec![Node::default()], texts: 0, queries: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.below.clear();
        self.nodes.truncate(1);
        (self.texts, self.queries) = (0, 0);
    }

    /// Adds a text; texts are numbered from 0 in the order in which they are added.
    pub(super) fn add(&mut self, text: &[u32]) {
        // Zero is no text, so that a fresh node belongs to none.
        self.texts += 1;
        for start in 0..text.len() {
            let mut at = 0;
            for &token in &text[start..text.len().min(start + self.orders)] {
                let next = self.nodes.len() as u32;
                at = *self.below.entry((at, token)).or_insert(next);
                if at == next {
                    self.nodes.push(Node::default());
                }
                self.nodes[at as usize].occurs_in(self.texts);
            }
        }
    }

    /// For each order how many n-grams of `text` the texts of the tree have too. An n-gram counts at most as often as in the
    /// text that has it most often; the text with the number `except` is left out.
    pub(super) fn matches(&mut self, text: &[u32], except: Option<usize>) -> Vec<u64> {
        self.queries += 1;
        let except = except.map_or(0, |text| text as u32 + 1);
        let mut matches = vec![0; self.orders];
        for start in 0..text.len() {
            let mut at = 0;
            for (order, &token) in text[start..text.len().min(start + self.orders)].iter().enumerate() {
                let Some(&next) = self.below.get(&(at, token)) else { break };
                at = next;
                matches[order] += u64::from(self.nodes[at as usize].is_matched(self.queries, except));
            }
        }
        matches
    }

    /// For each order the number of different n-grams in all texts.
    pub(super) fn distinct(&self) -> Vec<u64> {
        let mut depth = vec![0; self.nodes.len()];
        // A node is made after the one above it.
        let mut edges: Vec<(u32, u32)> = self.below.iter().map(|(&(above, _), &node)| (node, above)).collect();
        edges.sort_unstable();
        let mut distinct = vec![0; self.orders];
        for (node, above) in edges {
            distinct[depth[above as usize]] += 1;
            depth[node as usize] = depth[above as usize] + 1;
        }
        distinct
    }
}

impl Node {
    fn occurs_in(&mut self, text: u32) {
        self.here = if self.here_in == text { self.here + 1 } else { 1 };
        self.here_in = text;
        if self.most_in == text {
            self.most = self.here;
        } else if self.here > self.most {
            self.second = self.most;
            (self.most, self.most_in) = (self.here, text);
        } else {
            self.second = self.second.max(self.here);
        }
    }

    fn is_matched(&mut self, query: u32, except: u32) -> bool {
        if self.used_by != query {
            (self.used, self.used_by) = (0, query);
        }
        let limit = if self.most_in == except { self.second } else { self.most };
        let matched = self.used < limit;
        self.used += u32::from(matched);
        matched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn counts(text: &[u32], n: usize) -> HashMap<&[u32], u64> {
        let mut counts = HashMap::new();
        for ngram in text.windows(n) {
            *counts.entry(ngram).or_insert(0) += 1;
        }
        counts
    }

    proptest! {
        /// What the tree finds is what counting each order apart finds, with and without one of the texts.
        #[test]
        fn matches_are_those_of_counts(
            texts in prop::collection::vec(prop::collection::vec(0u32..4, 0..12), 1..5),
            query in prop::collection::vec(0u32..4, 0..14),
        ) {
            let mut tree = NgramTree::new(3);
            for text in &texts {
                tree.add(text);
            }
            for except in std::iter::once(None).chain((0..texts.len()).map(Some)) {
                let found = tree.matches(&query, except);
                for n in 1..=3 {
                    let others = || texts.iter().enumerate().filter(|(index, _)| Some(*index) != except);
                    let limit = |ngram| others().map(|(_, text)| counts(text, n).get(ngram).copied().unwrap_or(0)).max();
                    let expected: u64 = counts(&query, n).iter().map(|(ngram, &count)| count.min(limit(*ngram).unwrap_or(0))).sum();
                    prop_assert_eq!(found[n - 1], expected);
                }
            }
            let distinct = |n| texts.iter().flat_map(|text| text.windows(n)).collect::<HashSet<_>>().len() as u64;
            prop_assert_eq!(tree.distinct(), [distinct(1), distinct(2), distinct(3)]);
        }
    }
}
