//! Ranks over MPI.

use std::io::Write;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use mpi::collective::Root;
use mpi::datatype::{MutView, Partition, PartitionMut, UserDatatype, View};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence};
use mpi::{Count, Threading};

use super::{OutOfStep, part};

/// Values of a mean that are under way at a time: 4 MiB, and as much for what comes in.
const CHUNK: usize = 1 << 20;

/// MPI counts in i32; a broadcast of more values is several.
const BROADCAST: usize = 1 << 28;

/// MPI's world, until it is left.
pub(super) struct Mpi {
    /// MPI is asked to allow calls from any thread, one at a time.
    universe: Mutex<Option<Universe>>,
    rank: usize,
    size: usize,
}

/// What a rank is about to do, told to the others before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Call {
    Mean,
    Broadcast,
    Same,
    Gather,
    Exchange,
    Rows,
    Barrier,
    LocalRank,
    End,
}

impl Call {
    const ALL: [Call; 9] = [
        Call::Mean,
        Call::Broadcast,
        Call::Same,
        Call::Gather,
        Call::Exchange,
        Call::Rows,
        Call::Barrier,
        Call::LocalRank,
        Call::End,
    ];

    fn describe(self, count: usize) -> String {
        match self {
            Call::Mean => format!("the mean of {count} values"),
            Call::Broadcast => format!("a broadcast of {count} values"),
            Call::Same => "a comparison".to_string(),
            Call::Gather => "a gathering of rows".to_string(),
            Call::Exchange => "an exchange".to_string(),
            Call::Rows => format!("the {count} bytes of a sharded tensor"),
            Call::Barrier => "a barrier".to_string(),
            Call::LocalRank => "the choice of a GPU".to_string(),
            Call::End => "the end".to_string(),
        }
    }

    /// Whether every rank must have the same count.
    fn counts_agree(self) -> bool {
        !matches!(self, Call::Same | Call::Gather | Call::Exchange)
    }
}

pub(super) fn launched() -> Result<Option<Mpi>> {
    Ok(Some(Mpi::new()?))
}

impl Mpi {
    fn new() -> Result<Self> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
            .context("MPI was entered before in this process; Ranks::launched is called once")?;
        ensure!(
            threading >= Threading::Serialized,
            "this MPI library allows calls from the first thread only ({threading:?}); use one built with threads"
        );
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        Ok(Self { universe: Mutex::new(Some(universe)), rank, size })
    }

    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn mean(&self, values: &mut [f32]) -> Result<()> {
        self.meet(Call::Mean, values.len(), |world, _| {
            let mut received = vec![0f32; values.len().min(CHUNK) + self.size];
            let mut own = Vec::new();
            for chunk in values.chunks_mut(CHUNK) {
                self.mean_of_chunk(world, chunk, &mut received, &mut own);
            }
            Ok(())
        })
    }

    /// Everyone's values of my part come here, their mean goes to everyone.
    fn mean_of_chunk(&self, world: &SimpleCommunicator, chunk: &mut [f32], received: &mut [f32], own: &mut Vec<f32>) {
        let (counts, starts) = layout(self.size, |rank| part(chunk.len(), rank, self.size));
        let n = counts[self.rank] as usize;
        let (each, at) = layout(self.size, |rank| rank * n..(rank + 1) * n);
        world.all_to_all_varcount_into(
            &Partition::new(&*chunk, &counts[..], &starts[..]),
            &mut PartitionMut::new(received, each, at),
        );
        own.clear();
        own.extend((0..n).map(|i| {
            let sum: f64 = (0..self.size).map(|rank| f64::from(received[rank * n + i])).sum();
            (sum / self.size as f64) as f32
        }));
        world.all_gather_varcount_into(&own[..], &mut PartitionMut::new(chunk, counts, starts));
    }

    pub(super) fn broadcast(&self, values: &mut [f32]) -> Result<()> {
        self.meet(Call::Broadcast, values.len(), |world, _| {
            for chunk in values.chunks_mut(BROADCAST) {
                world.process_at_rank(0).broadcast_into(chunk);
            }
            Ok(())
        })
    }

    pub(super) fn same(&self, what: &str, text: &str) -> Result<()> {
        let texts = self.all_gather(Call::Same, text.as_bytes())?;
        let others: Vec<usize> = (1..self.size).filter(|&rank| texts[rank] != texts[0]).collect();
        let Some(&first) = others.first() else { return Ok(()) };
        let (here, there) = first_difference(&texts[0], &texts[first]);
        let names: Vec<String> = others.iter().map(ToString::to_string).collect();
        anyhow::bail!(
            "{what} of rank {} is not that of rank 0: {there} instead of {here}; start all ranks with the same \
             arguments, files and build",
            names.join(", ")
        );
    }

    /// The bytes of all ranks, in their order.
    pub(super) fn exchange(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.all_gather(Call::Exchange, bytes)
    }

    fn all_gather(&self, call: Call, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.meet(call, bytes.len(), |world, lengths| {
            let (counts, starts, total) = one_after_the_other(lengths)?;
            let mut all = vec![0u8; total.max(1)];
            world.all_gather_varcount_into(addressed(bytes), &mut PartitionMut::new(&mut all[..], counts, starts));
            Ok(cut(&all, lengths))
        })
    }

    pub(super) fn gather(&self, bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        self.meet(Call::Gather, bytes.len(), |world, lengths| {
            let (counts, starts, total) = one_after_the_other(lengths)?;
            let root = world.process_at_rank(0);
            if self.rank > 0 {
                root.gather_varcount_into(addressed(bytes));
                return Ok(None);
            }
            let mut all = vec![0u8; total.max(1)];
            root.gather_varcount_into_root(addressed(bytes), &mut PartitionMut::new(&mut all[..], counts, starts));
            Ok(Some(cut(&all, lengths)))
        })
    }

    pub(super) fn all_gather_rows(&self, own: &[u8], row_bytes: usize, whole: &mut [u8]) -> Result<()> {
        self.meet(Call::Rows, whole.len(), |world, _| {
            if whole.is_empty() {
                return Ok(());
            }
            let rows = whole.len() / row_bytes;
            ensure!(rows * row_bytes == whole.len(), "{} bytes are not rows of {row_bytes}", whole.len());
            let (counts, starts) = layout(self.size, |rank| part(rows, rank, self.size));
            ensure!(
                own.len() == counts[self.rank] as usize * row_bytes,
                "{} bytes are not the part of rank {} of {rows} rows of {row_bytes}",
                own.len(),
                self.rank
            );
            // Counted in rows, tensors beyond 2 GiB have counts that MPI can hold.
            let (row, all) = (Count::try_from(row_bytes)?, Count::try_from(rows)?);
            let row = UserDatatype::contiguous(row, &u8::equivalent_datatype());
            // SAFETY: both views are as long as their slices, which was checked above; a row is plain bytes.
            let (own, mut whole) = unsafe {
                (
                    View::with_count_and_datatype(addressed(own), counts[self.rank], &row),
                    MutView::with_count_and_datatype(whole, all, &row),
                )
            };
            world.all_gather_varcount_into(&own, &mut PartitionMut::new(&mut whole, counts, starts));
            Ok(())
        })
    }

    pub(super) fn barrier(&self) -> Result<()> {
        self.meet(Call::Barrier, 0, |_, _| Ok(()))
    }

    pub(super) fn local_rank(&self) -> Result<usize> {
        self.meet(Call::LocalRank, 0, |world, _| Ok(world.split_shared(self.rank as Count).rank() as usize))
    }

    /// Replaces the bytes by those of rank 0: how the ranks learn NCCL's name of their group.
    #[cfg(feature = "nccl")]
    pub(super) fn broadcast_bytes(&self, bytes: &mut [u8]) -> Result<()> {
        self.meet(Call::Broadcast, bytes.len(), |world, _| {
            world.process_at_rank(0).broadcast_into(bytes);
            Ok(())
        })
    }

    pub(super) fn end<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome.and_then(|value| self.meet(Call::End, 0, |_, _| Ok(value))) {
            Err(error) if self.size > 1 => self.abort(&format!("{error:#}")),
            result => {
                drop(self.lock().take());
                result
            }
        }
    }

    /// Tells the other ranks what this one is about to do; does it if all are about to do the same. `act` gets the
    /// counts of all ranks.
    pub(super) fn meet<R>(
        &self,
        call: Call,
        count: usize,
        act: impl FnOnce(&SimpleCommunicator, &[usize]) -> Result<R>,
    ) -> Result<R> {
        let universe = self.lock();
        let world = universe.as_ref().context("the ranks have ended")?.world();
        let mut all = vec![0u64; 2 * self.size];
        world.all_gather_into(&[call as u64, count as u64][..], &mut all[..]);
        let described = |rank: usize| {
            let call = Call::ALL.into_iter().find(|known| *known as u64 == all[2 * rank]);
            call.map_or("something unknown".to_string(), |call| call.describe(all[2 * rank + 1] as usize))
        };
        let fits = |rank: usize| all[2 * rank] == all[0] && (!call.counts_agree() || all[2 * rank + 1] == all[1]);
        if let Some(rank) = (1..self.size).find(|&rank| !fits(rank)) {
            let (first, other) = (described(0), described(rank));
            return Err(OutOfStep(format!(
                "the ranks are out of step: rank 0 is at {first}, rank {rank} at {other}; they must run the same build \
                 with the same arguments and files"
            ))
            .into());
        }
        let counts: Vec<usize> = (0..self.size).map(|rank| all[2 * rank + 1] as usize).collect();
        act(&world, &counts)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Universe>> {
        self.universe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all ranks.
    fn abort(&self, why: &str) -> ! {
        eprintln!("error: rank {} of {}: {why}", self.rank, self.size);
        let _ = std::io::stdout().flush(); // there is no one left to tell
        // Not through the lock: a thread that waits in a collective may hold it for ever.
        SimpleCommunicator::world().abort(1)
    }
}

impl Drop for Mpi {
    /// Leaving MPI in good order waits for the other ranks, and they may wait for this one.
    fn drop(&mut self) {
        if self.lock().is_some() && self.size > 1 {
            self.abort(if std::thread::panicking() {
                "it panicked; all ranks end"
            } else {
                "it left without Ranks::end; all ranks end"
            });
        }
    }
}

/// The same bytes at an address of memory. Rust has empty bytes at address 1, which Open MPI takes for `MPI_IN_PLACE`.
fn addressed(bytes: &[u8]) -> &[u8] {
    static PLACE: [u8; 1] = [0];
    if bytes.is_empty() { &PLACE[..0] } else { bytes }
}

/// Counts and starts of one range a rank, as MPI takes them.
fn layout(size: usize, range: impl Fn(usize) -> Range<usize>) -> (Vec<Count>, Vec<Count>) {
    (0..size).map(range).map(|range| (range.len() as Count, range.start as Count)).unzip()
}

/// Counts and starts of byte strings that lie one after the other, and their total length.
fn one_after_the_other(lengths: &[usize]) -> Result<(Vec<Count>, Vec<Count>, usize)> {
    let total: usize = lengths.iter().sum();
    ensure!(Count::try_from(total).is_ok(), "{total} bytes are too many at a time; gather more often");
    let (counts, starts) = layout(lengths.len(), |rank| {
        let start = lengths[..rank].iter().sum();
        start..start + lengths[rank]
    });
    Ok((counts, starts, total))
}

fn cut(all: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = all;
    let mut take = |&length: &usize| {
        let (own, others) = rest.split_at(length);
        rest = others;
        own.to_vec()
    };
    lengths.iter().map(&mut take).collect()
}

/// The first line of each of two different texts that the other does not have in its place.
fn first_difference(a: &[u8], b: &[u8]) -> (String, String) {
    let (a, b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
    let (mut a, mut b) = (a.lines(), b.lines());
    let shown = |line: Option<&str>| line.map_or("nothing".to_string(), |line| format!("`{}`", line.trim()));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return ("other ends of lines".to_string(), "other ends of lines".to_string()),
            (here, there) if here != there => return (shown(here), shown(there)),
            _ => {}
        }
    }
}
