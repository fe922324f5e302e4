//! What an optimizer does to whole tensors, in place.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::launch::{Arg, empty, launch};

/// Threads of a block of values without rows.
const THREADS: usize = 256;

/// Moves `master` (f32), which is the variable itself or what it is rounded from, and both moments. `constants` are β1, β2,
/// ε, what a weight is multiplied by, the learning rate over the first moment's correction, 1/sqrt of the second's, and
/// what the gradient is multiplied by.
pub fn adamw(
    var: &Tensor,
    master: Option<&Tensor>,
    grad: &Tensor,
    m: &Tensor,
    v: &Tensor,
    constants: [f32; 7],
) -> Result<()> {
    let (w, rounded) = match master {
        Some(master) => (master, Some(var)),
        None => (var, None),
    };
    let grad = grad.contiguous()?;
    for x in [w, &grad, m, v] {
        if x.dtype() != DType::F32 || x.elem_count() != w.elem_count() {
            bail!("AdamW got {:?} of {:?} for a variable of {:?}", x.dtype(), x.shape(), w.shape())
        }
    }
    let count = w.elem_count();
    let mut args =
        vec![Arg::Tensor(w), rounded.into(), Arg::Tensor(&grad), Arg::Tensor(m), Arg::Tensor(v), Arg::Long(count)];
    args.extend(constants.map(|x| Arg::Float(f64::from(x))));
    launch("adamw", var.dtype(), var.device(), [count.div_ceil(THREADS), THREADS], &args)
}

/// a += b, both f32.
pub fn add_in_place(a: &Tensor, b: &Tensor) -> Result<()> {
    let (b, count) = (b.contiguous()?, a.elem_count());
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 || a.shape() != b.shape() {
        bail!("{:?} of {:?} cannot be added to {:?} of {:?}", b.dtype(), b.shape(), a.dtype(), a.shape())
    }
    let args = [Arg::Tensor(a), Arg::Tensor(&b), Arg::Long(count)];
    launch("add_in_place", DType::F32, a.device(), [count.div_ceil(THREADS), THREADS], &args)
}

/// Values that one block sums.
const PIECE: usize = 1 << 16;

/// The squared norm of every tensor (f32), with one wait for all of them.
pub fn squared_norms(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let device = first.device();
    let pieces: Vec<usize> = tensors.iter().map(|x| x.elem_count().div_ceil(PIECE)).collect();
    let parts = empty(pieces.iter().sum::<usize>().max(1), DType::F64, device)?;
    let mut from = 0;
    for (x, &pieces) in tensors.iter().zip(&pieces) {
        let x = x.contiguous()?;
        if x.dtype() != DType::F32 {
            bail!("a gradient on a GPU is in f32, not in {:?}", x.dtype())
        }
        let args = [Arg::Tensor(&x), Arg::Tensor(&parts), Arg::Long(x.elem_count()), Arg::Int(PIECE), Arg::Int(from)];
        launch("squared_norms", DType::F32, device, [pieces, THREADS], &args)?;
        from += pieces;
    }
    let parts = parts.to_device(&Device::Cpu)?.to_vec1::<f64>()?;
    let mut rest = &parts[..];
    Ok(pieces
        .iter()
        .map(|&n| {
            let (own, behind) = rest.split_at(n);
            rest = behind;
            own.iter().sum()
        })
        .collect())
}
