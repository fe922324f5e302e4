use qstar::mixture::{self, Rule};
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use std::time::Instant;
fn main() {
    if std::env::var("KEEP").is_ok() {
        qstar::machine::keep_memory();
    }
    let v: usize = std::env::var("V").map_or(50_257, |v| v.parse().unwrap());
    let rows = 32;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut g = || -> f32 { StandardNormal.sample(&mut rng) };
    let p: Vec<f32> = (0..v * rows).map(|_| 3.0 * g()).collect();
    let t: Vec<f32> =
        p.iter().map(|p| p + std::env::var("GAP").map_or(1.5, |g| g.parse::<f32>().unwrap()) * g()).collect();
    for round in 0..3 {
        let time = |name: &str, f: &dyn Fn()| {
            let mut best = f64::MAX;
            let mut sum = 0.0;
            for _ in 0..40 {
                let s = Instant::now();
                f();
                let e = s.elapsed().as_secs_f64();
                best = best.min(e);
                sum += e;
            }
            println!(
                "{round} {name}: min {:.1} mean {:.1} us a row",
                best * 1e6 / rows as f64,
                sum * 1e6 / 40.0 / rows as f64
            );
        };
        time("alpha", &|| {
            std::hint::black_box(mixture::alphas_of_rows(&p, &t, v, &Rule::Q_STAR).unwrap());
        });
        time("fixed alpha", &|| {
            std::hint::black_box(mixture::alphas_of_rows(&p, &t, v, &Rule::Fixed(0.5)).unwrap());
        });
        time("all", &|| {
            std::hint::black_box(mixture::solve_rows(&p, &t, v, &Rule::Q_STAR).unwrap());
        });
        time("read", &|| {
            use rayon::prelude::*;
            let s = |r: &[f32]| {
                qstar::simd::dispatch(
                    #[inline(always)]
                    || qstar::simd::sum(r.len(), |i| r[i]),
                )
            };
            std::hint::black_box(p.par_chunks(v).zip(t.par_chunks(v)).map(|(a, b)| s(a) + s(b)).sum::<f32>());
        });
    }
}
