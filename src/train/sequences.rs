//! Prompts with their responses as one padded batch.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};

use crate::models::Network;

/// A batch of sequences, padded on the right, of which only the response tokens count.
pub struct Sequences {
    /// `[B, T]`.
    ids: Tensor,
    /// For every response token the place, in the flattened `[B·T]`, whose hidden state predicts it.
    places: Tensor,
    /// The response tokens, one response after the other: N of them.
    tokens: Vec<u32>,
    lengths: Vec<usize>,
    read_count: usize,
}

impl Sequences {
    /// From (prompt, response) pairs of token ids.
    ///
    /// # Errors
    /// No pairs, or an empty prompt or response.
    pub fn new(pairs: &[(&[u32], &[u32])]) -> Result<Self> {
        ensure!(!pairs.is_empty(), "a batch needs a sequence");
        ensure!(pairs.iter().all(|(p, r)| !p.is_empty() && !r.is_empty()), "a prompt or a response is empty");
        // The last token is predicted but never read.
        let time = pairs.iter().map(|(p, r)| p.len() + r.len() - 1).max().unwrap_or(0);
        let (mut ids, mut places) = (vec![0u32; pairs.len() * time], Vec::new());
        for (row, (prompt, response)) in pairs.iter().enumerate() {
            let read = prompt.iter().chain(&response[..response.len() - 1]);
            for (place, &id) in ids[row * time..].iter_mut().zip(read) {
                *place = id;
            }
            places.extend((0..response.len()).map(|t| (row * time + prompt.len() - 1 + t) as u32));
        }
        Ok(Self {
            ids: Tensor::from_vec(ids, (pairs.len(), time), &Device::Cpu)?,
            places: Tensor::from_vec(places, pairs.iter().map(|(_, r)| r.len()).sum::<usize>(), &Device::Cpu)?,
            tokens: pairs.iter().flat_map(|(_, r)| r.iter().copied()).collect(),
            lengths: pairs.iter().map(|(_, r)| r.len()).collect(),
            read_count: pairs.iter().map(|(p, r)| p.len() + r.len() - 1).sum(),
        })
    }

    /// The number of response tokens N.
    pub fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// The number of tokens that a forward pass reads, padding left out.
    pub fn read_count(&self) -> usize {
        self.read_count
    }

    /// The lengths of the responses; they sum to N.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Hidden states that predict the response tokens, `[N, C]`.
    pub fn hidden(&self, network: &Network) -> candle_core::Result<Tensor> {
        network.hidden_at(&self.ids, &self.places)
    }

    /// log π of every response token, `[N]`, from their hidden states.
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

/// A tensor `[N]` of any float type, on any device, as f64 numbers: what the losses of [`method`](crate::method) read.
pub fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.to_dtype(candle_core::DType::F64)?.to_vec1()
}
