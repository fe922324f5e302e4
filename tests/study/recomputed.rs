//! Small real runs. Every statistic once more, from the parquet files on the disk, by code that is written from the definitions
//! and calls none of the library's statistics.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::fs::File;
use std::path::Path;

use polars::prelude::{DataFrame, ParquetReader, SerReader};
use qstar::experiment::{Part, Plan, Preset, World, study};
use qstar::method::{ON_POLICY, QSTAR, REINFORCE, SFT};
use qstar::ranks::Ranks;

use super::frames::{number, numbers, texts, word};

const METHODS: [&str; 4] = ["sft", "on_policy", "reinforce", "qstar"];
const SEEDS: i64 = 2;

/// The rows of all runs: (method, seed) to frames in the order of their steps.
type Files = BTreeMap<(String, i64), Vec<DataFrame>>;

fn read(runs: &Path, kind: &str) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(runs).unwrap() {
        let folder = entry.unwrap().path();
        let spec: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("spec.json")).unwrap()).unwrap();
        let key = (spec["method"]["name"].as_str().unwrap().to_owned(), spec["seed"].as_i64().unwrap());
        let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut parts: Vec<String> = names.filter(|name| name.starts_with(kind) && name.ends_with("parquet")).collect();
        parts.sort();
        let read = |name: &String| ParquetReader::new(File::open(folder.join(name)).unwrap()).finish().unwrap();
        files.insert(key, parts.iter().map(read).collect());
    }
    files
}

/// The numbers of a column of one run, nulls left out.
fn column(files: &Files, method: &str, seed: i64, name: &str) -> Vec<f64> {
    files[&(method.to_owned(), seed)].iter().flat_map(|part| numbers(part, name)).flatten().collect()
}

fn last(files: &Files, method: &str, seed: i64, name: &str) -> f64 {
    *column(files, method, seed, name).last().unwrap()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn over_seeds(of: impl Fn(i64) -> f64) -> Vec<f64> {
    (0..SEEDS).map(of).collect()
}

/// The rewards of the responses of a run's first or last evaluation, by prompt.
fn rewards(samples: &Files, method: &str, seed: i64, at_end: bool) -> BTreeMap<i64, f64> {
    let steps = column(samples, method, seed, "step");
    let wanted = if at_end { steps.iter().copied().fold(0.0, f64::max) } else { 0.0 };
    let rows = steps.iter().zip(column(samples, method, seed, "index")).zip(column(samples, method, seed, "reward"));
    rows.filter(|((step, _), _)| **step == wanted).map(|((_, index), reward)| (index as i64, reward)).collect()
}

/// P(|T| > t): with t = √df tan φ the density goes as cos^(df−1) φ; by Simpson's rule.
fn two_sided(t: f64, df: f64) -> f64 {
    let integral = |from: f64, to: f64| {
        const N: usize = 200_000;
        let h = (to - from) / N as f64;
        let weight = |i: usize| {
            if i == 0 || i == N {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        (0..=N).map(|i| weight(i) * (from + h * i as f64).cos().max(0.0).powf(df - 1.0)).sum::<f64>() * h / 3.0
    };
    let phi = (t.abs() / df.sqrt()).atan();
    integral(phi, 0.5 * PI) / integral(0.0, 0.5 * PI)
}

/// Of two values: t has one degree of freedom, and its 97.5% quantile is tan(0.475 π).
fn interval_of_two(x: &[f64]) -> (f64, f64) {
    let half = (0.475 * PI).tan() * (x[0] - x[1]).abs() / 2.0;
    (mean(x) - half, mean(x) + half)
}

fn holm(p: &[f64]) -> Vec<f64> {
    let rank = |x: f64| p.iter().filter(|other| **other < x).count() as f64;
    let own = |x: f64| ((p.len() as f64 - rank(x)) * x).min(1.0);
    p.iter().map(|x| p.iter().filter(|other| *other <= x).map(|other| own(*other)).fold(0.0, f64::max)).collect()
}

fn near(found: Option<f64>, expected: f64, what: &str) {
    let found = found.unwrap_or_else(|| panic!("{what} is null, not {expected}"));
    assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{what} is {found}, not {expected}");
}

/// Percentiles of the crossed bootstrap by a generator of another kind.
fn crossed(values: &[Vec<f64>]) -> (f64, f64) {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let mut means: Vec<f64> = (0..20_000)
        .map(|_| {
            let seeds: Vec<usize> = values.iter().map(|_| draw(values.len())).collect();
            let prompts: Vec<usize> = values[0].iter().map(|_| draw(values[0].len())).collect();
            mean(&seeds.iter().flat_map(|seed| prompts.iter().map(|prompt| values[*seed][*prompt])).collect::<Vec<_>>())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[500], means[19_499])
}

#[test]
fn every_statistic_is_that_of_the_files() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let world = World::micro(&data).unwrap();
    let mut config = Preset::load(&data, "smoke").unwrap().run;
    (config.steps, config.evaluate_every, config.checkpoint_every) = (6, 2, 3);
    let runs = tempfile::tempdir().unwrap();
    let methods = [SFT, ON_POLICY, REINFORCE, QSTAR];
    let part = Part::new(world.clone(), &methods, config, SEEDS as u64);
    let results = Plan { name: "study".into(), parts: vec![part], runs: runs.path().into(), ranks: Ranks::alone() }
        .train()
        .unwrap();
    let (evaluations, samples, steps) =
        (results.evaluations().unwrap(), results.samples().unwrap(), results.steps().unwrap());
    let thetas = [("π_init", &*world.models.initial)];
    let noise = study::gradient_noise(&world, &methods, &thetas, config.step, 3, 2).unwrap();
    let files = ["evaluations", "samples", "steps"].map(|kind| read(runs.path(), kind));
    // Between what runs reach: some get there, some do not.
    let ends: Vec<f64> =
        METHODS.iter().flat_map(|method| over_seeds(|seed| last(&files[0], method, seed, "reward"))).collect();
    let level = mean(&ends).max(column(&files[0], "sft", 0, "reward")[0] + 1e-3);
    let levels = [("micro", level)];

    let table = study::main_table(&evaluations, &samples, &steps, &levels).unwrap();
    check_main_table(&table, &files, level);
    let judged = study::verdict(&evaluations, &samples, &steps, Some(&noise), &levels).unwrap();
    let rivals = study::rivals(&evaluations, &samples, &steps, Some(&noise), &levels).unwrap();
    check_verdict(&judged, &rivals, &files, &noise);
    check_other_tables(&[&evaluations, &samples, &steps], &levels, &files);
    check_exploration(&[&evaluations, &samples, &steps], &files);
    check_checklist(&study::checklist(&steps, &evaluations, &samples).unwrap(), &files);
}

fn areas(evaluations: &Files, method: &str) -> Vec<f64> {
    over_seeds(|seed| {
        let (x, y) = (column(evaluations, method, seed, "samples"), column(evaluations, method, seed, "reward"));
        let area: f64 = (1..x.len()).map(|k| 0.5 * (y[k] + y[k - 1]) * (x[k] - x[k - 1])).sum();
        area / (x[x.len() - 1] - x[0])
    })
}

/// Samples to the level, cut off at the end of the runs, which is the same for all.
fn restricted(evaluations: &Files, method: &str, level: f64) -> (f64, usize) {
    let mut there = 0;
    let times = over_seeds(|seed| last(evaluations, method, seed, "samples"));
    let times: Vec<f64> = (0..SEEDS)
        .map(|seed| {
            let (x, y) = (column(evaluations, method, seed, "samples"), column(evaluations, method, seed, "reward"));
            let first = y.iter().position(|y| *y >= level);
            there += usize::from(first.is_some());
            first.map_or(times[seed as usize], |at| x[at])
        })
        .collect();
    (mean(&times), there)
}

fn check_main_table(table: &DataFrame, [evaluations, samples, steps]: &[Files; 3], level: f64) {
    assert_eq!(table.height(), 4);
    let ends = |method: &str| over_seeds(|seed| last(evaluations, method, seed, "reward"));
    let others: Vec<&str> = METHODS.into_iter().filter(|method| *method != "qstar").collect();
    let differences =
        |method: &str| -> Vec<f64> { ends("qstar").iter().zip(ends(method)).map(|(a, b)| a - b).collect() };
    let paired = |method: &str| {
        let d = differences(method);
        // t = mean/(sd/√2) with sd = |d₀ − d₁|/√2.
        1.0 - 2.0 / PI * (mean(&d) / ((d[0] - d[1]).abs() / 2.0)).abs().atan()
    };
    let welch = |method: &str| {
        let variance = |x: &[f64]| (x[0] - x[1]).powi(2) / 2.0;
        let (u, v) = (variance(&ends("qstar")) / 2.0, variance(&ends(method)) / 2.0);
        two_sided((mean(&ends("qstar")) - mean(&ends(method))) / (u + v).sqrt(), (u + v).powi(2) / (u * u + v * v))
    };
    let (p_paired, p_welch): (Vec<f64>, Vec<f64>) = others.iter().map(|method| (paired(method), welch(method))).unzip();
    let (paired_holm, welch_holm) = (holm(&p_paired), holm(&p_welch));
    for method in METHODS {
        let of = |name: &str| number(table, &[("method", method)], name);
        let check = |name: &str, expected: f64| near(of(name), expected, &format!("{name} of {method}"));
        let start = over_seeds(|seed| column(evaluations, method, seed, "reward")[0]);
        let end = ends(method);
        let (low, high) = interval_of_two(&end);
        check("reward_before", mean(&start));
        check("reward", mean(&end));
        check("reward_low", low);
        check("reward_high", high);
        check("gain", mean(&end) - mean(&start));
        check("reward_sd", (end[0] - end[1]).abs() / 2f64.sqrt());
        let best = |seed| column(evaluations, method, seed, "reward").into_iter().fold(f64::NEG_INFINITY, f64::max);
        check("drop_from_best", mean(&over_seeds(|seed| best(seed) - end[seed as usize])));
        check("kl", mean(&over_seeds(|seed| last(evaluations, method, seed, "kl"))));
        check("area", mean(&areas(evaluations, method)));
        // Responses to the same prompts, before and after, and of two methods.
        let gains: Vec<Vec<f64>> = (0..SEEDS)
            .map(|seed| {
                let before = rewards(samples, method, seed, false);
                rewards(samples, method, seed, true).iter().map(|(prompt, after)| after - before[prompt]).collect()
            })
            .collect();
        check("gain", mean(&gains.concat()));
        let (low, high) = crossed(&gains);
        let close = |name: &str, expected: f64, width: f64| {
            let found = of(name).unwrap();
            assert!((found - expected).abs() < 0.1 * width, "{name} of {method} is {found}, not {expected}");
        };
        close("gain_low", low, high - low);
        close("gain_high", high, high - low);
        if method != "sft" {
            let wins: Vec<Vec<f64>> = (0..SEEDS)
                .map(|seed| {
                    let sft = rewards(samples, "sft", seed, true);
                    let win = |(prompt, own): (&i64, &f64)| match (*own > sft[prompt], *own == sft[prompt]) {
                        (true, _) => 1.0,
                        (_, true) => 0.5,
                        _ => 0.0,
                    };
                    rewards(samples, method, seed, true).iter().map(win).collect()
                })
                .collect();
            check("win_rate", mean(&wins.concat()));
            let (low, high) = crossed(&wins);
            close("win_rate_low", low, high - low);
            close("win_rate_high", high, high - low);
        }
        let ((own, there), (base, base_there)) =
            (restricted(evaluations, method, level), restricted(evaluations, "on_policy", level));
        check("reached", there as f64);
        match there + base_there {
            0 => assert!(of("efficiency").is_none()),
            _ => {
                check("efficiency", base / own);
                let all = SEEDS as usize;
                let expected = match (method, base_there == all, there == all) {
                    ("on_policy", ..) | (_, true, true) => "exact",
                    (_, false, true) => "at least",
                    (_, true, false) => "at most",
                    _ => "restricted",
                };
                assert_eq!(word(table, &[("method", method)], "efficiency_reading"), expected, "{method}");
            }
        }
        if method == "qstar" {
            let logs = over_seeds(|seed| {
                mean(&column(steps, method, seed, "ess_ratio_geometric").iter().map(|x| x.ln()).collect::<Vec<_>>())
            });
            let (low, high) = interval_of_two(&logs);
            check("ess_ratio", mean(&logs).exp());
            check("ess_ratio_low", low.exp());
            check("ess_ratio_high", high.exp());
            assert!(of("qstar_minus").is_none());
        } else {
            let at = others.iter().position(|other| *other == method).unwrap();
            let d = differences(method);
            let (low, high) = interval_of_two(&d);
            check("qstar_minus", mean(&d));
            check("qstar_minus_low", low);
            check("qstar_minus_high", high);
            check("p_paired", p_paired[at]);
            check("p_paired_holm", paired_holm[at]);
            // By Simpson's rule, good to some 1e-8.
            assert!(
                (of("p_welch").unwrap() - p_welch[at]).abs() < 1e-6,
                "{method}: {:?} {}",
                of("p_welch"),
                p_welch[at]
            );
            assert!((of("p_welch_holm").unwrap() - welch_holm[at]).abs() < 1e-5, "{method}");
            let sd = (d[0] - d[1]).abs() / 2f64.sqrt();
            check("detectable", of("detectable_sd").unwrap() * sd);
        }
    }
}

fn check_verdict(judged: &DataFrame, rivals: &DataFrame, [evaluations, _, steps]: &[Files; 3], noise: &DataFrame) {
    assert_eq!(texts(judged, "hypothesis"), ["H1", "H2", "H3", "H4", "H5"]);
    let of = |hypothesis: &str, name: &str| number(judged, &[("hypothesis", hypothesis)], name);
    let says = |hypothesis: &str| word(judged, &[("hypothesis", hypothesis)], "verdict");
    let logs = over_seeds(|seed| {
        mean(&column(steps, "qstar", seed, "ess_ratio_geometric").iter().map(|x| x.ln()).collect::<Vec<_>>())
    });
    let (low, high) = interval_of_two(&logs);
    let (low, high) = (low.exp(), high.exp());
    near(of("H1", "value"), mean(&logs).exp(), "H1");
    let most = mean(&over_seeds(|seed| mean(&column(steps, "qstar", seed, "ess_ratio_near_1")))) > 0.5;
    let expected = match (low >= 0.9 && high <= 1.1 && most, low > 1.1 || high < 0.9) {
        (true, _) => "supported",
        (_, true) => "refuted",
        _ => "undecided",
    };
    assert_eq!(says("H1"), expected);

    // H2: areas, and their tests.
    let others = ["sft", "on_policy", "reinforce"];
    let own = areas(evaluations, "qstar");
    let differences: Vec<Vec<f64>> =
        others.iter().map(|other| own.iter().zip(areas(evaluations, other)).map(|(a, b)| a - b).collect()).collect();
    let p: Vec<f64> =
        differences.iter().map(|d| 1.0 - 2.0 / PI * (mean(d) / ((d[0] - d[1]).abs() / 2.0)).abs().atan()).collect();
    let p_holm = holm(&p);
    let statistic = "area under the learning curve, qstar less the other";
    for (at, other) in others.iter().enumerate() {
        let row = [("hypothesis", "H2"), ("statistic", statistic), ("rival", *other)];
        near(number(rivals, &row, "value"), mean(&differences[at]), other);
        near(number(rivals, &row, "p_holm"), p_holm[at], other);
    }
    let certain = |at: &usize| p_holm[*at] < 0.05;
    let beaten: Vec<usize> = (0..3).filter(|at| certain(at) && mean(&differences[*at]) < 0.0).collect();
    assert_eq!(says("H2") == "refuted", !beaten.is_empty());
    // What the verdict rests on: where it is refuted what beats qstar for certain, else what is open.
    let open: Vec<usize> = (0..3).filter(|at| !certain(at)).collect();
    let decides = [beaten, open, vec![0, 1, 2]].into_iter().find(|some| !some.is_empty()).unwrap();
    let least = decides.into_iter().map(|at| mean(&differences[at])).fold(f64::INFINITY, f64::min);
    near(of("H2", "value"), least, "H2");

    // H3: ratios of the noise, geometric mean over seeds, where both have it.
    let log_noise = |method: &str| -> Vec<Option<f64>> {
        let rows = super::frames::only(noise, &[("method", method)]);
        numbers(&rows, "noise").into_iter().map(|noise| noise.map(f64::ln)).collect()
    };
    for other in others {
        let both: Vec<f64> =
            log_noise(other).into_iter().zip(log_noise("qstar")).filter_map(|(a, b)| Some(a? - b?)).collect();
        let found = number(rivals, &[("hypothesis", "H3"), ("rival", other)], "value");
        match both.is_empty() {
            true => assert!(found.is_none()),
            false => near(found, mean(&both).exp(), &format!("noise of {other}")),
        }
    }

    // H4.
    near(of("H4", "value"), mean(&over_seeds(|seed| last(evaluations, "qstar", seed, "kl"))), "H4");
    let kl = |method: &str| over_seeds(|seed| last(evaluations, method, seed, "kl"));
    for other in others {
        let row =
            [("hypothesis", "H4"), ("statistic", "KL to π_init, the other's less that of qstar"), ("rival", other)];
        near(number(rivals, &row, "value"), mean(&kl(other)) - mean(&kl("qstar")), other);
    }
}

/// A method: for each of two seeds distinct-2, −self-BLEU and entropy, and the logarithm of its noise.
type Explored = (&'static str, [[f64; 3]; 2], [f64; 2]);

/// H5 with a noise that is given: all sixteen resamples of two seeds of runs and two of noise, which are equally likely.
fn check_exploration(frames: &[&DataFrame; 3], [evaluations, samples, _]: &[Files; 3]) {
    let given = [("sft", [0.5, 0.6]), ("on_policy", [0.2, 1.1]), ("reinforce", [0.1, 3.0]), ("qstar", [1.0, 1.0])];
    let rows: Vec<_> =
        given.iter().flat_map(|(method, of)| [(*method, 0, Some(of[0])), (*method, 1, Some(of[1]))]).collect();
    let [e, x, s] = *frames;
    let judged = study::verdict(e, x, s, Some(&super::frames::noise("micro", &rows)), &[]).unwrap();
    let found = number(&judged, &[("hypothesis", "H5")], "value").unwrap();

    let measures = |method: &str, seed: i64| {
        let [distinct, entropy] = ["distinct_2", "entropy"].map(|name| last(evaluations, method, seed, name));
        [distinct, -self_bleu(samples, method, seed), entropy]
    };
    let measured: Vec<Explored> = given
        .iter()
        .map(|(method, noise)| (*method, [measures(method, 0), measures(method, 1)], noise.map(f64::ln)))
        .collect();
    let own = measured[3];
    let pairs = [[0, 0], [0, 1], [1, 0], [1, 1]];
    let mut count = 0;
    for runs in pairs {
        for draws in pairs {
            let beats = |(_, measures, noise): &Explored| {
                let more = |at: usize| {
                    runs.iter().map(|seed| measures[*seed][at]).sum::<f64>()
                        > runs.iter().map(|seed| own.1[*seed][at]).sum::<f64>()
                };
                let sum = |noise: &[f64; 2]| draws.iter().map(|seed| noise[*seed]).sum::<f64>();
                (0..3).all(more) && sum(noise) < sum(&own.2)
            };
            count += usize::from(measured[..3].iter().any(beats));
        }
    }
    println!("H5: {found}, and {count} of 16 resamples");
    assert!((found - count as f64 / 16.0).abs() < 0.05, "{found} instead of {count}/16");
}

/// Self-BLEU is a metric with tests of its own; here it is only applied to the last responses.
fn self_bleu(samples: &Files, method: &str, seed: i64) -> f64 {
    let steps = column(samples, method, seed, "step");
    let responses: Vec<String> =
        samples[&(method.to_owned(), seed)].iter().flat_map(|part| texts(part, "response")).collect();
    let last = steps.iter().copied().fold(0.0, f64::max);
    let texts: Vec<String> =
        steps.iter().zip(responses).filter(|(step, _)| **step == last).map(|(_, text)| text).collect();
    let bleu = qstar::metrics::Bleu { effective_order: true, ..Default::default() };
    qstar::metrics::self_bleu(&qstar::metrics::tokenize(&texts, &bleu), &bleu).unwrap()
}

fn check_other_tables(frames: &[&DataFrame; 3], levels: &[(&str, f64)], [evaluations, samples, steps]: &[Files; 3]) {
    let [e, x, s] = *frames;
    let over_steps = |method: &str, name: &str| mean(&over_seeds(|seed| mean(&column(steps, method, seed, name))));
    let rules = study::rules_table(e, x, s, levels).unwrap();
    assert_eq!(texts(&rules, "method"), ["qstar"]);
    for name in ["alpha_mean", "ess_p", "ess_t", "q_kl_p", "q_kl_t", "gradient_variance", "alpha_irregular"] {
        near(numbers(&rules, name)[0], over_steps("qstar", name), name);
    }
    // The variance over all tokens: within steps and between them.
    let every = |name: &str| (0..SEEDS).flat_map(|seed| column(steps, "qstar", seed, name)).collect::<Vec<f64>>();
    let (means, sds) = (every("alpha_mean"), every("alpha_sd"));
    let square = mean(&means.iter().zip(&sds).map(|(m, sd)| m * m + sd * sd).collect::<Vec<_>>());
    near(numbers(&rules, "alpha_sd")[0], (square - mean(&means).powi(2)).sqrt(), "alpha_sd");

    let weights = study::weight_table(e, x, s).unwrap();
    for name in ["w_raw_max", "w_cv", "ess_token_raw", "ess_sequence", "gradient_norm"] {
        near(number(&weights, &[("method", "qstar")], name), over_steps("qstar", name), name);
    }
    assert!(number(&weights, &[("method", "sft")], "w_raw_max").is_none());

    let costs = study::efficiency_table(e, x, s).unwrap();
    let spent = |method: &str, name: &str| mean(&over_seeds(|seed| last(evaluations, method, seed, name)));
    let gain = |method: &str| {
        spent(method, "reward") - mean(&over_seeds(|seed| column(evaluations, method, seed, "reward")[0]))
    };
    for method in METHODS {
        let of = |name: &str| number(&costs, &[("method", method)], name);
        near(of("flops"), spent(method, "flops"), "flops");
        let relative = spent(method, "flops") / spent("on_policy", "flops");
        near(of("relative_flops"), relative, "relative_flops");
        near(of("relative_reward_calls"), spent(method, "reward_calls") / spent("on_policy", "reward_calls"), "calls");
        near(of("score_flops"), gain(method) / relative, "score_flops");
        let better = |other: &&str| {
            let (a, b) = ((gain(other), spent(other, "flops")), (gain(method), spent(method, "flops")));
            a.0 >= b.0 && a.1 <= b.1 && a != b
        };
        let front = costs.column("pareto_flops").unwrap().bool().unwrap();
        let at = texts(&costs, "method").iter().position(|name| name == method).unwrap();
        assert_eq!(front.get(at).unwrap(), !METHODS.iter().any(better), "{method}");
    }

    // After so many samples: the last evaluation at or before.
    let spent = column(evaluations, "qstar", 0, "samples");
    let count = spent[1] + 1.0;
    let scale = study::scale_table(e, x, s, &[count]).unwrap();
    let at = |step: f64, family: Option<&str>, method: &str| {
        let of_seed = |seed: i64| {
            let key = (method.to_owned(), seed);
            let families: Vec<String> = samples[&key].iter().flat_map(|part| texts(part, "family")).collect();
            let rows = column(samples, method, seed, "step").into_iter().zip(column(samples, method, seed, "reward"));
            let kept: Vec<f64> = rows
                .zip(families)
                .filter(|((s, _), f)| *s == step && family.is_none_or(|family| family == f))
                .map(|((_, reward), _)| reward)
                .collect();
            mean(&kept)
        };
        mean(&over_seeds(of_seed))
    };
    let families = texts(&scale, "family");
    for (row, family) in families.iter().enumerate() {
        let family = (family != "all").then_some(family.as_str());
        let end = scale.column("at_end").unwrap().bool().unwrap().get(row).unwrap();
        let step = if end { 6.0 } else { 2.0 };
        near(numbers(&scale, "reward")[row], at(step, family, "qstar"), "reward");
        near(
            numbers(&scale, "over_reinforce")[row],
            at(step, family, "qstar") - at(step, family, "reinforce"),
            "advantage",
        );
        let best =
            ["sft", "on_policy", "reinforce"].map(|other| at(step, family, other)).into_iter().fold(f64::MIN, f64::max);
        near(numbers(&scale, "over_best")[row], at(step, family, "qstar") - best, "advantage over the best");
    }
    let targets = study::target_table(e, x, s).unwrap();
    let odd = families.iter().find(|family| *family != "all").unwrap();
    near(
        number(&targets, &[("method", "qstar"), ("family", odd)], "gain"),
        at(6.0, Some(odd), "qstar") - at(0.0, Some(odd), "qstar"),
        "gain of a family",
    );
    assert!(texts(&targets, "standing").iter().all(|standing| standing == "only one"));
}

fn check_checklist(list: &DataFrame, [evaluations, samples, steps]: &[Files; 3]) {
    let (methods, seeds) = (texts(list, "method"), numbers(list, "seed"));
    let (checks, results, values) = (texts(list, "check"), texts(list, "result"), numbers(list, "value"));
    let find = |method: &str, seed: i64, check: &str| {
        let fits = |row: &usize| methods[*row] == method && seeds[*row] == Some(seed as f64) && checks[*row] == check;
        let row = (0..list.height()).find(fits).unwrap();
        (results[row].as_str(), values[row])
    };
    let result = |passed: bool| if passed { "passed" } else { "FAILED" };
    for seed in 0..SEEDS {
        for method in METHODS {
            let kl = column(evaluations, method, seed, "kl").into_iter().fold(0.0, f64::max);
            assert_eq!(find(method, seed, "KL in bounds"), (result(kl <= 20.0), Some(kl)));
            let mut norms = column(steps, method, seed, "gradient_norm");
            norms.sort_by(f64::total_cmp);
            let ratio = norms[5] / (0.5 * (norms[2] + norms[3]));
            near(find(method, seed, "gradient does not explode").1, ratio, "the gradient's largest norm");
            let distinct = column(evaluations, method, seed, "distinct_2");
            near(
                find(method, seed, "diverse samples").1,
                distinct[distinct.len() - 1] / distinct[0],
                "distinct bigrams",
            );
        }
        let logs: Vec<f64> = column(steps, "qstar", seed, "ess_ratio_geometric").iter().map(|x| x.ln()).collect();
        let ratio = mean(&logs).exp();
        let found = find("qstar", seed, "ESS ratio near 1");
        near(found.1, ratio, "the ESS ratio");
        assert_eq!(found.0, result((0.9..=1.1).contains(&ratio)));
        let (own, sft) = (rewards(samples, "qstar", seed, true), rewards(samples, "sft", seed, true));
        let difference = mean(&own.iter().map(|(prompt, reward)| reward - sft[prompt]).collect::<Vec<_>>());
        let wins = own.iter().filter(|(prompt, reward)| **reward > sft[prompt]).count();
        let losses = own.iter().filter(|(prompt, reward)| **reward < sft[prompt]).count();
        let above = f64::from(u8::from(difference > 0.0)) + f64::from(u8::from(wins > losses));
        assert_eq!(find("qstar", seed, "a metric above the baseline"), (result(above > 0.0), Some(above)));
    }
}
