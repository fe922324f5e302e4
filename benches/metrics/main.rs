//! ROUGE, BLEU and chrF of whole data sets beside the Python packages, turn by turn: `cargo bench --bench metrics`.
//!
//! The texts are in the hub's cache (`HF_HOME`): 500 beginnings of posts beside their summaries (trl-lib/tldr), and the 2,037 lines of a
//! system of WMT22 beside both references. `QSTAR_PYTHON` names a Python with rouge-score and sacrebleu. sacrebleu remembers how it cut a
//! line into tokens; the first turn, in which it does not yet, stands in a column of its own. Scores are compared, too.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use polars::prelude::{ParquetReader, SerReader};
use qstar::metrics::{Bleu, Chrf, Document, Rouge, RougeKind};
use serde_json::json;

const PEER: &str = "benches/metrics/peer.py";
const TURNS: usize = 5;
const SUMMARIES: usize = 500;

fn main() -> Result<()> {
    let (Some(summaries), Some(translations)) = (summaries()?, translations()?) else {
        println!("skipped: trl-lib/tldr and wmt22 are not both in the hub's cache (HF_HOME)");
        return Ok(());
    };
    let sets = [("summaries", &summaries), ("translations", &translations)];
    let mut peer = Peer::start(&sets)?;
    match &peer {
        Some(peer) => println!("{}; median of {TURNS} turns\n", peer.version),
        None => {
            println!("skipped: no Python with rouge-score and sacrebleu (QSTAR_PYTHON), so there is nothing beside\n")
        }
    }
    println!(
        "| metric | documents | qstar, 1 thread | 2 threads | Python, first | Python | ratio, 1 thread | 2 threads |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (metric, name) in [
        ("rouge", "summaries"),
        ("rouge-stem", "summaries"),
        ("rouge", "translations"),
        ("rouge-stem", "translations"),
        ("bleu", "translations"),
        ("sentence-bleu", "translations"),
        ("chrf", "translations"),
        ("chrf++", "translations"),
    ] {
        let documents = if name == "summaries" { &summaries } else { &translations };
        let mut times = [const { Vec::new() }; 3];
        let mut first = None;
        for _ in 0..TURNS {
            for threads in [1, 2] {
                let start = Instant::now();
                let score = score(metric, documents, threads)?;
                times[threads - 1].push(start.elapsed().as_secs_f64());
                if threads == 1
                    && let Some(peer) = &mut peer
                {
                    let (seconds, theirs) = peer.time(metric, name)?;
                    ensure!((score - theirs).abs() < 1e-9, "{metric} of {name}: {score}, and {theirs} in Python");
                    first.get_or_insert(seconds);
                    times[2].push(seconds);
                }
            }
        }
        row(metric, name, documents.len(), times.map(median), first);
    }
    Ok(())
}

/// The corpus' score, or the mean over documents (and kinds).
fn score(metric: &str, documents: &[Document], threads: usize) -> Result<f64> {
    let bleu = Bleu { effective_order: metric == "sentence-bleu", ..Bleu::default() };
    let chrf = Chrf { word_order: if metric == "chrf++" { 2 } else { 0 }, ..Chrf::default() };
    Ok(match metric {
        "rouge" | "rouge-stem" => {
            let scores = Rouge::new(&RougeKind::USUAL, metric == "rouge-stem")?.score_all(documents, threads)?;
            let sum: f64 = scores.iter().flatten().map(|score| score.f).sum();
            sum / (documents.len() * RougeKind::USUAL.len()) as f64
        }
        "bleu" => bleu.score(&bleu.statistics_all(documents, threads)?.iter().sum()).score,
        "sentence-bleu" => {
            let statistics = bleu.statistics_all(documents, threads)?;
            statistics.iter().map(|one| bleu.score(one).score).sum::<f64>() / documents.len() as f64
        }
        _ => chrf.score(&chrf.statistics_all(documents, threads)?.iter().sum()),
    })
}

fn row(metric: &str, name: &str, documents: usize, [one, two, theirs]: [f64; 3], first: Option<f64>) {
    let ms = |seconds: f64| format!("{:.1} ms", 1e3 * seconds);
    let beside = match first {
        Some(first) => {
            format!("{} | {} | {:.0} | {:.0}", ms(first), ms(theirs), theirs / one, theirs / two)
        }
        None => " | | | ".to_owned(),
    };
    println!("| `{metric}` | {documents} {name} | {} | {} | {beside} |", ms(one), ms(two));
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x.get(x.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The first 400 characters of a post beside its summary.
fn summaries() -> Result<Option<Vec<Document>>> {
    let cache = hf_hub::Cache::from_env().dataset("trl-lib/tldr".to_owned());
    let Some(path) = cache.get("data/test-00000-of-00001.parquet") else { return Ok(None) };
    let table = ParquetReader::new(std::fs::File::open(path)?).finish()?;
    let column = |name: &str| -> Result<Vec<String>> {
        Ok(table.column(name)?.str()?.iter().flatten().map(str::to_owned).collect())
    };
    let document = |(index, (prompt, summary)): (usize, (String, String))| {
        let post = prompt.split_once("POST: ").map_or(prompt.as_str(), |(_, post)| post);
        Document { id: index.to_string(), prediction: post.chars().take(400).collect(), references: vec![summary] }
    };
    let rows = column("prompt")?.into_iter().zip(column("completion")?);
    Ok(Some(rows.take(SUMMARIES).enumerate().map(document).collect()))
}

fn translations() -> Result<Option<Vec<Document>>> {
    let Some(home) = std::env::var_os("HF_HOME") else { return Ok(None) };
    let folder = PathBuf::from(home).join("hub/wmt22");
    if !folder.exists() {
        return Ok(None);
    }
    let lines = |name: &str| -> Result<Vec<String>> {
        let text = std::fs::read_to_string(folder.join(format!("wmt22.en-de.{name}")))?;
        Ok(text.trim_end_matches('\n').split('\n').map(str::to_owned).collect())
    };
    let references = lines("ref-A")?.into_iter().zip(lines("ref-B")?);
    let document = |(index, (prediction, (a, b))): (usize, (String, (String, String)))| Document {
        id: index.to_string(),
        prediction,
        references: vec![a, b],
    };
    Ok(Some(lines("PROMT")?.into_iter().zip(references).enumerate().map(document).collect()))
}

/// The Python process.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
}

impl Peer {
    /// `None` where the Python has not the packages.
    fn start(sets: &[(&str, &Vec<Document>)]) -> Result<Option<Self>> {
        let documents = |documents: &[Document]| {
            documents.iter().map(|document| json!([document.prediction, document.references])).collect::<Vec<_>>()
        };
        let content: serde_json::Map<_, _> =
            sets.iter().map(|(name, set)| ((*name).to_owned(), json!(documents(set)))).collect();
        let file = tempfile::NamedTempFile::new()?;
        serde_json::to_writer(&file, &content)?;
        let python = std::env::var("QSTAR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(PEER);
        let mut command = Command::new(python);
        command.arg(script).arg(file.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else { return Ok(None) };
        let input = child.stdin.take().context("the Python process has no input")?;
        let output = BufReader::new(child.stdout.take().context("the Python process has no output")?);
        let mut peer = Self { child, input, output, version: String::new() };
        peer.version = peer.line()?;
        Ok(if peer.version.is_empty() { None } else { Some(peer) })
    }

    /// Seconds, and the score.
    fn time(&mut self, metric: &str, name: &str) -> Result<(f64, f64)> {
        writeln!(self.input, "{metric} {name}").and_then(|()| self.input.flush())?;
        let line = self.line()?;
        let (seconds, score) = line.split_once(' ').with_context(|| format!("{line:?} from the Python process"))?;
        Ok((seconds.parse()?, score.parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It also ends by itself when its input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
