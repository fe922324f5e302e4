// GELU, SwiGLU, rotary positions, new tokens into a cache: a block a row.

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

#define SQRT_2_OVER_PI 0.7978845608028654f
#define SQRT_HALF 0.7071067811865476f
#define CUBIC 0.044715f

// GELU and its slope. x·(1 + tanh u)/2 is x·σ(2u), with u = sqrt(2/π)(x + 0.044715 x³).
__device__ __forceinline__ float gelu(float x, int erf_form, float &slope) {
    if (erf_form) {
        const float cdf = 0.5f * (1.0f + erff(x * SQRT_HALF));
        slope = cdf + x * (0.5f * SQRT_2_OVER_PI) * expf(-0.5f * x * x);
        return x * cdf;
    }
    const float s = sigmoid(2.0f * SQRT_2_OVER_PI * x * (1.0f + CUBIC * x * x));
    slope = s + x * s * (1.0f - s) * (2.0f * SQRT_2_OVER_PI) * (1.0f + 3.0f * CUBIC * x * x);
    return x * s;
}

extern "C" __global__ void bias_gelu(const Value *x, const Value *bias, Value *y, int width, int erf_form) {
    const size_t from = size_t(blockIdx.x) * width;
    float slope;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        y[from + i] = store(gelu(load(x[from + i]) + load(bias[i]), erf_form, slope));
    }
}

extern "C" __global__ void bias_gelu_backward(
    const Value *x, const Value *bias, const Value *grad, Value *dx, int width, int erf_form
) {
    const size_t from = size_t(blockIdx.x) * width;
    float slope;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        gelu(load(x[from + i]) + load(bias[i]), erf_form, slope);
        dx[from + i] = store(load(grad[from + i]) * slope);
    }
}

extern "C" __global__ void swiglu(const Value *gate, const Value *up, Value *y, int width) {
    const size_t from = size_t(blockIdx.x) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float g = load(gate[from + i]);
        y[from + i] = store(g * sigmoid(g) * load(up[from + i]));
    }
}

extern "C" __global__ void swiglu_backward(
    const Value *gate, const Value *up, const Value *grad, Value *dgate, Value *dup, int width
) {
    const size_t from = size_t(blockIdx.x) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float x = load(gate[from + i]), g = load(grad[from + i]), s = sigmoid(x);
        dgate[from + i] = store(g * load(up[from + i]) * s * (1.0f + x * (1.0f - s)));
        dup[from + i] = store(g * x * s);
    }
}

// Packed rows: queries, keys and values of `dim` values each, of every head beside each other with `interleaved`.
struct Heads {
    int query, kv, dim, interleaved;
    __device__ __forceinline__ bool turns(int head) const { return interleaved ? head % 3 < 2 : head < query + kv; }
    __device__ __forceinline__ int key_at(int head) const { return (interleaved ? 3 * head + 1 : query + head) * dim; }
    __device__ __forceinline__ int value_at(int head) const {
        return (interleaved ? 3 * head + 2 : query + kv + head) * dim;
    }
};

// Turns the first `pairs` pairs (i, i + pairs) of every query and key by their position's angles, or back with sign −1.
// `angles` holds cosines, then sines, `[positions, pairs]` each. A block a token; `time` tokens a row of the batch.
extern "C" __global__ void rope(
    const Value *x, Value *y, const float *angles, const unsigned *starts, int positions, int pairs, int time,
    int query, int kv, int dim, int interleaved, float sign
) {
    const Heads heads = {query, kv, dim, interleaved};
    const int width = (query + 2 * kv) * dim;
    // Beyond the table there is padding alone.
    const int position = min(int(starts[blockIdx.x / time] + blockIdx.x % time), int(positions) - 1);
    const float *cosines = angles + size_t(position) * pairs, *sines = cosines + size_t(positions) * pairs;
    x += size_t(blockIdx.x) * width;
    y += size_t(blockIdx.x) * width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const int i = column % dim;
        const float here = load(x[column]);
        float turned = here;
        if (heads.turns(column / dim) && i < 2 * pairs) {
            const bool first = i < pairs;
            const int pair = first ? i : i - pairs;
            const float there = load(x[first ? column + pairs : column - pairs]);
            const float sine = sign * sines[pair];
            turned = first ? here * cosines[pair] - there * sine : here * cosines[pair] + there * sine;
        }
        y[column] = store(turned);
    }
}

// Writes the keys and values of packed new tokens behind the starts[row] that the cache `[B, kv, capacity, dim]` holds.
// A block a token.
extern "C" __global__ void store_keys_and_values(
    const Value *x, const unsigned *starts, Value *keys, Value *values, int time, int capacity, int query, int kv,
    int dim, int interleaved
) {
    const Heads heads = {query, kv, dim, interleaved};
    const int row = blockIdx.x / time, place = starts[row] + blockIdx.x % time;
    x += size_t(blockIdx.x) * (query + 2 * kv) * dim;
    for (int i = threadIdx.x; i < kv * dim; i += blockDim.x) {
        const int head = i / dim, column = i % dim;
        const size_t to = ((size_t(row) * kv + head) * capacity + place) * dim + column;
        keys[to] = x[heads.key_at(head) + column];
        values[to] = x[heads.value_at(head) + column];
    }
}
