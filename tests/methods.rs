//! What every method estimates: the mean over all outcomes of the gradient that the trainer computes, against the exact
//! gradient of what it maximises or an independent closed form of what its documentation says. Nothing is sampled.

#[path = "methods/world.rs"]
mod world;

use qstar::method::{
    ALL, Bound, DPO, Dpo, GRPO, Level, Method, ON_POLICY, Objective, Over, QSTAR, QSTAR_PPO, REINFORCE, REJECTION,
    RLOO, Rejection, SFT, Source, Treatment, UNIFORM, Weight,
};
use qstar::mixture::Rule;
use qstar::rollout::Proposal;
use qstar::target::BestOfN;
use world::{Along, BETA, World, distance};

/// Relative to the exact gradient; all is in f64.
const EXACT: f64 = 1e-9;

fn drawn(method: &Method, world: &World) -> Along {
    match method.source {
        Source::Drawn(Proposal::Policy) => world.log_p.clone(),
        Source::Drawn(Proposal::Target) => world.log_t.clone(),
        Source::Drawn(Proposal::Mixture(rule)) => world.mixture(&rule),
        _ => panic!("{}: its responses are not drawn token by token", method.name),
    }
}

#[test]
fn the_exact_gradient_is_that_of_the_objective() {
    let world = World::new(true);
    assert!(world.objective_by_differences() < 1e-7);
}

#[test]
fn reinforce_and_rloo_are_unbiased() {
    let world = World::new(true);
    for method in [REINFORCE, RLOO] {
        let mean = world.mean_gradient(&method, &world.log_p, 2);
        let off = distance(&mean, &world.exact_gradient());
        assert!(off < EXACT, "{}: {off}", method.name);
    }
}

/// With the weight of the whole sequence every proposal of full support gives ∇J.
#[test]
fn sequence_weights_are_unbiased_for_every_rule() {
    let world = World::new(true);
    for method in ALL {
        let Source::Drawn(Proposal::Mixture(_) | Proposal::Target) = method.source else { continue };
        if method.objective != Objective::Reinforce {
            continue;
        }
        let weight = Weight { level: Level::Sequence, treatment: Treatment::Raw };
        let method = Method { weight, ..method };
        let mean = world.mean_gradient(&method, &drawn(&method, &world), 2);
        let off = distance(&mean, &world.exact_gradient());
        assert!(off < EXACT, "{}: {off}", method.name);
    }
}

/// Σ_y q(y) Σ_t clip(π/q of the token) (R(y) − E_q R) ∇log π(y_t).
#[test]
fn token_weights_give_what_their_documentation_says() {
    let world = World::new(true);
    for method in ALL {
        let Source::Drawn(Proposal::Mixture(_) | Proposal::Target) = method.source else { continue };
        if method.objective != Objective::Reinforce {
            continue;
        }
        assert_eq!(method.weight, QSTAR.weight, "{}: the study's clipped token weights", method.name);
        let log_q = drawn(&method, &world);
        let mean_return = world.mean(&log_q, |y| world.value(y));
        let expected = world.sum(&log_q, |y, t| {
            let ratio = (world.log_p[y][t] - log_q[y][t]).exp();
            ratio.clamp(0.1, 10.0) * (world.value(y) - mean_return)
        });
        let off = distance(&world.mean_gradient(&method, &log_q, 2), &expected);
        let bias = distance(&expected, &world.exact_gradient());
        println!("{}: {off:.1e}; relative bias for ∇J {bias:.3}", method.name);
        assert!(off < EXACT, "{}: {off}", method.name);
        // Here the rule of the signal-to-noise ratio takes α = 1 everywhere: the policy itself.
        assert_eq!(bias < EXACT, method.name == "snr_max", "{}: {bias}", method.name);
    }
}

/// Weights over their mean in the pair: 2 w_1 / (w_1 + w_2), one number a response.
#[test]
fn normalised_weights_give_what_their_documentation_says() {
    let world = World::new(false);
    let treatment = Treatment::Normalized { over: Over::Prompt };
    let method = Method { weight: Weight { level: Level::Sequence, treatment }, ..QSTAR };
    let log_q = drawn(&method, &world);
    let weight = |y: usize| (world.log_p[y].iter().sum::<f64>() - log_q[y].iter().sum::<f64>()).exp();
    // The advantage of y, times its weight, over the other response.
    let coefficient = |y: usize| {
        world
            .mean(&log_q, |other| 2.0 * weight(y) / (weight(y) + weight(other)) * (world.value(y) - world.value(other)))
    };
    let coefficients: Vec<f64> = (0..world.outcomes.len()).map(coefficient).collect();
    let expected = world.sum(&log_q, |y, _| coefficients[y]);
    let off = distance(&world.mean_gradient(&method, &log_q, 2), &expected);
    assert!(off < EXACT, "{off}");
}

#[test]
fn ppo_gives_the_gradient_over_the_length_at_lambda_1_and_lambda_returns_below() {
    let Objective::Ppo(default) = ON_POLICY.objective else { panic!("PPO") };
    // All responses of one length: the mean over tokens is the sum over it.
    let world = World::new(false);
    let of = |gae_lambda: f64| {
        let ppo = qstar::method::Ppo { gae_lambda, whiten: false, value_coefficient: 0.0, ..default };
        Method { objective: Objective::Ppo(ppo), ..ON_POLICY }
    };
    let length = world.outcomes[0].len() as f64;
    let over_length: Vec<f64> = world.exact_gradient().iter().map(|g| g / length).collect();
    let off = distance(&world.mean_gradient(&of(1.0), &world.log_p, 1), &over_length);
    assert!(off < EXACT, "{off}");

    let world = World::new(true);
    let method = of(0.95);
    let values = world.values(&method);
    let expected = world.sum(&world.log_p, |y, t| {
        let tokens = world.outcomes[y].len();
        world.lambda_return(&values[y], y, t, 0.95) / tokens as f64
    });
    let off = distance(&world.mean_gradient(&method, &world.log_p, 1), &expected);
    assert!(off < EXACT, "{off}");
}

/// In its first pass q*'s tokens outside of [0.8, 1.2] count only where that pulls them back.
#[test]
fn ppo_on_q_star_is_clipped_from_the_first_pass_on() {
    let Objective::Ppo(default) = QSTAR_PPO.objective else { panic!("PPO") };
    let ppo = qstar::method::Ppo { whiten: false, value_coefficient: 0.0, ..default };
    let method = Method { objective: Objective::Ppo(ppo), ..QSTAR_PPO };
    let world = World::new(true);
    let (log_q, values) = (drawn(&method, &world), world.values(&method));
    let mut clipped = 0;
    let mut coefficient = |y: usize, t: usize| {
        let ratio = (world.log_p[y][t] - log_q[y][t]).exp();
        let advantage = world.lambda_return(&values[y], y, t, 0.95);
        let out = (ratio > 1.2 && advantage > 0.0) || (ratio < 0.8 && advantage < 0.0);
        clipped += usize::from(out);
        if out { 0.0 } else { ratio * advantage / world.outcomes[y].len() as f64 }
    };
    let coefficients: Vec<Vec<f64>> =
        (0..world.outcomes.len()).map(|y| (0..world.outcomes[y].len()).map(|t| coefficient(y, t)).collect()).collect();
    let expected = world.sum(&log_q, |y, t| coefficients[y][t]);
    let off = distance(&world.mean_gradient(&method, &log_q, 1), &expected);
    assert!(off < EXACT && clipped > 0, "{off}, {clipped} clipped");
}

/// For two responses the advantage is (r − r')/2 over |r − r'|/√2 + 1e-4; the divergence pulls with π_init/π − 1.
#[test]
fn grpo_gives_what_its_documentation_says() {
    let world = World::new(true);
    let advantage = |y: usize| {
        world.mean(&world.log_p, |other| {
            let gap = world.rewards[y] - world.rewards[other];
            gap / 2.0 / (gap.abs() / 2f64.sqrt() + 1e-4)
        })
    };
    let advantages: Vec<f64> = (0..world.outcomes.len()).map(advantage).collect();
    let expected = world.sum(&world.log_p, |y, t| {
        let pull = (world.log_init[y][t] - world.log_p[y][t]).exp() - 1.0;
        (advantages[y] + BETA * pull) / world.outcomes[y].len() as f64
    });
    let off = distance(&world.mean_gradient(&GRPO, &world.log_p, 2), &expected);
    assert!(off < EXACT, "{off}");
}

/// −∇KL(π_t‖π_θ).
#[test]
fn maximum_likelihood_goes_towards_what_it_reads() {
    let world = World::new(true);
    let expected = world.sum(&world.log_t, |_, _| 1.0);
    let off = distance(&world.mean_gradient(&SFT, &world.log_t, 1), &expected);
    assert!(off < EXACT, "{off}");
}

#[test]
fn rejection_goes_towards_the_tilted_reference() {
    let world = World::new(true);
    // Rewards are below 1 here, so that no probability is cut.
    let rejection = Rejection { beta: 0.05, bound: Bound::Reward };
    let sums = |x: &Along| -> Vec<f64> { x.iter().map(|row| row.iter().sum()).collect() };
    let (log_p, log_init) = (sums(&world.log_p), sums(&world.log_init));
    let log_a = rejection.log_acceptance(&world.rewards, &log_p, &log_init, 1);
    assert!(log_a.iter().all(|a| *a < 0.0), "none is cut");
    let share: f64 = log_a.iter().zip(&log_p).map(|(a, p)| (a + p).exp()).sum();
    let method = Method { source: Source::Accepted(rejection), ..REJECTION };
    let mean = world.mean_of_singles(&method, |y| (log_a[y] + log_p[y]).exp() / share);
    let tilted: Vec<f64> = log_init.iter().zip(&world.rewards).map(|(init, r)| (init + r / 0.05).exp()).collect();
    let z: f64 = tilted.iter().sum();
    let expected = world.sum_over(|y| tilted[y] / z, |_, _| 1.0);
    let off = distance(&mean, &expected);
    assert!(off < EXACT, "{off}");
}

/// All pairs, chosen by Bradley and Terry's model of the rewards: the derivative of the mean loss along a direction.
#[test]
fn dpo_descends_its_loss() {
    let world = World::new(true);
    let dpo = Dpo { beta: 0.3, label_smoothing: 0.1, length_normalized: true };
    let method = Method { objective: Objective::Dpo(dpo), ..DPO };
    let off = world.dpo_by_differences(&method, &dpo);
    assert!(off < 1e-6, "{off}");
}

#[test]
fn best_of_n_is_unbiased() {
    let world = World::new(true);
    let best = BestOfN { n: 2, beta: 0.3, rule: Rule::Q_STAR };
    let method = Method { name: "best_of_n".into(), source: Source::Picked(best), weight: QSTAR.weight, ..REINFORCE };
    // The weight of a pick is 1/(n q): clipping at 10 does not reach it here.
    let off = distance(&world.mean_of_picks(&method, &best), &world.exact_gradient());
    assert!(off < 1e-6, "{off}");
}

#[test]
fn where_policy_and_target_are_one_qstar_is_reinforce() {
    let world = World::new(true);
    for y in 0..world.outcomes.len() {
        let other = (7 * y + 3) % world.outcomes.len();
        let of = |method: &Method| world.gradient(method, &world.log_p, &[y, other]);
        assert_eq!(of(&QSTAR), of(&REINFORCE), "the same draws give the same bits");
    }
    assert!(
        world
            .mixture_with_itself(&Rule::Q_STAR)
            .iter()
            .flatten()
            .zip(world.log_p.iter().flatten())
            .all(|(q, p)| (q - p).abs() < 1e-12)
    );
}

#[test]
fn the_ends_are_the_policy_and_the_target_and_one_half_is_uniform() {
    let world = World::new(true);
    let close = |a: &Along, b: &Along| a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-10);
    assert!(close(&world.mixture(&Rule::Fixed(1.0)), &world.log_p));
    assert!(close(&world.mixture(&Rule::Fixed(0.0)), &world.log_t));
    assert!(!close(&world.mixture(&Rule::Q_STAR), &world.mixture(&Rule::Fixed(0.5))));
    // Two outcomes whose probabilities are exchanged: α* = 1/2.
    let pair = qstar::mixture::Pair::from_log_probs(&[0.7f64.ln(), 0.3f64.ln()], &[0.3f64.ln(), 0.7f64.ln()]).unwrap();
    let Source::Drawn(Proposal::Mixture(uniform)) = UNIFORM.source else { panic!("a mixture") };
    let alphas = [Rule::Q_STAR, uniform].map(|rule| pair.solve(&rule).unwrap().alpha);
    assert!((alphas[0] - alphas[1]).abs() < 1e-12, "{alphas:?}");
}
