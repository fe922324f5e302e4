//! A policy that is tilted by the reward that its prefixes promise.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

use super::{Contexts, Target};
use crate::models::{Decoder, LanguageModel, Network};
use crate::nn::{Embedding, Linear, Params, Weight, embed};

/// π_t(z) ∝ π_ref(z) exp(V(prefix·z)/β), V(y≤t) ≈ E\[r(y) | y≤t\] for responses y of π_ref.
///
/// **Source.** FUDGE (Yang, Klein 2021, arXiv:2104.05218); with rewards in place of attributes CD-FUDGE of controlled decoding
/// (Mudgal et al. 2023, arXiv:2310.17022), whose head, too, gives the values of all next tokens at once.
///
/// V(prefix·z) = u_z·h + b_z + v(h), linear in π_ref's hidden state h before z. So the logits are one linear map of it,
/// (W_ref + U/β) h + b/β, and v(h), which is the same for every z, drops out.
///
/// **What it is not.** exp(V/β) tilts by the mean reward of what π_ref would say next, not by log E\[exp(r/β)\], which
/// would make it the optimal policy π_ref exp(r/β)/Z; and V is as good as a linear map of h can be.
///
/// **Cost.** One forward pass a token; the training's is in [`train_prefix_values`](crate::train::train_prefix_values).
pub struct PrefixScorer {
    network: Network,
    identity: String,
}

/// V: for a hidden state of π_ref, the reward that is to be expected behind every next token.
pub struct PrefixValues {
    /// `token.weight` `[V, C]`, `token.bias` `[V, 1]`, `prefix.weight` `[1, C]` and `prefix.bias` `[1, 1]`.
    pub params: Params,
    tables: Tables,
}

/// The variables as rows to look up.
struct Tables {
    token: [Embedding; 2],
    prefix: [Embedding; 2],
}

impl PrefixScorer {
    /// Shares π_ref's layers; its head is not changed.
    ///
    /// # Errors
    /// β that is not a positive number; values of another vocabulary or width than π_ref's.
    pub fn new(reference: &LanguageModel, values: &PrefixValues, beta: f64) -> Result<Self> {
        ensure!(beta.is_finite() && beta > 0.0, "the prefix scorer's β must be a positive number: {beta}");
        let network = reference.frozen()?;
        let (width, size) = (reference.config.hidden_size(), reference.config.vocab_size());
        let u = values.tensor("token.weight")?;
        ensure!(
            u.dims() == [size, width],
            "the values are of {:?} (vocabulary, width), the reference of {:?}: they belong to another model",
            u.dims(),
            [size, width]
        );
        // The head as a matrix, adapters included: what it makes of the unit vectors.
        let unit = Tensor::eye(width, reference.dtype(), network.device())?;
        let head = network.logits(&unit)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.t()?;
        let u = u.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let weight = (head + (u / beta)?)?;
        let bias = (values.tensor("token.bias")?.to_device(&Device::Cpu)?.to_dtype(DType::F64)? / beta)?.squeeze(1)?;
        let place = |x: Tensor| x.contiguous()?.to_dtype(reference.dtype())?.to_device(network.device());
        let head = Linear::new(Weight::frozen(place(weight)?), Some(Weight::frozen(place(bias)?)));
        let identity =
            format!("prefix_scorer β={beta} reference {} values {}", reference.digest()?, values.params.digest()?);
        Ok(Self { network: network.with_head(head), identity })
    }
}

impl Target for PrefixScorer {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn max_positions(&self) -> usize {
        self.network.max_positions()
    }

    fn read<'a>(&'a self, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Box<dyn Contexts + 'a>> {
        Ok(Box::new(Decoder::prefill(&self.network, prompts, k, max_new)?))
    }
}

impl PrefixValues {
    /// The value `mean` everywhere: where training begins, and what a token that it never saw keeps, but for v(h).
    pub fn constant(reference: &LanguageModel, mean: f64) -> Result<Self> {
        let (width, size) = (reference.config.hidden_size(), reference.config.vocab_size());
        let mut params = Params::default();
        params.add_constant("token.weight", &[size, width], 0.0)?;
        params.add_constant("token.bias", &[size, 1], 0.0)?;
        params.add_constant("prefix.weight", &[1, width], 0.0)?;
        params.add_constant("prefix.bias", &[1, 1], mean as f32)?;
        Self::from_params(params)
    }

    /// # Errors
    /// A missing variable, or one of another shape than the others ask for; it is named.
    pub fn from_params(params: Params) -> Result<Self> {
        let dims = params.get("token.weight").map(|var| var.dims().to_vec()).unwrap_or_default();
        let [size, width] = dims[..] else { bail!("token.weight is missing or is not [V, C]: {dims:?}") };
        let weights = params.weights(true);
        let table = |name: &str, rows: usize, width: usize| -> Result<Embedding> {
            Ok(Embedding::new(weights.get(name, &[rows, width])?)?)
        };
        let token = [table("token.weight", size, width)?, table("token.bias", size, 1)?];
        let prefix = [table("prefix.weight", 1, width)?, table("prefix.bias", 1, 1)?];
        Ok(Self { tables: Tables { token, prefix }, params })
    }

    /// V of one next token for every hidden state: `[N, C]` (f32, on the CPU) and N tokens to `[N]`, differentiable by
    /// the variables.
    pub fn of_tokens(&self, hidden: &Tensor, tokens: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(tokens, hidden.device())?;
        let none = ids.zeros_like()?;
        let rows = |[weight, bias]: &[Embedding; 2], ids: &Tensor| -> candle_core::Result<Tensor> {
            let product = (embed(&[(weight, ids)], true)? * hidden)?.sum(1)?;
            product + embed(&[(bias, ids)], true)?.squeeze(1)?
        };
        Ok((rows(&self.tables.token, &ids)? + rows(&self.tables.prefix, &none)?)?)
    }

    /// V of every next token: `[N, C]` to N rows of V values.
    pub fn of_all(&self, hidden: &Tensor) -> Result<Vec<Vec<f64>>> {
        let hidden = hidden.to_dtype(DType::F64)?;
        let of = |name: &str| -> Result<Tensor> {
            let wide = |part| -> Result<Tensor> { Ok(self.tensor(&format!("{name}.{part}"))?.to_dtype(DType::F64)?) };
            Ok(hidden.matmul(&wide("weight")?.t()?)?.broadcast_add(&wide("bias")?.t()?)?)
        };
        Ok(of("token")?.broadcast_add(&of("prefix")?)?.to_vec2()?)
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let var = self.params.get(name).with_context(|| format!("the values have no {name}"))?;
        Ok(var.as_detached_tensor())
    }
}
