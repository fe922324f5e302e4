//! Longest common subsequences, 64 columns of the table at a time.
//!
//! H. Hyyrö, "Bit-parallel LCS-length computation revisited", AWOCA 2004. In a row of the table neighbours differ by 0 or 1,
//! so a row is a string of bits, here 1 where the row does not rise. Columns are taken in strips of one word; what a strip
//! carries to the next is kept for every row.

/// Buffers that are used again from one pair of texts to the next.
#[derive(Debug, Default)]
pub(super) struct Lcs {
    /// For each token the columns of the strip at which it stands. Zero outside of a call.
    at: Vec<u64>,
    carries: Vec<bool>,
    /// `[strip][row]`
    rows: Vec<u64>,
}

impl Lcs {
    /// The length. Tokens are smaller than `tokens`.
    pub(super) fn length(&mut self, a: &[u32], b: &[u32], tokens: usize) -> usize {
        // Bits are cheaper than rows.
        let (rows, columns) = if a.len() < b.len() { (b, a) } else { (a, b) };
        let mut length = 0;
        self.strips(rows, columns, tokens, |_| (), |last, width| length += rises(last, width));
        length
    }

    /// Marks the tokens of `reference` that belong to one longest common subsequence, the one that is found on the way back
    /// from the last cell of the table when a step over a reference's token is taken wherever both steps are possible.
    /// Keeps a bit for each cell.
    pub(super) fn mark(&mut self, reference: &[u32], prediction: &[u32], tokens: usize, marked: &mut [bool]) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        self.strips(reference, prediction, tokens, |row| rows.push(row), |_, _| ());
        let table = Table { rows: &rows, height: reference.len() };
        let (mut i, mut j) = (reference.len(), prediction.len());
        // The cells (i, j) and (i - 1, j).
        let (mut here, mut above) = (table.cell(i, j), table.cell(i.saturating_sub(1), j));
        while i > 0 && j > 0 {
            if reference[i - 1] == prediction[j - 1] {
                marked[i - 1] = true;
                (i, j) = (i - 1, j - 1);
                here -= 1;
                above = table.cell(i.saturating_sub(1), j);
            } else if here - table.rise(i, j) > above {
                here -= table.rise(i, j);
                above -= table.rise(i - 1, j);
                j -= 1;
            } else {
                i -= 1;
                here = above;
                above = table.cell(i.saturating_sub(1), j);
            }
        }
        self.rows = rows;
    }

    /// Computes all rows of one strip after the other. `each_row` sees every row of every strip, `each_strip` the last and
    /// the number of columns.
    fn strips(
        &mut self,
        rows: &[u32],
        columns: &[u32],
        tokens: usize,
        mut each_row: impl FnMut(u64),
        mut each_strip: impl FnMut(u64, usize),
    ) {
        if self.at.len() < tokens {
            self.at.resize(tokens, 0);
        }
        self.carries.clear();
        self.carries.resize(rows.len(), false);
        for columns in columns.chunks(64) {
            for (bit, &token) in columns.iter().enumerate() {
                self.at[token as usize] |= 1 << bit;
            }
            let mut flat = u64::MAX;
            for (&token, carry) in rows.iter().zip(&mut self.carries) {
                let matched = flat & self.at[token as usize];
                let (sum, over) = flat.overflowing_add(matched);
                let (sum, over_again) = sum.overflowing_add(u64::from(*carry));
                *carry = over | over_again;
                flat = sum | (flat & !matched);
                each_row(flat);
            }
            each_strip(flat, columns.len());
            for &token in columns {
                self.at[token as usize] = 0;
            }
        }
    }
}

struct Table<'a> {
    /// `[strip][row]`, without the first row of zeros.
    rows: &'a [u64],
    height: usize,
}

impl Table<'_> {
    fn cell(&self, i: usize, j: usize) -> usize {
        if i == 0 {
            return 0;
        }
        let row = |strip: usize| self.rows[strip * self.height + i - 1];
        let whole: usize = (0..j / 64).map(|strip| rises(row(strip), 64)).sum();
        whole + if j.is_multiple_of(64) { 0 } else { rises(row(j / 64), j % 64) }
    }

    /// Cell (i, j) less cell (i, j − 1).
    fn rise(&self, i: usize, j: usize) -> usize {
        let column = j - 1;
        if i == 0 { 0 } else { usize::from(self.rows[column / 64 * self.height + i - 1] >> (column % 64) & 1 == 0) }
    }
}

/// By how much a row rises over its first `columns` columns, 1 to 64.
fn rises(flat: u64, columns: usize) -> usize {
    let kept = u64::MAX >> (64 - columns);
    (!flat & kept).count_ones() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table of the textbook, and the way back through it.
    fn textbook(reference: &[u32], prediction: &[u32]) -> (usize, Vec<bool>) {
        let mut table = vec![vec![0usize; prediction.len() + 1]; reference.len() + 1];
        for i in 1..=reference.len() {
            for j in 1..=prediction.len() {
                table[i][j] = if reference[i - 1] == prediction[j - 1] {
                    table[i - 1][j - 1] + 1
                } else {
                    table[i - 1][j].max(table[i][j - 1])
                };
            }
        }
        let mut marked = vec![false; reference.len()];
        let (mut i, mut j) = (reference.len(), prediction.len());
        while i > 0 && j > 0 {
            if reference[i - 1] == prediction[j - 1] {
                marked[i - 1] = true;
                (i, j) = (i - 1, j - 1);
            } else if table[i][j - 1] > table[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        (table[reference.len()][prediction.len()], marked)
    }

    proptest! {
        #[test]
        fn strips_are_the_table(
            a in prop::collection::vec(0u32..6, 0..200),
            b in prop::collection::vec(0u32..6, 0..200),
            c in prop::collection::vec(0u32..40, 0..140),
        ) {
            let mut lcs = Lcs::default();
            for (a, b) in [(&a, &b), (&b, &c), (&c, &a)] {
                let (length, expected) = textbook(a, b);
                prop_assert_eq!(lcs.length(a, b, 40), length);
                let mut marked = vec![false; a.len()];
                lcs.mark(a, b, 40, &mut marked);
                prop_assert_eq!(marked, expected);
            }
        }
    }
}
