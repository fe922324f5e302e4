//! Central differences in f64.

use candle_core::{Device, Tensor, Var};

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
