//! `qstar evaluate`: JSON lines in, a table out.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use polars::prelude::DataFrame;
use qstar::evaluation::{self, Fields, Format, Options, Scores, write_frame};
use qstar::judge::read_judgments;
use qstar::metrics::{
    Baseline, BertScorer, Bleu, Chrf, Document, Resampling, Rouge, RougeKind, Smoothing, TokenWeights, Tokenizer,
};
use qstar::models::Source;
use qstar::record::{stack, with_labels};

/// A metric and how it is computed.
#[derive(Subcommand)]
pub enum Evaluate {
    /// ROUGE of summaries, as the Python package rouge-score 0.1.2
    #[command(after_help = DOCUMENTS)]
    Rouge {
        #[command(flatten)]
        texts: Texts,

        /// Compare stems of words: Porter's stemmer as NLTK has it
        #[arg(long)]
        stem: bool,

        /// The kinds: rouge1 to rouge9, rougeL, rougeLsum (lines are sentences)
        #[arg(long = "kind", value_name = "KINDS", value_delimiter = ',', default_values_t = RougeKind::USUAL)]
        kinds: Vec<RougeKind>,
    },

    /// BLEU of translations, as sacrebleu 2.6.0, with its signature
    #[command(after_help = DOCUMENTS)]
    Bleu {
        #[command(flatten)]
        texts: Texts,

        /// The tokenizer: 13a, intl, char, none
        #[arg(long, default_value_t = Tokenizer::V13a)]
        tokenize: Tokenizer,

        /// What is done with orders of which no n-gram matches
        #[arg(long, value_enum, default_value = "exp")]
        smooth: SmoothingName,

        /// The value of floor [default: 0.1] or add-k [default: 1]
        #[arg(long, value_name = "NUMBER")]
        smooth_value: Option<f64>,

        #[arg(long)]
        lowercase: bool,

        /// Leave out orders that the texts are too short for
        #[arg(long)]
        effective_order: bool,
    },

    /// chrF and chrF++ of translations, as sacrebleu 2.6.0, with its signature
    #[command(after_help = DOCUMENTS)]
    Chrf {
        #[command(flatten)]
        texts: Texts,

        /// Character n-grams up to this n
        #[arg(long, value_name = "N", default_value_t = 6)]
        char_order: usize,

        /// Word n-grams up to this n: 2 makes chrF++
        #[arg(long, value_name = "N", default_value_t = 0)]
        word_order: usize,

        /// How many times as much recall counts as precision
        #[arg(long, value_name = "N", default_value_t = 2)]
        beta: u32,

        #[arg(long)]
        lowercase: bool,

        /// Count white space as characters
        #[arg(long)]
        whitespace: bool,

        /// Count orders without n-grams as 1e-16 instead of leaving them out
        #[arg(long)]
        eps_smoothing: bool,
    },

    /// Exact match and F1 of short answers, with SQuAD's normalisation
    #[command(after_help = DOCUMENTS)]
    ExactMatch {
        #[command(flatten)]
        texts: Texts,
    },

    /// Unbiased pass@k of generated programs
    #[command(after_help = SAMPLES)]
    PassAtK {
        #[command(flatten)]
        files: Files,

        #[arg(long = "k", value_name = "K", value_delimiter = ',', default_value = "1")]
        k: Vec<u64>,
    },

    /// BERTScore, as the Python package bert-score 0.3.13, with any encoder of BERT's family
    #[command(after_help = DOCUMENTS)]
    Bertscore {
        #[command(flatten)]
        texts: Texts,

        /// The encoder: a folder or a repository of the hub, such as FacebookAI/roberta-large
        #[arg(long)]
        model: String,

        /// The layer whose states are compared [default: bert-score's choice for the model, else the last]
        #[arg(long)]
        layer: Option<usize>,

        /// Weigh tokens by the inverse frequency of the references that hold them
        #[arg(long)]
        idf: bool,

        /// bert-score's file of the model's baseline, by which scores are rescaled
        #[arg(long, value_name = "FILE")]
        baseline: Option<PathBuf>,
    },

    /// Win rate of system A over B, judged in both orders
    #[command(after_help = JUDGMENTS)]
    WinRate {
        #[command(flatten)]
        files: Files,
    },
}

const DOCUMENTS: &str = r#"Each line is a JSON object with the fields
  prediction   the generated text
  references   a text, or a list of texts
  id           names the record, if it is there [else: the line number]
for example
  {"id": "7", "prediction": "It rained.", "references": ["It was raining.", "Rain fell."]}"#;

const SAMPLES: &str = r#"Each line is one generated program: a JSON object with the fields
  task_id      the task it was written for
  passed       true or false: whether it passes all tests
for example
  {"task_id": "HumanEval/0", "passed": true}
Every task needs at least k lines."#;

const JUDGMENTS: &str = r#"The files are those that `qstar judge --output` writes. Each line is one judgment: a JSON object with the fields
  judge        who judged
  id           names the pair
  order        which response was shown first: "AB" or "BA"
  verdict      the better one, whatever the order: "A", "B", "tie"; or "unreadable", "unjudged"
A system wins if it is preferred in both orders. Orders that disagree make a tie and are counted; pairs without a
verdict are counted and left out. The interval is Wilson's."#;

#[derive(Args)]
pub struct Files {
    /// JSON lines; several files make one table
    #[arg(required = true, value_name = "FILE.jsonl")]
    files: Vec<PathBuf>,

    /// Write a row for each document, task or pair into this file: .parquet, .csv or .json
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write the table that is printed into this file: .parquet, .csv or .json
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,

    /// The confidence of intervals
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,

    /// Resamples of a bootstrap
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    resamples: usize,

    /// The seed of the resamples
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Args)]
pub struct Texts {
    #[command(flatten)]
    files: Files,

    /// The field of the generated text, if not `prediction`
    #[arg(long, value_name = "FIELD", default_value = "prediction", hide_default_value = true)]
    prediction: String,

    /// The field of the references, if not `references`
    #[arg(long, value_name = "FIELD", default_value = "references", hide_default_value = true)]
    references: String,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum SmoothingName {
    None,
    Floor,
    AddK,
    Exp,
}

pub fn evaluate(how: Evaluate) -> Result<()> {
    match how {
        Evaluate::Rouge { texts, stem, kinds } => {
            let rouge = Rouge::new(&kinds, stem)?;
            texts.score(|documents, options| evaluation::rouge(documents, &rouge, options))
        }
        Evaluate::Bleu { texts, tokenize, smooth, smooth_value, lowercase, effective_order } => {
            let smoothing = smoothing(smooth, smooth_value)?;
            let bleu = Bleu { tokenizer: tokenize, lowercase, smoothing, effective_order, ..Bleu::default() };
            texts.score(|documents, options| evaluation::bleu(documents, &bleu, options))
        }
        Evaluate::Chrf { texts, char_order, word_order, beta, lowercase, whitespace, eps_smoothing } => {
            let chrf = Chrf { char_order, word_order, beta, lowercase, whitespace, eps_smoothing };
            texts.score(|documents, options| evaluation::chrf(documents, &chrf, options))
        }
        Evaluate::Bertscore { texts, model, layer, idf, baseline } => {
            let mut scorer = BertScorer::load(&Source::parse(&model)?, layer)?;
            if let Some(path) = baseline {
                let layer = scorer.layer();
                scorer = scorer.with_baseline(Baseline::read(&path, layer)?);
            }
            let weights = if idf { TokenWeights::InverseDocumentFrequency } else { TokenWeights::Equal };
            texts.score(|documents, options| evaluation::bertscore(documents, &scorer, weights, options))
        }
        Evaluate::ExactMatch { texts } => texts.score(evaluation::exact_match),
        Evaluate::PassAtK { files, k } => {
            files.score(|path, options| evaluation::pass_at_k(&evaluation::read_samples(path)?, &k, options))
        }
        Evaluate::WinRate { files } => {
            files.score(|path, options| evaluation::win_rate(&read_judgments(path)?, options))
        }
    }
}

impl Texts {
    fn score(self, score: impl Fn(&[Document], &Options) -> Result<Scores>) -> Result<()> {
        let fields = Fields { prediction: self.prediction, references: self.references };
        self.files.score(|path, options| score(&evaluation::read_documents(path, &fields)?, options))
    }
}

impl Files {
    /// Scores every file, prints the summaries as one table, and writes what is asked for.
    fn score(self, score: impl Fn(&Path, &Options) -> Result<Scores>) -> Result<()> {
        // Before the work, not after it.
        self.output.iter().chain(&self.summary).try_for_each(|path| Format::of(path).map(drop))?;
        ensure!(self.threads != Some(0), "--threads 0: at least one thread does the work");
        let resampling = Resampling { resamples: self.resamples, confidence: self.confidence, seed: self.seed };
        let workers = self.threads.unwrap_or(Options::default().workers);
        let options = Options { resampling, workers };
        let (mut documents, mut summaries): (Vec<DataFrame>, Vec<DataFrame>) = (Vec::new(), Vec::new());
        for path in &self.files {
            let scores = score(path, &options).map_err(|error| with_path(error, path))?;
            let label = [("file", path.to_string_lossy())];
            let label = label.each_ref().map(|(name, path)| (*name, path.as_ref()));
            documents.push(with_labels(&scores.documents, &label, &[])?);
            summaries.push(with_labels(&scores.summary, &label, &[])?);
        }
        let summary = stack(summaries)?;
        match summary.column("signature") {
            Err(_) => println!("{summary}"),
            Ok(column) => {
                println!("{}", summary.drop("signature")?);
                let mut signatures: Vec<&str> = column.str()?.iter().flatten().collect();
                signatures.dedup();
                signatures.iter().for_each(|signature| println!("{signature}"));
            }
        }
        if let Some(path) = &self.output {
            write_frame(&stack(documents)?, path)?;
        }
        if let Some(path) = &self.summary {
            write_frame(&summary, path)?;
        }
        Ok(())
    }
}

/// Errors of reading name the file already.
fn with_path(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let path = path.display().to_string();
    if format!("{error}").starts_with(&path) { error } else { error.context(path) }
}

fn smoothing(name: SmoothingName, value: Option<f64>) -> Result<Smoothing> {
    let takes_value = matches!(name, SmoothingName::Floor | SmoothingName::AddK);
    ensure!(value.is_none() || takes_value, "--smooth-value goes with --smooth floor or add-k");
    ensure!(value.is_none_or(|x| x.is_finite() && x > 0.0), "--smooth-value must be a positive number");
    Ok(match name {
        SmoothingName::None => Smoothing::None,
        SmoothingName::Floor => Smoothing::Floor(value.unwrap_or(0.1)),
        SmoothingName::AddK => Smoothing::AddK(value.unwrap_or(1.0)),
        SmoothingName::Exp => Smoothing::Exp,
    })
}
