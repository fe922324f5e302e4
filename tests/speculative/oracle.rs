//! All ways of something that is drawn.

/// Choices that go through all ways: those of `script`, then the first that has mass; what was left is known afterwards.
#[derive(Default)]
pub struct Oracle {
    script: Vec<(usize, Vec<f64>)>,
    place: usize,
    pub weight: f64,
}

impl Oracle {
    pub fn new() -> Self {
        Self { weight: 1.0, ..Self::default() }
    }

    pub fn choose(&mut self, probabilities: &[f64]) -> usize {
        if self.place == self.script.len() {
            let first = probabilities.iter().position(|p| *p > 0.0).expect("some mass");
            self.script.push((first, probabilities.to_vec()));
        }
        let (choice, known) = &self.script[self.place];
        assert_eq!(known, probabilities, "the same way leads to the same place");
        self.place += 1;
        self.weight *= probabilities[*choice];
        *choice
    }

    /// The next way; false after the last one.
    pub fn next(&mut self) -> bool {
        (self.place, self.weight) = (0, 1.0);
        while let Some((choice, probabilities)) = self.script.last_mut() {
            match (*choice + 1..probabilities.len()).find(|next| probabilities[*next] > 0.0) {
                Some(next) => {
                    *choice = next;
                    return true;
                }
                None => self.script.pop(),
            };
        }
        false
    }
}
