//! Launches of the kernels on tensors.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice, WrapErr};
use candle_core::{DType, Device, Error, Result, Shape, Storage, Tensor, bail};

use crate::nvrtc::{self, Program};

const SOURCE: &str = concat!(
    include_str!("value.cu"),
    include_str!("norm.cu"),
    include_str!("sums.cu"),
    include_str!("elementwise.cu"),
    include_str!("softmax.cu"),
    include_str!("update.cu"),
);

/// The kernels for values of `dtype` (f32 or bf16) as PTX for a compute capability (9.0 is `(9, 0)`).
///
/// # Errors
/// What the compiler says.
pub fn compile(dtype: DType, capability: (i32, i32)) -> anyhow::Result<String> {
    program(dtype)?.compile(capability)
}

fn program(dtype: DType) -> Result<Program> {
    let bits = match dtype {
        DType::F32 => 32,
        DType::BF16 => 16,
        other => bail!("on a GPU models work in f32 and bf16, not in {other:?}: convert them with to_dtype"),
    };
    Ok(Program { file: "blocks.cu", source: SOURCE, defines: vec![("VALUE_BITS", bits.to_string())] })
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    /// The address of a contiguous tensor, read or written.
    Tensor(&'a Tensor),
    Null,
    Int(usize),
    Long(usize),
    Float(f64),
}

impl<'a> From<Option<&'a Tensor>> for Arg<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Arg::Null, Arg::Tensor)
    }
}

/// A tensor whose values a kernel will write.
pub(super) fn empty(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: on a GPU every bit pattern is a value; the kernels write all of it before it is read.
    unsafe { Tensor::empty(shape, dtype, device) }
}

/// How many threads a block of one row gets: several values each, whole warps.
pub(super) fn threads_for(width: usize) -> usize {
    width.div_ceil(4).next_multiple_of(32).clamp(32, 1024)
}

/// Launches the kernel `name` for values of `dtype`. Nothing waits for it.
///
/// # Errors
/// Arguments that are not those of the kernel's source; tensors elsewhere or with gaps; what the driver says.
pub(super) fn launch(name: &str, dtype: DType, device: &Device, grid: [usize; 2], args: &[Arg]) -> Result<()> {
    let Device::Cuda(device) = device else { bail!("{name} runs on a GPU, not on {:?}", device.location()) };
    let [blocks, threads] = grid;
    if blocks == 0 {
        return Ok(());
    }
    let parameters: Vec<Parameter> = args.iter().map(Parameter::of).collect();
    if PARAMETERS.get(name) != Some(&parameters) {
        bail!("the kernel {name} takes {:?} and got {parameters:?}", PARAMETERS.get(name))
    }
    let (module, ptx) = module(dtype, device)?;
    let function = device.get_or_load_custom_func(name, module, ptx)?;
    let stream = device.cuda_stream();
    let held: Vec<_> = args
        .iter()
        .map(|arg| match arg {
            Arg::Tensor(tensor) => Some(tensor.storage_and_layout()),
            _ => None,
        })
        .collect();
    // What cudarc wants to be told when the launch is under way.
    let mut in_use = Vec::new();
    let mut values = Vec::with_capacity(args.len());
    for (arg, held) in args.iter().zip(&held) {
        values.push(match (arg, held) {
            (Arg::Tensor(tensor), Some((storage, layout))) => {
                let Some((start, _)) = layout.contiguous_offsets() else {
                    bail!("{name} got a tensor that is not contiguous: {:?}", layout.shape())
                };
                let Storage::Cuda(CudaStorage { slice, device: place }) = &**storage else {
                    bail!("{name} got a tensor on {:?}, others lie on a GPU", tensor.device().location())
                };
                if place.id() != device.id() {
                    bail!("{name} got tensors on two GPUs")
                }
                macro_rules! address {
                    ($slice:expr) => {{
                        let (address, guard) = $slice.device_ptr(&stream);
                        in_use.push(guard);
                        address
                    }};
                }
                let address = match slice {
                    CudaStorageSlice::F32(slice) => address!(slice),
                    CudaStorageSlice::BF16(slice) => address!(slice),
                    CudaStorageSlice::U32(slice) => address!(slice),
                    CudaStorageSlice::F64(slice) => address!(slice),
                    _ => bail!("{name} got a tensor of {:?}", tensor.dtype()),
                };
                Value::Bits64(address + (start * tensor.dtype().size_in_bytes()) as u64)
            }
            (Arg::Int(n), _) => Value::Bits32(i32::try_from(*n).map_err(Error::wrap)? as u32),
            (Arg::Long(n), _) => Value::Bits64(*n as u64),
            (Arg::Float(x), _) => Value::Bits32((*x as f32).to_bits()),
            _ => Value::Bits64(0),
        });
    }
    let config = LaunchConfig {
        grid_dim: (u32::try_from(blocks).map_err(Error::wrap)?, 1, 1),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut builder = function.builder();
    for value in &values {
        match value {
            Value::Bits32(bits) => builder.arg(bits),
            Value::Bits64(bits) => builder.arg(bits),
        };
    }
    // SAFETY: the arguments are those of the kernel's source, checked above; the callers, all in this folder, pass tensors
    // of the types and sizes that it reads and writes.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// The type of a kernel's parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Pointer,
    Int,
    Long,
    Float,
}

/// The parameters of every kernel, from its source.
static PARAMETERS: LazyLock<HashMap<&'static str, Vec<Parameter>>> = LazyLock::new(|| {
    let declarations = SOURCE.split("__global__ void ").skip(1);
    let kernel = |declaration: &'static str| {
        let (name, rest) = declaration.split_once('(')?;
        Some((name, rest.split_once(')')?.0.split(',').map(Parameter::declared).collect()))
    };
    declarations.filter_map(kernel).collect()
});

impl Parameter {
    fn of(arg: &Arg) -> Self {
        match arg {
            Arg::Tensor(_) | Arg::Null => Parameter::Pointer,
            Arg::Int(_) => Parameter::Int,
            Arg::Long(_) => Parameter::Long,
            Arg::Float(_) => Parameter::Float,
        }
    }

    fn declared(text: &str) -> Self {
        match text {
            pointer if pointer.contains('*') => Parameter::Pointer,
            long if long.contains("long long ") => Parameter::Long,
            float if float.contains("float ") => Parameter::Float,
            _ => Parameter::Int,
        }
    }
}

/// An argument as the driver copies it.
enum Value {
    Bits32(u32),
    Bits64(u64),
}

/// Name and PTX of the kernels.
type Module = (&'static str, &'static str);

/// By the type of values and the compute capability.
type Modules = HashMap<(DType, (i32, i32)), Module>;

fn module(dtype: DType, device: &CudaDevice) -> Result<Module> {
    static MODULES: LazyLock<Mutex<Modules>> = LazyLock::new(Mutex::default);
    let capability = nvrtc::capability(device).map_err(Error::wrap)?;
    let mut modules = MODULES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(module) = modules.get(&(dtype, capability)) {
        return Ok(*module);
    }
    let (name, ptx) = program(dtype)?.compiled(capability).map_err(Error::wrap)?;
    let module: Module = (name.leak(), ptx);
    modules.insert((dtype, capability), module);
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_from_the_source() {
        use Parameter::{Float, Int, Long, Pointer};
        assert_eq!(PARAMETERS.len(), 20);
        let squared_norms = vec![Pointer, Pointer, Long, Int, Int];
        assert_eq!(PARAMETERS["squared_norms"], squared_norms);
        assert_eq!(PARAMETERS["adamw"], [vec![Pointer; 5], vec![Long], vec![Float; 7]].concat());
        assert_eq!(PARAMETERS["rope"], [vec![Pointer; 4], vec![Int; 7], vec![Float]].concat());
    }
}
