//! The graph inside a block.
//!
//! candle's own graph makes a tensor of zeros and an addition for every edge on the way back, and gives no hand in
//! what is kept for it. So a network is, to candle, a
//! chain of few nodes, each made by [`block`]; inside one, this leaner graph runs: the first gradient of a
//! value is taken as it is, gradients of weights are summed where they stay ([`Weight`](super::Weight)), and what a
//! block saved can be computed again instead of being kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};

use super::kernel::{fill_rows, for_dtype, rows_of, tensor, with_values};
use crate::simd::{self, Real};

/// A tensor, and how it was computed where a gradient will be asked for.
#[derive(Clone)]
pub struct Traced {
    tensor: Tensor,
    node: Option<Arc<Node>>,
}

/// From the gradient of the output to those of the inputs, in their order; none where none is needed.
type Backward = Box<dyn Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

struct Node {
    /// Larger than that of every input.
    order: u64,
    inputs: Vec<Option<Arc<Node>>>,
    backward: Option<Backward>,
}

static ORDER: AtomicU64 = AtomicU64::new(0);

impl Traced {
    /// A value that no gradient is asked for.
    pub fn constant(tensor: Tensor) -> Self {
        Self { tensor, node: None }
    }

    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The sum of two values of the same shape.
    pub fn add(&self, other: &Traced) -> Result<Traced> {
        let sum = sum(&self.tensor, &other.tensor)?;
        Ok(Self::record(sum, &[self, other], |grad| Ok(vec![Some(grad.clone()), Some(grad.clone())])))
    }

    /// The same values in another shape.
    pub fn reshape(&self, dims: &[usize]) -> Result<Traced> {
        let from = self.tensor.shape().clone();
        let to = self.tensor.reshape(dims)?;
        Ok(Self::record(to, &[self], move |grad| Ok(vec![Some(grad.reshape(&from)?)])))
    }

    /// The outcome of an operation, which remembers `backward` if a gradient reaches any input.
    pub(super) fn record(
        tensor: Tensor,
        inputs: &[&Traced],
        backward: impl Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
    ) -> Self {
        let inputs: Vec<_> = inputs.iter().map(|input| input.node.clone()).collect();
        if inputs.iter().all(Option::is_none) {
            return Self::constant(tensor);
        }
        Self { tensor, node: Some(Node::new(inputs, Some(Box::new(backward)))) }
    }

    fn leaf(tensor: Tensor) -> Self {
        Self { tensor, node: Some(Node::new(Vec::new(), None)) }
    }
}

impl Node {
    fn new(inputs: Vec<Option<Arc<Node>>>, backward: Option<Backward>) -> Arc<Self> {
        Arc::new(Self { order: ORDER.fetch_add(1, Ordering::Relaxed), inputs, backward })
    }
}

/// a + b, of one shape.
pub(super) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !a.device().is_cpu() || a.shape() != b.shape() {
        return a + b;
    }
    let (rows, width) = rows_of(a.shape());
    for_dtype!(a.dtype(), T => with_values::<T, _>(a, |x| with_values::<T, _>(b, |y| {
        let (sum, _) = fill_rows(rows, width, |first, sum: &mut [T]| add_slices(&x[first * width..], &y[first * width..], sum));
        tensor(sum, a.shape(), a)
    })))
}

fn add_slices<T: Real>(x: &[T], y: &[T], sum: &mut [T]) {
    simd::dispatch(
        #[inline(always)]
        || {
            for ((sum, &x), &y) in sum.iter_mut().zip(x).zip(y) {
                *sum = x + y;
            }
        },
    );
}

/// Goes back from `output` and returns the gradient of the one leaf. What a node saved is freed as soon as it was used.
fn gradient_of_leaf(output: Traced, grad: Tensor) -> Result<Option<Tensor>> {
    let Some(node) = output.node else { return Ok(None) };
    drop(output.tensor);
    let mut pending = BTreeMap::from([(node.order, (node, grad))]);
    while let Some((_, (node, grad))) = pending.pop_last() {
        let Some(backward) = &node.backward else { return Ok(Some(grad)) };
        for (input, grad) in node.inputs.iter().zip(backward(&grad)?) {
            let (Some(input), Some(grad)) = (input, grad) else { continue };
            let sum = match pending.remove(&input.order) {
                Some((_, other)) => self::sum(&other, &grad)?,
                None => grad,
            };
            pending.insert(input.order, (input.clone(), sum));
        }
    }
    Ok(None)
}

/// Applies `f` as one node of candle's graph.
///
/// With `recompute`, nothing of the inside is kept: `f` runs a second time on the way back.
pub fn block(
    x: &Tensor,
    recompute: bool,
    f: impl Fn(&Traced) -> Result<Traced> + Send + Sync + 'static,
) -> Result<Tensor> {
    if !x.track_op() {
        return Ok(f(&Traced::constant(x.clone()))?.tensor);
    }
    let x = x.contiguous()?;
    let input = if recompute { Traced::constant(x.detach()) } else { Traced::leaf(x.detach()) };
    let output = f(&input)?;
    let value = output.tensor.clone();
    let saved = Mutex::new((!recompute).then_some(output));
    x.apply_op1(Block { f: Box::new(f), value: Mutex::new(Some(value)), saved })
}

type Function = Box<dyn Fn(&Traced) -> Result<Traced> + Send + Sync>;

struct Block {
    f: Function,
    /// The output, until candle takes it.
    value: Mutex<Option<Tensor>>,
    /// The output with the graph behind it, until the way back.
    saved: Mutex<Option<Traced>>,
}

impl Block {
    fn take_value(&self) -> Result<(Storage, Shape)> {
        let Some(value) = lock(&self.value).take() else { bail!("a block runs once") };
        let value = value.contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl CustomOp1 for Block {
    fn name(&self) -> &'static str {
        "block"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match self.take_value()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("a block gave a tensor on another device than its input's"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.take_value()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("a block gave a tensor on another device than its input's"),
        }
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let output = match lock(&self.saved).take() {
            Some(output) => output,
            None => (self.f)(&Traced::leaf(x.detach()))?,
        };
        gradient_of_leaf(output, grad.contiguous()?)
    }
}
