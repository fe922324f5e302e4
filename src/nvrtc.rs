//! CUDA sources compiled for the GPU that is there, once in a process.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use anyhow::{Context, Result, anyhow};
use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};

/// A source with what its macros are set to.
#[derive(Debug, Clone)]
pub struct Program {
    /// How the compiler's messages name the source.
    pub file: &'static str,
    pub source: &'static str,
    /// Macros and their values.
    pub defines: Vec<(&'static str, String)>,
}

impl Program {
    /// PTX for a compute capability (9.0 is `(9, 0)`).
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, capability: (i32, i32)) -> Result<String> {
        let mut options =
            vec!["--std=c++17".to_string(), format!("--gpu-architecture=compute_{}{}", capability.0, capability.1)];
        options.extend(self.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        let options = CompileOptions { options, name: Some(self.file.to_string()), ..Default::default() };
        let ptx = compile_ptx_with_opts(self.source, options).map_err(|error| match error {
            CompileError::CompileError { log, .. } => anyhow!("NVRTC: {}", log.to_string_lossy()),
            other => anyhow!("NVRTC: {other}"),
        })?;
        Ok(ptx.to_src())
    }

    /// The module's name and PTX, compiled once for a compute capability.
    pub fn compiled(&self, capability: (i32, i32)) -> Result<(String, &'static str)> {
        static COMPILED: LazyLock<Mutex<HashMap<String, &'static str>>> = LazyLock::new(Mutex::default);
        let name = format!("{} {:?} {capability:?}", self.file, self.defines);
        let mut compiled = COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(ptx) = compiled.get(&name) {
            return Ok((name, ptx));
        }
        // There are a few of these, and they are needed as long as the process lives.
        let ptx: &'static str = self.compile(capability)?.leak();
        compiled.insert(name.clone(), ptx);
        Ok((name, ptx))
    }
}

/// The compute capability of a GPU.
pub fn capability(device: &CudaDevice) -> Result<(i32, i32)> {
    device.cuda_stream().context().compute_capability().context("the GPU does not say what it can")
}
