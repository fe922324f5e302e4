//! Rewards that are known from before, up to a number of them.

use std::collections::HashMap;

/// Rewards by token sequence. Half of the room is for what was asked for last: when that half is full, what is in the
/// other is forgotten and the halves change places.
#[derive(Debug, Default)]
pub(super) struct RewardCache {
    recent: HashMap<Vec<u32>, f64>,
    before: HashMap<Vec<u32>, f64>,
    half: usize,
}

impl RewardCache {
    /// Room for `entries` sequences, at least 2.
    pub fn new(entries: usize) -> Self {
        Self { half: (entries / 2).max(1), ..Self::default() }
    }

    pub fn get(&mut self, sequence: &[u32]) -> Option<f64> {
        if let Some(&reward) = self.recent.get(sequence) {
            return Some(reward);
        }
        let (sequence, reward) = self.before.remove_entry(sequence)?;
        self.insert(sequence, reward);
        Some(reward)
    }

    pub fn insert(&mut self, sequence: Vec<u32>, reward: f64) {
        if self.recent.len() == self.half {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.insert(sequence, reward);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let mut cache = RewardCache::new(8);
        cache.insert(vec![7], 0.7);
        for i in 0..1000 {
            cache.insert(vec![0, i], f64::from(i));
            assert_eq!(cache.get(&[7]), Some(0.7));
            assert_eq!(cache.get(&[0, i]), Some(f64::from(i)));
            assert!(cache.recent.len() + cache.before.len() <= 8);
        }
        assert_eq!(cache.get(&[0, 1]), None);
    }
}
