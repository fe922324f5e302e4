// Softmax over the vocabulary and over positions: a block a row.

// A logit of −∞ counts as one so far below the largest that its share is nothing.
#define BOTTOM (-1e4f)

__device__ __forceinline__ float largest(const Value *row, int width) {
    float top = Maximum::nothing();
    for (int i = threadIdx.x; i < width; i += blockDim.x) top = fmaxf(top, load(row[i]));
    return block_max(top);
}

// log Σ exp of the row and its entropy, in nats.
__device__ __forceinline__ float normaliser(const Value *row, int width, float &entropy) {
    const float top = largest(row, width);
    float sums[2] = {0.0f, 0.0f};
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        // Not fmaxf, in which a NaN would be lost.
        float d = load(row[i]) - top;
        d = d < BOTTOM ? BOTTOM : d;
        const float e = expf(d);
        sums[0] += e;
        sums[1] += e * d;
    }
    block_sum(sums);
    const float log_sum = logf(sums[0]);
    entropy = log_sum - sums[1] / sums[0];
    return top + log_sum;
}

// Of every row of logits: log p of its id, entropy, normaliser: `[3, rows]`. Without ids the first stays as it is.
extern "C" __global__ void measure_logits(
    const Value *logits, const unsigned *ids, float *measured, int rows, int width
) {
    const int row = blockIdx.x;
    logits += size_t(row) * width;
    float entropy;
    const float z = normaliser(logits, width, entropy);
    if (threadIdx.x > 0) return;
    if (ids) measured[row] = load(logits[ids[row]]) - z;
    measured[rows + row] = entropy;
    measured[2 * rows + row] = z;
}

// The gradient of the logits in their place: g·(1[id] − p) − h·p·(log p + H), with g and h of `grad`, `[2, rows]`.
extern "C" __global__ void logits_gradient(
    Value *logits, const unsigned *ids, const float *measured, const float *grad, int rows, int width
) {
    const int row = blockIdx.x;
    logits += size_t(row) * width;
    const float entropy = measured[rows + row], z = measured[2 * rows + row], g = grad[row], h = grad[rows + row];
    const int id = ids[row];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float log_p = load(logits[i]) - z;
        log_p = log_p < BOTTOM ? BOTTOM : log_p;
        const float d = -(g + h * (log_p + entropy)) * expf(log_p);
        logits[i] = store(i == id ? d + g : d);
    }
}

// KL(a‖b) of every row, in nats.
extern "C" __global__ void kl_of_logits(const Value *a, const Value *b, float *kl, int width) {
    a += size_t(blockIdx.x) * width;
    b += size_t(blockIdx.x) * width;
    float unused;
    const float z_a = normaliser(a, width, unused), z_b = normaliser(b, width, unused);
    float sum[1] = {0.0f};
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float log_a = load(a[i]) - z_a;
        log_a = log_a < BOTTOM ? BOTTOM : log_a;
        const float p = expf(log_a);
        if (p != 0.0f) sum[0] += p * (log_a - (load(b[i]) - z_b));
    }
    block_sum(sum);
    if (threadIdx.x == 0) kl[blockIdx.x] = sum[0];
}

// softmax(scale · row) over the first seen[batch] + step · t positions of every row of scores, in place, and zero behind
// them. `rows` rows of scores a row of the batch, of which every `time` are the queries of one head: t = row mod time.
extern "C" __global__ void masked_softmax(
    Value *scores, const unsigned *seen, int step, int rows, int time, int width, float scale
) {
    const int t = blockIdx.x % rows % time, n = min(int(seen[blockIdx.x / rows]) + step * t, width);
    scores += size_t(blockIdx.x) * width;
    const float top = largest(scores, n);
    float sum[1] = {0.0f};
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum[0] += expf((load(scores[i]) - top) * scale);
    block_sum(sum);
    const float inverse = 1.0f / sum[0];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        scores[i] = store(i < n ? expf((load(scores[i]) - top) * scale) * inverse : 0.0f);
    }
}

// The gradient of the unscaled scores from that of the probabilities p, in its place: p·(dp − Σ p·dp)·scale.
extern "C" __global__ void softmax_backward(const Value *p, Value *dp, int width, float scale) {
    p += size_t(blockIdx.x) * width;
    dp += size_t(blockIdx.x) * width;
    float sum[1] = {0.0f};
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum[0] += load(p[i]) * load(dp[i]);
    block_sum(sum);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        dp[i] = store(load(p[i]) * (load(dp[i]) - sum[0]) * scale);
    }
}
