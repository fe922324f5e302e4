//! The model of Bradley and Terry (1952, Biometrika 39, 324-345): of two responses, one is preferred with the probability
//! σ(r(chosen) − r(rejected)). As a loss for reward models: Ouyang et al. 2022, arXiv:2203.02155, equation 1.

use candle_core::{DType, Result, Tensor};

/// −log σ(chosen − rejected − margin), the mean over pairs: all are of N values.
///
/// Each half of σ is written so that nothing overflows, and gradients are exact on both sides of 0.
pub fn bradley_terry_loss(chosen: &Tensor, rejected: &Tensor, margins: &[f64]) -> Result<Tensor> {
    // Scores in less than f32 are differences of large numbers.
    let wide = |x: &Tensor| if x.dtype() == DType::F64 { Ok(x.clone()) } else { x.to_dtype(DType::F32) };
    let (chosen, rejected) = (wide(chosen)?, wide(rejected)?);
    let margins = Tensor::new(margins, chosen.device())?.to_dtype(chosen.dtype())?;
    let d = ((chosen - rejected)? - margins)?;
    // −log σ(d) = log(1 + e^−|d|) + max(−d, 0), with |d| = sign · d.
    let wrong = d.detach().lt(0.0)?.to_dtype(d.dtype())?;
    let sign = wrong.affine(-2.0, 1.0)?;
    let near = ((&d * sign)?.neg()?.exp()? + 1.0)?.log()?;
    (near - (d * wrong)?)?.mean_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn values_and_slopes_are_those_of_the_closed_form() {
        let chosen = [0.0, 1.5, -2.0, 800.0, -800.0, 0.3];
        let rejected = [0.0, 0.25, 1.0, 0.0, 0.0, 0.1];
        let margins = [0.0, 0.0, 0.5, 0.0, 0.0, 0.2];
        let x = Var::new(&chosen, &Device::Cpu).unwrap();
        let y = Tensor::new(&rejected, &Device::Cpu).unwrap();
        let loss = bradley_terry_loss(&x, &y, &margins).unwrap();
        let grads = loss.backward().unwrap().get(&x).unwrap().to_vec1::<f64>().unwrap();
        let mut expected = 0.0;
        for (i, grad) in grads.iter().enumerate() {
            let d: f64 = chosen[i] - rejected[i] - margins[i];
            // Far out the closed form needs no care of its own: it is 0 or −d.
            expected += if d < -700.0 { -d } else { (-d).exp().ln_1p() };
            let slope = -1.0 / (1.0 + d.exp()) / 6.0;
            assert!((grad - slope).abs() < 1e-15, "at {d}: {grad}, not {slope}");
        }
        assert!((loss.to_scalar::<f64>().unwrap() - expected / 6.0).abs() < 1e-13);
    }
}
