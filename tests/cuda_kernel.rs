//! The CUDA kernel without a GPU: its own source, compiled for the CPU with a header that plays the threads of a block
//! (`tests/cuda_kernel/cuda_on_the_cpu.h`), against the solver on the CPU. `tests/gpu.sh` does the same on a GPU.

#[path = "cuda_kernel/errors.rs"]
mod errors;
#[path = "cuda_kernel/pairs.rs"]
mod pairs;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use errors::Errors;
use qstar::mixture::{Rule, Solution, Solver, Start, Status, solve_rows};

/// Numbers of a solution as the kernel writes them.
const FIELDS: usize = 14;

/// Of the kernel's statuses: the row is left to the CPU.
const FOR_THE_CPU: f64 = 5.0;

/// Type of the logits, blocks a row, whether the row is cached.
type Variant = (DType, u32, bool);

/// What `run_the_kernel.cpp` compiles.
const VARIANTS: [Variant; 5] = [
    (DType::F32, 1, true),
    (DType::F32, 1, false),
    (DType::F32, 4, true),
    (DType::F16, 4, false),
    (DType::BF16, 1, true),
];

struct Task {
    kind: &'static str,
    variant: Variant,
    threads: u32,
    rows: usize,
    vocabulary: usize,
    rule: Rule,
    /// Elements by which the rows lie off whole addresses.
    offset: u32,
    seed: u64,
}

impl Task {
    /// Logits as the variant stores them, and what they are in f32.
    fn logits(&self) -> [(Vec<u8>, Vec<f32>); 2] {
        let (p, t) = match self.kind {
            kind if pairs::KINDS.contains(&kind) => pairs::pairs(kind, self.rows, self.vocabulary, self.seed),
            bad => no_pair(bad, self.vocabulary, self.seed),
        };
        [p, t].map(|values| {
            let n = values.len();
            let stored = Tensor::from_vec(values, n, &Device::Cpu).unwrap().to_dtype(self.variant.0).unwrap();
            let mut bytes = Vec::new();
            stored.write_bytes(&mut bytes).unwrap();
            (bytes, stored.to_dtype(DType::F32).unwrap().to_vec1().unwrap())
        })
    }

    fn header(&self) -> Vec<u8> {
        let (dtype, cluster, cached) = self.variant;
        let element = match dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            _ => 2,
        };
        let (rule, rounds, alpha) = match self.rule {
            Rule::Fixed(alpha) => (0, 0, alpha),
            Rule::Entropy => (1, 0, 0.0),
            Rule::KlSymmetry(Solver::Bisection(rounds)) => (5, rounds, 0.0),
            Rule::KlSymmetry(Solver::Hermite(start) | Solver::Newton(start)) => match start {
                Start::Entropy => (3, 0, 0.0),
                Start::At(alpha) => (4, 0, alpha),
                _ => (2, 0, 0.0),
            },
            Rule::EssBalance => (6, 0, 0.0),
            Rule::SnrMax => panic!("the kernel has no such rule"),
        };
        let (rows, vocabulary) = (self.rows as u32, self.vocabulary as u32);
        let numbers =
            [element, cluster, u32::from(cached), self.threads, rows, vocabulary, rule, rounds, self.offset, 0];
        numbers.iter().flat_map(|n| n.to_le_bytes()).chain(alpha.to_le_bytes()).collect()
    }
}

/// Two rows, the second of which is no pair.
fn no_pair(kind: &str, vocabulary: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let (mut p, mut t) = pairs::pairs("gaussian", 2, vocabulary, seed);
    let (second_p, second_t) = (&mut p[vocabulary..], &mut t[vocabulary..]);
    let half = vocabulary / 2;
    match kind {
        "nan" => second_p[half] = f32::NAN,
        "infinite" => second_t[vocabulary - 1] = f32::INFINITY,
        "without_mass" => second_t.fill(f32::NEG_INFINITY),
        "disjoint" | "masks_apart" => {
            let mask = if kind == "disjoint" { f32::NEG_INFINITY } else { f32::MIN };
            second_p[..half].fill(mask);
            second_t[half..].fill(mask);
        }
        other => panic!("no rows of kind {other}"),
    }
    (p, t)
}

fn tasks() -> Vec<Task> {
    let rules = [
        Rule::EssBalance,
        Rule::KlSymmetry(Solver::Newton(Start::Entropy)),
        Rule::KlSymmetry(Solver::Hermite(Start::At(0.3))),
        Rule::KlSymmetry(Solver::Bisection(20)),
        Rule::Entropy,
        Rule::Fixed(0.3),
        Rule::Fixed(1.0),
    ];
    let sizes = [2, 3, 7, 50, 301, 1_000, 2_049, 4_099];
    let mut tasks = Vec::new();
    for (k, kind) in pairs::KINDS.into_iter().enumerate() {
        for (s, vocabulary) in sizes.into_iter().enumerate() {
            for (r, rule) in [Rule::Q_STAR, rules[(k + s) % rules.len()], Rule::EssBalance].into_iter().enumerate() {
                let n = tasks.len();
                tasks.push(Task {
                    kind,
                    variant: VARIANTS[(n + n / 4) % VARIANTS.len()],
                    threads: [64, 96, 32][n % 3],
                    rows: if r == 0 { 3 } else { 1 },
                    vocabulary,
                    rule,
                    offset: (n % 5) as u32 % 4,
                    seed: n as u64,
                });
            }
        }
        // As long as the rows of language models.
        for (vocabulary, variant) in [(50_257, VARIANTS[k % 3]), (60_000 - 7 * k, VARIANTS[(k + 1) % VARIANTS.len()])] {
            let (threads, rule, seed) = (64, Rule::Q_STAR, 1_000_000 + k as u64);
            tasks.push(Task { kind, variant, threads, rows: 1, vocabulary, rule, offset: 0, seed });
        }
    }
    tasks
}

fn solution(fields: &[f64; FIELDS]) -> Solution {
    let status = match fields[1] as u32 {
        0 => Status::Ok,
        1 => Status::Same,
        2 => Status::NoRoot,
        3 => Status::Flat,
        _ => Status::NotConverged,
    };
    let &[alpha, _, iterations, k, k1, k2, kl_p, kl_t, log_ess_p, log_ess_t, entropy_p, entropy_t, entropy_q, tv] =
        fields;
    Solution {
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
    }
}

/// The kernel's source as a program for the CPU; `None` where no compiler is there.
fn compile(folder: &Path) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_string());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: {compiler} is not there, and the kernel's source cannot be compiled for the CPU");
        return None;
    }
    let program = folder.join("kernel");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda_kernel/run_the_kernel.cpp");
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-ffp-contract=off", "-o"])
        .arg(&program)
        .arg(source)
        .output()
        .expect("the compiler starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// Where it is not there the reason is printed once.
static PROGRAM: LazyLock<Option<(tempfile::TempDir, PathBuf)>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(folder.path())?;
    Some((folder, program))
});

/// What the kernel makes of the tasks, row by row.
fn run(tasks: &[Task]) -> Option<Vec<[f64; FIELDS]>> {
    let (_, program) = PROGRAM.as_ref()?;
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("tasks"), folder.path().join("solutions"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&input).unwrap());
    for task in tasks {
        let [(p, _), (t, _)] = task.logits();
        file.write_all(&[task.header(), p, t].concat()).unwrap();
    }
    file.into_inner().unwrap();
    let status = Command::new(program).args([&input, &output]).status().unwrap();
    assert!(status.success(), "{status}");
    let bytes = std::fs::read(output).unwrap();
    let numbers: Vec<f64> = bytes.chunks_exact(8).map(|x| f64::from_le_bytes(x.try_into().unwrap())).collect();
    Some(numbers.chunks_exact(FIELDS).map(|fields| fields.try_into().unwrap()).collect())
}

#[test]
fn the_kernel_agrees_with_the_cpu() {
    let tasks = tasks();
    let Some(solved) = run(&tasks) else { return };
    let mut rows = solved.iter();
    let mut by_kind: BTreeMap<&str, Errors> = BTreeMap::new();
    let mut beyond = Vec::new();
    for task in &tasks {
        let [(_, p), (_, t)] = task.logits();
        for right in solve_rows(&p, &t, task.vocabulary, &task.rule).unwrap() {
            let fields = rows.next().expect("a solution for every row");
            assert_ne!(fields[1], FOR_THE_CPU, "{}, {} outcomes: left to the CPU", task.kind, task.vocabulary);
            let found = solution(fields);
            let errors = Errors::of(&found, &right);
            for (name, error) in errors.beyond() {
                beyond.push(format!(
                    "{name} off by {error:.1e}: {}, {:?}, {} outcomes, {:?}, {} threads\n  {found:?}\n  {right:?}",
                    task.kind, task.rule, task.vocabulary, task.variant, task.threads
                ));
            }
            by_kind.entry(task.kind).or_default().worst(errors.clone());
            by_kind.entry("all").or_default().worst(errors);
        }
    }
    println!("{} rows, worst errors:", solved.len());
    for (kind, errors) in &by_kind {
        let errors: Vec<String> = errors.0.iter().map(|(name, error)| format!("{name} {error:.1e}")).collect();
        println!("{kind}: {}", errors.join(", "));
    }
    assert!(beyond.is_empty(), "{} beyond their tolerance:\n{}", beyond.len(), beyond.join("\n"));
}

#[test]
fn rows_that_are_no_pairs_are_left_to_the_cpu() {
    let kinds = ["nan", "infinite", "without_mass", "disjoint", "masks_apart"];
    let tasks: Vec<Task> = kinds
        .into_iter()
        .flat_map(|kind| VARIANTS[..3].iter().map(move |&variant| (kind, variant)))
        .map(|(kind, variant)| Task {
            kind,
            variant,
            threads: 32,
            rows: 2,
            vocabulary: 100,
            rule: Rule::Q_STAR,
            offset: 0,
            seed: 1,
        })
        .collect();
    let Some(solved) = run(&tasks) else { return };
    for (task, rows) in tasks.iter().zip(solved.chunks(2)) {
        let [(_, p), (_, t)] = task.logits();
        let error = solve_rows(&p, &t, task.vocabulary, &task.rule).unwrap_err();
        assert!(format!("{error:#}").starts_with("row 1"), "{error:#}");
        // The row beside it is solved.
        let statuses = [rows[0][1], rows[1][1]];
        assert_eq!(statuses, [0.0, FOR_THE_CPU], "{} {:?}", task.kind, task.variant);
    }
}

/// Every variant, for GPUs without and with clusters of blocks.
#[cfg(feature = "cuda")]
#[test]
fn nvrtc_compiles_the_kernel() {
    use qstar::mixture::cuda::Launch;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (capability, cluster) in [((8, 0), 1), ((9, 0), 1), ((9, 0), 4), ((9, 0), 8)] {
            for cached in [false, true] {
                let launch = Launch { cluster, threads: 512, cached };
                let ptx = launch.compile(dtype, capability).unwrap();
                assert!(ptx.contains(&format!(".target sm_{}{}", capability.0, capability.1)), "{launch:?}");
                assert!(ptx.contains(".entry solve_rows") && ptx.contains("mapa.shared::cluster") == (cluster > 1));
            }
        }
    }
    assert!(Launch { cluster: 1, threads: 512, cached: true }.compile(DType::F64, (9, 0)).is_err());
}
