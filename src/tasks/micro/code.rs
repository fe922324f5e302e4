//! Code: a small program that prints a wanted value.
//!
//! ```text
//! prompt   code w = 3 y = 5 z = 2 print 6 =>
//! clean    w + y - z
//! ```
//!
//! A program is an expression of one to three variables with `+` and `-` between them, executed from
//! left to right; a variable may occur twice. The reward is 1 / (1 + |value − wanted|), and 0 for
//! what is no program. The clean program is the first of the shortest ones that use no variable
//! twice, in the order of `programs`. Combination: the three values and the wanted one, whatever the
//! variables' names.

use std::sync::LazyLock;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::distinct;
use super::flaws::pick;
use super::lexicon::{NUMBERS, VARIABLES, Word};

/// The operators, addition first.
const OPERATORS: [Word; 2] = ["+", "-"];

/// A program over the variables by their place, each with the sign before it. The first sign is +.
type Program = Vec<(i32, usize)>;

static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(programs);

/// Three variables with their digits, and a value.
#[derive(Debug)]
pub(super) struct Problem {
    /// In alphabetical order.
    names: [Word; 3],
    /// 1 to 9 each.
    values: [i32; 3],
    /// 0 to 18: the value of at least one program that uses no variable twice.
    wanted: i32,
}

impl Problem {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut names = distinct(&VARIABLES, 3, rng);
        names.sort_unstable();
        let names = [names[0], names[1], names[2]];
        loop {
            let values = std::array::from_fn(|_| rng.random_range(1..=9));
            let length = [1, 2, 2, 3, 3][rng.random_range(0..5)];
            let places = distinct(&[0, 1, 2], length, rng);
            let program: Program = places
                .iter()
                .enumerate()
                .map(|(at, &place)| (if at > 0 && rng.random() { -1 } else { 1 }, place))
                .collect();
            let wanted = value(&program, &values);
            if (0..NUMBERS.len() as i32).contains(&wanted) {
                return Self { names, values, wanted };
            }
        }
    }

    fn distance(&self, program: &Program) -> i32 {
        (value(program, &self.values) - self.wanted).abs()
    }

    fn source(&self, program: &Program) -> Vec<Word> {
        let mut words = Vec::new();
        for (at, &(sign, place)) in program.iter().enumerate() {
            if at > 0 {
                words.push(OPERATORS[usize::from(sign < 0)]);
            }
            words.push(self.names[place]);
        }
        words
    }

    /// The program that the words are, if they are one.
    fn parse(&self, words: &[&str]) -> Option<Program> {
        let place = |word: &&str| self.names.iter().position(|name| name == word);
        let (first, rest) = words.split_first()?;
        let mut program = vec![(1, place(first)?)];
        if !rest.len().is_multiple_of(2) || rest.len() > 4 {
            return None;
        }
        for step in rest.chunks_exact(2) {
            let sign = match step[0] {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            program.push((sign, place(&step[1])?));
        }
        Some(program)
    }

    /// Not quite a program: a missing or doubled sign, a number in it, or one operand too many.
    fn broken(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let mut words = self.source(any_program(rng));
        let place = rng.random_range(0..words.len());
        match rng.random_range(0..4) {
            0 => words.push(pick(&OPERATORS, rng)),
            1 => words.insert(place, words[place]),
            2 => words[place] = NUMBERS[self.wanted as usize],
            _ => {
                while words.len() < 7 {
                    words.extend([pick(&OPERATORS, rng), pick(&self.names, rng)]);
                }
            }
        }
        words
    }
}

impl super::Problem for Problem {
    fn question(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for (name, value) in self.names.into_iter().zip(self.values) {
            words.extend([name, "=", NUMBERS[value as usize]]);
        }
        words.extend(["print", NUMBERS[self.wanted as usize]]);
        words
    }

    fn clean(&self, _: &mut ChaCha8Rng) -> Vec<Word> {
        let first = PROGRAMS.iter().find(|program| self.distance(program) == 0);
        self.source(first.expect("the wanted value is a program's"))
    }

    fn flawed(&self, rng: &mut ChaCha8Rng) -> Vec<Word> {
        let near: Vec<&Program> = PROGRAMS.iter().filter(|program| (1..=2).contains(&self.distance(program))).collect();
        match rng.random_range(0..10) {
            0..5 if !near.is_empty() => self.source(pick(&near, rng)),
            0..8 => self.source(any_program(rng)),
            _ => self.broken(rng),
        }
    }

    fn reward(&self, words: &[&str]) -> f64 {
        match self.parse(words) {
            Some(program) => 1.0 / f64::from(1 + self.distance(&program)),
            None => 0.0,
        }
    }

    fn combination(&self) -> Vec<Word> {
        let [a, b, c] = self.values;
        [a, b, c, self.wanted].map(|value| NUMBERS[value as usize]).to_vec()
    }
}

/// All 129 programs: the shorter first, then by the variables' places, then addition first.
/// Those that use a variable twice come after all others, so that they are never canonical.
fn programs() -> Vec<Program> {
    let mut all: Vec<Program> = Vec::new();
    let mut longest: Vec<Program> = vec![Vec::new()];
    for length in 1..=3 {
        longest = longest
            .iter()
            .flat_map(|program| {
                let signs = if length == 1 { &[1][..] } else { &[1, -1] };
                let step = |place| signs.iter().map(move |&sign| (sign, place));
                (0..3).flat_map(step).map(|step| [program.as_slice(), &[step]].concat())
            })
            .collect();
        all.extend(longest.clone());
    }
    // A stable sort: the order within each half stands.
    all.sort_by_key(repeats);
    all
}

fn any_program(rng: &mut ChaCha8Rng) -> &'static Program {
    &PROGRAMS[rng.random_range(0..PROGRAMS.len())]
}

fn repeats(program: &Program) -> bool {
    (0..3).any(|place| program.iter().filter(|step| step.1 == place).count() > 1)
}

fn value(program: &Program, values: &[i32; 3]) -> i32 {
    program.iter().map(|&(sign, place)| sign * values[place]).sum()
}

#[cfg(test)]
mod tests {
    use super::super::Problem as _;
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn literals() {
        let problem = Problem { names: ["w", "y", "z"], values: [3, 5, 2], wanted: 6 };
        assert_eq!(problem.question().join(" "), "w = 3 y = 5 z = 2 print 6");
        assert_eq!(problem.clean(&mut ChaCha8Rng::seed_from_u64(0)).join(" "), "w + y - z");
        for (program, reward) in [
            ("w + y - z", 1.0),
            ("w + w", 1.0),
            ("y", 0.5),
            ("y + w", 1.0 / 3.0),
            ("z - y - y", 1.0 / 15.0),
            ("x", 0.0),
            ("w +", 0.0),
            ("w y", 0.0),
            ("w + y - z + z", 0.0),
            ("6", 0.0),
            ("", 0.0),
        ] {
            let words: Vec<&str> = program.split_whitespace().collect();
            assert_eq!(problem.reward(&words), reward, "{program}");
        }
    }

    #[test]
    fn the_order_of_programs() {
        let problem = Problem { names: ["x", "y", "z"], values: [1, 2, 3], wanted: 1 };
        let first = |count| -> Vec<String> {
            PROGRAMS.iter().take(count).map(|program| problem.source(program).join(" ")).collect()
        };
        assert_eq!(PROGRAMS.len(), 3 + 18 + 108);
        assert_eq!(first(7), ["x", "y", "z", "x + y", "x - y", "x + z", "x - z"]);
    }
}
