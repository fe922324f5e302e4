//! Where every random number comes from.
//!
//! A generator is keyed by what it is for, never passed along: a resumed run, a row in another
//! batch or an evaluation in between draws the same numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a generator is for. Streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    Initialise = 1,
    Prompts = 2,
    Rollout = 3,
    Evaluate = 4,
    Demonstrations = 5,
    Bootstrap = 6,
    Table = 7,
    Dropout = 8,
    Preferences = 9,
    Accept = 10,
    Pick = 11,
    Search = 12,
    TargetTraining = 13,
    Derivation = 20,
    Exact = 21,
    Judge = 22,
    Select = 23,
    Sheet = 24,
}

/// The generator for `(seed, purpose, step, row)`.
pub fn rng(seed: u64, purpose: Purpose, step: u64, row: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, step, row]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
