//! A target's distributions along responses that are given.

use anyhow::{Result, ensure};

use super::{Cost, Target};

/// What a target says at every place of some responses.
#[derive(Debug, Clone)]
pub struct Along {
    /// log π_t over the vocabulary before every token, the responses one after the other. They are normalised.
    pub log_probs: Vec<Vec<f64>>,
    pub cost: Cost,
}

/// Feeds the target each prompt's response, token by token. No distribution behind the last token is asked for.
///
/// # Errors
/// Another number of responses than prompts, an empty one, what the target cannot read, logits that are not numbers.
pub fn log_probs_along(target: &dyn Target, prompts: &[Vec<u32>], responses: &[Vec<u32>]) -> Result<Along> {
    ensure!(prompts.len() == responses.len(), "{} responses do not fit {} prompts", responses.len(), prompts.len());
    ensure!(responses.iter().all(|response| !response.is_empty()), "a response is empty");
    let longest = responses.iter().map(Vec::len).max().unwrap_or(0);
    if longest == 0 {
        return Ok(Along { log_probs: Vec::new(), cost: Cost::default() });
    }
    let mut contexts = target.read(prompts, 1, longest)?;
    let mut rows: Vec<Vec<Vec<f64>>> = vec![Vec::new(); responses.len()];
    let mut going: Vec<usize> = (0..responses.len()).collect();
    for position in 0..longest {
        for (place, &row) in going.iter().enumerate() {
            rows[row].push(log_softmax(contexts.row(place))?);
        }
        let places: Vec<usize> =
            (0..going.len()).filter(|&place| responses[going[place]].len() > position + 1).collect();
        if places.is_empty() {
            break;
        }
        going = places.iter().map(|&place| going[place]).collect();
        let tokens: Vec<&[u32]> = going.iter().map(|&row| &responses[row][position..=position]).collect();
        contexts.keep(&places);
        contexts.feed(&tokens)?;
    }
    Ok(Along { log_probs: rows.concat(), cost: contexts.cost() })
}

fn log_softmax(logits: &[f32]) -> Result<Vec<f64>> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    ensure!(max.is_finite() && logits.iter().all(|x| !x.is_nan()), "the target's logits are not numbers");
    let max = f64::from(max);
    let log_total = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln();
    Ok(logits.iter().map(|&x| f64::from(x) - max - log_total).collect())
}
