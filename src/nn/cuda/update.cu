// What an optimizer does to whole tensors.

// AdamW on weights in f32, in place; `rounded`, where given, gets the new weights as values. `scale` multiplies the
// gradient. A thread a weight.
extern "C" __global__ void adamw(
    float *w, Value *rounded, const float *grad, float *m, float *v, long long count, float beta1, float beta2,
    float eps, float decay, float rate, float correction2, float scale
) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const float g = scale * grad[i];
    m[i] = beta1 * m[i] + (1.0f - beta1) * g;
    v[i] = beta2 * v[i] + (1.0f - beta2) * g * g;
    w[i] = decay * w[i] - rate * m[i] / (sqrtf(v[i]) * correction2 + eps);
    if (rounded) rounded[i] = store(w[i]);
}

// a += b. A thread a value.
extern "C" __global__ void add_in_place(float *a, const float *b, long long count) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) a[i] += b[i];
}

// The sum of squares of every piece of `piece` values, into parts[from ..]. A block a piece.
extern "C" __global__ void squared_norms(const float *x, double *parts, long long count, int piece, int from) {
    const long long first = (long long)blockIdx.x * piece, last = first + piece < count ? first + piece : count;
    double sum[1] = {0.0};
    for (long long i = first + threadIdx.x; i < last; i += blockDim.x) sum[0] += double(x[i]) * double(x[i]);
    block_sum(sum);
    if (threadIdx.x == 0) parts[from + blockIdx.x] = sum[0];
}
