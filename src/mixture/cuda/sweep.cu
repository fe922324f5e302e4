// One way over the outcomes of a row: what a thread adds up of its share of them.
//
// Outcomes are taken in fours that lie on whole addresses of memory, so that the first and the last four of a row
// may reach beyond it. Exponents are in bits, relative to the reference outcome, which every sum leaves out: y is
// log2 t, delta is log2 p - log2 t less `zero`. Of a careful row, whose d varies little, y and delta are kept, which
// then have all their digits. Of any other row log2 p and log2 t relative to their largest are, so that the heavy
// outcomes of either side have all their digits however far the other side's lie; Row::base is what that leaves out.

// An exponent that stands for no mass.
#define NO_MASS -1e6f
// Logits below this are taken for masks until the largest of the row is known.
#define MASKED -9e9f
// Shared memory that is not the cache, in bytes.
#define BEFORE_THE_CACHE 4096
// Fours summed in f32 before their sum is added in f64.
#define CHUNK 8

// p - t exactly, as a rounded difference and what the rounding took.
struct Difference {
    float rounded, rest;

    __device__ __forceinline__ Difference(float p, float t) {
        rounded = p - t;
        const float back = rounded - p;
        rest = (p - (rounded - back)) - (t + back);
    }
};

// What lies in the cache, if not what is wanted.
enum Source { KEPT, LOGITS, MEMORY };

template <class Element, int CLUSTER, bool CACHED>
struct Outcomes {
    // y or log2 t, delta, and delta or log2 p.
    struct Outcome {
        float y, delta, kept;
    };

    // Weights exp(y + b delta) = exp(own y + b kept), up to Row::base; b is a number of f32 and what is left of it.
    struct Point {
        float b, own, left;
        __device__ __forceinline__ float exponent(const Outcome &at) const {
            return fmaf(left, at.delta, fmaf(b, at.kept, own * at.y));
        }
    };

    const Element *policy, *target;
    // Fours of this block: the whole row's are `4 * four - lead + 0..3`.
    int vocabulary, lead, first, last;
    bool aligned;
    // What the survey found.
    int reference;
    float least_p, least_t;
    bool careful;
    // What y and log2 p are relative to, and delta where both are 0.
    float zero_p, zero_t, zero_delta;
    Difference zero;

    __device__ Outcomes(const Element *policy, const Element *target, int vocabulary)
        : policy(policy), target(target), vocabulary(vocabulary), reference(-1), least_p(MASKED), least_t(MASKED),
          careful(false), zero_p(0.0f), zero_t(0.0f), zero_delta(0.0f), zero(0.0f, 0.0f) {
        const int in_four = sizeof(typename Element::Four) - 1;
        lead = int((unsigned long long)policy & in_four) / int(sizeof(Element));
        aligned = lead == int((unsigned long long)target & in_four) / int(sizeof(Element));
        const int fours = (vocabulary + lead + 3) / 4, share = (fours + CLUSTER - 1) / CLUSTER;
        first = min(rank_in_cluster<CLUSTER>() * share, fours);
        last = min(first + share, fours);
    }

    // Logits of one four; -inf beyond the row.
    __device__ __forceinline__ void read(int four, float (&p)[4], float (&t)[4]) const {
        const int from = 4 * four - lead;
        if (aligned && from >= 0 && from + 4 <= vocabulary) {
            Element::four(__ldg((const typename Element::Four *)(policy + from)), p);
            Element::four(__ldg((const typename Element::Four *)(target + from)), t);
            return;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool inside = from + i >= 0 && from + i < vocabulary;
            p[i] = inside ? policy[from + i].value() : -INFINITY_F32;
            t[i] = inside ? target[from + i].value() : -INFINITY_F32;
        }
    }

    __device__ __forceinline__ bool joint(float p, float t) const { return p > least_p && t > least_t; }

    // What is kept, from the logits in their place.
    __device__ __forceinline__ void relative(int four, float (&p)[4], float (&t)[4]) const {
        const int from = 4 * four - lead;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float kept = (p[i] - zero_p) * float(LOG2_E);
            if (careful) {
                const Difference d(p[i], t[i]);
                kept = ((d.rounded - zero.rounded) + (d.rest - zero.rest)) * float(LOG2_E);
            }
            const float y = (t[i] - zero_t) * float(LOG2_E);
            const bool has = joint(p[i], t[i]) && from + i != reference;
            t[i] = has ? y : NO_MASS;
            p[i] = has ? kept : careful ? 0.0f : NO_MASS;
        }
    }

    // This block's share: first the logits, then what is kept and y.
    __device__ __forceinline__ float4 *cached(int four) const {
        DYNAMIC_SHARED(memory);
        return (float4 *)(memory + BEFORE_THE_CACHE) + 2 * (four - first);
    }

    __device__ __forceinline__ void store(int four, const float (&a)[4], const float (&b)[4]) const {
        float4 *at = cached(four);
        at[0] = make_float4(a[0], a[1], a[2], a[3]);
        at[1] = make_float4(b[0], b[1], b[2], b[3]);
    }

    __device__ __forceinline__ void load(int four, float (&a)[4], float (&b)[4]) const {
        const float4 *at = cached(four);
        const float4 x = at[0], y = at[1];
        a[0] = x.x, a[1] = x.y, a[2] = x.z, a[3] = x.w;
        b[0] = y.x, b[1] = y.y, b[2] = y.z, b[3] = y.w;
    }

    // Logits, from memory once and from the cache after that.
    __device__ __forceinline__ void logits(int four, float (&p)[4], float (&t)[4], bool again) const {
        if (CACHED && again) {
            load(four, p, t);
            return;
        }
        read(four, p, t);
        if (CACHED) store(four, p, t);
    }

    // What is kept and y. The first of these sweeps leaves them in the cache.
    template <Source SOURCE>
    __device__ __forceinline__ void exponents(int four, float (&kept)[4], float (&y)[4]) const {
        if (CACHED && SOURCE != MEMORY) {
            load(four, kept, y);
            if (SOURCE == KEPT) return;
        } else {
            read(four, kept, y);
        }
        relative(four, kept, y);
        if (CACHED) store(four, kept, y);
    }

    __device__ __forceinline__ Point at(double exact) const {
        // So that 1 - b is a number of f32, too.
        const double b = rint(exact * 4194304.0) / 4194304.0;
        return {float(b), careful ? 1.0f : float(1.0 - b), float(exact - b)};
    }

    __device__ __forceinline__ float log2_p(const Outcome &at) const { return careful ? at.y + at.kept : at.kept; }

    // Adds `term(sums, outcome)` of all outcomes of this thread.
    template <Source SOURCE, int N, class Term>
    __device__ __forceinline__ void sweep(double (&total)[N], const Term &term) const {
#pragma unroll
        for (int n = 0; n < N; n++) total[n] = 0.0;
        for (int four = first + threadIdx.x; four < last;) {
            float sum[N];
#pragma unroll
            for (int n = 0; n < N; n++) sum[n] = 0.0f;
// More at once do not fit into 64 registers.
#pragma unroll (CACHED && N > 4 ? 1 : 2)
            for (int i = 0; i < CHUNK && four < last; i++, four += blockDim.x) {
                float kept[4], y[4];
                exponents<SOURCE>(four, kept, y);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const Outcome outcome = {y[j], careful ? kept[j] : kept[j] - y[j] + zero_delta, kept[j]};
                    term(sum, outcome);
                }
            }
#pragma unroll
            for (int n = 0; n < N; n++) total[n] += double(sum[n]);
        }
    }
};

// 2^x for x below 127, to a relative error of 1e-7: where weights decide alpha, and few outcomes may have all of the
// mass, exp2_fast is not enough. 2^-126 below that.
__device__ __forceinline__ float exp2_accurate(float x) {
    // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits; 127 more makes it an exponent.
    const float round = 12582912.0f + 127.0f;
    x = fmaxf(x, -126.0f);
    const float shifted = x + round, r = x - (shifted - round);
    // The polynomial of degree 6 with the least relative error on [-1/2, 1/2], 1.6e-8.
    float p = 0.00015345811f;
    p = fmaf(p, r, 0.0013399931f);
    p = fmaf(p, r, 0.009618489f);
    p = fmaf(p, r, 0.055503286f);
    p = fmaf(p, r, 0.24022646f);
    p = fmaf(p, r, 0.6931472f);
    p = fmaf(p, r, 1.0f);
    return p * __uint_as_float(__float_as_uint(shifted) << 23);
}

// w, w delta, w delta^2, w times an exponent.
template <class Outcome>
__device__ __forceinline__ void add_weight(float *sum, float w, float exponent, const Outcome &at) {
    const float wd = w * at.delta;
    sum[0] += w;
    sum[1] += wd;
    sum[2] = fmaf(wd, at.delta, sum[2]);
    sum[3] = fmaf(w, exponent, sum[3]);
}

// 2^(y + x) - 2^y, without cancellation where x is small.
__device__ __forceinline__ float weight_difference(float y, float x) {
    const float w = exp2_accurate(y);
    // Taylor's series of 2^x - 1: ln(2)^k / k!.
    float p = 1.540353e-4f;
    p = fmaf(p, x, 1.3333558e-3f);
    p = fmaf(p, x, 9.618129e-3f);
    p = fmaf(p, x, 5.5504109e-2f);
    p = fmaf(p, x, 0.2402265f);
    p = fmaf(p, x, 0.6931472f);
    return fabsf(x) < 0.25f ? w * (p * x) : exp2_accurate(y + x) - w;
}
