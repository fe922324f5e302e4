use qstar::mixture::{Pair, Rule};
use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
fn main() {
    for seed in 0..60 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let v = 50_257;
        let p: Vec<f32> = (0..v)
            .map(|_| {
                let g: f32 = StandardNormal.sample(&mut rng);
                3.0 * g
            })
            .collect();
        let t: Vec<f32> = p.iter().map(|x| x + if rng.random::<f64>() < 0.05 { 100.0 } else { 0.0 }).collect();
        let w = |r: &[f32]| r.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let a = Pair::from_logits(&p, &t).unwrap().solve(&Rule::Q_STAR).unwrap();
        let b = Pair::from_logits_f64(&w(&p), &w(&t)).unwrap().solve(&Rule::Q_STAR).unwrap();
        if (a.log_ess_p - b.log_ess_p).abs() > 1e-4 || (a.alpha - b.alpha).abs() > 1e-6 {
            println!("{seed}\n{a:?}\n{b:?}");
        }
    }
}
