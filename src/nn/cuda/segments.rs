//! Which rows of a gradient are summed into which row of a table.

use std::collections::BTreeMap;

/// Rows by their target, in pieces that one block sums.
pub struct Segments {
    /// Rows by their target, in their order.
    pub order: Vec<u32>,
    /// Where pieces of at most [`PIECE`] rows of one target begin in `order`, and its end.
    pub pieces: Vec<u32>,
    /// The targets, and where the pieces of each begin in `pieces`, and their number.
    pub targets: Vec<u32>,
    pub starts: Vec<u32>,
}

/// Rows that one block sums: a token that comes thousands of times is no block's alone.
const PIECE: usize = 32;

impl Segments {
    pub fn of(ids: &[u32]) -> Self {
        let mut by_target: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, &id) in ids.iter().enumerate() {
            by_target.entry(id).or_default().push(row as u32);
        }
        let mut segments = Self { order: Vec::new(), pieces: vec![0], targets: Vec::new(), starts: vec![0] };
        for (target, rows) in by_target {
            for piece in rows.chunks(PIECE) {
                segments.order.extend(piece);
                segments.pieces.push(segments.order.len() as u32);
            }
            segments.targets.push(target);
            segments.starts.push(segments.pieces.len() as u32 - 1);
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_reaches_its_target_once_and_in_order() {
        let ids: Vec<u32> = (0..500u32).map(|i| if i % 3 == 0 { 7 } else { i * i % 41 }).collect();
        let segments = Segments::of(&ids);
        let mut reached = vec![Vec::<u32>::new(); 41];
        for (target, pieces) in segments.targets.iter().zip(segments.starts.windows(2)) {
            for piece in pieces[0]..pieces[1] {
                let rows = segments.pieces[piece as usize]..segments.pieces[piece as usize + 1];
                assert!((1..=PIECE as u32).contains(&(rows.end - rows.start)));
                reached[*target as usize].extend(&segments.order[rows.start as usize..rows.end as usize]);
            }
        }
        for (target, rows) in reached.iter().enumerate() {
            let right: Vec<u32> = (0..500).filter(|&i| ids[i as usize] == target as u32).collect();
            assert_eq!(rows, &right, "target {target}");
        }
    }
}
