//! The kernels of `nn::cuda` without a GPU: their own source, compiled for the CPU with a header that plays the threads of a
//! block (`tests/cuda_kernel/cuda_on_the_cpu.h`), against the CPU's blocks and against definitions in f64. `tests/gpu.sh`
//! compares whole models on a GPU.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use qstar::nn::{self, Gelu, GradientSum, Heads, LayerNorm, Linear, RmsNorm, Rope, Traced, Weight};

/// Values as the kernels store them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F32,
    BF16,
}

const KINDS: [Kind; 2] = [Kind::F32, Kind::BF16];

impl Kind {
    fn dtype(self) -> DType {
        if self == Kind::F32 { DType::F32 } else { DType::BF16 }
    }

    /// How far a value may lie off, relative to the largest of its tensor: rounding of the sums, or of what is stored.
    fn tolerance(self) -> f64 {
        if self == Kind::F32 { 3e-6 } else { 4.5e-3 }
    }

    /// Numbers that this kind can store.
    fn stored(self, values: &[f32]) -> Vec<f32> {
        let stored = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap().to_dtype(self.dtype()).unwrap();
        stored.to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }
}

/// An argument of a kernel.
enum Arg<'a> {
    Values(&'a [f32]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    U32(&'a [u32]),
    Null,
    Int(usize),
    Long(usize),
    Float(f64),
}
use Arg::{F32, F64, Float, Int, Long, Null, U32, Values};

static PROGRAMS: LazyLock<Option<(tempfile::TempDir, [PathBuf; 2])>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_string());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: {compiler} is not there, and the kernels' source cannot be compiled for the CPU");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_kernel/run_the_blocks.cpp");
    let programs = [32, 16].map(|bits| {
        let program = folder.path().join(format!("blocks{bits}"));
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O1", "-ffp-contract=off", &format!("-DVALUE_BITS={bits}"), "-o"])
            .args([&program, &source])
            .output()
            .expect("the compiler starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    });
    Some((folder, programs))
});

/// Whether kernels can be run; if not, the reason is printed once.
fn can_run() -> bool {
    PROGRAMS.is_some()
}

/// Runs a kernel; what its tensors hold afterwards, in their order.
fn run(kind: Kind, name: &str, grid: [usize; 2], args: &[Arg]) -> Vec<Vec<f64>> {
    let (_, programs) = PROGRAMS.as_ref().expect("the caller asked");
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("launch"), folder.path().join("tensors"));
    let mut file = std::fs::File::create(&input).unwrap();
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(32, 0);
    for n in [grid[0], grid[1], args.len()] {
        bytes.extend((n as u32).to_le_bytes());
    }
    let mut tensors = Vec::new();
    for arg in args {
        let (number, payload, width) = match arg {
            Values(x) if kind == Kind::BF16 => {
                (0, x.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect(), 2)
            }
            Values(x) | F32(x) => (0, x.iter().flat_map(|x| x.to_le_bytes()).collect(), 4),
            F64(x) => (0, x.iter().flat_map(|x| x.to_le_bytes()).collect(), 8),
            U32(x) => (0, x.iter().flat_map(|x| x.to_le_bytes()).collect(), 1),
            Null => (1, Vec::new(), 0),
            Int(n) => (2, (*n as i32).to_le_bytes().to_vec(), 0),
            Long(n) => (3, (*n as i64).to_le_bytes().to_vec(), 0),
            Float(x) => (4, (*x as f32).to_le_bytes().to_vec(), 0),
        };
        if number == 0 {
            tensors.push((payload.len(), width));
        }
        bytes.extend((number as u32).to_le_bytes());
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(payload);
    }
    file.write_all(&bytes).unwrap();
    drop(file);
    let program = &programs[usize::from(kind == Kind::BF16)];
    let status = Command::new(program).args([&input, &output]).status().unwrap();
    assert!(status.success(), "{name}: {status}");
    let bytes = std::fs::read(output).unwrap();
    let mut rest = &bytes[..];
    let mut results = Vec::new();
    for (length, width) in tensors {
        let (own, behind) = rest.split_at(length);
        rest = behind;
        results.push(match width {
            2 => own
                .as_chunks()
                .0
                .iter()
                .map(|&x| f32::from_bits(u32::from(u16::from_le_bytes(x)) << 16).into())
                .collect(),
            4 => own.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x).into()).collect(),
            8 => own.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect(),
            _ => Vec::new(),
        });
    }
    results
}

/// Numbers of scale 1 that look like no pattern.
fn numbers(count: usize, phase: f32) -> Vec<f32> {
    (0..count).map(|i| (phase + 0.917 * i as f32).sin() + 0.3 * (phase * 3.0 + 0.0531 * i as f32).cos()).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

fn host(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(what: &str, found: &[f64], right: &[f64], tolerance: f64) {
    assert_eq!(found.len(), right.len(), "{what}");
    let scale = right.iter().fold(0f64, |m, x| m.max(x.abs()));
    assert!(scale > 0.0, "{what}: nothing to compare");
    for (i, (a, b)) in found.iter().zip(right).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}[{i}]: {a} instead of {b}, the largest is {scale}");
    }
}

/// A block of the CPU: its value and the gradients of x and of the weights under `grad`.
fn on_the_cpu(
    x: &Tensor,
    weights: &[&Tensor],
    grad: &Tensor,
    f: impl Fn(&Traced, &[Weight]) -> candle_core::Result<Traced> + Send + Sync + 'static,
) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let sums: Vec<GradientSum> = weights.iter().map(|_| GradientSum::default()).collect();
    let weights: Vec<Weight> =
        weights.iter().zip(&sums).map(|(&w, sum)| Weight::trained(w.clone(), sum.clone())).collect();
    let x = Var::from_tensor(x).unwrap();
    let y = nn::block(&x, false, move |x| f(x, &weights)).unwrap();
    let grads = (&y * grad).unwrap().sum_all().unwrap().backward().unwrap();
    let sums = sums.iter().map(|sum| host(&sum.take().unwrap())).collect();
    (host(&y), host(grads.get(&x).unwrap()), sums)
}

/// Gradients of weights by both stages of sums over rows.
fn column_sums(kind: Kind, x: Option<(&[f32], &[f32])>, grad: &[f32], width: usize) -> [Vec<f64>; 2] {
    let rows = grad.len() / width;
    let rows_in_part = 13;
    let parts = rows.div_ceil(rows_in_part);
    let room = vec![f32::NAN; parts * width];
    let (x, stats, by_normal) = x.map_or((Null, Null, Null), |(x, stats)| (Values(x), F32(stats), F32(&room)));
    let with_x = matches!(x, Values(_));
    let args = [x, Values(grad), stats, by_normal, F32(&room), Int(rows), Int(width), Int(rows_in_part)];
    let all = run(kind, "column_sums", [parts * width.div_ceil(32), 256], &args);
    let finish = |parts_of: &[f64]| {
        let sums: Vec<f32> = parts_of.iter().map(|&x| x as f32).collect();
        let room = vec![f32::NAN; width];
        let args = [F32(&sums), F32(&room), Int(parts), Int(width)];
        run(kind, "sum_parts", [width.div_ceil(128), 128], &args).pop().unwrap()
    };
    if with_x { [finish(&all[3]), finish(&all[4])] } else { [Vec::new(), finish(&all[1])] }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

#[test]
fn norms() {
    if !can_run() {
        return;
    }
    for kind in KINDS {
        for (rows, width, threads) in [(3, 8, 32), (70, 33, 64), (5, 768, 192), (2, 3000, 1024)] {
            for centred in [true, false] {
                let shift = if centred { 3.0 } else { 0.0 };
                let x: Vec<f32> = numbers(rows * width, 0.1).iter().map(|x| x + shift).collect();
                let [x, w, b, g] =
                    [x, numbers(width, 0.7), numbers(width, 1.9), numbers(rows * width, 2.3)].map(|x| kind.stored(&x));
                let eps = 1e-5;
                let bias = || if centred { Values(&b) } else { Null };
                let (room, room_stats) = (vec![f32::NAN; rows * width], vec![f32::NAN; 2 * rows]);
                let args = [Values(&x), Values(&w), bias(), Values(&room), F32(&room_stats), Int(width), Float(eps)];
                let mut forward = run(kind, "norm_forward", [rows, threads], &args);
                let stats = narrow(&forward.pop().unwrap());
                let y = forward.pop().unwrap();
                let args = [
                    Values(&x),
                    Values(&w),
                    Values(&g),
                    F32(&stats),
                    Values(&room),
                    Int(width),
                    Int(usize::from(centred)),
                ];
                let dx = run(kind, "norm_backward", [rows, threads], &args).pop().unwrap();
                let [dw, db] = column_sums(kind, Some((&x, &stats)), &g, width);
                let (xs, ws, bs) = (tensor(&x, &[rows, width]), tensor(&w, &[width]), tensor(&b, &[width]));
                let gs = tensor(&g, &[rows, width]);
                let what = format!("{kind:?}, {rows} rows of {width}, centred {centred}");
                let tolerance = kind.tolerance();
                let (right_y, right_dx, sums) = match centred {
                    true => on_the_cpu(&xs, &[&ws, &bs], &gs, move |x, w| {
                        LayerNorm::new(w[0].clone(), w[1].clone(), eps).forward(x)
                    }),
                    false => on_the_cpu(&xs, &[&ws], &gs, move |x, w| RmsNorm::new(w[0].clone(), eps).forward(x)),
                };
                close(&format!("y, {what}"), &y, &right_y, tolerance);
                close(&format!("dx, {what}"), &dx, &right_dx, tolerance);
                // Sums are in f32 for both kinds.
                close(&format!("dw, {what}"), &dw, &sums[0], 1e-5);
                if centred {
                    close(&format!("db, {what}"), &db, &sums[1], 3e-6);
                }
            }
        }
    }
}

#[test]
fn activations() {
    if !can_run() {
        return;
    }
    let (rows, width) = (29, 77);
    for kind in KINDS {
        let wide: Vec<f32> = numbers(rows * width, 0.4).iter().map(|x| 4.0 * x).collect();
        let [x, b, g, up] = [wide, numbers(width, 0.9), numbers(rows * width, 1.3), numbers(rows * width, 2.2)]
            .map(|x| kind.stored(&x));
        let room = vec![f32::NAN; rows * width];
        let [xs, gs, ups] = [&x, &g, &up].map(|x| tensor(x, &[rows, width]));
        let bs = tensor(&b, &[width]);
        for gelu in [Gelu::Tanh, Gelu::Erf] {
            let form = || Int(usize::from(gelu == Gelu::Erf));
            let args = [Values(&x), Values(&b), Values(&room), Int(width), form()];
            let y = run(kind, "bias_gelu", [rows, 32], &args).pop().unwrap();
            let args = [Values(&x), Values(&b), Values(&g), Values(&room), Int(width), form()];
            let dx = run(kind, "bias_gelu_backward", [rows, 32], &args).pop().unwrap();
            let [_, db] = column_sums(kind, None, &narrow(&dx), width);
            let (right_y, right_dx, sums) = on_the_cpu(&xs, &[&bs], &gs, move |x, w| nn::bias_gelu(x, &w[0], gelu));
            close("gelu", &y, &right_y, kind.tolerance());
            close("its slope", &dx, &right_dx, kind.tolerance());
            // Of gradients that were rounded one by one.
            close("its bias", &db, &sums[0], kind.tolerance());
        }
        let args = [Values(&x), Values(&up), Values(&room), Int(width)];
        let y = run(kind, "swiglu", [rows, 64], &args).pop().unwrap();
        let args = [Values(&x), Values(&up), Values(&g), Values(&room), Values(&room), Int(width)];
        let [.., dgate, dup] = &run(kind, "swiglu_backward", [rows, 64], &args)[..] else { panic!("five tensors") };
        let up = Traced::constant(ups.clone());
        let (right_y, right_dgate, _) = on_the_cpu(&xs, &[], &gs, move |x, _| nn::swiglu(x, &up));
        let gate = Traced::constant(xs.clone());
        let (_, right_dup, _) = on_the_cpu(&ups, &[], &gs, move |x, _| nn::swiglu(&gate, x));
        close("swiglu", &y, &right_y, kind.tolerance());
        close("dgate", dgate, &right_dgate, kind.tolerance());
        close("dup", dup, &right_dup, kind.tolerance());
    }
}

#[test]
fn rotary_positions_and_their_way_back() {
    if !can_run() {
        return;
    }
    let (starts, time, positions) = ([0usize, 5], 7, 16);
    for kind in KINDS {
        for (heads, turned) in [
            (Heads { query: 4, kv: 2, dim: 8, interleaved: false }, 8),
            (Heads { query: 3, kv: 3, dim: 8, interleaved: true }, 4),
        ] {
            let frequencies = Rope::frequencies(turned, 100.0);
            let pairs = frequencies.len();
            let angles = |f: fn(f64) -> f64| {
                let frequencies = &frequencies;
                (0..positions).flat_map(move |p| frequencies.iter().map(move |w| f(p as f64 * w) as f32))
            };
            let table: Vec<f32> = angles(f64::cos).chain(angles(f64::sin)).collect();
            let rope = Rope::new(&frequencies, positions);
            let count = 2 * time * heads.packed();
            let (x, g) = (kind.stored(&numbers(count, 0.2)), kind.stored(&numbers(count, 1.2)));
            let turn = |x: &[f32], sign: f64| {
                let room = vec![f32::NAN; count];
                let args = [
                    Values(x),
                    Values(&room),
                    F32(&table),
                    U32(&starts.map(|n| n as u32)),
                    Int(positions),
                    Int(pairs),
                    Int(time),
                    Int(heads.query),
                    Int(heads.kv),
                    Int(heads.dim),
                    Int(usize::from(heads.interleaved)),
                    Float(sign),
                ];
                run(kind, "rope", [2 * time, 32], &args)[1].clone()
            };
            let shape = [2, time, heads.packed()];
            let (right, right_dx, _) = on_the_cpu(&tensor(&x, &shape), &[], &tensor(&g, &shape), move |x, _| {
                nn::rope(x, heads, &starts, &rope)
            });
            close("rope", &turn(&x, 1.0), &right, kind.tolerance());
            close("its way back", &turn(&g, -1.0), &right_dx, kind.tolerance());
        }
    }
}

/// Hidden states that are the logits themselves, under a head that is the identity.
#[test]
fn log_probs_entropies_and_their_gradient() {
    if !can_run() {
        return;
    }
    let (rows, width) = (6, 300);
    for kind in KINDS {
        let scaled = |phase: f32, scale: f32| -> Vec<f32> {
            kind.stored(&numbers(rows * width, phase).iter().map(|x| scale * x).collect::<Vec<_>>())
        };
        let (logits, other) = (scaled(0.3, 5.0), scaled(0.8, 3.0));
        let ids: Vec<u32> = (0..rows as u32).map(|i| i * 59 % width as u32).collect();
        let grad = numbers(2 * rows, 1.7);
        let room = vec![f32::NAN; 3 * rows];
        let args = [Values(&logits), U32(&ids), F32(&room), Int(rows), Int(width)];
        let measured = run(kind, "measure_logits", [rows, 96], &args).pop().unwrap();
        let args = [Values(&logits), U32(&ids), F32(&narrow(&measured)), F32(&grad), Int(rows), Int(width)];
        let dlogits = run(kind, "logits_gradient", [rows, 96], &args).swap_remove(0);

        let identity: Vec<f32> = (0..width * width).map(|i| f32::from(u8::from(i / width == i % width))).collect();
        let head = Linear::new(Weight::frozen(tensor(&identity, &[width, width])), None);
        let hidden = Var::from_tensor(&tensor(&logits, &[rows, width])).unwrap();
        let said = nn::token_log_probs(&hidden, &head, &ids, false).unwrap();
        let both = Tensor::stack(&[&said.log_probs, &said.entropies], 0).unwrap();
        let loss = (&both * tensor(&grad, &[2, rows])).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        close("log p", &measured[..rows], &host(&said.log_probs), 3e-6);
        close("entropy", &measured[rows..2 * rows], &host(&said.entropies), 1e-5);
        close("gradient", &dlogits, &host(grads.get(&hidden).unwrap()), kind.tolerance().max(1e-5));

        let args = [Values(&logits), Null, F32(&room), Int(rows), Int(width)];
        let without = run(kind, "measure_logits", [rows, 32], &args).pop().unwrap();
        close("entropy without ids", &without[rows..2 * rows], &measured[rows..2 * rows], 1e-6);
        let args = [Values(&logits), Values(&other), F32(&room[..rows]), Int(width)];
        let kl = run(kind, "kl_of_logits", [rows, 64], &args).pop().unwrap();
        let right = nn::kl_to(&tensor(&logits, &[rows, width]), &tensor(&other, &[rows, width])).unwrap();
        close("kl", &kl, &right, 1e-5);
    }
}

/// What is masked has no share and no gradient; a NaN is not lost.
#[test]
fn logits_of_minus_infinity_and_nan() {
    if !can_run() {
        return;
    }
    let logits = [0.0, f32::NEG_INFINITY, 1.0, 0.5, f32::NAN, 0.0];
    let room = [f32::NAN; 6];
    for kind in KINDS {
        let args = [Values(&logits), U32(&[2, 0]), F32(&room), Int(2), Int(3)];
        let measured = run(kind, "measure_logits", [2, 32], &args).pop().unwrap();
        let z = (1.0 + 1f64.exp()).ln();
        assert!((measured[0] - (1.0 - z)).abs() < 1e-6 && (measured[4] - z).abs() < 1e-6);
        assert!([1, 3, 5].iter().all(|&i: &usize| measured[i].is_nan()), "{measured:?}");
        let args = [Values(&logits), U32(&[2, 0]), F32(&narrow(&measured)), F32(&[1.0, 1.0, 1.0, 1.0]), Int(2), Int(3)];
        let dlogits = run(kind, "logits_gradient", [2, 32], &args).swap_remove(0);
        assert!(dlogits[1] == 0.0 && dlogits[..3].iter().all(|x| x.is_finite()));
        assert!(dlogits[3..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn softmax_of_attention() {
    if !can_run() {
        return;
    }
    // Two rows of the batch, two heads of five queries, seven positions.
    let (batch, rows, time, width, scale) = (2, 10, 5, 7, 0.37);
    for kind in KINDS {
        for (seen, step) in [([1u32, 1], 1), ([3, 2], 1), ([7, 2], 0)] {
            let scores = kind.stored(&numbers(batch * rows * width, 0.6).iter().map(|x| 9.0 * x).collect::<Vec<_>>());
            let args = [Values(&scores), U32(&seen), Int(step), Int(rows), Int(time), Int(width), Float(scale)];
            let p = run(kind, "masked_softmax", [batch * rows, 32], &args).swap_remove(0);
            let mut right = Vec::new();
            for (r, row) in scores.chunks(width).enumerate() {
                let n = (seen[r / rows] as usize + step * (r % time)).min(width);
                let e: Vec<f64> = row[..n].iter().map(|&x| (f64::from(x) * scale).exp()).collect();
                right.extend(e.iter().map(|x| x / e.iter().sum::<f64>()).chain(std::iter::repeat_n(0.0, width - n)));
            }
            close("probabilities", &p, &right, kind.tolerance());
            assert!(p.iter().zip(&right).all(|(p, right)| *right > 0.0 || *p == 0.0), "what is not seen is zero");

            let (p, dp) = (narrow(&p), kind.stored(&numbers(p.len(), 1.5)));
            let args = [Values(&p), Values(&dp), Int(width), Float(scale)];
            let ds = run(kind, "softmax_backward", [batch * rows, 32], &args).swap_remove(1);
            let rows_of = p.chunks(width).zip(dp.chunks(width));
            let right: Vec<f64> = rows_of
                .flat_map(|(p, dp)| {
                    let products = p.iter().zip(dp).map(|(&p, &dp)| f64::from(p) * f64::from(dp));
                    let mean: f64 = products.sum();
                    p.iter().zip(dp).map(move |(&p, &dp)| f64::from(p) * (f64::from(dp) - mean) * scale)
                })
                .collect();
            close("gradient of the scores", &ds, &right, kind.tolerance());
        }
    }
}

/// Rows 0 to 6 belong to tokens 3, 1, 3, 3, 0, 1, 3; a block sums at most two of them.
#[test]
fn gradients_of_tables() {
    if !can_run() {
        return;
    }
    let (ids, width) = ([3usize, 1, 3, 3, 0, 1, 3], 70);
    let (order, pieces) = ([4u32, 1, 5, 0, 2, 3, 6], [0u32, 1, 3, 5, 7]);
    let (targets, starts) = ([0u32, 1, 3], [0u32, 1, 2, 4]);
    for kind in KINDS {
        let rows = kind.stored(&numbers(ids.len() * width, 0.5));
        let room = vec![f32::NAN; 4 * width];
        let args = [Values(&rows), U32(&order), U32(&pieces), F32(&room), Int(width)];
        let parts = narrow(&run(kind, "sum_rows", [4, 32], &args)[3]);
        let held = numbers(4 * width, 2.0);
        let args = [F32(&parts), U32(&starts), U32(&targets), F32(&held), Int(width)];
        let table = run(kind, "add_sums", [3, 32], &args).pop().unwrap();
        let mut right: Vec<f64> = held.iter().map(|&x| f64::from(x)).collect();
        for (row, &id) in rows.chunks(width).zip(&ids) {
            right[id * width..][..width].iter_mut().zip(row).for_each(|(to, &x)| *to += f64::from(x));
        }
        close("table", &table, &right, 3e-7);
        assert_eq!(narrow(&table[2 * width..3 * width]), held[2 * width..3 * width], "token 2 did not come");
    }
}

#[test]
fn new_tokens_are_stored_behind_the_old_ones() {
    if !can_run() {
        return;
    }
    let (time, capacity, starts) = (2, 6, [0u32, 3]);
    for (kind, interleaved) in [(Kind::F32, false), (Kind::BF16, true)] {
        let (query, kv, dim) = (if interleaved { 2 } else { 4 }, 2, 3);
        let width = (query + 2 * kv) * dim;
        let x = kind.stored(&numbers(2 * time * width, 0.1));
        let room = vec![0.0; 2 * kv * capacity * dim];
        let args = [
            Values(&x),
            U32(&starts),
            Values(&room),
            Values(&room),
            Int(time),
            Int(capacity),
            Int(query),
            Int(kv),
            Int(dim),
            Int(usize::from(interleaved)),
        ];
        let found = run(kind, "store_keys_and_values", [2 * time, 32], &args);
        for (value, found) in found[2..].iter().enumerate() {
            let mut right = vec![0.0; room.len()];
            for (token, row) in x.chunks(width).enumerate() {
                let (b, t) = (token / time, token % time);
                for h in 0..kv {
                    let from = if interleaved { (3 * h + 1 + value) * dim } else { (query + value * kv + h) * dim };
                    let to = ((b * kv + h) * capacity + starts[b] as usize + t) * dim;
                    (0..dim).for_each(|i| right[to + i] = f64::from(row[from + i]));
                }
            }
            assert_eq!(found, &right, "interleaved {interleaved}");
        }
    }
}

/// Three steps by the definition, in f64.
#[test]
fn adamw_and_the_gradients_norm() {
    if !can_run() {
        return;
    }
    let count = 1000;
    let (beta1, beta2, eps, decay, scale) = (0.9, 0.999, 1e-8, 0.999, 0.5);
    for kind in KINDS {
        let (mut w, mut m, mut v) = (numbers(count, 0.1), vec![0.0; count], vec![0.0; count]);
        let (mut right, mut right_m, mut right_v) =
            (w.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), vec![0f64; count], vec![0f64; count]);
        for step in 1..=3 {
            let grad = numbers(count, step as f32);
            let (rate, correction2) = (0.01 / (1.0 - 0.9f64.powi(step)), 1.0 / (1.0 - 0.999f64.powi(step)).sqrt());
            let room = vec![f32::NAN; count];
            let rounded = || if kind == Kind::BF16 { Values(&room) } else { Null };
            let mut args = vec![F32(&w), rounded(), F32(&grad), F32(&m), F32(&v), Long(count)];
            args.extend([beta1, beta2, eps, decay, rate, correction2, scale].map(Float));
            let mut all = run(kind, "adamw", [count.div_ceil(256), 256], &args);
            let new_v = narrow(&all.pop().unwrap());
            let new_m = narrow(&all.pop().unwrap());
            (w, m, v) = (narrow(&all[0]), new_m, new_v);
            if kind == Kind::BF16 {
                assert_eq!(narrow(&all[1]), kind.stored(&w), "the variable is the master, rounded");
            }
            for i in 0..count {
                let g = scale * f64::from(grad[i]);
                right_m[i] = beta1 * right_m[i] + (1.0 - beta1) * g;
                right_v[i] = beta2 * right_v[i] + (1.0 - beta2) * g * g;
                right[i] = decay * right[i] - rate * right_m[i] / (right_v[i].sqrt() * correction2 + eps);
            }
        }
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        close("weights", &wide(&w), &right, 1e-6);
        close("first moments", &wide(&m), &right_m, 1e-6);
        // 1 − β2 in f32 has five digits.
        close("second moments", &wide(&v), &right_v, 3e-5);
    }
    let (a, b) = (numbers(count, 0.2), numbers(count, 0.4));
    let sum = run(Kind::F32, "add_in_place", [4, 256], &[F32(&a), F32(&b), Long(count)]).swap_remove(0);
    assert_eq!(narrow(&sum), a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>());
    let room = [f64::NAN; 5];
    let args = [F32(&a), F64(&room), Long(count), Int(300), Int(1)];
    let parts = run(Kind::F32, "squared_norms", [4, 256], &args).pop().unwrap();
    assert!(parts[0].is_nan(), "another tensor's");
    let right = a.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    assert!((parts[1..].iter().sum::<f64>() - right).abs() < 1e-12 * right);
}

/// To the nearest, ties to even, as candle and PyTorch round; by an update that changes nothing.
#[test]
fn rounding_to_bf16() {
    if !can_run() {
        return;
    }
    let halfway =
        [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0xbf81_7fff, 0x7f7f_ffff, 0x0000_8000, 0x7f80_0000, 0xff80_0000];
    let mut w = halfway.map(f32::from_bits).to_vec();
    w.push(f32::from_bits(0x7f80_0001));
    let (count, zeros) = (w.len(), vec![0.0; w.len()]);
    let mut args = vec![F32(&w), Values(&zeros), F32(&zeros), F32(&zeros), F32(&zeros), Long(count)];
    args.extend([0.9, 0.999, 1e-8, 1.0, 0.0, 1.0, 1.0].map(Float));
    let found = run(Kind::BF16, "adamw", [1, 32], &args).swap_remove(1);
    assert_eq!(narrow(&found[..count - 1]), Kind::BF16.stored(&w[..count - 1]));
    assert!(found[count - 1].is_nan());
}

/// For both types of values, for GPUs of compute capability 8.0 and 9.0.
#[cfg(feature = "cuda")]
#[test]
fn nvrtc_compiles_the_kernels() {
    for dtype in [DType::F32, DType::BF16] {
        for capability in [(8, 0), (9, 0)] {
            let ptx = nn::cuda::compile(dtype, capability).unwrap();
            assert!(ptx.contains(&format!(".target sm_{}{}", capability.0, capability.1)));
            assert_eq!(ptx.matches(".entry ").count(), 20);
            assert!(!ptx.contains("atom."), "sums have one order");
        }
    }
    assert!(nn::cuda::compile(DType::F64, (9, 0)).is_err());
}
