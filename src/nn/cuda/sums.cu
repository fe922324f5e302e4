// Sums over rows in two stages: parts, then the parts in their order. No atomics.

#define COLUMNS 32
#define ROWS_AT_ONCE 8

// Sums of `grad`, and of `grad` times normalised x where x and its statistics are given, over the rows of each part:
// `[parts, width]`. A block is 32 columns by 8 rows of one part. `by_normal` or `plain` may be null.
extern "C" __global__ void column_sums(
    const Value *x, const Value *grad, const float *stats, float *by_normal, float *plain, int rows, int width,
    int rows_in_part
) {
    const int columns = (width + COLUMNS - 1) / COLUMNS;
    const int part = blockIdx.x / columns, lane = threadIdx.x % COLUMNS, warp = threadIdx.x / COLUMNS;
    const int column = blockIdx.x % columns * COLUMNS + lane;
    const int first = part * rows_in_part, last = min(rows, first + rows_in_part);
    float normal_sum = 0.0f, sum = 0.0f;
    if (column < width) {
        for (int row = first + warp; row < last; row += ROWS_AT_ONCE) {
            const size_t at = size_t(row) * width + column;
            const float g = load(grad[at]);
            if (by_normal) normal_sum += g * ((load(x[at]) - stats[2 * row]) * stats[2 * row + 1]);
            sum += g;
        }
    }
    __shared__ float sums[2][ROWS_AT_ONCE][COLUMNS];
    sums[0][warp][lane] = normal_sum, sums[1][warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= width) return;
    normal_sum = sum = 0.0f;
    for (int i = 0; i < ROWS_AT_ONCE; i++) normal_sum += sums[0][i][lane], sum += sums[1][i][lane];
    const size_t to = size_t(part) * width + column;
    if (by_normal) by_normal[to] = normal_sum;
    if (plain) plain[to] = sum;
}

// The sums of `[parts, width]` over parts; a thread a column.
extern "C" __global__ void sum_parts(const float *parts, float *sums, int count, int width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0.0f;
    for (int i = 0; i < count; i++) sum += parts[size_t(i) * width + column];
    sums[column] = sum;
}

// The rows order[starts[s]] .. order[starts[s + 1] − 1], or these places themselves where `order` is null, are summed
// into row targets[s] of `to`, or into row s, and added to what is there with `add`. A block a sum; no target twice.
template <class T>
__device__ __forceinline__ void sum_segments(
    const T *rows, const unsigned *order, const unsigned *starts, const unsigned *targets, float *to, int width, int add
) {
    const unsigned s = blockIdx.x, first = starts[s], last = starts[s + 1];
    to += size_t(targets ? targets[s] : s) * width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = 0.0f;
        for (unsigned i = first; i < last; i++) sum += load(rows[size_t(order ? order[i] : i) * width + column]);
        to[column] = add ? to[column] + sum : sum;
    }
}

extern "C" __global__ void sum_rows(
    const Value *rows, const unsigned *order, const unsigned *starts, float *to, int width
) {
    sum_segments(rows, order, starts, nullptr, to, width, 0);
}

extern "C" __global__ void add_sums(
    const float *rows, const unsigned *starts, const unsigned *targets, float *to, int width
) {
    sum_segments(rows, nullptr, starts, targets, to, width, 1);
}
