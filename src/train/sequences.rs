//! Prompts with their responses as one packed batch.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};

use crate::models::Network;
use crate::nn::{Packing, Part};

/// A batch of sequences, without padding, of which only the trained tokens count. Responses that stand together and answer
/// the same prompt share it: it is read once.
pub struct Sequences {
    /// `[R]`: all tokens that are read.
    ids: Tensor,
    packing: Packing,
    /// For every trained token the place, among those that are read, whose hidden state predicts it.
    places: Tensor,
    /// The trained tokens, one sequence after the other: N of them.
    tokens: Vec<u32>,
    lengths: Vec<usize>,
}

impl Sequences {
    /// From (prompt, response) pairs of token ids. The tokens of the responses are trained.
    ///
    /// # Errors
    /// No pairs, or an empty prompt or response.
    pub fn new(pairs: &[(&[u32], &[u32])]) -> Result<Self> {
        ensure!(pairs.iter().all(|(p, r)| !p.is_empty() && !r.is_empty()), "a prompt or a response is empty");
        let mut packed = Packed::default();
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            let prompt = group[0].0;
            let first = packed.ids.len() + prompt.len() - 1;
            let shared = match group {
                [(_, response)] => {
                    // The last token is predicted but never read.
                    packed.read(None, prompt.iter().chain(&response[..response.len() - 1]));
                    packed.train(first, first + 1, response);
                    continue;
                }
                _ => packed.read(None, prompt),
            };
            for (_, response) in group {
                let next = packed.ids.len();
                if response.len() > 1 {
                    packed.read(Some(shared), &response[..response.len() - 1]);
                }
                packed.train(first, next, response);
            }
        }
        packed.batch()
    }

    /// From whole sequences with a mark on every token that is trained: the assistant's turns of dialogues. The first token
    /// of a sequence is predicted from nothing and is never trained.
    ///
    /// # Errors
    /// No sequences; one without a token to be trained behind its first one, or with another number of marks than tokens.
    pub fn marked(sequences: &[(&[u32], &[bool])]) -> Result<Self> {
        let mut packed = Packed::default();
        for (number, (ids, trained)) in sequences.iter().enumerate() {
            ensure!(ids.len() == trained.len(), "sequence {number}: {} tokens, {} marks", ids.len(), trained.len());
            let last = trained.iter().rposition(|&trained| trained).unwrap_or(0);
            ensure!(last > 0, "sequence {number} has no token to be trained");
            let first = packed.ids.len();
            packed.read(None, &ids[..last]);
            let marked = (1..=last).filter(|&t| trained[t]);
            packed.places.extend(marked.clone().map(|t| (first + t - 1) as u32));
            packed.tokens.extend(marked.clone().map(|t| ids[t]));
            packed.lengths.push(marked.count());
        }
        packed.batch()
    }

    /// The number of trained tokens N.
    pub fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// The number of tokens that a forward pass reads.
    pub fn read_count(&self) -> usize {
        self.packing.token_count()
    }

    /// The number of trained tokens of every sequence; they sum to N.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Hidden states that predict the trained tokens, `[N, C]`.
    pub fn hidden(&self, network: &Network) -> candle_core::Result<Tensor> {
        network.hidden_packed(&self.ids, &self.packing, &self.places)
    }

    /// log π of every trained token, `[N]`, from their hidden states.
    pub fn log_probs(&self, network: &Network, hidden: &Tensor) -> candle_core::Result<Tensor> {
        Ok(network.log_probs(hidden, &self.tokens)?.log_probs)
    }

    /// Values of all N tokens as one row a response.
    pub fn by_response<T: Clone>(&self, values: &[T]) -> Vec<Vec<T>> {
        let mut rest = values;
        let take = |&n: &usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head.to_vec()
        };
        self.lengths.iter().map(take).collect()
    }
}

/// A batch while it is put together.
#[derive(Default)]
struct Packed {
    ids: Vec<u32>,
    parts: Vec<Part>,
    places: Vec<u32>,
    tokens: Vec<u32>,
    lengths: Vec<usize>,
}

impl Packed {
    /// A part that is read, behind another one or alone; its number.
    fn read<'a>(&mut self, behind: Option<usize>, tokens: impl IntoIterator<Item = &'a u32>) -> usize {
        let before = self.ids.len();
        self.ids.extend(tokens);
        let count = self.ids.len() - before;
        self.parts.push(behind.map_or(Part::alone(count), |part| Part::behind(part, count)));
        self.parts.len() - 1
    }

    /// A response whose first token is predicted at the place `first`, and the others from `next` on.
    fn train(&mut self, first: usize, next: usize, response: &[u32]) {
        let others = next..next + response.len() - 1;
        self.places.extend([first].into_iter().chain(others).map(|place| place as u32));
        self.tokens.extend(response);
        self.lengths.push(response.len());
    }

    fn batch(self) -> Result<Sequences> {
        ensure!(!self.lengths.is_empty(), "a batch needs a sequence");
        let packing = Packing::new(&self.parts)?;
        let ids = Tensor::new(self.ids, &Device::Cpu)?;
        let places = Tensor::new(self.places, &Device::Cpu)?;
        Ok(Sequences { ids, packing, places, tokens: self.tokens, lengths: self.lengths })
    }
}

/// A tensor `[N]` of any float type, on any device, as f64 numbers: what the losses of [`method`](crate::method) read.
pub fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.to_dtype(candle_core::DType::F64)?.to_vec1()
}
