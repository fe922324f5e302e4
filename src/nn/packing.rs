//! Sequences that lie one behind the other, without padding between them.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, bail};

/// Where the sequences of a packed batch lie. Its tokens are rows of one position each, `[N, 1, ..]`; attention alone looks
/// from one to another, and only within a sequence. A sequence may continue an earlier one: it sees that one's tokens before
/// its own, so that what several share is read once. A clone shares the memory.
///
/// ```
/// use qstar::nn::{Packing, Part};
/// // A prompt of three tokens with two responses, and a sequence of two tokens.
/// let parts = [Part::alone(3), Part::behind(0, 2), Part::behind(0, 1), Part::alone(2)];
/// let packing = Packing::new(&parts)?;
/// assert_eq!(packing.positions(), [0, 1, 2, 3, 4, 3, 0, 1]);
/// assert_eq!(packing.longest(), 5);
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    pub(super) segments: Arc<[Segment]>,
}

/// A sequence to be packed: how many tokens it has of its own, and which earlier part it continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    tokens: usize,
    behind: Option<usize>,
}

/// A sequence of a batch: its own tokens, and those that it sees before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub tokens: Range<usize>,
    pub behind: Range<usize>,
}

impl Part {
    /// A sequence that begins at position 0.
    pub fn alone(tokens: usize) -> Self {
        Self { tokens, behind: None }
    }

    /// One that goes on where part number `part` ends.
    pub fn behind(part: usize, tokens: usize) -> Self {
        Self { tokens, behind: Some(part) }
    }
}

impl Packing {
    /// # Errors
    /// No parts, one without a token, one that continues a later part or one that is itself a continuation.
    pub fn new(parts: &[Part]) -> Result<Self> {
        let mut segments: Vec<Segment> = Vec::with_capacity(parts.len());
        let mut end = 0;
        for (number, part) in parts.iter().enumerate() {
            let behind = match part.behind.map(|before| segments.get(before)) {
                None => 0..0,
                Some(Some(before)) if before.behind.is_empty() => before.tokens.clone(),
                Some(_) => bail!("part {number} continues {part:?}, which is not an earlier part that begins at 0"),
            };
            if part.tokens == 0 {
                bail!("part {number} of a packed batch has no token")
            }
            segments.push(Segment { tokens: end..end + part.tokens, behind });
            end += part.tokens;
        }
        if segments.is_empty() {
            bail!("a packed batch has a sequence")
        }
        Ok(Self { segments: segments.into() })
    }

    /// The number of tokens N.
    pub fn token_count(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.tokens.end)
    }

    /// The position of every token in its sequence.
    pub fn positions(&self) -> Vec<usize> {
        self.segments.iter().flat_map(|segment| segment.behind.len()..segment.length()).collect()
    }

    /// The tokens of the longest sequence, with those that it continues.
    pub fn longest(&self) -> usize {
        self.segments.iter().map(Segment::length).max().unwrap_or(0)
    }

    /// The same as a padded batch `[S, T]`: for each of its places the token that stands there (the last one again where
    /// it is padding), and for every token its place.
    pub(super) fn padded(&self) -> (Vec<u32>, Vec<u32>) {
        let longest = self.longest();
        let (mut tokens, mut places) = (Vec::new(), Vec::new());
        for (row, segment) in self.segments.iter().enumerate() {
            let own = segment.behind.clone().chain(segment.tokens.clone());
            let padding = std::iter::repeat_n(segment.tokens.end - 1, longest - segment.length());
            tokens.extend(own.chain(padding).map(|token| token as u32));
            places.extend((segment.behind.len()..segment.length()).map(|t| (row * longest + t) as u32));
        }
        (tokens, places)
    }
}

impl Segment {
    /// All that its last token sees.
    pub fn length(&self) -> usize {
        self.behind.len() + self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_its_place_in_the_padded_batch() {
        let packing = Packing::new(&[Part::alone(2), Part::behind(0, 3), Part::behind(0, 1), Part::alone(4)]).unwrap();
        let (tokens, places) = packing.padded();
        assert_eq!(tokens, [0, 1, 1, 1, 1, 0, 1, 2, 3, 4, 0, 1, 5, 5, 5, 6, 7, 8, 9, 9]);
        let back: Vec<u32> = places.iter().map(|&place| tokens[place as usize]).collect();
        assert_eq!(back, (0..packing.token_count() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        for parts in [
            &[][..],
            &[Part::alone(0)],
            &[Part::behind(0, 1)],
            &[Part::alone(1), Part::behind(2, 1), Part::alone(1)],
            &[Part::alone(1), Part::behind(0, 1), Part::behind(1, 1)],
        ] {
            assert!(Packing::new(parts).is_err(), "{parts:?}");
        }
    }
}
