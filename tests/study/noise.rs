//! Gradient noise of real models, against gradients of which every number is looked at.

use candle_core::{DType, Tensor};
use qstar::experiment::{World, study};
use qstar::method::{Method, REJECTION, SFT};
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

/// Steps at one θ are independent: with S gradients g_s of whole batches, (‖Σ g‖² − Σ‖g‖²)/(S(S − 1)) estimates ‖E g‖²
/// without bias and without a look at microbatches. The gradients are clipped to a norm far below their own: the noise is
/// that from before.
#[test]
fn noise_from_microbatches_is_that_from_whole_gradients() {
    const STEPS: u64 = 60;
    let world = world();
    let initial = &*world.models.initial;
    let frame = study::gradient_noise(&world, &[SFT], &[("π_init", initial)], STEP, STEPS, 1).unwrap();
    let own = |name: &str| numbers(&frame, name)[0].unwrap();

    let reference = initial.frozen().unwrap();
    let config = StepConfig { learning_rate: 0.0, ..STEP };
    let target = Some(&*world.models.target);
    let mut trainer = Trainer::new(&*world.task, SFT, config, 777, initial, &reference, target).unwrap();
    let (mut sum, mut squares): (Vec<f64>, f64) = (Vec::new(), 0.0);
    for _ in 0..STEPS {
        let batch = trainer.draw().unwrap();
        let (gradient, update) = trainer.gradient(&batch).unwrap().unwrap();
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        let values: Vec<f64> = gradient.values().iter().flat_map(flat).map(|x| x * gradient.scale()).collect();
        let square = values.iter().map(|x| x * x).sum::<f64>();
        assert!((square.sqrt() / update.gradient_norm - 1.0).abs() < 1e-4, "{square} {}", update.gradient_norm);
        squares += square;
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(&values).for_each(|(sum, x)| *sum += x);
        trainer.update(&batch).unwrap();
    }
    let n = STEPS as f64;
    let signal = (sum.iter().map(|x| x * x).sum::<f64>() - squares) / (n * (n - 1.0));
    let variance = squares / n - signal;
    // The interval of 95% is 2.001 standard errors wide on each side; the other estimate is as uncertain.
    let error = (own("noise_high") / own("noise_low")).ln() / (2.0 * 2.001);
    let away = (variance / signal / own("noise")).ln();
    println!("noise {} ± {:.1}%, from whole gradients {}", own("noise"), 100.0 * error, variance / signal);
    assert!(error < 0.2 && away.abs() < 3.0 * 2f64.sqrt() * error, "{away} with an error of {error}");
    assert!((own("signal") + own("variance") - squares / n).abs() < 0.1 * squares / n);
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
