//! The solver on an NVIDIA GPU: one launch for a batch, which reads the logits once and writes the solutions only.
//!
//! ```text
//! policy, target [.., V] (f32, f16, bf16) ──► one block a row, or a cluster of blocks ──► Solution a row
//! ```
//!
//! The kernel (`device.cu`, `reduce.cu`, `row.cu`, `sweep.cu`, `kernel.cu`, in this order) is compiled by NVRTC at first
//! use for the GPU that is there. It follows the solver on the CPU: exponents relative to an outcome of large mass,
//! differences of logits less a value near their mean, formed without rounding; weights in f32, sums over threads and
//! everything of the row alone in f64. The search takes Newton's steps, whichever step is asked for.
//!
//! **Tolerances**, against the solver on the CPU (sd is that of d = log p − log t under q):
//!
//! | | bound | worst of 3,822 rows |
//! |---|---|---|
//! | α where sd ≥ 0.1 | 1e-5 | 2.7e-6 |
//! | α · min(sd, 1): a small gap leaves α fewer digits | 2e-6 | 9.5e-7 |
//! | K / min(sd, 1) where both divergences are below 0.1 | 2e-6 | 5.0e-7 |
//! | K, K', both KL, both log ESS, entropies, relative to the largest of 1, sd and themselves | 1e-5 | 8.2e-6 |
//! | K'' relative to E d², where sd ≥ 0.1 | 1e-4 | 2.4e-5 |
//! | total variation | 1e-5 | 2.5e-6 |
//! | status | equal | equal |
//!
//! The number of iterations is the kernel's own, and what the error of α alone changes in K' and both KL is not counted
//! twice. The rows were of the thirteen kinds of `tests/cuda_kernel/pairs.rs`, 2 to 60,000 outcomes, f32, f16 and bf16
//! (seven draws of `tests/cuda_kernel.rs`, which keeps the first); the worst ones are where exponents go up to 100 nats
//! and more, of which an f32 has seven digits. They were solved by the kernel's own source, run on a CPU, with 2^x off by
//! as much as `ex2.approx` may be where the kernel uses that. The kernel was compiled for compute capability 8.0 and 9.0.
//! **It has not run on a GPU yet**: `tests/gpu.sh` compares and times it where there is one.
//!
//! Compiling takes a second for each type of logits and layout, and the driver as much again, both at first use.
//!
//! A row that the kernel cannot solve (a NaN, disjoint supports, logits beyond 1e30) is handed to the CPU, whose answer or
//! error is the batch's.

mod launch;

use anyhow::{Context, Result, bail, ensure};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
use candle_core::{DType, Device, Storage, Tensor};

pub use launch::Launch;

use super::batch::solve_row;
use super::{Rule, Solution, Solver, Start, Status};
use crate::nvrtc::Program;
use launch::Gpu;

const SOURCE: &str = concat!(
    include_str!("device.cu"),
    include_str!("reduce.cu"),
    include_str!("row.cu"),
    include_str!("sweep.cu"),
    include_str!("kernel.cu"),
);

/// Numbers of a solution; `FIELDS` in `kernel.cu`.
const FIELDS: usize = 14;

/// The largest index that the kernel can carry along.
const MOST_OUTCOMES: usize = 1 << 29;

/// A batch that the GPU works on.
pub struct Running {
    policy: Tensor,
    target: Tensor,
    rule: Rule,
    device: CudaDevice,
    solutions: CudaSlice<f64>,
}

/// Starts to solve every row of two tensors of logits [.., V] on the same GPU and does not wait for it. `launch` is for
/// measurements; without one it is chosen.
///
/// # Errors
/// Tensors of different shapes or types, or on different devices; numbers that are not f32, f16 or bf16; a rule that
/// only the CPU has; what the compiler or the driver says.
pub fn start(policy: &Tensor, target: &Tensor, rule: &Rule, launch: Option<Launch>) -> Result<Running> {
    let (policy, target) = (policy.contiguous()?, target.contiguous()?);
    ensure!(
        policy.dims() == target.dims() && policy.rank() > 0,
        "the policy's logits have shape {:?} and the target's {:?}",
        policy.dims(),
        target.dims()
    );
    let (Device::Cuda(device), true) = (policy.device(), policy.device().same_device(target.device())) else {
        bail!(
            "the policy's logits lie on {:?} and the target's on {:?}: move both to one GPU, or both to the CPU",
            policy.device().location(),
            target.device().location()
        );
    };
    let device = device.clone();
    let vocabulary = *policy.dims().last().context("logits need a last dimension of the vocabulary")?;
    ensure!(vocabulary > 0, "the vocabulary is empty");
    ensure!(vocabulary < MOST_OUTCOMES, "{vocabulary} outcomes are more than the kernel can number");
    let rows = policy.elem_count() / vocabulary;
    let gpu = Gpu::of(&device)?;
    let launch = launch.unwrap_or_else(|| Launch::for_rows(rows, vocabulary, &gpu));
    launch.check(&gpu)?;
    let solutions = {
        let (p, p_layout) = policy.storage_and_layout();
        let (t, t_layout) = target.storage_and_layout();
        let (Storage::Cuda(p), Storage::Cuda(t)) = (&*p, &*t) else { bail!("logits must lie on a GPU here") };
        let batch = Batch { device: &device, gpu, rule, launch, rows, vocabulary };
        let from = [p_layout.start_offset(), t_layout.start_offset()];
        match (&p.slice, &t.slice) {
            (CudaStorageSlice::F32(p), CudaStorageSlice::F32(t)) => batch.launch(DType::F32, p, t, from)?,
            (CudaStorageSlice::F16(p), CudaStorageSlice::F16(t)) => batch.launch(DType::F16, p, t, from)?,
            (CudaStorageSlice::BF16(p), CudaStorageSlice::BF16(t)) => batch.launch(DType::BF16, p, t, from)?,
            _ => bail!(
                "logits on a GPU must both be f32, f16 or bf16, not {:?} and {:?}: convert them, or move them to the CPU",
                policy.dtype(),
                target.dtype()
            ),
        }
    };
    Ok(Running { policy, target, rule: *rule, device, solutions })
}

impl Running {
    /// Waits for the solutions, in the order of the rows.
    ///
    /// # Errors
    /// What makes a row no pair, with the row's number; what the driver says.
    pub fn wait(self) -> Result<Vec<Solution>> {
        let numbers = self.device.clone_dtoh(&self.solutions)?;
        let rows = numbers.as_chunks::<FIELDS>().0.iter().enumerate();
        rows.map(|(row, fields)| {
            solution(fields).map_or_else(|| self.on_the_cpu(row).with_context(|| format!("row {row}")), Ok)
        })
        .collect()
    }

    fn on_the_cpu(&self, row: usize) -> Result<Solution> {
        let row_of = |tensor: &Tensor| -> Result<Vec<f32>> {
            let vocabulary = tensor.dim(candle_core::D::Minus1)?;
            let row = tensor.flatten_all()?.narrow(0, row * vocabulary, vocabulary)?;
            Ok(row.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1()?)
        };
        solve_row(&row_of(&self.policy)?, &row_of(&self.target)?, &self.rule)
    }
}

/// One launch.
struct Batch<'a> {
    device: &'a CudaDevice,
    gpu: Gpu,
    rule: &'a Rule,
    launch: Launch,
    rows: usize,
    vocabulary: usize,
}

impl Batch<'_> {
    fn launch<T: DeviceRepr>(
        &self,
        dtype: DType,
        policy: &CudaSlice<T>,
        target: &CudaSlice<T>,
        from: [usize; 2],
    ) -> Result<CudaSlice<f64>> {
        let (rule, rounds, alpha) = in_numbers(self.rule)?;
        // The kernel writes every field of every row but those that are for the CPU, where only the status is read.
        let mut solutions = unsafe { self.device.alloc::<f64>(self.rows * FIELDS)? };
        if self.rows == 0 {
            return Ok(solutions);
        }
        let (module, ptx) = self.launch.program(dtype)?.compiled(self.gpu.capability)?;
        let function = self.device.get_or_load_custom_func("solve_rows", &module, ptx)?;
        let bytes = self.launch.shared_bytes(self.vocabulary);
        function
            .set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes as i32)
            .with_context(|| format!("{bytes} bytes of shared memory for a block"))?;
        let config = LaunchConfig {
            grid_dim: (u32::try_from(self.rows * self.launch.cluster)?, 1, 1),
            block_dim: (self.launch.threads, 1, 1),
            shared_mem_bytes: bytes as u32,
        };
        let elements = self.rows * self.vocabulary;
        let (policy, target) = (policy.slice(from[0]..from[0] + elements), target.slice(from[1]..from[1] + elements));
        let vocabulary = self.vocabulary as i32;
        let mut builder = function.builder();
        builder.arg(&policy).arg(&target).arg(&mut solutions).arg(&vocabulary).arg(&rule).arg(&rounds).arg(&alpha);
        // SAFETY: the types of the arguments are those of `solve_rows` in kernel.cu, and the slices hold whole rows.
        unsafe { builder.launch(config) }.with_context(|| format!("{:?} of {} rows", self.launch, self.rows))?;
        Ok(solutions)
    }
}

impl Launch {
    /// The kernel as PTX for a compute capability (9.0 is `(9, 0)`).
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, dtype: DType, capability: (i32, i32)) -> Result<String> {
        self.program(dtype)?.compile(capability)
    }

    fn program(&self, dtype: DType) -> Result<Program> {
        let element = match dtype {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            other => bail!("the kernel reads f32, f16 and bf16, not {other:?}"),
        };
        let defines = vec![
            ("ELEMENT", element.to_string()),
            ("CLUSTER_SIZE", self.cluster.to_string()),
            ("CACHE", self.cached.to_string()),
        ];
        Ok(Program { file: "kernel.cu", source: SOURCE, defines })
    }
}

/// Kind, rounds and α of a rule as `row.cu` numbers them.
fn in_numbers(rule: &Rule) -> Result<(i32, i32, f64)> {
    Ok(match *rule {
        Rule::Fixed(alpha) => {
            ensure!((0.0..=1.0).contains(&alpha), "a fixed alpha must lie in [0, 1]: {alpha}");
            (0, 0, alpha)
        }
        Rule::Entropy => (1, 0, 0.0),
        Rule::KlSymmetry(Solver::Bisection(rounds)) => (5, i32::try_from(rounds)?, 0.0),
        Rule::KlSymmetry(Solver::Hermite(start) | Solver::Newton(start)) => match start {
            Start::Ends => (2, 0, 0.0),
            Start::Entropy => (3, 0, 0.0),
            Start::At(alpha) => {
                ensure!(!alpha.is_nan(), "the search for alpha cannot start at {alpha}");
                (4, 0, alpha)
            }
            Start::Table => bail!("the table of starts is on the CPU: on a GPU start at the ends"),
        },
        Rule::EssBalance => (6, 0, 0.0),
        Rule::SnrMax => bail!("SnrMax is solved on the CPU: move the logits there with to_device(&Device::Cpu)"),
    })
}

/// `None` where the row is for the CPU.
fn solution(fields: &[f64; FIELDS]) -> Option<Solution> {
    let &[alpha, status, iterations, k, k1, k2, kl_p, kl_t, log_ess_p, log_ess_t, entropy_p, entropy_t, entropy_q, tv] =
        fields;
    let status = match status as i32 {
        0 => Status::Ok,
        1 => Status::Same,
        2 => Status::NoRoot,
        3 => Status::Flat,
        4 => Status::NotConverged,
        _ => return None,
    };
    Some(Solution {
        alpha,
        status,
        iterations: iterations as u32,
        k,
        k1,
        k2,
        kl_p,
        kl_t,
        log_ess_p,
        log_ess_t,
        entropy_p,
        entropy_t,
        entropy_q,
        total_variation: tv,
    })
}
