//! Gradient noise of real models, against gradients of which every number is looked at.

use candle_core::{DType, Tensor};
use qstar::experiment::{World, study};
use qstar::method::{Method, ON_POLICY, QSTAR, REJECTION, SFT};
use qstar::models::{Config, Gpt2Config, LanguageModel};
use qstar::tasks::micro::{MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, MicroWorld};
use qstar::train::{StepConfig, Trainer};

use super::frames::{numbers, only, texts};

fn world() -> World {
    let task = MicroWorld::new().unwrap();
    let model = |seed| {
        let config = Gpt2Config {
            vocab_size: task.vocab_size(),
            n_positions: MAX_PROMPT_TOKENS + MAX_RESPONSE_TOKENS,
            n_embd: 16,
            n_layer: 1,
            n_head: 1,
            initializer_range: 0.2,
            ..Default::default()
        };
        LanguageModel::new(Config::Gpt2(config), seed).unwrap()
    };
    let (initial, expert) = (model(1), model(2));
    World::new(task, initial, expert).unwrap()
}

const STEP: StepConfig = StepConfig {
    prompts: 8,
    responses: 2,
    microbatches: 8,
    learning_rate: 1e-3,
    warmup_steps: 1,
    schedule: qstar::train::Schedule::Constant,
    kl_coefficient: 0.02,
    kl_control: qstar::train::KlControl::Fixed,
    max_gradient_norm: 1e-3,
    shaping: qstar::train::Shaping { length_penalty: 0.0, cut_penalty: 0.0, normalize: false, clip: None },
    temperature: 1.0,
    speculation: None,
};

/// The other way to it: of the m microbatches of a step the variance v is unbiased for one of them, v/m for their mean g, and
/// ‖g‖² − v/m for ‖E g‖². The gradients are clipped to a norm far below their own: the noise is that from before.
#[test]
fn noise_from_whole_gradients_is_that_from_microbatches() {
    const STEPS: u64 = 60;
    let world = world();
    let initial = &*world.models.initial;
    let frame = study::gradient_noise(&world, &[SFT], &[("π_init", initial)], STEP, STEPS, 1).unwrap();
    let own = |name: &str| numbers(&frame, name)[0].unwrap();

    let reference = initial.frozen().unwrap();
    let config = StepConfig { learning_rate: 0.0, ..STEP };
    let target = Some(&*world.models.target);
    let mut trainer = Trainer::new(&*world.task, SFT, config, 777, initial, &reference, target).unwrap();
    let (mut squares, mut variances) = (Vec::new(), Vec::new());
    for _ in 0..6 * STEPS {
        let row = trainer.step().unwrap();
        squares.push(row.gradient_norm.unwrap().powi(2));
        variances.push(row.gradient_variance.unwrap() / STEP.microbatches as f64);
    }
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let variance = mean(&variances);
    let noise = variance / (mean(&squares) - variance);
    // The interval of 95% is 2.093 standard errors wide on each side (19 degrees of freedom). The other estimate uses no pairs
    // of steps, and has six times as many steps for it.
    let error = (own("noise_high") / own("noise_low")).ln() / (2.0 * 2.093);
    let away = (noise / own("noise")).ln();
    println!("noise {} ± {:.1}%, from microbatches {noise}", own("noise"), 100.0 * error);
    assert!(error < 0.2 && away.abs() < 3.0 * 2f64.sqrt() * error, "{away} with an error of {error}");
    assert!((own("signal") + own("variance") - mean(&squares)).abs() < 0.15 * mean(&squares));
}

/// Where responses of one prompt lie on two microbatches, and where a value head learns as well.
#[test]
fn noise_is_that_of_the_policys_whole_gradients() {
    let world = world();
    let initial = &*world.models.initial;
    let reference = initial.frozen().unwrap();
    let target = Some(&*world.models.target);
    for method in [ON_POLICY, QSTAR] {
        let frame =
            study::gradient_noise(&world, std::slice::from_ref(&method), &[("π_init", initial)], STEP, 5, 2).unwrap();
        for seed in 0..2 {
            let gradients: Vec<Vec<f64>> = (0..5)
                .map(|step| {
                    let seed = 20_000 + 5 * seed + step;
                    let step = Trainer::new(&*world.task, method.clone(), STEP, seed, initial, &reference, target);
                    let mut step = step.unwrap();
                    let batch = step.draw().unwrap();
                    let (gradient, _) = step.gradient(&batch).unwrap().unwrap();
                    let named = step.params().iter().zip(gradient.values());
                    let flat =
                        |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                    let kept = named.filter(|((name, _), _)| !name.starts_with("value_head"));
                    kept.flat_map(|(_, x)| flat(x)).map(|x| x * gradient.scale()).collect()
                })
                .collect();
            let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (mut signal, mut square) = (0.0, 0.0);
            for (i, a) in gradients.iter().enumerate() {
                square += inner(a, a) / 5.0;
                signal += gradients[..i].iter().map(|b| inner(a, b) / 10.0).sum::<f64>();
            }
            let of = |name: &str| numbers(&frame, name)[seed as usize].unwrap();
            assert!((of("signal") - signal).abs() < 1e-4 * square, "{}: {signal}", method.name);
            assert!((of("variance") - (square - signal)).abs() < 1e-4 * square, "{}: {square}", method.name);
        }
    }
}

#[test]
fn a_frame_of_noise_has_a_row_a_theta_method_and_seed() {
    let world = world();
    let thetas = [("π_init", &*world.models.initial), ("expert", &*world.expert)];
    // Random models get hardly a reward: next to nothing is accepted, and nothing is known.
    let mut stingy = REJECTION;
    if let qstar::method::Source::Accepted(rejection) = &mut stingy.source {
        rejection.beta = 1e-3;
    }
    let methods: [Method; 2] = [SFT, stingy];
    let noise = || study::gradient_noise(&world, &methods, &thetas, STEP, 3, 2).unwrap();
    let frame = noise();
    assert_eq!(frame.height(), 8);
    assert_eq!(texts(&frame, "task"), ["micro"; 8]);
    assert_eq!(numbers(&frame, "parameters")[0], Some(world.models.initial.params.count() as f64));
    assert_eq!(numbers(&frame, "seed")[..4], [Some(0.0), Some(1.0), Some(0.0), Some(1.0)]);
    let of = |method: &str, theta: &str, name: &str| -> Vec<f64> {
        numbers(&only(&frame, &[("method", method), ("theta", theta)]), name).into_iter().flatten().collect()
    };
    assert_eq!((of("sft", "π_init", "noise").len(), of("sft", "π_init", "used")), (2, vec![3.0; 2]));
    assert_eq!((of("rejection", "π_init", "noise").len(), of("rejection", "expert", "noise").len()), (0, 0));
    // The expert is the target, where maximum likelihood has nothing left to learn: E g = 0, and all is noise.
    let (signal, variance) = (of("sft", "expert", "signal"), of("sft", "expert", "variance"));
    assert!(signal.iter().zip(&variance).all(|(signal, variance)| *signal < 0.5 * variance), "{signal:?} {variance:?}");
    // The same bits again.
    assert!(frame.equals_missing(&noise()));
    assert!(study::gradient_noise(&world, &[], &thetas, STEP, 3, 2).is_err());
    assert!(study::gradient_noise(&world, &methods, &thetas, STEP, 1, 2).is_err());
}

#[test]
fn a_level_lies_on_the_way_to_the_expert() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let world = World::micro(&data).unwrap();
    let [start, middle, end] = [0.0, 0.5, 1.0].map(|share| world.level(share, 60).unwrap());
    assert!(start < end && (middle - 0.5 * (start + end)).abs() < 1e-12, "{start} {middle} {end}");
    let backwards = World { expert: world.models.initial.clone(), ..world };
    assert!(format!("{:#}", backwards.level(0.5, 60).unwrap_err()).contains("no way up"));
}
