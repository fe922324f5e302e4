//! Many pairs at once, in parallel over rows.

use std::cell::RefCell;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

use super::snr::Snr;
use super::solve::Root;
use super::split::Split;
use super::{Rule, Solution};

/// The solutions of a batch of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The shape of the two tensors without the vocabulary.
    pub shape: Vec<usize>,
    /// Row-major.
    pub solutions: Vec<Solution>,
}

impl Batch {
    /// One number of every solution, as an f64 tensor on the CPU in the batch's shape.
    ///
    /// # Errors
    /// None in practice; those of making a tensor.
    pub fn tensor(&self, of: impl Fn(&Solution) -> f64) -> Result<Tensor> {
        let values: Vec<f64> = self.solutions.iter().map(of).collect();
        Ok(Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)?)
    }
}

/// Solves every row of two tensors of logits [.., V]: f64, f32, f16 or bf16, not normalised, on the CPU; with the
/// feature `cuda` also f32, f16 or bf16 on an NVIDIA GPU, in one launch (the module `cuda` says to how many digits).
///
/// # Errors
/// Tensors of different shapes or without a vocabulary, another type of numbers, tensors on different devices;
/// `SnrMax` and the table of starts on a GPU; what makes a row no pair, with the row's number.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use qstar::mixture::{Rule, solve_batch};
/// let policy = Tensor::new(&[[3.0f32, 2.0, 1.0], [0.0, 0.5, 0.0]], &Device::Cpu)?;
/// let target = Tensor::new(&[[1.0f32, 2.0, 3.0], [0.0, 0.5, 0.0]], &Device::Cpu)?;
/// let batch = solve_batch(&policy, &target, &Rule::Q_STAR)?;
/// let alpha = batch.tensor(|q| q.alpha)?.to_vec1::<f64>()?;
/// assert!((alpha[0] - 0.5).abs() < 1e-9 && alpha[1] == 0.5);
/// # anyhow::Ok(())
/// ```
pub fn solve_batch(policy: &Tensor, target: &Tensor, rule: &Rule) -> Result<Batch> {
    ensure!(
        policy.dims() == target.dims(),
        "the policy's logits have shape {:?} and the target's {:?}",
        policy.dims(),
        target.dims()
    );
    let Some((&vocabulary, shape)) = policy.dims().split_last() else {
        bail!("logits need a last dimension of the vocabulary");
    };
    let (shape, both) = (shape.to_vec(), [policy.dtype(), target.dtype()]);
    ensure!(both[0] == both[1], "the policy's logits are {:?} and the target's {:?}", both[0], both[1]);
    #[cfg(feature = "cuda")]
    if policy.device().is_cuda() || target.device().is_cuda() {
        let solutions = super::cuda::start(policy, target, rule, None)?.wait()?;
        return Ok(Batch { shape, solutions });
    }
    let solutions = match both[0] {
        DType::F64 => {
            let (p, t) = (policy.flatten_all()?.to_vec1::<f64>()?, target.flatten_all()?.to_vec1::<f64>()?);
            in_parallel(&p, &t, vocabulary, |split, p, t| {
                split.fill_f64(p, t)?;
                let root = root_of_rows(split, p, t, rule)?;
                Ok(split.diagnose(root, 1.0).0)
            })?
        }
        DType::F32 => {
            let (p, t) = (policy.contiguous()?, target.contiguous()?);
            with_f32(&p, |p| with_f32(&t, |t| solve_rows(p, t, vocabulary, rule)))?
        }
        DType::F16 | DType::BF16 => {
            let wide = |x: &Tensor| x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
            solve_rows(&wide(policy)?, &wide(target)?, vocabulary, rule)?
        }
        other => bail!("logits must be f64, f32, f16 or bf16, not {other:?}"),
    };
    Ok(Batch { shape, solutions })
}

/// Solves every row of two slices of f32 logits, `vocabulary` a row, not normalised.
///
/// # Errors
/// Slices that are not whole rows or differ in length; what makes a row no pair, with the row's number.
pub fn solve_rows(policy: &[f32], target: &[f32], vocabulary: usize, rule: &Rule) -> Result<Vec<Solution>> {
    in_parallel(policy, target, vocabulary, |split, p, t| solve_in(split, p, t, rule))
}

/// Solves one pair of rows.
#[cfg(feature = "cuda")]
pub(super) fn solve_row(policy: &[f32], target: &[f32], rule: &Rule) -> Result<Solution> {
    with_split(|split| solve_in(split, policy, target, rule))
}

fn solve_in(split: &mut Split, policy: &[f32], target: &[f32], rule: &Rule) -> Result<Solution> {
    split.fill_f32(policy, target)?;
    let root = root_of_rows(split, policy, target, rule)?;
    Ok(split.diagnose(root, 1.0).0)
}

/// α alone of every row: the search without the diagnostics.
///
/// # Errors
/// As [`solve_rows`].
pub fn alphas_of_rows(policy: &[f32], target: &[f32], vocabulary: usize, rule: &Rule) -> Result<Vec<f64>> {
    in_parallel(policy, target, vocabulary, |split, p, t| {
        split.fill_f32(p, t)?;
        Ok(root_of_rows(split, p, t, rule)?.alpha)
    })
}

/// α of the rows that `split` was filled with.
pub(super) fn root_of_rows<T: Copy + Into<f64>>(
    split: &Split,
    policy: &[T],
    target: &[T],
    rule: &Rule,
) -> Result<Root> {
    match rule {
        Rule::SnrMax => Snr::of(split, policy, target, None).root(split),
        _ => split.root(rule),
    }
}

/// Work with this thread's buffers.
pub(super) fn with_split<R>(work: impl FnOnce(&mut Split) -> R) -> R {
    thread_local!(static SPLIT: RefCell<Split> = RefCell::default());
    SPLIT.with(|split| work(&mut split.borrow_mut()))
}

pub(super) fn whole_rows(policy: usize, target: usize, vocabulary: usize) -> Result<()> {
    ensure!(vocabulary > 0, "the vocabulary is empty");
    ensure!(policy == target, "the policy has {policy} logits and the target {target}");
    ensure!(policy.is_multiple_of(vocabulary), "{policy} logits are not whole rows of {vocabulary}");
    Ok(())
}

fn in_parallel<T: Sync, R: Send>(
    policy: &[T],
    target: &[T],
    vocabulary: usize,
    solve: impl Fn(&mut Split, &[T], &[T]) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    whole_rows(policy.len(), target.len(), vocabulary)?;
    policy
        .par_chunks_exact(vocabulary)
        .zip(target.par_chunks_exact(vocabulary))
        .enumerate()
        .map(|(row, (p, t))| with_split(|split| solve(split, p, t)).with_context(|| format!("row {row}")))
        .collect()
}

/// The numbers of a contiguous f32 tensor on the CPU, without a copy.
fn with_f32<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        bail!("logits must lie on the CPU here: tensor.to_device(&Device::Cpu)?");
    };
    let from = layout.start_offset();
    work(&values[from..from + tensor.elem_count()])
}
