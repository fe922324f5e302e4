//! The command `qstar judge`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

use qstar::judge::{
    AgreementRow, ChatConfig, ChatJudge, EstimateRow, Judge, Judgment, Pair, Ratings, RewardJudge, Rule, Selection,
    Sheet, WinRateRow, agreement_with_people, agreements_of_raters, disagreement, estimate_win_rate, judge_pairs,
    judgment_rows, judgments_of_rows, read_judgments, read_pairs, select, select_uniformly, text_distance, win_rate,
    write_judgments,
};
use qstar::models::Source;
use qstar::progress::Progress;
use qstar::reward::TextReward;

/// Compare two models' responses by rules, reward models and language models, or ask people
///
/// A and B are files of one JSON object a line with the fields "id" (text or whole number), "prompt", "response" and, where
/// there is one, "reference"; other fields are ignored. Lines are joined by "id", and both files must have the same ids and
/// prompts. Every pair is judged in both orders.
///
/// The output has one JSON object a line with "judge", "id", "order" (AB or BA), "verdict" (A, B, tie, unreadable,
/// unjudged: A and B are the files, whatever the order) and "note".
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub struct JudgeArgs {
    #[command(subcommand)]
    other: Option<Other>,

    #[command(flatten)]
    judging: Option<Judging>,
}

#[derive(Debug, Args)]
struct Judging {
    /// Responses of the first model
    a: PathBuf,

    /// Responses of the second model
    b: PathBuf,

    /// longer, shorter, reference (equals it), reward:MODEL (a folder or a repository of the hub), or chat:FILE
    ///
    /// FILE is a TOML file with base_url and model of an OpenAI-compatible endpoint; key_variable names the environment
    /// variable of the key, price_prompt and price_answer (of a million tokens) and cost_limit bound what is spent, at_once
    /// the requests at once. Can be given several times.
    #[arg(long = "judge", value_name = "JUDGE", required = true)]
    judges: Vec<String>,

    /// Rewards at most so far apart are a tie
    #[arg(long, value_name = "DIFFERENCE", default_value_t = 0.0)]
    tie_within: f64,

    /// Where chat judges keep their answers; what is there is never asked again
    #[arg(long, value_name = "DIR", default_value = "judge-cache")]
    cache: PathBuf,

    /// Write the judgments into this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Chat judges see a random sample of so many pairs; other judges see all
    #[arg(long, value_name = "PAIRS", conflicts_with = "select")]
    sample: Option<usize>,

    /// Chat judges see so many pairs, drawn with a higher probability where there is more difference; the
    /// estimates for all pairs account for it
    #[arg(long, value_name = "PAIRS")]
    select: Option<usize>,

    /// What is a difference: of the responses' words, or between the other judges
    #[arg(long, value_name = "WHAT", default_value = "words", requires = "select")]
    select_by: Difference,

    /// The seed of samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Difference {
    Words,
    Judges,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Write a blinded sheet for people: sheet.html, sheet.csv and key.json
    ///
    /// Give raters sheet.html (or sheet.csv), and keep key.json.
    Sheet {
        /// Responses of the first model
        a: PathBuf,
        /// Responses of the second model
        b: PathBuf,
        /// The folder of the three files
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// A random sample of so many pairs [default: all]
        #[arg(long, value_name = "PAIRS")]
        count: Option<usize>,
        /// What the page is called
        #[arg(long, default_value = "Which response is better?")]
        title: String,
        /// The seed of the order of pairs and sides
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },

    /// Read what people answered: win rate, agreement between them, and of judges with them
    Import {
        /// The sheet's key.json
        key: PathBuf,
        /// The raters' files, JSON or CSV with the columns sheet, item, answer and perhaps rater
        #[arg(required = true)]
        answers: Vec<PathBuf>,
        /// Judgments that `qstar judge --output` wrote
        #[arg(long, value_name = "FILE")]
        judgments: Option<PathBuf>,
        /// Take raters with unanswered items as they are
        #[arg(long)]
        partial: bool,
    },
}

/// Runs the command; tables go to stdout.
///
/// # Errors
/// Those of files, judges and sheets.
pub fn run(args: JudgeArgs) -> Result<()> {
    match (args.other, args.judging) {
        (Some(Other::Sheet { a, b, output, count, title, seed }), _) => {
            let pairs = read_pairs(&a, &b)?;
            let pairs = match count {
                None => pairs,
                Some(count) => {
                    let drawn = select_uniformly(pairs.len(), count, seed)?;
                    drawn.rows().iter().map(|&row| pairs[row].clone()).collect()
                }
            };
            let sheet = Sheet::new(title, &pairs, seed)?;
            sheet.write(&output)?;
            println!(
                "{} pairs in {}: give sheet.html or sheet.csv to raters, and keep key.json",
                sheet.len(),
                output.display()
            );
            Ok(())
        }
        (Some(Other::Import { key, answers, judgments, partial }), _) => {
            import(&key, &answers, judgments.as_deref(), partial)
        }
        (None, Some(how)) => judge(&how),
        (None, None) => bail!("give two files of responses, or one of the commands sheet and import"),
    }
}

fn judge(how: &Judging) -> Result<()> {
    let pairs = read_pairs(&how.a, &how.b)?;
    let judges = how.judges.iter().map(|name| Judging::load(how, name)).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = judges.iter().map(|judge| judge.judge().name().into_owned()).collect();
    for (place, name) in names.iter().enumerate() {
        ensure!(!names[..place].contains(name), "two judges are called {name:?}; judge by one of them at a time");
    }
    let (chats, cheap): (Vec<_>, Vec<_>) = judges.into_iter().partition(|judge| matches!(judge, Loaded::Chat(_)));
    ensure!(
        !chats.is_empty() || (how.sample.is_none() && how.select.is_none()),
        "--sample and --select are of what chat judges see, and there is none"
    );
    let mut done: Vec<(String, Vec<Judgment>)> = Vec::new();
    for judge in &cheap {
        done.push(judge.all(&pairs)?);
    }
    let selection = how.selection(&pairs, &done)?;
    let seen: Vec<Pair> = selection
        .as_ref()
        .map_or_else(|| pairs.clone(), |selection| selection.rows().iter().map(|&row| pairs[row].clone()).collect());
    let cheap_count = done.len();
    let mut rows = done.iter().flat_map(|(name, judgments)| judgment_rows(name, judgments)).collect::<Vec<_>>();
    for judge in &chats {
        let (name, judgments) = judge.all(&seen)?;
        rows.extend(judgment_rows(&name, &judgments));
        done.push((name, judgments));
        // What was paid for is on disk before the next judge is asked.
        if let Some(output) = &how.output {
            write_judgments(output, &rows)?;
        }
    }
    if let Some(output) = &how.output {
        write_judgments(output, &rows)?;
    }
    let table = done.iter().map(|(name, judgments)| win_rate(name, judgments, 0.95)).collect::<Result<Vec<_>>>()?;
    table.iter().for_each(tell);
    if let Some(selection) = &selection {
        let estimates = done[cheap_count..].iter();
        let estimates = estimates.map(|(name, judgments)| estimate_win_rate(name, judgments, selection));
        println!("All {} pairs, by the {} that were drawn:", pairs.len(), seen.len());
        println!("{}", EstimateRow::frame(&estimates.collect::<Result<Vec<_>>>()?)?);
    }
    Ok(())
}

impl Judging {
    fn load(&self, name: &str) -> Result<Loaded> {
        match name.split_once(':') {
            None if name == "longer" => Ok(Loaded::Cheap(Box::new(Rule::longer()))),
            None if name == "shorter" => Ok(Loaded::Cheap(Box::new(Rule::shorter()))),
            None if name == "reference" => Ok(Loaded::Cheap(Box::new(Rule::reference()))),
            Some(("reward", source)) => {
                let reward = TextReward::read(&Source::parse(source)?)?;
                Ok(Loaded::Cheap(Box::new(RewardJudge::of_model(name, self.tie_within, reward)?)))
            }
            Some(("chat", file)) => {
                let config = ChatConfig::load(Path::new(file))?;
                Ok(Loaded::Chat(Box::new(ChatJudge::new(config, &self.cache).with_context(|| file.to_owned())?)))
            }
            _ => bail!("unknown judge {name:?}; known are longer, shorter, reference, reward:MODEL, chat:FILE"),
        }
    }

    fn selection(&self, pairs: &[Pair], cheap: &[(String, Vec<Judgment>)]) -> Result<Option<Selection>> {
        if let Some(count) = self.sample {
            return select_uniformly(pairs.len(), count, self.seed).map(Some);
        }
        let Some(count) = self.select else { return Ok(None) };
        let scores = match self.select_by {
            Difference::Words => pairs.iter().map(text_distance).collect(),
            Difference::Judges => {
                let judgments: Vec<_> = cheap.iter().map(|(_, judgments)| judgments.clone()).collect();
                disagreement(&judgments).context("--select-by judges needs two judges beside chat judges")?
            }
        };
        // A fifth of the probability is the same for all pairs: no weight is more than five times that of a random sample.
        select(&scores, count, 0.2, self.seed).map(Some)
    }
}

enum Loaded {
    Cheap(Box<dyn Judge>),
    Chat(Box<ChatJudge>),
}

impl Loaded {
    fn judge(&self) -> &dyn Judge {
        match self {
            Loaded::Cheap(judge) => &**judge,
            Loaded::Chat(judge) => &**judge,
        }
    }

    fn all(&self, pairs: &[Pair]) -> Result<(String, Vec<Judgment>)> {
        let judge = self.judge();
        let name = judge.name().into_owned();
        let progress = Progress::new(format!("judging by {name}"), 2 * pairs.len() as u64);
        let judgments = judge_pairs(judge, pairs, &progress)?;
        progress.finish();
        if let Loaded::Chat(judge) = self {
            let spent = judge.spent();
            println!(
                "{name}: {} requests, {} answers from the cache; cost {:.4}, and at most {:.4} for answers that never came",
                spent.requests, spent.cached, spent.cost, spent.unconfirmed
            );
        }
        Ok((name, judgments))
    }
}

fn tell(row: &WinRateRow) {
    let rate = match (row.win_rate, row.low, row.high) {
        (Some(rate), Some(low), Some(high)) => {
            format!("A wins {:.1}% [{:.1}%, {:.1}%]", 100.0 * rate, 100.0 * low, 100.0 * high)
        }
        _ => "no verdict".into(),
    };
    let WinRateRow { judge, pairs, wins, ties, losses, inconsistent, unreadable, unjudged, .. } = row;
    println!(
        "{judge}: {rate} of {pairs} pairs: {wins} won, {ties} tied, {losses} lost, {inconsistent} inconsistent, \
         {unreadable} unreadable, {unjudged} unjudged"
    );
}

fn import(key: &Path, answers: &[PathBuf], judgments: Option<&Path>, partial: bool) -> Result<()> {
    let ratings = Ratings::read(key, answers, partial)?;
    ratings.win_rates()?.iter().for_each(tell);
    if ratings.raters.len() >= 2 {
        let (rows, fleiss) = agreements_of_raters(&ratings)?;
        println!("{}", AgreementRow::frame(&rows)?);
        match fleiss {
            Some(kappa) => println!("Fleiss' kappa of {} raters: {kappa:.3}", ratings.raters.len()),
            None => {
                println!("Fleiss' kappa has no value: no pair that all answered, or one and the same answer to all")
            }
        }
    }
    if let Some(path) = judgments {
        let judges = judgments_of_rows(&read_judgments(path)?).with_context(|| path.display().to_string())?;
        let rows = judges.iter().map(|(judge, judgments)| agreement_with_people(judge, judgments, &ratings));
        println!("{}", AgreementRow::frame(&rows.collect::<Result<Vec<_>>>()?)?);
    }
    Ok(())
}
