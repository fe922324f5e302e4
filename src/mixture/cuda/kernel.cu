// Solves one row of policy and target on one block, or on a cluster of blocks that share it. `mod.rs` says what it
// computes, from what, and to how many digits.
//
// A sweep goes over all outcomes and ends in a reduction; between two sweeps thread 0 of every block does what there is
// of one row alone. A row of typical logits takes five: survey, both ends, one or two for the root, all that is left.

struct Shared {
    Reduction reduction;
    Row row;
    Weighed weighed;
    // The sums at both ends, and the place of the next sweep: weights exp(y + b delta), less `shift`.
    double ends[VALUES];
    double b, shift, value;
    Moments here, there;
    float zero, zero_delta, least_p, least_t, top_p, top_t, top_outside_p, top_outside_t;
    int reference;
    bool snapped, over, again;
};

// `work` on one thread of each block; all see what it did.
template <class Work>
__device__ __forceinline__ void alone(const Work &work) {
    if (threadIdx.x == 0) work();
    __syncthreads();
}

template <class Element, int CLUSTER, bool CACHED>
struct Solver {
    typedef typename Outcomes<Element, CLUSTER, CACHED>::Outcome Outcome;
    typedef typename Outcomes<Element, CLUSTER, CACHED>::Point Point;

    Shared &shared;
    Outcomes<Element, CLUSTER, CACHED> outcomes;
    unsigned turn;

    __device__ Solver(Shared &shared, const Element *policy, const Element *target, int vocabulary)
        : shared(shared), outcomes(policy, target, vocabulary), turn(0) {}

    // What a sweep needs, in registers of its own.
    __device__ __forceinline__ Outcomes<Element, CLUSTER, CACHED> mine() const { return outcomes; }

    template <int N>
    __device__ __forceinline__ void sum(double (&value)[N]) {
        reduce<CLUSTER, Sum>(shared.reduction, turn, value);
    }

    template <int N>
    __device__ __forceinline__ void maximum(double (&value)[N]) {
        reduce<CLUSTER, Maximum>(shared.reduction, turn, value);
    }

    // Largest logits, the outcome with the largest sum of both, and the mean of d under the mixture at 1/2. A second
    // time where the largest logits show that what was taken for a mask may be none. False where the row is one for
    // the CPU: a bad logit, supports without a common outcome, numbers beyond f32.
    __device__ __forceinline__ bool survey() {
        survey(false);
        if (shared.again) {
            __syncthreads();
            survey(true);
        }
        return !shared.over;
    }

    __device__ __noinline__ void survey(bool again) {
        float top_p = -INFINITY_F32, top_t = top_p, joint_p = top_p, joint_t = top_p, best = top_p;
        float w = 0.0f, wd = 0.0f, wdd = 0.0f;
        int at = 0;
        bool bad = false, one_sided = false, ambiguous = false;
        const Outcomes<Element, CLUSTER, CACHED> row = mine();
#pragma unroll 2
        for (int four = row.first + threadIdx.x; four < row.last; four += blockDim.x) {
            float p[4], t[4];
            row.logits(four, p, t, again);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // A NaN is not below infinity.
                bad |= !(p[i] < INFINITY_F32) | !(t[i] < INFINITY_F32);
                ambiguous |= (p[i] <= MASKED && p[i] > 1.4f * MASKED) | (t[i] <= MASKED && t[i] > 1.4f * MASKED);
                top_p = fmaxf(top_p, p[i]);
                top_t = fmaxf(top_t, t[i]);
                const bool has_p = p[i] > row.least_p, has_t = t[i] > row.least_t;
                one_sided |= has_p != has_t;
                if (!(has_p && has_t)) continue;
                joint_p = fmaxf(joint_p, p[i]);
                joint_t = fmaxf(joint_t, t[i]);
                const float both = p[i] + t[i];
                if (both > best) {
                    const float less = exp2_fast((best - both) * float(0.5 * LOG2_E));
                    w *= less, wd *= less, wdd *= less;
                    best = both, at = 4 * four - row.lead + i;
                }
                const float weight = exp2_fast((both - best) * float(0.5 * LOG2_E)), d = p[i] - t[i];
                w += weight;
                wd = fmaf(weight, d, wd);
                wdd = fmaf(weight * d, d, wdd);
            }
        }
        // The index lies in bits of the f64 that an f32 leaves free, so that the maximum brings it along.
        const double key = __longlong_as_double(__double_as_longlong(double(best)) | (long long)at);
        double most[8] = {top_p, top_t, joint_p, joint_t, key, double(bad), double(one_sided), double(ambiguous)};
        maximum(most);
        const double *top = shared.reduction.total;
        const long long found = __double_as_longlong(top[4]);
        const float best_of_all = float(__longlong_as_double(found & ~0x1fffffffll));
        const float less = best_of_all > -INFINITY_F32 ? exp2_fast((best - best_of_all) * float(0.5 * LOG2_E)) : 0.0f;
        const bool none = w == 0.0f;
        double means[4] = {none ? 0.0 : w * less, none ? 0.0 : wd * less, none ? 0.0 : wdd * less, 0.0};
        const double top_all_p = top[0], top_all_t = top[1], top_joint_p = top[2], top_joint_t = top[3];
        const bool any_bad = top[5] > 0.0, any_one_sided = top[6] > 0.0, any_ambiguous = top[7] > 0.0;
        sum(means);
        alone([&] {
            Row &row = shared.row;
            const double *sums = shared.reduction.total;
            shared.reference = int(found & 0x1fffffffll);
            shared.least_p = __double2float_rd(top_all_p - NOTHING);
            shared.least_t = __double2float_rd(top_all_t - NOTHING);
            const bool usual = fabs(top_all_p) < 1e9 && fabs(top_all_t) < 1e9 && !any_ambiguous;
            shared.again = !again && !any_bad && !usual;
            shared.over = any_bad || !(fabs(sums[1]) < 1e30) || !(sums[0] > 0.0);
            if (shared.over || shared.again) return;
            const float p = outcomes.policy[shared.reference].value(), t = outcomes.target[shared.reference].value();
            const double d = double(p) - double(t), mean = sums[1] / sums[0];
            const double sd = sqrt(fmax(sums[2] / sums[0] - mean * mean, 0.0));
            // The reference's d, if it is no outlier: where it has nearly all of the mass, its delta must be 0.
            shared.snapped = fabs(d - mean) <= fmax(sd, 1e-6 * fabs(d));
            shared.zero = float(clamp(mean, d - FAR, d + FAR));
            row.delta_first = shared.snapped ? 0.0 : d - double(shared.zero);
            row.above_p = top_joint_p - p, row.above_t = top_joint_t - t;
            row.top_outside_t = top_all_t - t;
            row.top_outside_p = top_all_p - p;
            row.one_sided = any_one_sided;
            row.careful = sd < WIDE;
            shared.top_p = float(top_joint_p), shared.top_t = float(top_joint_t);
            shared.top_outside_p = float(top_all_p), shared.top_outside_t = float(top_all_t);
        });
        outcomes.least_p = shared.least_p, outcomes.least_t = shared.least_t;
    }

    // What the sweeps are relative to.
    __device__ __forceinline__ void settle(bool careful) {
        alone([&] { shared.zero_delta = shared.row.settle(careful); });
        const float p = outcomes.policy[shared.reference].value(), t = outcomes.target[shared.reference].value();
        outcomes.reference = shared.reference;
        outcomes.careful = careful;
        outcomes.zero_p = shared.top_p, outcomes.zero_t = careful ? t : shared.top_t;
        outcomes.zero_delta = shared.zero_delta;
        outcomes.zero = Difference(p, t);
        if (!shared.snapped) outcomes.zero.rounded = shared.zero, outcomes.zero.rest = 0.0f;
    }

    __device__ __forceinline__ void both_ends() {
        const bool careful = shared.row.careful;
        settle(careful);
        sum_both_ends<LOGITS>();
        if (!careful || fmax(shared.row.at_0.k2, shared.row.at_1.k2) < TORN * TORN) return;
        settle(false);
        sum_both_ends<MEMORY>();
    }

    // Sums at both ends; what the sweeps need is in the cache from here on.
    template <Source SOURCE>
    __device__ __noinline__ void sum_both_ends() {
        const Row &row = shared.row;
        const float shift_t = row.careful ? float(row.shift_of_end(0.0) * LOG2_E) : 0.0f;
        const float shift_p = row.careful ? float(row.shift_of_end(1.0) * LOG2_E) : 0.0f;
        const auto rows = mine();
        double sums[8];
        rows.template sweep<SOURCE>(sums, [&](float *sum, const Outcome &at) {
            add_weight(sum, exp2_accurate(at.y - shift_t), at.y, at);
            add_weight(sum + 4, exp2_accurate(rows.log2_p(at) - shift_p), rows.log2_p(at), at);
        });
        sum(sums);
        if (threadIdx.x < 8) shared.ends[threadIdx.x] = shared.reduction.total[threadIdx.x];
        __syncthreads();
        if (shared.row.one_sided) outside();
        else alone([&] {
            shared.row.outside_t[0] = shared.row.outside_p[0] = 0.0;
            shared.row.p_outside = shared.row.t_outside = false;
        });
        const bool careful = shared.row.careful;
        if (careful) difference(1.0);
        alone([&] {
            Row &row = shared.row;
            const double *total = shared.reduction.total;
            for (int end = 0; end < 2; end++) in_nats(shared.ends + 4 * end);
            row.close = careful && total[1] == 0.0 && !row.one_sided;
            row.finish(shared.ends, shared.ends + 4, careful ? total[0] : 0.0);
        });
    }

    // Over what one side only has: the sum of weights and of weights times their exponents, in nats, and the number.
    __device__ __noinline__ void outside() {
        const float top_p = shared.top_outside_p, top_t = shared.top_outside_t;
        double sums[8] = {};
        for (int four = outcomes.first + threadIdx.x; four < outcomes.last; four += blockDim.x) {
            float p[4], t[4];
            outcomes.read(four, p, t);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool has_p = p[i] > outcomes.least_p, has_t = t[i] > outcomes.least_t;
                const float x_p = p[i] - top_p, x_t = t[i] - top_t;
                const double w_p = has_p && !has_t ? exp2_accurate(x_p * float(LOG2_E)) : 0.0f;
                const double w_t = has_t && !has_p ? exp2_accurate(x_t * float(LOG2_E)) : 0.0f;
                sums[0] += w_t;
                sums[1] += w_t > 0.0 ? w_t * x_t : 0.0;
                sums[2] += w_p;
                sums[3] += w_p > 0.0 ? w_p * x_p : 0.0;
                sums[4] += has_t && !has_p;
                sums[5] += has_p && !has_t;
            }
        }
        sum(sums);
        alone([&] {
            const double *total = shared.reduction.total;
            Row &row = shared.row;
            row.outside_t[0] = total[0], row.outside_t[1] = total[1];
            row.outside_p[0] = total[2], row.outside_p[1] = total[3];
            row.t_outside = total[4] > 0.0, row.p_outside = total[5] > 0.0;
        });
    }

    // The sum over exp(y + b delta) - exp(y), and how many |delta| are not below CLOSE.
    __device__ __noinline__ void difference(double at) {
        const float b = float(at), close = float(CLOSE * LOG2_E);
        double sums[2];
        mine().template sweep<KEPT>(sums, [&](float *sum, const Outcome &at) {
            sum[0] += weight_difference(at.y, b * at.delta);
            sum[1] += fabsf(at.delta) < close ? 0.0f : 1.0f;
        });
        sum(sums);
    }

    // The largest exponent y + b delta, as a shift.
    __device__ __noinline__ void find_shift() {
        const Point b = mine().at(shared.b);
        float top = -INFINITY_F32;
        double unused[1];
        mine().template sweep<KEPT>(unused, [&](float *, const Outcome &at) { top = fmaxf(top, b.exponent(at)); });
        double most[1] = {top};
        maximum(most);
        alone([&] {
            const Row &row = shared.row;
            const double reference = shared.b * row.reference_delta - row.base(shared.b);
            const double top = fmax(shared.reduction.total[0] * LN_2, reference);
            shared.shift = top > NO_SHIFT || top < -0.5 * NO_SHIFT ? double(float(top * LOG2_E)) * LN_2 : 0.0;
        });
    }

    // The sums at weights exp(y + b delta) into `weighed`.
    __device__ __noinline__ void weigh(double at) {
        alone([&] { shared.b = at, shared.shift = 0.0; });
        if (!shared.row.needs_no_shift(at)) find_shift();
        const Point b = mine().at(shared.b);
        const float shift = float(shared.shift * LOG2_E);
        double sums[4];
        mine().template sweep<KEPT>(sums, [&](float *sum, const Outcome &at) {
            add_weight(sum, exp2_accurate(b.exponent(at) - shift), at.y, at);
        });
        sum(sums);
        alone([&] {
            in_nats(shared.reduction.total);
            shared.weighed = shared.row.weigh(at, shared.shift, shared.reduction.total);
        });
    }

    // K and its derivatives at `at`, into `here`.
    __device__ __noinline__ void evaluate(double at) {
        weigh(at);
        const bool wanted = shared.row.wants_difference(shared.weighed);
        if (wanted) difference(at);
        alone([&] { shared.here = shared.row.moments(shared.weighed, wanted ? shared.reduction.total[0] : 0.0); });
    }

    // K at -alpha and 2 - alpha, into `there` and `here`.
    __device__ __forceinline__ void evaluate_ess(double alpha) {
        evaluate(-alpha);
        alone([&] { shared.there = shared.here; });
        evaluate(2.0 - alpha);
    }

    __device__ __forceinline__ double ess_difference() const { return shared.there.k - shared.here.k; }

    __device__ __noinline__ void find_alpha(const Rule &rule) {
        if (rule.kind == FIXED || rule.kind == ENTROPY) {
            alone([&] {
                shared.row.iterations = 0;
                shared.row.stop(rule.kind == FIXED ? rule.alpha : shared.row.alpha_by_entropy(), OK);
            });
            return;
        }
        const bool ess = rule.kind == ESS_BALANCE;
        if (ess && (shared.row.p_outside || shared.row.t_outside)) {
            evaluate_ess(0.0);
            alone([&] { shared.value = ess_difference(); });
            evaluate_ess(1.0);
        }
        alone([&] {
            Row &row = shared.row;
            const double at_0 = ess ? shared.value : row.at_0.k1, at_1 = ess ? ess_difference() : row.at_1.k1;
            shared.over = row.without_regular_root(at_0, at_1);
            if (shared.over) return;
            row.start_search(rule);
            shared.over = rule.kind == KL_BISECTION && rule.rounds == 0;
        });
        bool over = shared.over;
        while (!over) {
            const double alpha = shared.row.alpha;
            if (ess) evaluate_ess(alpha); else weigh(alpha);
            alone([&] {
                Row &row = shared.row;
                const Weighed &at = shared.weighed;
                if (ess) shared.over = row.step_ess(ess_difference(), shared.here.k1 - shared.there.k1);
                else if (rule.kind == KL_BISECTION) shared.over = row.step_bisection(at, rule.rounds);
                else shared.over = row.step_newton(at);
            });
            over = shared.over;
        }
    }

    // Moments at alpha, both log ESS and the total variation: in one sweep where no sum needs more care.
    __device__ __forceinline__ void diagnose(double *solution) {
        const Row &row = shared.row;
        const double alpha = row.alpha, two = 2.0 - alpha;
        const float log_p = float((row.log_z_p - row.base_p) * LOG2_E);
        const float log_t = float((row.log_z_t - row.base_t) * LOG2_E);
        const auto rows = mine();
        bool done = false;
        if (!row.careful && row.needs_no_shift(alpha)) {
            const Point q = rows.at(alpha), beyond_p = rows.at(two), beyond_t = rows.at(-alpha);
            double sums[8];
            rows.template sweep<KEPT>(sums, [&](float *sum, const Outcome &at) {
                add_weight(sum, exp2_accurate(q.exponent(at)), at.y, at);
                // Here and below 2^-22 is enough, and what is too large becomes infinite.
                sum[4] += exp2_fast(beyond_p.exponent(at));
                sum[5] += exp2_fast(beyond_t.exponent(at));
                sum[6] += fabsf(exp2_fast(rows.log2_p(at) - log_p) - exp2_fast(at.y - log_t));
            });
            sum(sums);
            alone([&] {
                const double *total = shared.reduction.total;
                const double ess_t[4] = {total[5], 0.0, 0.0, 0.0}, ess_p[4] = {total[4], 0.0, 0.0, 0.0};
                shared.value = total[6];
                shared.there.k = row.moments(row.weigh(-alpha, 0.0, ess_t), 0.0).k;
                shared.ends[0] = row.moments(row.weigh(two, 0.0, ess_p), 0.0).k;
                shared.over = isfinite(shared.ends[0]) && isfinite(shared.there.k);
                in_nats(shared.reduction.total);
                shared.weighed = row.weigh(alpha, 0.0, total);
                shared.here = row.moments(shared.weighed, 0.0);
            });
            done = shared.over;
        }
        if (!done) {
            evaluate(-alpha);
            alone([&] { shared.there = shared.here; });
            evaluate(two);
            alone([&] { shared.ends[0] = shared.here.k; });
            evaluate(alpha);
            const bool careful = row.careful;
            const float shift_of_d = float(row.shift_of_d * LOG2_E);
            double sums[1];
            rows.template sweep<KEPT>(sums, [&](float *sum, const Outcome &at) {
                const float t = at.y - log_t;
                sum[0] += fabsf(
                    careful ? weight_difference(t, at.delta - shift_of_d)
                            : exp2_fast(rows.log2_p(at) - log_p) - exp2_fast(t)
                );
            });
            sum(sums);
            // What the rounding of log_t took of all differences.
            const double taken = careful ? double(log_t) * LN_2 - row.log_z_t : 0.0;
            alone([&] { shared.value = shared.reduction.total[0] * exp(taken); });
        }
        if (threadIdx.x == 0 && rank_in_cluster<CLUSTER>() == 0) write(solution);
    }

    // In the order of `mod.rs`.
    __device__ void write(double *solution) const {
        const Row &row = shared.row;
        const Moments &here = shared.here;
        const Weighed &q = shared.weighed;
        const double alpha = row.alpha, log_q = q.y + alpha * q.delta - q.log_w;
        const double apart = fabs(exp(row.reference_delta - row.log_z_p) - exp(-row.log_z_t));
        const double outside = -expm1(row.at_0.k) - expm1(row.at_1.k);
        const double ess_p = -here.k - shared.ends[0], ess_t = -here.k - shared.there.k;
        solution[0] = alpha;
        solution[1] = row.status;
        solution[2] = row.iterations;
        solution[3] = here.k;
        solution[4] = here.k1;
        solution[5] = here.k2;
        solution[6] = fmax(-(1.0 - alpha) * here.k1 - here.k, 0.0);
        solution[7] = fmax(alpha * here.k1 - here.k, 0.0);
        solution[8] = row.p_outside ? -INFINITY_F64 : fmin(ess_p, 0.0);
        solution[9] = row.t_outside ? -INFINITY_F64 : fmin(ess_t, 0.0);
        solution[10] = row.entropy_p;
        solution[11] = row.entropy_t;
        solution[12] = fmax(-log_q, 0.0);
        solution[13] = clamp(0.5 * (apart + shared.value + outside), 0.0, 1.0);
        if (!isfinite(alpha) || !isfinite(here.k)) solution[1] = FOR_THE_CPU;
    }

    static __device__ void in_nats(double *sums) {
        sums[1] *= LN_2;
        sums[2] *= LN_2 * LN_2;
        sums[3] *= LN_2;
    }

    __device__ void solve(const Rule &rule, double *solution) {
        if (!survey()) {
            if (threadIdx.x == 0 && rank_in_cluster<CLUSTER>() == 0) solution[1] = FOR_THE_CPU;
            return;
        }
        both_ends();
        find_alpha(rule);
        diagnose(solution);
    }
};

#define FIELDS 14

template <class Element, int CLUSTER, bool CACHED>
__device__ __forceinline__ void solve_row(
    const Element *policy, const Element *target, double *solutions, int vocabulary, const Rule &rule
) {
    static_assert(sizeof(Shared) <= BEFORE_THE_CACHE, "the cache begins later");
    DYNAMIC_SHARED(memory);
    const long long row = blockIdx.x / CLUSTER, from = row * vocabulary;
    Solver<Element, CLUSTER, CACHED> solver(*(Shared *)memory, policy + from, target + from, vocabulary);
    // No block stores into another one before that one is there.
    cluster_barrier<CLUSTER>();
    solver.solve(rule, solutions + row * FIELDS);
}

#ifdef ELEMENT
#if CLUSTER_SIZE > 1
#define IN_CLUSTERS __cluster_dims__(CLUSTER_SIZE, 1, 1)
#else
#define IN_CLUSTERS
#endif
// Sweeps over memory need more registers than 64.
extern "C" __global__ void IN_CLUSTERS __launch_bounds__(CACHE ? 1024 : 512, 1) solve_rows(
    const ELEMENT *policy, const ELEMENT *target, double *solutions, int vocabulary, int rule, int rounds, double alpha
) {
    const Rule chosen = {rule, rounds, alpha};
    solve_row<ELEMENT, CLUSTER_SIZE, CACHE>(policy, target, solutions, vocabulary, chosen);
}
#endif
