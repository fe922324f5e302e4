//! The Python that programs run in, and the folders that it needs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A Python with what a program sees of the machine.
#[derive(Debug, Clone)]
pub struct Interpreter {
    /// The executable itself, no link to it.
    pub executable: PathBuf,
    /// Folders and files that are visible in the sandbox, read-only, at their own paths. None lies in another.
    pub readable: Vec<PathBuf>,
    /// Links at the root, such as `/lib64` to `usr/lib64`, with what they point to.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// Where shared libraries and their loader are looked for.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// What the interpreter says of itself: executable, then the folders of its modules and of the libraries that it has loaded.
const ASK: &str = r"
import os, sys
names = [os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)] + [place for place in sys.path if place]
with open('/proc/self/maps') as maps:
    for line in maps:
        name = line.rstrip('\n').split(None, 5)[5:]
        if name and name[0].startswith('/'):
            names.append(os.path.dirname(name[0]))
sys.stdout.write('\n'.join(names))
";

/// What the interpreter is always given: no site packages, none of the user's, nothing written beside its modules.
pub const OPTIONS: [&str; 5] = ["-s", "-S", "-B", "-X", "utf8"];

/// Loads and runs the compiled program that is the first thing to be read: four bytes of length, then its bytes.
pub const LOADER: &str = "import marshal, os; exec(marshal.loads(os.read(3, int.from_bytes(os.read(3, 4), 'little'))))";

const COMPILE: &str = "import marshal, sys; \
    sys.stdout.buffer.write(marshal.dumps(compile(sys.stdin.buffer.read(), '<sandbox>', 'exec')))";

impl Interpreter {
    /// The Python that `QSTAR_PYTHON` names, else `python3`.
    ///
    /// # Errors
    /// There is none, it is older than 3.8, or it lies where the user's files are.
    pub fn find() -> Result<Self> {
        let name = std::env::var_os("QSTAR_PYTHON").unwrap_or_else(|| "python3".into());
        let shown = name.to_string_lossy().into_owned();
        let output = Command::new(&name)
            .args(["-I", "-S", "-c", ASK])
            .output()
            .with_context(|| format!("the code sandbox needs Python: `{shown}` cannot be started"))?;
        ensure!(output.status.success(), "`{shown}` does not run: {}", String::from_utf8_lossy(&output.stderr).trim());
        let mut lines =
            output.stdout.split(|byte| *byte == b'\n').map(|line| PathBuf::from(OsString::from_vec(line.to_vec())));
        let executable =
            lines.next().filter(|path| path.is_absolute()).with_context(|| format!("`{shown}` has no path"))?;
        let mut places: BTreeSet<PathBuf> =
            lines.filter(|path| path.exists() && Some(path.as_path()) != executable.parent()).collect();
        places.insert(executable.clone());
        let mut links = Vec::new();
        for library in LIBRARIES.map(PathBuf::from) {
            match std::fs::read_link(&library) {
                Ok(target) => links.push((library, target)),
                Err(_) if library.is_dir() => drop(places.insert(library)),
                Err(_) => {}
            }
        }
        // Their links are there, or they are not seen under those paths.
        let places = places.into_iter().map(|path| path.canonicalize()).collect::<std::io::Result<BTreeSet<_>>>()?;
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.parent().is_some());
        for place in &places {
            let is_home = home.as_ref().is_some_and(|home| home.starts_with(place));
            ensure!(
                place.parent().is_some() && !is_home,
                "`{shown}` has its modules or libraries in {}, which holds more than an interpreter: name another with QSTAR_PYTHON",
                place.display()
            );
        }
        let hidden = |place: &&PathBuf| ["/tmp", "/dev", "/proc"].iter().any(|own| place.starts_with(own));
        if let Some(place) = places.iter().find(hidden) {
            bail!(
                "`{shown}` needs {}, where a program has files of its own: name another with QSTAR_PYTHON",
                place.display()
            );
        }
        let inside = |place: &Path| places.iter().any(|other| other != place && place.starts_with(other));
        let readable = places.iter().filter(|place| !inside(place)).cloned().collect();
        Ok(Self { executable, readable, links })
    }

    /// A program of ours, compiled, with its length in front, for [`LOADER`]. To compile it takes half as long as to start the
    /// interpreter.
    ///
    /// # Errors
    /// The interpreter does not understand it: it is too old.
    pub fn compile(&self, source: &str) -> Result<Vec<u8>> {
        let mut child = Command::new(&self.executable)
            .args(["-I", "-S", "-c", COMPILE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("its standard input")?.write_all(source.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{} cannot compile what starts programs; Python 3.8 or newer is needed: {}",
            self.executable.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        // More would not fit into a pipe that nobody reads yet.
        ensure!(
            output.stdout.len() < 60_000,
            "the program is too long once it is compiled: {} bytes",
            output.stdout.len()
        );
        Ok([&u32::try_from(output.stdout.len())?.to_le_bytes(), &output.stdout[..]].concat())
    }
}
