//! In a build without the feature `mpi` no process has others.

use anyhow::{Result, ensure};

/// How often a process was started, as its launcher says: Open MPI, MPICH and its kin, a step of srun.
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// There is no value of this type.
pub(super) enum Mpi {}

pub(super) fn launched() -> Result<Option<Mpi>> {
    refuse_many(|name| std::env::var(name).ok())?;
    Ok(None)
}

/// # Errors
/// The launcher's variables say that there is more than one process.
fn refuse_many(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    for name in LAUNCHED {
        let count = variable(name).and_then(|count| count.parse().ok()).unwrap_or(1u32);
        ensure!(
            count < 2,
            "{count} processes were started ({name}), but this command was built for one: build it with `--features mpi`, \
             or start it once"
        );
    }
    Ok(())
}

impl Mpi {
    pub(super) fn rank(&self) -> usize {
        match *self {}
    }

    pub(super) fn size(&self) -> usize {
        match *self {}
    }

    pub(super) fn mean(&self, _values: &mut [f32]) -> Result<()> {
        match *self {}
    }

    pub(super) fn broadcast(&self, _values: &mut [f32]) -> Result<()> {
        match *self {}
    }

    pub(super) fn same(&self, _what: &str, _text: &str) -> Result<()> {
        match *self {}
    }

    pub(super) fn gather(&self, _bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        match *self {}
    }

    pub(super) fn all_gather_rows(&self, _own: &[u8], _row_bytes: usize, _whole: &mut [u8]) -> Result<()> {
        match *self {}
    }

    pub(super) fn barrier(&self) -> Result<()> {
        match *self {}
    }

    pub(super) fn end<T>(&self, _outcome: Result<T>) -> Result<T> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_processes_of_a_build_for_one_are_refused() {
        for (value, refused) in [("2", true), ("64", true), ("1", false), ("", false), ("many", false)] {
            let srun = |name: &str| (name == "SLURM_STEP_NUM_TASKS").then(|| value.to_string());
            assert_eq!(refuse_many(srun).is_err(), refused, "{value:?}");
        }
        let error = refuse_many(|name| (name == "OMPI_COMM_WORLD_SIZE").then(|| "2".to_string())).unwrap_err();
        assert!(error.to_string().contains("--features mpi"), "{error}");
    }
}
