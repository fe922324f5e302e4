//! A Python process with PyTorch that times its own share of a comparison.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub version: String,
}

impl Peer {
    /// Runs `script` on `device`, as PyTorch names it. `None` where the Python of `QSTAR_PYTHON` (or `python3`) has no
    /// PyTorch, or that has no such device.
    pub fn start(script: &str, device: &str) -> Option<Self> {
        let python = std::env::var("QSTAR_PYTHON").unwrap_or_else(|_| "python3".to_string());
        let script = Path::new(script);
        // A bench that was built elsewhere runs in the checkout.
        let script =
            if script.exists() { script.to_path_buf() } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(script) };
        let mut child = Command::new(python)
            .arg(script)
            .arg(device)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (input, output) = (child.stdin.take()?, child.stdout.take()?);
        let mut peer = Self { child, input, output: BufReader::new(output), version: String::new() };
        peer.version = peer.line()?;
        Some(peer)
    }

    /// Gives it the logits of policy and target.
    pub fn send(&mut self, policy: &[f32], target: &[f32], vocabulary: usize) -> std::io::Result<()> {
        writeln!(self.input, "logits {} {vocabulary}", policy.len() / vocabulary)?;
        for x in policy.iter().chain(target) {
            self.input.write_all(&x.to_le_bytes())?;
        }
        self.input.flush()
    }

    /// The seconds that one turn of `what` took there.
    pub fn time(&mut self, what: &str) -> f64 {
        writeln!(self.input, "{what}").and_then(|()| self.input.flush()).expect("the Python process listens");
        let line = self.line().expect("the Python process answers");
        line.parse().unwrap_or_else(|e| panic!("{line:?} from the Python process: {e}"))
    }

    /// Waits until its threads have stopped waiting: they spin for a while after their work.
    pub fn rest(&self) {
        std::thread::sleep(std::time::Duration::from_millis(300));
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).ok().filter(|&n| n > 0)?;
        Some(line.trim().to_string())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It also ends by itself when its input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
