//! Central differences in f64.

use candle_core::{Device, Tensor, Var};
use qstar::nn::{GradientSum, Params};

/// Moves one element of a variable and returns f there.
fn at(var: &Var, index: usize, by: f64, f: &dyn Fn() -> Tensor) -> f64 {
    let original = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mut moved = original.clone();
    moved[index] += by;
    let set = |values: Vec<f64>| var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
    set(moved);
    let value = f().to_scalar::<f64>().unwrap();
    set(original);
    value
}

/// Compares up to `most` elements of a gradient with central differences of f.
pub fn check(name: &str, var: &Var, grad: &Tensor, most: usize, f: &dyn Fn() -> Tensor) {
    let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(grad.iter().all(|g| g.is_finite()), "{name} has a gradient that is not finite");
    assert!(grad.iter().any(|g| *g != 0.0), "{name} has a zero gradient");
    let scale = grad.iter().fold(0f64, |m, g| m.max(g.abs()));
    let h = 1e-5;
    for index in (0..grad.len()).step_by(grad.len().div_ceil(most)) {
        let difference = (at(var, index, h, f) - at(var, index, -h, f)) / (2.0 * h);
        let error = (difference - grad[index]).abs() / scale;
        assert!(error < 1e-6, "{name}[{index}]: backward {}, finite difference {difference}", grad[index]);
    }
}

/// Moves every variable away from its special initial value (zero bias, unit norm).
pub fn move_away(params: &Params) {
    for (i, (_, var)) in params.iter().enumerate() {
        let noise: Vec<f64> =
            (0..var.elem_count()).map(|j| (0.3 * (1 + i) as f64 + 1.7 * j as f64).sin() * 0.2).collect();
        let noise = Tensor::from_vec(noise, var.shape(), &Device::Cpu).unwrap();
        var.set(&(var.as_tensor() + noise).unwrap()).unwrap();
    }
}

/// The gradient of every variable, in their order.
pub fn gradients(params: &Params, loss: &Tensor) -> Vec<Tensor> {
    loss.backward().unwrap();
    let take = |(name, sum): (&str, &GradientSum)| sum.take().unwrap_or_else(|| panic!("{name} has no gradient"));
    params.gradients().map(take).collect()
}

fn largest(x: &Tensor) -> f64 {
    x.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Compares a model's gradients with central differences of its loss; those of variables whose names end in one of
/// `vanishing` are zero.
pub fn check_all(params: &Params, gradients: &[Tensor], vanishing: &[&str], loss: &dyn Fn() -> Tensor) {
    for ((name, var), grad) in params.iter().zip(gradients) {
        if vanishing.iter().any(|end| name.ends_with(end)) {
            assert!(largest(grad) < 1e-13, "{name} has the gradient {grad}");
        } else {
            check(name, var, grad, 12, loss);
        }
    }
}

/// Blocks that are computed again give every gradient the same bits.
pub fn check_same(params: &Params, gradients: &[Tensor], again: &[Tensor]) {
    for ((name, _), (a, b)) in params.iter().zip(gradients.iter().zip(again)) {
        assert_eq!(largest(&(a - b).unwrap()), 0.0, "{name}: computed again, every bit is the same");
    }
}
