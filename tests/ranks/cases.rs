//! What one rank does in each case.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use polars::prelude::{DataFrame, df};
use qstar::ranks::{Ranks, Shard};
use qstar::record::{self, RunFolder};
use sha2::{Digest, Sha256};

use super::{runs, training};

pub fn run(case: &str, folder: &Path) {
    let ranks = Ranks::launched().unwrap();
    match case {
        "mean" => end(&ranks, means(&ranks, Duration::ZERO)),
        // Every rank is late at another time.
        "mean-delayed" => end(&ranks, means(&ranks, Duration::from_millis(3))),
        "exchange" => end(&ranks, exchange(&ranks)),
        "shard" => end(&ranks, shard(&ranks)),
        "other-spec" => end(&ranks, other_spec(&ranks)),
        "out-of-step" => end(&ranks, out_of_step(&ranks)),
        "ends-early" if ranks.rank() == 0 => end(&ranks, Ok(())),
        "ends-early" => end(&ranks, ranks.mean(&mut [1.0])),
        "train" => end(&ranks, train(&ranks, folder, None)),
        "train-killed" => end(&ranks, train(&ranks, folder, Some(13))),
        "draw" => end(&ranks, runs::draw(&ranks)),
        // A run: which weights, and by which method.
        run if run.contains(' ') => {
            let (weights, method) = run.split_once(' ').unwrap();
            std::fs::write(folder.join(format!("pid-{}", ranks.rank())), std::process::id().to_string()).unwrap();
            end(&ranks, runs::train(&ranks, weights, method, &folder.join("run")));
        }
        // As a caller would who forgets the end.
        "leaves" => drop((in_step_3(&ranks, case), ranks)),
        early => end(&ranks, in_step_3(&ranks, early)),
    }
}

fn end(ranks: &Ranks, outcome: Result<()>) {
    if ranks.end(outcome).is_ok() {
        println!("rank {} came to the end", ranks.rank());
    }
}

/// Value i of a rank: sizes from 1e-30 to 1e30, so that order and precision of a sum show.
fn value(rank: usize, i: usize) -> f32 {
    let digest = Sha256::digest(format!("{rank} {i}"));
    let mantissa = f32::from(i16::from_le_bytes([digest[0], digest[1]])) / 32768.0;
    mantissa * 10f32.powi(i32::from(digest[2] % 61) - 30)
}

fn means(ranks: &Ranks, delay: Duration) -> Result<()> {
    let mut all = Sha256::new();
    let chunk = 1 << 20;
    let table: Vec<Vec<f32>> = (0..ranks.size()).map(|rank| (0..4099).map(|i| value(rank, i)).collect()).collect();
    for (round, count) in [0, 1, 2, 3, 7, 1000, chunk + 3].into_iter().enumerate() {
        std::thread::sleep(delay * ((round + ranks.rank()) % 3) as u32);
        let own = |rank: usize| table[rank].iter().copied().cycle().take(count);
        let mut values: Vec<f32> = own(ranks.rank()).collect();
        ranks.mean(&mut values)?;
        let mut sums = vec![0f64; count];
        for rank in 0..ranks.size() {
            for (sum, value) in sums.iter_mut().zip(own(rank)) {
                *sum += f64::from(value);
            }
        }
        for (i, (mean, sum)) in values.iter().zip(sums).enumerate() {
            let expected = (sum / ranks.size() as f64) as f32;
            ensure!(mean.to_bits() == expected.to_bits(), "value {i} of {count}: {mean:e}, not {expected:e}");
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        ranks.same("the mean", &format!("{:x}", Sha256::digest(&bytes)))?;
        all.update(bytes);
    }
    // What is not a number on one rank is not a number on all, and no sum overflows.
    let mut special = [f32::MAX, if ranks.rank() + 1 == ranks.size() { f32::NAN } else { 1.0 }, f32::INFINITY];
    ranks.mean(&mut special)?;
    ensure!(special[0] == f32::MAX && special[1].is_nan() && special[2] == f32::INFINITY, "{special:?}");
    if ranks.rank() == 0 {
        println!("digest of all means: {:x}", all.finalize());
    }
    Ok(())
}

fn exchange(ranks: &Ranks) -> Result<()> {
    let (rank, size) = (ranks.rank(), ranks.size());
    let mut values: Vec<f32> = (0..1001).map(|i| value(rank, i)).collect();
    ranks.broadcast(&mut values)?;
    let expected: Vec<f32> = (0..1001).map(|i| value(0, i)).collect();
    ensure!(values == expected, "a broadcast gave rank {rank} something else");

    // The same through tensors: what is not of the tensor stays.
    let tensor = Tensor::from_vec((0..100).map(|i| value(rank, i)).collect(), (10, 10), &Device::Cpu)?;
    ranks.broadcast_tensor(&tensor.narrow(0, 2, 3)?)?;
    let place = |i: usize| if (20..50).contains(&i) { 0 } else { rank };
    let expected: Vec<f32> = (0..100).map(|i| value(place(i), i)).collect();
    ensure!(tensor.flatten_all()?.to_vec1::<f32>()? == expected, "a broadcast of a tensor gave rank {rank} {tensor}");
    let tensor = Tensor::full(rank as f32, (2, 3), &Device::Cpu)?;
    ranks.mean_tensor(&tensor)?;
    let mean = (0..size).sum::<usize>() as f32 / size as f32;
    ensure!(tensor.to_vec2::<f32>()? == vec![vec![mean; 3]; 2], "the mean is {mean}, not {tensor}");
    for wrong in [tensor.t()?, tensor.to_dtype(DType::F64)?] {
        ensure!(ranks.mean_tensor(&wrong).is_err(), "no mean of {wrong:?} was asked for");
    }
    // All ranks of this test are on one machine.
    ensure!(ranks.local_rank()? == rank, "rank {rank} is here rank {}", ranks.local_rank()?);

    // Byte strings of different lengths, one of them empty.
    let own = "x".repeat(10 * rank);
    match ranks.gather(own.as_bytes())? {
        None => ensure!(rank > 0, "rank 0 got no bytes"),
        Some(all) => {
            let expected: Vec<_> = (0..size).map(|rank| "x".repeat(10 * rank).into_bytes()).collect();
            ensure!(rank == 0 && all == expected, "rank {rank} got {all:?}");
        }
    }

    // Rows: each rank's part of five, so that some rank has fewer, with nulls and every bit of a number.
    let rows = |part: std::ops::Range<usize>| -> Result<DataFrame> {
        let index: Vec<i64> = part.clone().map(|i| i as i64).collect();
        let exact: Vec<f64> = part.clone().map(|i| 0.1 + f64::from(value(7, i))).collect();
        let none: Vec<Option<f64>> = part.clone().map(|_| None).collect();
        let text: Vec<String> = part.map(|i| format!("row {i} \u{03b1}\n")).collect();
        Ok(df!("index" => index, "exact" => exact, "none" => none, "text" => text)?)
    };
    match record::gather(rows(ranks.part(5))?, ranks)? {
        None => ensure!(rank > 0, "rank 0 got no rows"),
        Some(all) => {
            ensure!(rank == 0, "rank {rank} got rows");
            ensure!(all.equals_missing(&rows(0..5)?), "{all:?}");
        }
    }
    ranks.barrier()
}

fn shard(ranks: &Ranks) -> Result<()> {
    // More ranks than rows, rows that do not divide, one axis and three, no element at all.
    for dims in [vec![1], vec![2], vec![7], vec![1, 5], vec![5, 3], vec![64, 33], vec![4, 2, 3], vec![0, 4], vec![4, 0]]
    {
        for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64, DType::U8, DType::U32, DType::I64] {
            let count: usize = dims.iter().product();
            let whole: Vec<f32> = (0..count).map(|i| (i % 251) as f32).collect();
            let whole = Tensor::from_vec(whole, dims.clone(), &Device::Cpu)?.to_dtype(dtype)?;
            let shard = Shard::new(&whole, ranks)?;
            let rows = ranks.part(dims[0]);
            ensure!(shard.part().dim(0)? == rows.len(), "{dims:?}: {:?}", shard.part());
            let text = |tensor: &Tensor| -> Result<String> {
                Ok(format!("{:?}", tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?))
            };
            let part = whole.narrow(0, rows.start, rows.len())?;
            ensure!(text(shard.part())? == text(&part)?, "{dims:?}: {:?}", shard.part());
            let gathered = shard.gather()?;
            ensure!(gathered.dims() == dims && gathered.dtype() == dtype, "{dims:?} {dtype:?}: {gathered:?}");
            ensure!(text(&gathered)? == text(&whole)?, "{dims:?} {dtype:?}: {gathered}");
            // The part's memory is the part's: what is left of the whole when it is dropped.
            let (storage, _) = shard.part().storage_and_layout();
            if let candle_core::Storage::Cpu(candle_core::CpuStorage::F32(values)) = &*storage {
                ensure!(values.len() == part.elem_count(), "{dims:?} keeps {} values", values.len());
            }
        }
    }
    // A transposed tensor is not contiguous.
    let whole = Tensor::arange(0f32, 15.0, &Device::Cpu)?.reshape((5, 3))?.t()?;
    ensure!(Shard::new(&whole, ranks)?.gather()?.to_vec2::<f32>()? == whole.to_vec2::<f32>()?, "transposed");
    Ok(())
}

fn other_spec(ranks: &Ranks) -> Result<()> {
    let seed = usize::from(ranks.rank() == 2);
    let spec = format!("{{\n  \"task\": \"micro\",\n  \"seed\": {seed},\n  \"steps\": {seed}\n}}\n");
    let weights = if ranks.rank() == 0 { "first\nsecond" } else { "first" };
    ranks.same("equal text", "equal text")?;
    for (what, text) in [("the spec", &spec[..]), ("the weights", weights)] {
        println!("{:#}\n", ranks.same(what, text).expect_err("the texts differ"));
    }
    // All ranks know, so all may go on.
    ranks.barrier()
}

fn out_of_step(ranks: &Ranks) -> Result<()> {
    let first = ranks.rank() == 0;
    let outcomes = [
        if first { ranks.mean(&mut [0.0; 5]) } else { ranks.barrier() },
        ranks.mean(&mut vec![0.0; if first { 5 } else { 6 }]),
        if first { ranks.broadcast(&mut [0.0; 2]) } else { ranks.mean(&mut [0.0; 2]) },
    ];
    for outcome in outcomes {
        println!("{:#}\n", outcome.expect_err("the ranks are out of step"));
    }
    Ok(())
}

/// Ten steps, of which rank 1 does three; the others wait for it in a mean.
fn in_step_3(ranks: &Ranks, early: &str) -> Result<()> {
    for step in 0..10 {
        if step == 3 && ranks.rank() == 1 {
            match early {
                "error" => Err(anyhow::anyhow!("the loss is not a number")).context("step 3")?,
                "panic" => panic!("a bug on rank 1"),
                // SAFETY: this process ends here.
                "killed" => unsafe {
                    libc::kill(libc::getpid(), libc::SIGKILL);
                },
                "exits" => std::process::exit(0),
                "leaves" => return Ok(()),
                other => bail!("no case {other:?}"),
            }
        }
        ranks.mean(&mut [step as f32; 100])?;
    }
    Ok(())
}

fn train(ranks: &Ranks, folder: &Path, killed_in: Option<usize>) -> Result<()> {
    training::train(ranks, 1, &RunFolder::new(folder.join("train")), killed_in)?;
    Ok(())
}
