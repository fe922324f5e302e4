//! Sets up the kernel. Each step looks at what is there and does only what is missing, so that the set-up can be
//! interrupted and started again, and is quick when there is nothing to do.

use super::child;
use super::kernel::{Kernel, Libraries, write_if_changed};
use super::project::Project;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const EVCXR: &str = "0.22.0";
/// Crates that `cargo install evcxr_jupyter` compiles, for the time left.
const EVCXR_CRATES: u64 = 273;
/// Packages that pip gets for notebooks/requirements.txt, for the time left.
const PIP_PACKAGES: u64 = 95;
const OLDEST_PYTHON: (u32, u32) = (3, 10);
/// How long a library that open kernels may still use is kept after a newer one took its place.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes the kernel ready: evcxr, the Python environment, the library as cells load it, the kernel's files.
///
/// The first time takes minutes and needs the network; after that about a second, without a network.
///
/// # Errors
/// When a tool is missing or fails: the error says which, and what to do.
pub fn setup(project: &Project) -> Result<Kernel> {
    let _lock = lock(project)?;
    rust_sources(project)?;
    evcxr(project)?;
    python(project)?;
    let built = build(project)?;
    let dylib = keep_copy(project, &built.dylib)?;
    let rust = PathBuf::from(ask("rustc", &["--print", "target-libdir"])?);
    let libraries = Libraries { dylib: &dylib, deps: &built.deps, rust: &rust };
    Kernel::write(project, &libraries)
}

/// One set-up at a time in a checkout.
fn lock(project: &Project) -> Result<File> {
    let path = project.made("lock");
    let folder = project.made("");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let file = File::create(&path).with_context(|| format!("{}: no lock", path.display()))?;
    // SAFETY: the descriptor is open for as long as `file` lives.
    let take = |how| unsafe { libc::flock(file.as_raw_fd(), how) } == 0;
    if !take(libc::LOCK_EX | libc::LOCK_NB) {
        println!("waiting for another set-up in this checkout");
        if !take(libc::LOCK_EX) {
            bail!("{}: {}", path.display(), std::io::Error::last_os_error());
        }
    }
    Ok(file)
}

/// rust-analyzer reads the sources of std, to know the types in a cell.
fn rust_sources(project: &Project) -> Result<()> {
    let sysroot = PathBuf::from(ask("rustc", &["--print", "sysroot"])?);
    let sources = sysroot.join("lib/rustlib/src/rust/library");
    if sources.is_dir() {
        return Ok(());
    }
    let progress = Progress::new("Getting the sources of Rust's standard library", 0);
    let mut rustup = child::command("rustup");
    rustup.args(["component", "add", "rust-src"]);
    let log = log(project, "rust-src")?;
    match child::run("Getting rust-src", &mut rustup, &log, &progress, |_, _| {}) {
        Ok(_) => progress.finish(),
        Err(error) => eprintln!(
            "warning: {error:#}\n\
             Without the component rust-src ({} is missing) the kernel works, but a `let` of a standard type needs \
             its type written out, and completion is poor. To mend it: `rustup component add rust-src`, or your \
             system's package of the Rust sources.",
            sources.display()
        ),
    }
    Ok(())
}

fn evcxr(project: &Project) -> Result<()> {
    let stamp = Stamp::new(project, "evcxr", format!("evcxr_jupyter {EVCXR}\n"));
    if stamp.is_set() && project.kernel_binary().is_file() {
        return Ok(());
    }
    let build = project.root().join("target/evcxr_jupyter");
    let progress = Progress::new("Building the Rust kernel", EVCXR_CRATES);
    let mut cargo = cargo();
    cargo
        .args(["install", "evcxr_jupyter", "--locked", "--version"])
        .arg(format!("={EVCXR}"))
        .arg("--root")
        .arg(project.made("evcxr"))
        .arg("--target-dir")
        .arg(&build)
        .current_dir(project.root());
    let log = log(project, "evcxr")?;
    child::run("Building the Rust kernel", &mut cargo, &log, &progress, compiled)?;
    progress.finish();
    stamp.set()?;
    // Hundreds of megabytes that nothing reads again.
    let _ = std::fs::remove_dir_all(&build);
    Ok(())
}

fn python(project: &Project) -> Result<()> {
    let requirements = project.requirements();
    let wanted =
        std::fs::read_to_string(&requirements).with_context(|| format!("{} cannot be read", requirements.display()))?;
    let stamp = Stamp::new(project, "venv", wanted);
    let python = project.venv_program("python");
    // A Python that was updated or removed leaves a dangling link.
    let works = python.exists();
    if stamp.is_set() && works {
        return Ok(());
    }
    let progress = Progress::new("Installing JupyterLab", PIP_PACKAGES);
    let log_venv = log(project, "venv")?;
    let mut venv = child::command(system_python()?);
    venv.args(["-m", "venv"]);
    if !works {
        venv.arg("--clear");
    }
    venv.arg(project.made("venv"));
    child::run("Making a Python environment", &mut venv, &log_venv, &progress, |_, _| {})
        .context("if the module ensurepip is missing, install your system's package python3-venv")?;

    let cache = project.made("pip");
    let mut pip = child::command(&python);
    pip.args(["-m", "pip", "install", "--requirement"])
        .arg(&requirements)
        .env("PIP_CACHE_DIR", &cache)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PYTHONNOUSERSITE", "1");
    let log_pip = log(project, "pip")?;
    child::run("Installing JupyterLab", &mut pip, &log_pip, &progress, |line, progress| {
        if let Some(package) = line.trim().strip_prefix("Collecting ") {
            progress.message(package.split(" (").next().unwrap_or(package));
            progress.inc(1);
        }
    })?;
    progress.finish();
    stamp.set()?;
    // It is there for an installation that is interrupted, and only for that.
    let _ = std::fs::remove_dir_all(&cache);
    Ok(())
}

/// The Python to make the environment from: `QSTAR_PYTHON`, else `python3`.
fn system_python() -> Result<String> {
    let python = std::env::var("QSTAR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let (major, minor) = OLDEST_PYTHON;
    let version = ask(&python, &["-c", "import sys; print(*sys.version_info[:2])"])
        .with_context(|| format!("JupyterLab needs Python {major}.{minor} or newer; QSTAR_PYTHON can name one"))?;
    let numbers: Vec<u32> = version.split_whitespace().flat_map(str::parse).collect();
    if numbers.as_slice() < [major, minor].as_slice() {
        bail!(
            "`{python}` is Python {}: JupyterLab needs {major}.{minor} or newer. \
             Install one, and name it in the variable QSTAR_PYTHON",
            version.replace(' ', ".")
        );
    }
    Ok(python)
}

struct Built {
    dylib: PathBuf,
    deps: PathBuf,
}

/// The features of this command: cells get the same, and no dependency is compiled for both.
const FEATURES: [(&str, bool); 3] =
    [("cuda", cfg!(feature = "cuda")), ("mpi", cfg!(feature = "mpi")), ("nccl", cfg!(feature = "nccl"))];

/// Compiles the library once more, as cells load it. Its dependencies are those of the command, compiled already.
fn build(project: &Project) -> Result<Built> {
    let what = "Building the library for the kernel";
    let progress = Progress::new(what, 0);
    let mut cargo = cargo();
    cargo
        .args(["rustc", "--release", "--locked", "--lib"])
        .args(FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| format!("--features={name}")))
        .args(["--crate-type", "dylib"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--", "-Cprefer-dynamic"])
        .current_dir(project.root());
    let log = log(project, "library")?;
    let output = child::run(what, &mut cargo, &log, &progress, compiled)?;
    let built = output.lines().find_map(built_dylib);
    let Some((dylib, fresh)) = built else {
        bail!("{what}: cargo did not say where the library is; see {}", log.display());
    };
    if !fresh {
        progress.finish();
    }
    let folder = dylib.parent().unwrap_or(project.root());
    let deps = if folder.ends_with("deps") { folder.to_path_buf() } else { folder.join("deps") };
    Ok(Built { dylib, deps })
}

/// The library's file in one of cargo's JSON lines, and whether it was there already.
fn built_dylib(line: &str) -> Option<(PathBuf, bool)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_library = message["reason"] == "compiler-artifact"
        && message["target"]["name"] == "qstar"
        && message["target"]["crate_types"][0] == "dylib";
    if !is_library {
        return None;
    }
    let files = message["filenames"].as_array()?.iter();
    let file = files.filter_map(|file| file.as_str()).find(|file| file.ends_with(std::env::consts::DLL_SUFFIX))?;
    Some((PathBuf::from(file), message["fresh"] == true))
}

/// A copy of the library under the hash of its content: a rebuild cannot change the file that an open kernel runs.
fn keep_copy(project: &Project, dylib: &Path) -> Result<PathBuf> {
    let copies = project.made("kernel");
    let name = dylib.file_name().context("the library has no name")?;
    let about = std::fs::metadata(dylib)?;
    let modified = about.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let identity = format!("{} {} ", about.len(), modified.as_nanos());
    let memo = copies.join("current");
    let known = std::fs::read_to_string(&memo).unwrap_or_default();
    if let Some(hash) = known.strip_prefix(&identity) {
        let copy = copies.join(hash.trim()).join(name);
        if copy.is_file() {
            return Ok(copy);
        }
    }

    let content = std::fs::read(dylib).with_context(|| format!("{} cannot be read", dylib.display()))?;
    let hash: String = Sha256::digest(&content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = copies.join(&hash);
    let copy = folder.join(name);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        let part = folder.join(format!("{}.part", std::process::id()));
        std::fs::write(&part, &content)?;
        std::fs::rename(&part, &copy)
    };
    if !copy.is_file() {
        write().with_context(|| format!("{} cannot be written", copy.display()))?;
    }
    write_if_changed(&memo, &format!("{identity}{hash}\n"))?;
    remove_old_copies(&copies, &folder);
    Ok(copy)
}

/// A copy that cannot be removed now is removed another time.
fn remove_old_copies(copies: &Path, current: &Path) {
    let now = SystemTime::now();
    for entry in std::fs::read_dir(copies).into_iter().flatten().flatten() {
        let path = entry.path();
        let age = entry
            .metadata()
            .and_then(|about| about.modified())
            .ok()
            .and_then(|modified| now.duration_since(modified).ok());
        if path.is_dir() && path != current && age.is_some_and(|age| age > KEEP) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// A file that says from what a step's result was made. It is written last, so a step that was interrupted has none.
struct Stamp {
    path: PathBuf,
    made_from: String,
}

impl Stamp {
    fn new(project: &Project, step: &str, made_from: String) -> Self {
        let path = project.made("stamps").join(step);
        Self { path, made_from }
    }

    fn is_set(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.made_from)
    }

    fn set(&self) -> Result<()> {
        write_if_changed(&self.path, &self.made_from)
    }
}

fn log(project: &Project, step: &str) -> Result<PathBuf> {
    let folder = project.made("logs");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder.join(format!("{step}.log")))
}

fn cargo() -> Command {
    child::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Follows the lines in which cargo says what it compiles.
fn compiled(line: &str, progress: &Progress) {
    if let Some(package) = line.trim().strip_prefix("Compiling ") {
        progress.message(package.split(" (").next().unwrap_or(package));
        progress.inc(1);
    }
}

/// What a tool answers, without the line's end.
fn ask(program: &str, arguments: &[&str]) -> Result<String> {
    let output = child::command(program)
        .args(arguments)
        .output()
        .with_context(|| format!("`{program}` cannot be started: is it installed?"))?;
    if !output.status.success() {
        bail!("`{program} {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_for_one_content_only() {
        let folder = tempfile::tempdir().unwrap();
        let stamp =
            |made_from: &str| Stamp { path: folder.path().join("stamps/step"), made_from: made_from.to_owned() };
        assert!(!stamp("a").is_set());
        stamp("a").set().unwrap();
        assert!(stamp("a").is_set() && !stamp("b").is_set());
    }

    #[test]
    fn cargo_says_where_the_library_is() {
        let line = r#"{"reason":"compiler-artifact","target":{"crate_types":["dylib"],"name":"qstar"},"filenames":["/t/release/libqstar.so"],"fresh":true}"#;
        if cfg!(target_os = "linux") {
            let expected = (PathBuf::from("/t/release/libqstar.so"), true);
            assert_eq!(built_dylib(line), Some(expected));
        }
        assert_eq!(built_dylib(&line.replace("qstar\"", "other\"")), None);
        assert_eq!(built_dylib("warning: no JSON"), None);
    }
}
