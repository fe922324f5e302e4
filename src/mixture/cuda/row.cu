// One row in numbers: everything that follows from its sums, in f64, on one thread. As `split.rs` and `solve.rs` have
// it, with Newton's steps. Nats, but where bits are named.

// Logits this far below the largest of their row are taken for -inf.
#define NOTHING 1e10
// Exponents up to this one, in nats, need no shift.
#define NO_SHIFT 40.0
// With every |delta| below this, in nats, K is integrated from K' and K''.
#define CLOSE 0.0625
// Where the logarithms of two sums differ by less than this, the sum of the differences is the better one.
#define NEAR_1 0.5
// With a standard deviation of d below this, under the mixture at 1/2, differences of weights have too few digits;
#define WIDE 0.5
// but with this one under either side, only the mixture is narrow.
#define TORN 2.0
// Below this variance of d the two distributions are the same.
#define SAME 1e-30
#define SAME_K1 1e-12
// How far, in nats, `zero` may lie from the reference's d: at alpha = 1 every exponent is moved by as much.
#define FAR 16.0
#define MOST_STEPS 100
#define HALVINGS 24

// As the host numbers them.
enum Status { OK, EQUAL, NO_ROOT, FLAT, NOT_CONVERGED, FOR_THE_CPU };
enum RuleKind { FIXED, ENTROPY, KL_FROM_ENDS, KL_FROM_ENTROPY, KL_FROM_ALPHA, KL_BISECTION, ESS_BALANCE };

struct Rule {
    int kind, rounds;
    double alpha;
};

struct Moments {
    double k, k1, k2;
};

// Sums at weights exp(y + b delta), the reference's among them: their logarithm, mean and variance of delta, mean of y.
struct Weighed {
    double b, log_w, delta, variance, y;
    bool shifted;
};

__device__ __forceinline__ double clamp(double x, double low, double high) { return fmin(fmax(x, low), high); }

// K between two points where K, K' and K'' are known.
struct Quintic {
    double c[6];

    __device__ Quintic(const Moments &at_0, const Moments &at_1) {
        const double value = at_1.k - at_0.k - at_0.k1 - 0.5 * at_0.k2;
        const double slope = at_1.k1 - at_0.k1 - at_0.k2, curvature = at_1.k2 - at_0.k2;
        c[0] = at_0.k, c[1] = at_0.k1, c[2] = 0.5 * at_0.k2;
        c[3] = 10.0 * value - 4.0 * slope + 0.5 * curvature;
        c[4] = -15.0 * value + 7.0 * slope - curvature;
        c[5] = 6.0 * value - 3.0 * slope + 0.5 * curvature;
    }

    __device__ double value(double u) const {
        return ((((c[5] * u + c[4]) * u + c[3]) * u + c[2]) * u + c[1]) * u + c[0];
    }

    __device__ double slope(double u) const {
        return (((5.0 * c[5] * u + 4.0 * c[4]) * u + 3.0 * c[3]) * u + 2.0 * c[2]) * u + c[1];
    }

    // The root of the slope (of the difference that ESS balance asks for) in (0, 1), by halving: a place to start from.
    __device__ double root(bool ess) const {
        double low = 0.0, high = 1.0;
        for (int i = 0; i < HALVINGS; i++) {
            const double u = 0.5 * (low + high);
            const double f = ess ? value(-u) - value(2.0 - u) : slope(u);
            if (f > 0.0) high = u; else low = u;
        }
        return 0.5 * (low + high);
    }
};

struct Row {
    // delta of the reference before a row is settled, and how far the largest logits lie above its own.
    double delta_first, above_p, above_t;
    // delta of the reference, log sums of exponents relative to it, and log_z_p - log_z_t with all digits.
    double reference_delta, log_z_p, log_z_t, log_w_t, shift_of_d;
    double entropy_p, entropy_t;
    Moments at_0, at_1;
    // The largest exponents of the joint support, at least 0. Sweeps over rows that are not careful leave out those of
    // the largest logits, which are (1 - b) base_t + b base_p of log w at b.
    double top_t, top_p, base_t, base_p;
    // The largest logits of the whole rows above the reference's, and sums (w, w times exponent) over what one side
    // only has, relative to these.
    double top_outside_t, top_outside_p, outside_t[2], outside_p[2];
    // Whether d varies so little that differences of weights are summed, and whether every |delta| is below CLOSE.
    bool one_sided, careful, close, p_outside, t_outside;
    // The search.
    double alpha, low, high, k2_low, k2_high, last_step;
    int iterations, status;

    // A whole f32 of bits, so that sweeps and f64 mean the same shift.
    static __device__ double shift_for(double top) { return top > NO_SHIFT ? double(float(top * LOG2_E)) * LN_2 : 0.0; }

    // Whether a row is careful decides what its sweeps are relative to. The delta where both are 0, in bits.
    __device__ float settle(bool is_careful) {
        careful = is_careful;
        reference_delta = delta_first;
        base_t = base_p = 0.0;
        float both = 0.0f;
        if (!careful) {
            // `zero` is moved by so much that this delta is a number of f32.
            both = float((above_p - above_t + delta_first) * LOG2_E);
            reference_delta = double(both) * LN_2 - above_p + above_t;
            base_t = above_t, base_p = above_p + reference_delta;
        }
        top_t = above_t;
        top_p = fmax(fmax(above_p, 0.0) + reference_delta, 0.0);
        return both;
    }

    // What a sweep over one end leaves out of the exponents.
    __device__ double shift_of_end(double end) const {
        return careful ? shift_for(end == 0.0 ? top_t : top_p) : base(end);
    }

    // What every sweep at b leaves out of them.
    __device__ double base(double b) const { return (1.0 - b) * base_t + b * base_p; }

    // log of the reference's weight and the rest; where it weighs exactly 1, the rest keeps all its digits.
    static __device__ double log_with(double reference, double rest, double shift) {
        return (reference == 1.0 ? log1p(rest) : log(reference + rest)) + shift;
    }

    // Normaliser, entropy and moments of the side at `end`, from sums (w, w delta, w delta^2, w times its exponent)
    // without reference.
    __device__ void side(double end, const double *sum, double &log_z, double &entropy, Moments &at, double &z) const {
        const double *only = end == 0.0 ? outside_t : outside_p;
        const double own = shift_of_end(end), top = end == 0.0 ? top_outside_t : top_outside_p + reference_delta;
        const bool has_outside = end == 0.0 ? t_outside : p_outside;
        const double shift = has_outside ? fmax(own, shift_for(top)) : own;
        const double scale = own == shift ? 1.0 : exp(own - shift);
        const double outside = has_outside ? only[0] * exp(top - shift) : 0.0;
        const double outside_exponent = has_outside ? (only[1] + top * only[0]) * exp(top - shift) : 0.0;
        const double delta = reference_delta, reference = exp(end * delta - shift), rest = sum[0] * scale;
        log_z = log_with(reference, rest + outside, shift);
        at.k = has_outside ? log_with(reference, rest, shift) - log_z : 0.0;
        const double w = rest + reference, wd = sum[1] * scale + reference * delta;
        const double exponent = (sum[3] + base(end) * sum[0]) * scale + reference * end * delta;
        entropy = fmax(log_z - (exponent + outside_exponent) / (w + outside), 0.0);
        at.k1 = wd / w;
        at.k2 = fmax((sum[2] * scale + reference * delta * delta) / w - at.k1 * at.k1, 0.0);
        z = shift == 0.0 ? w + outside : INFINITY_F64;
    }

    // From the sums at both ends; `difference` is the sum over exp(y + delta) - exp(y) of careful rows.
    __device__ void finish(const double *sums_t, const double *sums_p, double difference) {
        double z_t, z_p;
        side(0.0, sums_t, log_z_t, entropy_t, at_0, z_t);
        side(1.0, sums_p, log_z_p, entropy_p, at_1, z_p);
        shift_of_d = log_z_p - log_z_t;
        if (careful && isfinite(z_t) && isfinite(z_p) && fabs(shift_of_d) < NEAR_1) {
            if (p_outside) difference += outside_p[0] * exp(top_outside_p + reference_delta);
            if (t_outside) difference -= outside_t[0] * exp(top_outside_t);
            shift_of_d = log1p((difference + expm1(reference_delta)) / z_t);
        }
        at_0.k1 -= shift_of_d;
        at_1.k1 -= shift_of_d;
        log_w_t = log_z_t + at_0.k;
    }

    // Between the ends no exponent is above the mean of theirs.
    __device__ bool needs_no_shift(double b) const {
        return b >= 0.0 && b <= 1.0 && (1.0 - b) * top_t + b * top_p <= NO_SHIFT;
    }

    // From sums (w, w delta, w delta^2, w y) without reference, at exponents less base and `more`.
    __device__ Weighed weigh(double b, double more, const double *sum) const {
        const double shift = base(b) + more;
        const double delta = reference_delta, reference = exp(b * delta - shift), w = sum[0] + reference;
        Weighed weighed;
        weighed.b = b, weighed.shifted = shift != 0.0;
        weighed.log_w = log_with(reference, sum[0], shift);
        weighed.delta = (sum[1] + reference * delta) / w;
        weighed.variance =
            fmax((sum[2] + reference * delta * delta) / w - weighed.delta * weighed.delta, 0.0);
        weighed.y = (sum[3] + base_t * sum[0]) / w;
        return weighed;
    }

    // Whether K at these weights is better had from differences of weights.
    __device__ bool wants_difference(const Weighed &at) const {
        return careful && !close && !at.shifted && top_t <= NO_SHIFT && fabs(at.log_w - log_w_t) < NEAR_1;
    }

    // `difference` is the sum over exp(y + b delta) - exp(y) without reference, where it is wanted.
    __device__ Moments moments(const Weighed &at, double difference) const {
        Moments here;
        here.k1 = at.delta - shift_of_d, here.k2 = at.variance;
        if (close) {
            // The trapezoid with corrected ends: what follows is of the order of delta cubed.
            const Moments &end = at.b < 0.5 ? at_0 : at_1;
            const double h = at.b < 0.5 ? at.b : at.b - 1.0;
            here.k = end.k + 0.5 * h * (end.k1 + here.k1) + h * h / 12.0 * (end.k2 - here.k2);
        } else if (wants_difference(at)) {
            difference += expm1(at.b * reference_delta);
            here.k = log1p(difference / exp(log_w_t)) + at_0.k - at.b * shift_of_d;
        } else {
            here.k = at.log_w - log_w_t + at_0.k - at.b * shift_of_d;
        }
        return here;
    }

    __device__ double alpha_by_entropy() const {
        const double total = entropy_p + entropy_t;
        return total > 0.0 ? entropy_p / total : 0.5;
    }

    __device__ void stop(double at, int with) { alpha = at, status = with; }

    // The answer where no root lies inside of [0, 1], from the values of the rising function at the ends.
    __device__ bool without_regular_root(double value_0, double value_1) {
        iterations = 0;
        if (!p_outside && !t_outside) {
            // Two sides with one outcome each have no variance either, but a divergence.
            if (!(at_0.k2 < SAME && at_1.k2 < SAME && fmax(fabs(at_0.k1), fabs(at_1.k1)) < SAME_K1)) return false;
            stop(0.5, EQUAL);
            return true;
        }
        if (!(value_0 > 0.0 || value_1 < 0.0 || (value_0 == 0.0 && value_1 == 0.0))) return false;
        const double a = fabs(value_0), b = fabs(value_1);
        stop(a < b ? 0.0 : a > b ? 1.0 : 0.5, NO_ROOT); // with equal ones q is the same for every alpha
        return true;
    }

    __device__ void start_search(const Rule &rule) {
        const double start = rule.kind == KL_FROM_ENTROPY ? alpha_by_entropy()
                             : rule.kind == KL_FROM_ALPHA ? rule.alpha
                                                          : Quintic(at_0, at_1).root(rule.kind == ESS_BALANCE);
        alpha = rule.kind == KL_BISECTION ? 0.5 : clamp(start, 1e-6, 1.0 - 1e-6);
        low = 0.0, high = 1.0, k2_low = at_0.k2, k2_high = at_1.k2, last_step = INFINITY_F64;
        iterations = 0, status = OK;
    }

    __device__ bool step_bisection(const Weighed &at, int rounds) {
        if (at.delta - shift_of_d > 0.0) high = alpha; else low = alpha;
        alpha = 0.5 * (low + high);
        return ++iterations >= rounds;
    }

    // One evaluation of K' at `alpha`: true where the search is over, else `alpha` is the next place.
    __device__ bool step_newton(const Weighed &at) {
        const double k2 = at.variance, k1 = at.delta - shift_of_d;
        iterations++;
        if (k1 > 0.0) high = alpha, k2_high = k2; else low = alpha, k2_low = k2;
        const double step = k1 == 0.0 ? 0.0 : k1 / k2, size = fabs(step);
        // What nobody needs to know of alpha, and what rounding leaves unknown of K'; K'' may be 0 in f32.
        const double needed = 1e-7 / (1.0 + sqrt(k2));
        const double rounding = needed * k2 + 2e-8 * sqrt(k2 + at.delta * at.delta);
        const bool stuck = size >= 0.5 * last_step && fabs(k1) <= 50.0 * rounding;
        if (fabs(k1) <= rounding || stuck || high - low < 1e-15) return true;
        // What Newton's step leaves is half the third cumulant of d over its variance times the step's square. The
        // cumulant is of the order of the standard deviation cubed, or what the ends of the bracket say.
        const double k3 = fmax(fabs((k2_high - k2_low) / (high - low)), k2 * sqrt(k2));
        if (2.0 * k3 / k2 * step * step <= needed) {
            alpha = clamp(alpha - step, low, high);
            return true;
        }
        const bool inside = alpha - step > low && alpha - step < high;
        alpha = inside && size <= 0.5 * last_step ? alpha - step : 0.5 * (low + high);
        last_step = size;
        return give_up();
    }

    // One evaluation of K(-alpha) - K(2 - alpha) and its slope.
    __device__ bool step_ess(double value, double slope) {
        iterations++;
        if (value > 0.0) high = alpha; else low = alpha;
        const double newton = alpha - value / slope, size = fabs(newton - alpha);
        const bool inside = newton > low && newton < high;
        // After a step of 1e-5 Newton's next one would be rounding.
        const bool over = value == 0.0 || size <= 1e-5 || high - low < 1e-15;
        if (inside) alpha = newton; else if (!over) alpha = 0.5 * (low + high);
        last_step = size;
        return over || give_up();
    }

    __device__ bool give_up() {
        if (iterations >= MOST_STEPS) status = NOT_CONVERGED;
        return iterations >= MOST_STEPS;
    }
};
