//! The processes of one training, and what they say to each other.
//!
//! A launcher (`mpirun`, `srun`) starts the same command several times. Each process is a rank: it trains on
//! its part of every batch, the gradients are averaged, and all ranks take the same step with the same bits. Rank 0
//! alone writes files:
//!
//! ```no_run
//! # fn step() -> anyhow::Result<Vec<f32>> { Ok(vec![]) }
//! # fn save() -> anyhow::Result<()> { Ok(()) }
//! use qstar::ranks::Ranks;
//! let ranks = Ranks::launched()?;
//! let trained = (|| {
//!     ranks.same("the spec", "what every rank must agree on")?;
//!     let mut gradient = step()?;          // of the rows ranks.part(batch)
//!     ranks.mean(&mut gradient)?;
//!     ranks.barrier()?;                    // every rank has come this far
//!     if ranks.rank() == 0 {
//!         save()?;                         // under another name, then renamed
//!     }
//!     anyhow::Ok(())
//! })();
//! ranks.end(trained)?;                     // an error of one rank ends them all
//! # anyhow::Ok(())
//! ```
//!
//! Every function here that speaks to other ranks is collective: all ranks call it, in the same order. Where
//! they call different ones, or disagree on a size, each of them gets an error that says which rank wanted what; none waits
//! for ever. A rank that is killed, panics or leaves without [`Ranks::end`] takes the others with it, within
//! seconds. What is on the disk is then what rank 0 last renamed into place.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(not(feature = "mpi"))]
#[path = "without_mpi.rs"]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(not(feature = "nccl"))]
#[path = "without_nccl.rs"]
mod nccl;
mod shard;
mod tensor;

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use shard::Shard;

/// The processes of one training as one of them sees them. A clone is the same rank.
#[derive(Clone, Default)]
pub struct Ranks {
    /// None: this process is alone.
    mpi: Option<Arc<mpi::Mpi>>,
    /// Connects this rank's GPU to the others', if tensors on it take part.
    gpu: Option<Arc<nccl::Gpu>>,
    device: Option<Device>,
}

impl Ranks {
    /// This process is the whole training.
    pub fn alone() -> Self {
        Self::default()
    }

    /// The ranks that the launcher started, from MPI; without a launcher's variables in the environment, this process alone.
    /// MPI can be entered once in a process.
    ///
    /// # Errors
    /// MPI was entered before; its library does not allow calls from several threads. The launcher started several
    /// processes that know nothing of each other, each of which would do the whole training: a build without the feature
    /// `mpi`, or a launcher that does not speak to the MPI library.
    pub fn launched() -> Result<Self> {
        if !LAUNCHED.iter().any(|name| std::env::var_os(name).is_some()) {
            return Ok(Self::alone());
        }
        let ranks = Self { mpi: mpi::launched()?.map(Arc::new), ..Self::alone() };
        if ranks.size() == 1 {
            refuse_many(|name| std::env::var(name).ok())?;
        }
        Ok(ranks)
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.mpi.as_ref().map_or(0, |mpi| mpi.rank())
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.mpi.as_ref().map_or(1, |mpi| mpi.size())
    }

    /// This process's number among those on the same machine: which of its GPUs it takes.
    ///
    /// # Errors
    /// Other ranks are at something else.
    pub fn local_rank(&self) -> Result<usize> {
        self.mpi.as_ref().map_or(Ok(0), |mpi| mpi.local_rank())
    }

    /// The same ranks with one GPU each, which no two ranks share: that of this process's number on its machine. Tensors on
    /// [`Ranks::gpu_device`] then take part in [`Ranks::mean_tensor`], [`Ranks::broadcast_tensor`] and [`Shard`], through NCCL.
    ///
    /// # Errors
    /// No such GPU, or a build without CUDA; for several ranks a build without the feature `nccl`. NCCL finds no way between
    /// the GPUs: `NCCL_DEBUG=WARN` in the environment makes it say more.
    pub fn on_gpu(&self) -> Result<Self> {
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        // A launcher that gives every process its own GPU shows it no other.
        let one = visible.is_some_and(|devices| !devices.is_empty() && !devices.contains(','));
        let local = self.local_rank()?;
        let number = if one { 0 } else { local };
        let device = Device::new_cuda(number).with_context(|| format!("GPU {number} of this machine"))?;
        let gpu = match &self.mpi {
            Some(mpi) if mpi.size() > 1 => Some(Arc::new(nccl::Gpu::new(mpi, &device)?)),
            _ => None,
        };
        Ok(Self { mpi: self.mpi.clone(), gpu, device: Some(device) })
    }

    /// This rank's GPU, after [`Ranks::on_gpu`].
    pub fn gpu_device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// This rank's share of `count` things: contiguous, in the order of the ranks, sizes differ by one at most.
    pub fn part(&self, count: usize) -> Range<usize> {
        part(count, self.rank(), self.size())
    }

    /// Replaces every value by its mean over the ranks.
    ///
    /// Each rank adds one part of the values, in f64 and in the order of the ranks, and sends the f32 result to all: a
    /// value is computed once, so every rank has the same bits, and every run of as many ranks, whatever the network,
    /// the MPI library and the timing. (MPI's own all-reduce leaves order and rounding to the library.) It moves as much
    /// as a ring, 2(n − 1)/n of the values in and out of each of n ranks, and needs at most 8 MiB beside the values.
    /// A value that is not a number on one rank is not a number on all.
    ///
    /// # Errors
    /// Another number of values on another rank.
    pub fn mean(&self, values: &mut [f32]) -> Result<()> {
        match &self.mpi {
            None => Ok(()),
            Some(mpi) => mpi.mean(values),
        }
    }

    /// Replaces the values by those of rank 0.
    ///
    /// # Errors
    /// Another number of values on another rank.
    pub fn broadcast(&self, values: &mut [f32]) -> Result<()> {
        match &self.mpi {
            None => Ok(()),
            Some(mpi) => mpi.broadcast(values),
        }
    }

    /// Checks that `text` is the same on all ranks: a spec, the digest of weights. `what` names it in the error.
    ///
    /// # Errors
    /// On every rank, if it is not: the ranks that differ from rank 0, and the first line that does.
    pub fn same(&self, what: &str, text: &str) -> Result<()> {
        match &self.mpi {
            None => Ok(()),
            Some(mpi) => mpi.same(what, text),
        }
    }

    /// Gives rank 0 the bytes of all ranks, in their order; the others get none. Rows of records go
    /// through [`crate::record::gather`].
    ///
    /// # Errors
    /// More than 2 GiB in all.
    pub fn gather(&self, bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        match &self.mpi {
            None => Ok(Some(vec![bytes.to_vec()])),
            Some(mpi) => mpi.gather(bytes),
        }
    }

    /// What every rank gives, in their order, to all of them.
    ///
    /// # Errors
    /// More than 2 GiB in all; another build on another rank.
    pub fn exchange<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        let Some(mpi) = self.mpi.as_ref().filter(|mpi| mpi.size() > 1) else { return Ok(vec![own]) };
        let mut bytes = Vec::new();
        ciborium::into_writer(&own, &mut bytes).context("what a rank gives cannot be written")?;
        let read = |(rank, bytes): (usize, Vec<u8>)| {
            ciborium::from_reader(&bytes[..]).with_context(|| format!("what rank {rank} gives cannot be read"))
        };
        mpi.exchange(&bytes)?.into_iter().enumerate().map(read).collect()
    }

    /// The outcome of work that every rank has done for itself: an error of one is an error of all, so that none waits for one
    /// that has given up.
    ///
    /// # Errors
    /// That of the first rank which has one.
    pub fn agree<T>(&self, outcome: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return outcome;
        }
        let errors = match self.exchange(outcome.as_ref().err().map(|error| format!("{error:#}"))) {
            // The others are in the midst of something that this rank has given up.
            Err(error) => return outcome.and_then(|_| Err(error)).context(OutOfStep("this rank gives up".to_string())),
            Ok(errors) => errors,
        };
        match errors.into_iter().enumerate().find_map(|(rank, error)| Some((rank, error?))) {
            Some((rank, error)) => bail!("rank {rank}: {error}"),
            None => outcome,
        }
    }

    /// What rank 0 does while the others wait, and what it came to: of what lies on a disk one of them decides for all.
    ///
    /// # Errors
    /// That of rank 0.
    pub fn on_rank_0<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // A list: in what is sent, an outcome without a value is no different from none.
        let outcome = if self.rank() == 0 { work().map(|outcome| vec![outcome]) } else { Ok(Vec::new()) };
        let outcomes = self.exchange(self.agree(outcome)?)?;
        outcomes.into_iter().flatten().next().context("rank 0 has an outcome")
    }

    /// Waits until every rank is here.
    pub fn barrier(&self) -> Result<()> {
        match &self.mpi {
            None => Ok(()),
            Some(mpi) => mpi.barrier(),
        }
    }

    /// The last call of a rank, with the outcome of its work. Success waits for the others. An error is printed with
    /// the rank's number, and ends all ranks at once, for the others may wait for this one; it is returned only where
    /// this process is the only one.
    pub fn end<T>(&self, outcome: Result<T>) -> Result<T> {
        match &self.mpi {
            None => outcome,
            Some(mpi) => mpi.end(outcome),
        }
    }
}

/// In the chain of an error: the ranks are no longer at the same call, so none of them may go on to another.
#[derive(Debug)]
pub struct OutOfStep(String);

impl std::fmt::Display for OutOfStep {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OutOfStep {}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

/// How often a process was started, as its launcher says: Open MPI, MPICH and its kin, a step of srun.
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// # Errors
/// The launcher's variables say that there is more than one process.
fn refuse_many(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    let remedy = if cfg!(feature = "mpi") {
        "srun needs `--mpi=pmix` or what else the MPI library speaks (`srun --mpi=list`), mpirun must be this library's"
    } else {
        "build the command with `--features mpi`, or start it once"
    };
    for name in LAUNCHED {
        let count = variable(name).and_then(|count| count.parse().ok()).unwrap_or(1u32);
        ensure!(count < 2, "{count} processes were started ({name}), but each of them is alone: {remedy}");
    }
    Ok(())
}

/// The share of `count` things of one rank.
fn part(count: usize, rank: usize, size: usize) -> Range<usize> {
    // count · rank would overflow only beyond any memory.
    count * rank / size..count * (rank + 1) / size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_ranks_are_the_whole() {
        for count in [0, 1, 2, 7, 8, 1000, 50_257] {
            for size in 1..=9 {
                let parts: Vec<_> = (0..size).map(|rank| part(count, rank, size)).collect();
                let all: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                let lengths = parts.iter().map(ExactSizeIterator::len);
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1, "{count} over {size}");
            }
        }
    }

    #[test]
    fn several_processes_that_are_alone_are_refused() {
        for (value, refused) in [("2", true), ("64", true), ("1", false), ("", false), ("many", false)] {
            let srun = |name: &str| (name == "SLURM_STEP_NUM_TASKS").then(|| value.to_string());
            assert_eq!(refuse_many(srun).is_err(), refused, "{value:?}");
        }
        let error = refuse_many(|name| (name == "OMPI_COMM_WORLD_SIZE").then(|| "2".to_string())).unwrap_err();
        assert!(error.to_string().starts_with("2 processes were started (OMPI_COMM_WORLD_SIZE)"), "{error}");
    }

    #[test]
    fn one_process_changes_nothing() {
        let ranks = Ranks::alone();
        let mut values = [1.5, f32::MIN_POSITIVE];
        ranks.mean(&mut values).unwrap();
        ranks.broadcast(&mut values).unwrap();
        assert_eq!(values, [1.5, f32::MIN_POSITIVE]);
        assert_eq!(ranks.gather(b"rows").unwrap(), Some(vec![b"rows".to_vec()]));
        assert_eq!((ranks.rank(), ranks.size(), ranks.part(5)), (0, 1, 0..5));
        let error = ranks.end::<()>(Err(anyhow::anyhow!("left to the caller"))).unwrap_err();
        assert_eq!(error.to_string(), "left to the caller");
    }
}
