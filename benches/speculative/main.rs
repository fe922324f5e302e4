//! Speculative sampling beside the standard sampler, turn by turn: `cargo bench --bench speculative`.
//!
//! Pairs of π_init and an expert that draw q*: the embedded ones, which cost the same; the same policy with a dearer expert (the
//! embedded one with further blocks that change little, see `deepened`); and the real small model with its own expert, from the
//! hub's cache (`HF_HOME`). The policy drafts. Batches of 1 and of 8 responses with real ends. `QSTAR_TURNS` is the number of
//! turns.

use std::path::Path;

use anyhow::Result;
use polars::prelude::DataFrame;
use qstar::experiment::speculation::{FURTHER_BLOCKS, FURTHER_SCALE, deepened, speedups};
use qstar::experiment::{SpeculativePair, World};

const GAMMAS: [usize; 5] = [1, 2, 3, 5, 10];
const CANDIDATES: [usize; 4] = [1, 3, 5, 10];

fn main() -> Result<()> {
    qstar::machine::keep_memory();
    let turns = std::env::var("QSTAR_TURNS").ok().and_then(|turns| turns.parse().ok()).unwrap_or(15);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let micro = World::micro(&data)?;
    let deeper = deepened(&micro.expert, FURTHER_BLOCKS, FURTHER_SCALE, 0)?;
    let mut pairs = Vec::new();
    for (prompts, responses) in [(1, 1), (2, 4)] {
        let rows = prompts * responses;
        pairs.push(SpeculativePair::new(&format!("micro, {rows}"), &micro, &micro.expert, prompts, responses)?);
        pairs.push(SpeculativePair::new(
            &format!("micro, deeper expert, {rows}"),
            &micro,
            &deeper,
            prompts,
            responses,
        )?);
    }
    if let Some(stories) = World::stories(&data)? {
        for (prompts, responses) in [(1, 1), (2, 4)] {
            let name = format!("stories, {}", prompts * responses);
            pairs.push(SpeculativePair::new(&name, &stories, &stories.expert, prompts, responses)?);
        }
    }
    print(&rayon::scope(|_| speedups(&pairs, &GAMMAS, &CANDIDATES, turns))?)
}

fn print(frame: &DataFrame) -> Result<()> {
    println!(
        "| pair, rows | k | γ | acceptance | tokens a reading | draft / reading | speed-up | quartiles | predicted | error |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let numbers = |name: &str| -> Result<Vec<f64>> { Ok(frame.column(name)?.f64()?.iter().flatten().collect()) };
    let integers = |name: &str| -> Result<Vec<i64>> { Ok(frame.column(name)?.i64()?.iter().flatten().collect()) };
    let pairs: Vec<String> = frame.column("pair")?.str()?.iter().flatten().map(str::to_string).collect();
    let (gammas, candidates) = (integers("gamma")?, integers("candidates")?);
    let columns = [
        "acceptance",
        "tokens_per_verification",
        "cost_ratio",
        "speedup",
        "speedup_q25",
        "speedup_q75",
        "predicted",
        "error",
    ];
    let columns = columns.map(numbers);
    let columns: Vec<Vec<f64>> = columns.into_iter().collect::<Result<_>>()?;
    for (row, pair) in pairs.iter().enumerate() {
        let [acceptance, tokens, ratio, speedup, low, high, predicted, error] =
            std::array::from_fn(|i| columns[i][row]);
        println!(
            "| {pair} | {} | {} | {acceptance:.2} | {tokens:.2} | {ratio:.2} | {speedup:.2} | {low:.2} to {high:.2} | \
             {predicted:.2} | {:+.0}% |",
            candidates[row],
            gammas[row],
            100.0 * error
        );
    }
    Ok(())
}
