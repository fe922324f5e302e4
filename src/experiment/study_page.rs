//! The report: the study's tables, figures and verdict on one page, from the runs on the disk.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::{Experiment, Folders, Preset, Results, study};
use crate::plot::{self, Figure};
use crate::record::frames;
use crate::report::{Page, environment};

/// A page of what is done of a preset's experiments. No run is trained for it: what is not done is named.
/// Experts and targets that its plans need are made where they are not there.
///
/// # Errors
/// No finished run of the main comparison; a run's file that cannot be read.
pub fn study_page(preset: &Preset, folders: &Folders) -> Result<Page> {
    let main = Experiment::Main.plan(preset, folders)?;
    let results = main.finished()?;
    ensure!(
        !results.runs().is_empty(),
        "no run of the main comparison is done at the preset {}: `qstar plan run main --preset {}` trains them",
        preset.name,
        preset.name
    );
    let level = main.parts[0].world.level(0.5, 200).ok();
    let levels = preset.levels(level);
    let mut page = Page::new(&format!("From which distribution should responses be drawn? Preset {}", preset.name))
        .text(
            "Made from the runs on the disk. All of it holds for this task, these models and this scale, and for \
             nothing else.",
        )
        .section("The runs")
        .table("The plan of the main comparison, and what is done of it", &main.status()?);
    page = comparison(page, &results, &levels)?;
    let mut listed = Listed::default();
    listed.add(Experiment::Main, &results)?;
    for experiment in Experiment::ALL.into_iter().filter(|experiment| *experiment != Experiment::Main) {
        let results = experiment.plan(preset, folders)?.finished()?;
        listed.add(experiment, &results)?;
        page = page.section(&format!("{}: {}", experiment.name(), experiment.question()));
        page = match results.runs().is_empty() {
            true => page.text("No run of this experiment is done."),
            false => of_experiment(page, experiment, &results, &levels)?,
        };
    }
    let page = page.section("Environment, seeds and hashes").table("Versions and machine", &environment()?);
    page.runs("The runs of all experiments", &folders.runs, listed.runs())
}

/// The names of runs, each once, with the experiments that share it.
#[derive(Default)]
struct Listed {
    runs: Vec<(String, Vec<&'static str>)>,
}

impl Listed {
    fn add(&mut self, experiment: Experiment, results: &Results) -> Result<()> {
        for (_, run) in results.runs() {
            let name = run.spec.name()?;
            let known = self.runs.iter().position(|(known, _)| *known == name);
            let at = known.unwrap_or_else(|| {
                self.runs.push((name, Vec::new()));
                self.runs.len() - 1
            });
            let experiments = &mut self.runs[at].1;
            if !experiments.contains(&experiment.name()) {
                experiments.push(experiment.name());
            }
        }
        Ok(())
    }

    fn runs(self) -> impl Iterator<Item = (String, String)> {
        self.runs.into_iter().map(|(name, experiments)| (experiments.join(", "), name))
    }
}

/// The columns of the verdict, in two tables that fit a page.
const VERDICT: [&str; 11] =
    ["target", "setting", "hypothesis", "claim", "verdict", "statistic", "against", "value", "low", "high", "seeds"];
const REASONS: [&str; 6] = ["target", "setting", "hypothesis", "verdict", "why", "rule"];

fn comparison(mut page: Page, results: &Results, levels: &[(&str, f64)]) -> Result<Page> {
    let (evaluations, samples, steps) = (results.evaluations()?, results.samples()?, results.steps()?);
    let table = study::main_table(&evaluations, &samples, &steps, levels)?;
    let verdict = study::verdict(&evaluations, &samples, &steps, None, levels)?;
    page = page
        .section("Verdict")
        .text("Without the noise of the gradient, which notebook 10 measures: H3 and H5 need it.")
        .table("H1 to H5", &verdict.select(VERDICT)?)
        .table("Why, and by which rule", &verdict.select(REASONS)?)
        .html(&study::in_words(&verdict, &table)?)?
        .table("The stages", &study::stages(&evaluations, &samples, &steps, levels, None)?)
        .section("The main comparison")
        .table("Table 1", &table)
        .table("What the study expected, beside it", &study::beside_expected(&table)?)
        .table("What it cost", &study::efficiency_table(&evaluations, &samples, &steps)?);
    for (target, setting) in places(results) {
        let only = |frame: &DataFrame| frames::only(&frames::only(frame, "target", &*target)?, "setting", &*setting);
        let (evaluations, steps) = (only(&evaluations)?, only(&steps)?);
        let name = |what: &str| format!("{what}: target {target}, {setting} setting");
        page = drawn(page, &name("Held-out reward against samples"), plot::reward_curves(&evaluations))?;
        page = drawn(page, &name("The two effective sample sizes"), plot::ess_scatter(&steps))?;
        page = drawn(page, &name("Reward against divergence"), plot::reward_over_kl(&evaluations))?;
        page = drawn(page, &name("Gain against operations"), plot::pareto(&evaluations, "flops", "on_policy"))?;
    }
    let checks = study::checklist(&steps, &evaluations, &samples)?;
    page = page.section("Checklist").table("Counts", &study::checklist_summary(&checks)?);
    Ok(match frames::only(&checks, "result", "FAILED") {
        Ok(failed) => page.table("What failed, and why", &failed),
        Err(_) => page.text("No check failed."),
    })
}

fn of_experiment(page: Page, experiment: Experiment, results: &Results, levels: &[(&str, f64)]) -> Result<Page> {
    let (evaluations, samples, steps) = (results.evaluations()?, results.samples()?, results.steps()?);
    let frames = (&evaluations, &samples, &steps);
    match experiment {
        Experiment::Main => Ok(page),
        Experiment::Rules => {
            let page = page.table("Table 2", &study::rules_table(frames.0, frames.1, frames.2, levels)?);
            drawn(page, "What the rules choose, and what comes of it", plot::alpha_rules(&steps, &evaluations))
        }
        Experiment::Weights => {
            let page = page.table("Weights", &study::weight_table(frames.0, frames.1, frames.2)?);
            drawn(page, "Weights", plot::weights(&steps, &evaluations))
        }
        Experiment::Targets => {
            let gains = study::target_table(frames.0, frames.1, frames.2)?;
            let of_qstar = frames::only(&gains, "method", "qstar")?;
            let page = page.table("Targets", &gains);
            drawn(page, "Targets by family, with qstar", plot::targets_by_family(&of_qstar))
        }
        Experiment::Scale => {
            let page = page.table("Table 3", &study::scale_table(frames.0, frames.1, frames.2, &[])?);
            drawn(page, "Scale", plot::scalability(&evaluations, &steps, "qstar", "reinforce"))
        }
        Experiment::Speculation => {
            let columns = ["seconds_rollout", "seconds_update", "draft_acceptance", "tokens_per_verification"];
            let page = page.table("Means over steps and seeds", &frames::mean_by(&steps, &["method"], &columns)?);
            drawn(page, "Held-out reward against samples", plot::reward_curves(&evaluations))
        }
        Experiment::Long => {
            let page = page.table("The ends", &study::main_table(frames.0, frames.1, frames.2, &[])?);
            drawn(page, "Over the steps", plot::long_training(&evaluations, &steps))
        }
    }
}

/// A figure that so few runs do not make says so.
fn drawn(page: Page, caption: &str, figure: Result<Figure>) -> Result<Page> {
    match figure {
        Ok(figure) => page.figure(caption, &figure),
        Err(error) => Ok(page.text(&format!("{caption}: not drawn, for {error:#}"))),
    }
}

/// The targets and settings of runs, in their order.
fn places(results: &Results) -> Vec<(String, String)> {
    let mut places: Vec<(String, String)> = Vec::new();
    for (label, _) in results.runs() {
        let place = (label.target.clone(), label.setting.clone());
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}
