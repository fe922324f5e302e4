//! Loops that the compiler vectorises for the machine they run on.
//!
//! A kernel is an ordinary loop over slices, marked `#[inline(always)]` and called inside
//! [`dispatch`], which compiles it once for every instruction set and picks one at run time.
//! The elementary functions here have no branches and no calls, so that such loops do vectorise.

mod products;
mod small;
mod softmax;

use candle_core::{CpuStorage, WithDType};
pub use small::SmallProduct;
use softmax::{Slopes, Softmax};

/// Runs `kernel` with the widest instruction set of this machine.
///
/// All that `kernel` calls must be `#[inline(always)]`; what is not inlined runs with the
/// baseline instruction set.
#[inline(always)]
pub fn dispatch<R>(kernel: impl FnOnce() -> R) -> R {
    struct Kernel<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Kernel<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Kernel(kernel))
}

/// The number of partial sums in a reduction: one AVX-512 register of f32.
/// A fixed number, so that sums are in the same parts on every machine width.
pub const LANES: usize = 16;

/// A floating-point type that kernels work in: `f32` to train, `f64` to check.
pub trait Real:
    WithDType
    + Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + std::iter::Sum
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;

    /// e^x. Relative error below 3 units in the last place for results that are normal numbers;
    /// below that range the smallest normal number, or zero for an infinite argument.
    fn exp(self) -> Self;
    /// The error function, to a relative error of 2e-7 (f32) and 1e-14 (f64) of 1 − |erf|.
    fn erf(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn of(x: f64) -> Self;
    fn into_f64(self) -> f64;
    /// The products of all rows of x with all rows of w, `inner` long each: `[rows of x, rows of w]`.
    fn products_of_rows(x: &[Self], w: &[Self], inner: usize, out: &mut [Self]);
    /// Adds to `out` `[rows of x, n]` x times the first n columns of w, whose rows are `step` apart.
    fn products_with_columns(x: &[Self], inner: usize, w: &[Self], step: usize, n: usize, out: &mut [Self]);
    fn small_product(product: SmallProduct<Self>);
    /// softmax(scale · x) of the first `seen(i)` values x, one or more, of every row i, in place, with zeros behind them. Rows
    /// are `width` long, a multiple of [`LANES`].
    fn softmax_rows(rows: &mut [Self], width: usize, scale: Self, seen: impl Fn(usize) -> usize);
    /// Turns the gradients of rows p of probabilities into those of the values that they are the softmax of.
    fn softmax_slopes(p: &[Self], slopes: &mut [Self], width: usize, scale: Self);
    /// The values of a storage of this type, to be changed.
    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    // Cody and Waite's reduction to |r| <= ln(2)/2 and the minimax polynomial of Cephes' expf.
    #[inline(always)]
    fn exp(self) -> f32 {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the integer in the low bits
        let x = self.clamp(-87.33, 88.37);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
        let mut y = 1.987_569_1e-4;
        y = y * r + 1.398_199_9e-3;
        y = y * r + 8.333_452e-3;
        y = y * r + 4.166_579_6e-2;
        y = y * r + 1.666_666_5e-1;
        y = y * r + 0.5;
        y = y * r * r + r + 1.0;
        let y = y * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        if self == f32::NEG_INFINITY { 0.0 } else { y }
    }
    // The rational-exponential fit of Press et al., Numerical Recipes, section 6.2 (erfcc).
    #[inline(always)]
    fn erf(self) -> f32 {
        let t = 1.0 / (1.0 + 0.5 * self.abs());
        let mut y = 0.170_872_77;
        y = y * t - 0.822_152_2;
        y = y * t + 1.488_515_9;
        y = y * t - 1.135_204;
        y = y * t + 0.278_868_08;
        y = y * t - 0.186_288_06;
        y = y * t + 0.096_784_18;
        y = y * t + 0.374_091_96;
        y = y * t + 1.000_023_7;
        y = y * t - 1.265_512_2;
        let tail = t * Real::exp(y - self * self);
        (1.0 - tail).copysign(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn into_f64(self) -> f64 {
        self.into()
    }
    fn products_of_rows(x: &[f32], w: &[f32], inner: usize, out: &mut [f32]) {
        products::products_of_rows(x, w, inner, out);
    }
    fn products_with_columns(x: &[f32], inner: usize, w: &[f32], step: usize, n: usize, out: &mut [f32]) {
        products::products_with_columns(x, inner, w, step, n, out);
    }
    fn small_product(product: SmallProduct<f32>) {
        pulp::Arch::new().dispatch(product);
    }
    fn softmax_rows(rows: &mut [f32], width: usize, scale: f32, seen: impl Fn(usize) -> usize) {
        assert!(width.is_multiple_of(LANES), "rows of a softmax are whole vectors");
        pulp::Arch::new().dispatch(Softmax { rows, width, scale, seen });
    }
    fn softmax_slopes(p: &[f32], slopes: &mut [f32], width: usize, scale: f32) {
        assert!(width.is_multiple_of(LANES), "rows of a softmax are whole vectors");
        pulp::Arch::new().dispatch(Slopes { p, slopes, width, scale });
    }
    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    // The same reduction, and the rational function of Cephes' exp.
    #[inline(always)]
    fn exp(self) -> f64 {
        const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
        let x = self.clamp(-708.39, 709.08);
        let shifted = x * std::f64::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * 6.931_457_519_531_25e-1 - n * 1.428_606_820_309_417_2e-6;
        let rr = r * r;
        let p = r * ((1.261_771_930_748_105_9e-4 * rr + 3.029_944_077_074_419_6e-2) * rr + 1.0);
        let q =
            ((3.001_985_051_386_644_6e-6 * rr + 2.524_483_403_496_841e-3) * rr + 2.272_655_482_081_550_3e-1) * rr + 2.0;
        let y = 1.0 + 2.0 * p / (q - p);
        let y = y * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
        if self == f64::NEG_INFINITY { 0.0 } else { y }
    }
    fn erf(self) -> f64 {
        statrs::function::erf::erf(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn into_f64(self) -> f64 {
        self
    }
    fn products_of_rows(x: &[f64], w: &[f64], inner: usize, out: &mut [f64]) {
        let cols = w.len() / inner;
        for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(cols)) {
            for (w, out) in w.chunks_exact(inner).zip(out) {
                *out = dot(x, w);
            }
        }
    }
    fn products_with_columns(x: &[f64], inner: usize, w: &[f64], step: usize, n: usize, out: &mut [f64]) {
        for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(n)) {
            for (x, w) in x.iter().zip(w.chunks(step)) {
                for (out, w) in out.iter_mut().zip(w) {
                    *out += x * w;
                }
            }
        }
    }
    fn small_product(product: SmallProduct<f64>) {
        product.plain();
    }
    fn softmax_rows(rows: &mut [f64], width: usize, scale: f64, seen: impl Fn(usize) -> usize) {
        Softmax { rows, width, scale, seen }.plain();
    }
    fn softmax_slopes(p: &[f64], slopes: &mut [f64], width: usize, scale: f64) {
        Slopes { p, slopes, width, scale }.plain();
    }
    fn values_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(values) => Some(values),
            _ => None,
        }
    }
}

/// Σ f(x_i, y_i ..) along slices of one length, in [`LANES`] partial sums.
#[inline(always)]
pub fn sum<T: Real, const S: usize>(slices: [&[T]; S], f: impl Fn([T; S]) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (blocks, rests) = in_blocks(slices);
    for i in 0..blocks[0].len() {
        let block = blocks.map(|blocks| &blocks[i]);
        // Loops with one purpose each: the compiler makes vectors of them.
        let mut terms = [T::ZERO; LANES];
        for lane in 0..LANES {
            terms[lane] = f(block.map(|values| values[lane]));
        }
        for (sum, term) in lanes.iter_mut().zip(terms) {
            *sum += term;
        }
    }
    let mut total = halve(lanes, |a, b| a + b);
    for i in 0..rests[0].len() {
        total += f(rests.map(|rest| rest[i]));
    }
    total
}

/// Two sums along slices of one length at once.
#[inline(always)]
pub fn two_sums<T: Real, const S: usize>(slices: [&[T]; S], f: impl Fn([T; S]) -> (T, T)) -> (T, T) {
    let (mut first, mut second) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    let (blocks, rests) = in_blocks(slices);
    for i in 0..blocks[0].len() {
        let block = blocks.map(|blocks| &blocks[i]);
        let (mut a, mut b) = ([T::ZERO; LANES], [T::ZERO; LANES]);
        for lane in 0..LANES {
            (a[lane], b[lane]) = f(block.map(|values| values[lane]));
        }
        for (sum, a) in first.iter_mut().zip(a) {
            *sum += a;
        }
        for (sum, b) in second.iter_mut().zip(b) {
            *sum += b;
        }
    }
    let (mut first, mut second) = (halve(first, |a, b| a + b), halve(second, |a, b| a + b));
    for i in 0..rests[0].len() {
        let (a, b) = f(rests.map(|rest| rest[i]));
        first += a;
        second += b;
    }
    (first, second)
}

/// Slices of one length as blocks of [`LANES`] values, whose places need no bounds check, and what is left.
#[inline(always)]
#[allow(clippy::type_complexity)]
fn in_blocks<T, const S: usize>(slices: [&[T]; S]) -> ([&[[T; LANES]]; S], [&[T]; S]) {
    let n = slices[0].len();
    assert!(slices.iter().all(|slice| slice.len() == n), "sums run along slices of one length");
    (slices.map(|slice| slice.as_chunks().0), slices.map(|slice| slice.as_chunks::<LANES>().1))
}

/// All lanes joined, by halves: a few vector operations instead of a chain of scalar ones.
#[inline(always)]
fn halve<T: Real>(lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let (mut eight, mut four) = ([T::ZERO; 8], [T::ZERO; 4]);
    for i in 0..8 {
        eight[i] = join(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        four[i] = join(eight[i], eight[i + 4]);
    }
    join(join(four[0], four[2]), join(four[1], four[3]))
}

/// Σ a_i b_i.
#[inline(always)]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let n = a.len().min(b.len());
    sum([&a[..n], &b[..n]], |[a, b]| a * b)
}

/// The largest element; −∞ for an empty slice.
#[inline(always)]
pub fn max<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (m, &v) in lanes.iter_mut().zip(chunk) {
            *m = larger(*m, v);
        }
    }
    rest.iter().fold(halve(lanes, larger), |m, &v| larger(m, v))
}

/// The larger of two; the first where the second is not a number.
#[inline(always)]
fn larger<T: Real>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for i in -8_600..8_800 {
            let x = i as f32 * 0.01;
            let (ours, std) = (Real::exp(x), f32::exp(x));
            assert!((ours - std).abs() <= 3.0 * f32::EPSILON * std, "{x}: {ours} {std}");
        }
        for i in -70_000..70_900 {
            let x = i as f64 * 0.01 + 0.001;
            let (ours, std) = (Real::exp(x), f64::exp(x));
            assert!((ours - std).abs() <= 3.0 * f64::EPSILON * std, "{x}: {ours} {std}");
        }
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(0.0f32), 1.0);
        assert_eq!(Real::exp(0.0f64), 1.0);
        assert!(Real::exp(f32::NAN).is_nan() && Real::exp(f64::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_are_those_of_a_plain_loop() {
        let x: Vec<f64> = (0..101).map(|i| ((i * 37) % 101) as f64 - 50.0).collect();
        assert_eq!(sum([&x], |[x]| x), 0.0);
        assert_eq!(dispatch(|| dot(&x, &x)), x.iter().map(|v| v * v).sum::<f64>());
        assert_eq!(max(&x), 50.0);
        assert_eq!(max::<f32>(&[]), f32::NEG_INFINITY);
    }
}
