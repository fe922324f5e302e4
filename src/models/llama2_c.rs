//! The llama2.c format, <https://github.com/karpathy/llama2.c>: a model file and a vocabulary file.
//!
//! candle-transformers reads this format too, but takes keys and values to be as wide as queries;
//! with grouped queries, as stories260K has them, it would read shifted weights.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use serde_json::json;
use tokenizers::Tokenizer;

use super::{Config, LanguageModel, LlamaConfig};
use crate::nn::Params;

/// The mark that stands for a space before a word.
const SPACE: &str = "▁";

/// `<unk>`, `<s>` and `</s>`; the 256 single bytes follow, then the pieces.
const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Reads a model (`stories260K.bin`) and its vocabulary (`tok512.bin`).
///
/// # Errors
/// A file that cannot be read, is too short, or does not hold what its header says.
pub fn read_llama2_c(model: &Path, vocabulary: &Path) -> Result<(LanguageModel, Tokenizer)> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()));
    let network =
        read_model(&mut Bytes(&read(model)?)).with_context(|| format!("{}: not a llama2.c model", model.display()))?;
    let tokenizer = read_tokenizer(&mut Bytes(&read(vocabulary)?), network.config.vocab_size())
        .with_context(|| format!("{}: not a llama2.c vocabulary", vocabulary.display()))?;
    Ok((network, tokenizer))
}

/// What is left of a file, little-endian.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.0.split_at_checked(n) else {
            bail!("the file ends {} bytes early", n - self.0.len())
        };
        self.0 = tail;
        Ok(head)
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn f32(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn tensor(&mut self, shape: &[usize]) -> Result<Tensor> {
        let bytes = self.take(4 * shape.iter().product::<usize>())?;
        Ok(Tensor::from_raw_buffer(bytes, candle_core::DType::F32, shape, &Device::Cpu)?)
    }
}

fn read_model(file: &mut Bytes) -> Result<LanguageModel> {
    let mut header = [0usize; 7];
    for (value, name) in
        header.iter_mut().zip(["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"])
    {
        let field = file.i32()?;
        ensure!(
            (1..1 << 20).contains(&field),
            "{name} is {field}; an untied head (a negative vocab_size) is not supported"
        );
        *value = field as usize;
    }
    let [width, inner, layers, heads, kv_heads, vocab_size, positions] = header;
    ensure!(
        width.is_multiple_of(heads) && heads.is_multiple_of(kv_heads),
        "{heads} heads and {kv_heads} key heads do not divide dim {width}"
    );
    let dim = width / heads;
    let mut tensors = BTreeMap::new();
    tensors.insert("model.embed_tokens.weight".to_string(), file.tensor(&[vocab_size, width])?);
    // Each kind of weight is stored for all layers before the next kind begins.
    for (part, shape) in [
        ("input_layernorm", vec![width]),
        ("self_attn.q_proj", vec![width, width]),
        ("self_attn.k_proj", vec![kv_heads * dim, width]),
        ("self_attn.v_proj", vec![kv_heads * dim, width]),
        ("self_attn.o_proj", vec![width, width]),
        ("post_attention_layernorm", vec![width]),
        ("mlp.gate_proj", vec![inner, width]),
        ("mlp.down_proj", vec![width, inner]),
        ("mlp.up_proj", vec![inner, width]),
    ] {
        for layer in 0..layers {
            let mut tensor = file.tensor(&shape)?;
            if part.ends_with("q_proj") || part.ends_with("k_proj") {
                tensor = half_split(&tensor, dim)?;
            }
            tensors.insert(format!("model.layers.{layer}.{part}.weight"), tensor);
        }
    }
    tensors.insert("model.norm.weight".to_string(), file.tensor(&[width])?);
    let tables = 2 * positions * (dim / 2) * 4; // cosines and sines, which we compute ourselves
    ensure!(file.0.is_empty() || file.0.len() == tables, "{} bytes follow the last tensor", file.0.len());
    let config = LlamaConfig {
        vocab_size,
        max_position_embeddings: positions,
        hidden_size: width,
        intermediate_size: inner,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: true,
        ..Default::default()
    };
    LanguageModel::from_params(Config::Llama(config), Params::from_tensors(tensors)?)
}

/// Rows from llama2.c's interleaved rotary pairs (0, 1), (2, 3).. to the hub's pairs (i, i + dim/2).
fn half_split(weight: &Tensor, dim: usize) -> Result<Tensor> {
    let (rows, width) = weight.dims2()?;
    let pairs = weight.reshape((rows / dim, dim / 2, 2, width))?;
    Ok(pairs.transpose(1, 2)?.contiguous()?.reshape((rows, width))?)
}

/// Byte-pair merges by piece score, single bytes for what no piece spells, a space before the text.
fn read_tokenizer(file: &mut Bytes, vocab_size: usize) -> Result<Tokenizer> {
    file.i32()?; // the longest piece's length
    let mut pieces = Vec::with_capacity(vocab_size);
    for id in 0..vocab_size {
        let score = file.f32()?;
        let length = usize::try_from(file.i32()?)?;
        let piece = std::str::from_utf8(file.take(length)?)?;
        let piece = SPECIALS.get(id).map_or_else(|| piece.replace(' ', SPACE), |name| name.to_string());
        pieces.push((piece, score));
    }
    ensure!(file.0.is_empty(), "{} bytes follow the last piece", file.0.len());
    let ids: BTreeMap<&str, usize> = pieces.iter().enumerate().map(|(id, (piece, _))| (piece.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (piece, score) in pieces.iter().skip(SPECIALS.len() + 256) {
        let cuts = piece.char_indices().skip(1).map(|(cut, _)| piece.split_at(cut));
        let parts = cuts.filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right));
        merges.extend(parts.map(|(left, right)| (*score, [left, right])));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: equal scores stay in the file's order
    let merges: Vec<_> = merges.into_iter().map(|(_, pair)| pair).collect();
    let special = |(id, name)| json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let description = json!({
        "version": "1.0",
        "added_tokens": SPECIALS.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": ids, "merges": merges},
    });
    Tokenizer::from_bytes(description.to_string()).map_err(|e| anyhow::anyhow!("{e}"))
}
