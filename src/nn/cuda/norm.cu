// Layer norm, and RMS norm where no bias is given: a block a row.

// Mean and 1/sd of the row; the mean counts as zero where it is not centred.
__device__ __forceinline__ void statistics(const Value *x, int width, float eps, bool centred, float &mean, float &inverse_sd) {
    float sum[1] = {0.0f};
    if (centred) {
        for (int i = threadIdx.x; i < width; i += blockDim.x) sum[0] += load(x[i]);
        block_sum(sum);
    }
    mean = sum[0] / width;
    sum[0] = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float d = load(x[i]) - mean;
        sum[0] += d * d;
    }
    block_sum(sum);
    inverse_sd = 1.0f / sqrtf(sum[0] / width + eps);
}

// `stats` gets mean and 1/sd of every row.
extern "C" __global__ void norm_forward(
    const Value *x, const Value *weight, const Value *bias, Value *y, float *stats, int width, float eps
) {
    const size_t row = blockIdx.x;
    x += row * width;
    y += row * width;
    float mean, inverse_sd;
    statistics(x, width, eps, bias != nullptr, mean, inverse_sd);
    if (threadIdx.x == 0) stats[2 * row] = mean, stats[2 * row + 1] = inverse_sd;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float v = (load(x[i]) - mean) * inverse_sd * load(weight[i]);
        y[i] = store(bias != nullptr ? v + load(bias[i]) : v);
    }
}

// The gradient of x. Those of weight and bias are sums over rows: `column_sums`.
extern "C" __global__ void norm_backward(
    const Value *x, const Value *weight, const Value *grad, const float *stats, Value *dx, int width, int centred
) {
    const size_t row = blockIdx.x;
    x += row * width;
    grad += row * width;
    dx += row * width;
    const float mean = stats[2 * row], inverse_sd = stats[2 * row + 1];
    float sums[2] = {0.0f, 0.0f};
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float slope = load(grad[i]) * load(weight[i]);
        sums[0] += slope * ((load(x[i]) - mean) * inverse_sd);
        sums[1] += slope;
    }
    block_sum(sums);
    const float along = sums[0] / width, level = centred ? sums[1] / width : 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float normal = (load(x[i]) - mean) * inverse_sd;
        dx[i] = store((load(grad[i]) * load(weight[i]) - level - normal * along) * inverse_sd);
    }
}
