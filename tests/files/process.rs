//! Tests that need a process of their own: for its environment, for its memory, or to be killed.

use std::process::{Command, Stdio};

use candle_core::{DType, Device};

use super::*;

/// This test binary, to run one ignored test.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The largest resident memory of this process so far, in bytes; none where the system does not say.
fn peak_memory() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

const MIB: usize = 1 << 20;

#[test]
#[ignore = "a process of its own, started by the test below"]
fn child_reads_and_says_its_peak() {
    let Ok(path) = std::env::var("QSTAR_TEST_FOLDER") else { return };
    let files = open(Path::new(&path)).unwrap();
    let before = peak_memory().unwrap();
    let tensors = files.read_all(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(tensors.len(), 8);
    println!("\npeak {}", peak_memory().unwrap() - before);
}

#[test]
fn reading_takes_the_models_memory_and_one_tensors() {
    if peak_memory().is_none() {
        println!("skipped: the system does not tell a process's peak memory");
        return;
    }
    // Eight tensors of 16 MiB in f32.
    for (dtype, width) in [("F32", 4), ("BF16", 2)] {
        let path = tempfile::tempdir().unwrap();
        let data = vec![1u8; 4 * MIB * width];
        let names: Vec<_> = (0..8).map(|i| i.to_string()).collect();
        let entries: Vec<_> =
            names.iter().map(|name| (name.as_str(), dtype, [4 * MIB].to_vec(), data.as_slice())).collect();
        let entries: Vec<_> = entries.iter().map(|(n, d, s, b)| (*n, *d, s.as_slice(), *b)).collect();
        write(&path.path().join("model.safetensors"), safetensors(&entries));
        let mut command = child("process::child_reads_and_says_its_peak");
        let output = command.env("QSTAR_TEST_FOLDER", path.path()).stdout(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let peak = text.lines().find_map(|line| line.strip_prefix("peak ")).expect("the child's peak");
        let peak = peak.parse::<usize>().unwrap() as f64 / MIB as f64;
        println!("{dtype}: {peak:.1} MiB more for a model of 128 MiB of tensors of 16 MiB");
        assert!((128.0..128.0 + 16.0 + 2.0).contains(&peak), "{peak} MiB");
    }
}
