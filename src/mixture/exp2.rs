//! Powers of two in vectors.

use std::f32::consts::LN_2;

use pulp::Simd;

/// 2^x, to a relative error of 1e−7; 2^−126 below that.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5 · 2^23 rounds to a whole number and leaves it in the low bits; 127 more makes it an exponent.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let constant = |c: f32| simd.splat_f32s(c);
    let x = simd.max_f32s(x, constant(-126.0));
    let shifted = simd.add_f32s(x, constant(ROUND));
    let r = simd.sub_f32s(x, simd.sub_f32s(shifted, constant(ROUND)));
    // The polynomial of degree 6 with the least relative error on [−1/2, 1/2], fitted again after each coefficient
    // was rounded to f32: 3e−9 at most and 6e−12 in the mean, so that sums have no bias.
    let mut p = simd.mul_add_e_f32s(constant(1.532_646_3e-4), r, constant(1.339_080_6e-3));
    for c in [9.618_506e-3, 5.550_36e-2, 0.240_226_48, LN_2, 1.0] {
        p = simd.mul_add_e_f32s(p, r, constant(c));
    }
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(exponent))
}

/// 2^x − 1 for |x| <= 1/2, to a relative error of 1e−7.
#[inline(always)]
pub(super) fn exp2_less_1<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let constant = |c: f32| simd.splat_f32s(c);
    // Taylor's series: ln(2)^k / k!.
    let mut p = simd.mul_add_e_f32s(constant(1.321_548_7e-6), x, constant(1.525_273_4e-5));
    for c in [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, LN_2] {
        p = simd.mul_add_e_f32s(p, x, constant(c));
    }
    simd.mul_f32s(p, x)
}
