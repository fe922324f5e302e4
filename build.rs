//! Digests the sources that decide the numbers of a run, so that a change of code never passes for
//! an old result: the digest is part of every run's name.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The rooms between a seed and a number.
const DECIDING: [&str; 17] = [
    "Cargo.lock",
    "src/experiment/text_world.rs",
    "src/method",
    "src/metrics",
    "src/mixture",
    "src/models",
    "src/nn",
    "src/ranks",
    "src/record/rows.rs",
    "src/reward",
    "src/rollout",
    "src/sandbox",
    "src/seed.rs",
    "src/simd",
    "src/target",
    "src/tasks",
    "src/train",
];

fn main() {
    let mut files = Vec::new();
    for root in DECIDING {
        println!("cargo::rerun-if-changed={root}");
        collect(Path::new(root), &mut files);
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.to_string_lossy().as_bytes());
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // Lines of comments alone decide nothing.
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            hash.update(line);
            hash.update("\n");
        }
    }
    let digest: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=QSTAR_ALGORITHM={digest}");
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_path_buf());
        return;
    }
    for entry in fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
        collect(&entry.expect("a readable folder").path(), files);
    }
}
