// Sums and maxima over all threads of all blocks of a row, in f64. Every block adds the same numbers in the same order,
// so that all of them take the same decisions afterwards.

#define VALUES 8
#define MOST_WARPS 32
#define MOST_BLOCKS 8

struct Reduction {
    double warps[MOST_WARPS][VALUES];
    // Two sets: a block may be one reduction ahead of another.
    double blocks[2][MOST_BLOCKS][VALUES];
    // What came out.
    double total[VALUES];
};

struct Sum {
    static __device__ __forceinline__ double nothing() { return 0.0; }
    static __device__ __forceinline__ double of(double a, double b) { return a + b; }
};

struct Maximum {
    static __device__ __forceinline__ double nothing() { return -INFINITY_F64; }
    static __device__ __forceinline__ double of(double a, double b) { return a > b ? a : b; }
};

// Reduces N (a power of 2) values of each thread into `total`; `turn` alternates between reductions. Ends in a barrier.
template <int CLUSTER, class Operation, int N>
__device__ __forceinline__ void reduce(Reduction &shared, unsigned &turn, double (&value)[N]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    // In each of the first steps a lane hands over half of its values and goes on with the other half.
    int bit = 16;
#pragma unroll
    for (int half = N / 2; half > 0; half /= 2, bit /= 2) {
        const bool upper = lane & bit;
#pragma unroll
        for (int i = 0; i < half; i++) {
            const double keep = upper ? value[i + half] : value[i], give = upper ? value[i] : value[i + half];
            value[i] = Operation::of(keep, __shfl_xor_sync(0xffffffffu, give, bit));
        }
    }
    for (; bit > 0; bit /= 2) value[0] = Operation::of(value[0], __shfl_xor_sync(0xffffffffu, value[0], bit));
    const int lanes = 32 / N;
    if (lane % lanes == 0) shared.warps[warp][lane / lanes] = value[0];
    __syncthreads();
    for (int i = warp; i < N; i += warps) {
        double x = lane < warps ? shared.warps[lane][i] : Operation::nothing();
        for (int other = 16; other > 0; other /= 2) x = Operation::of(x, __shfl_xor_sync(0xffffffffu, x, other));
        if (CLUSTER == 1) {
            if (lane == 0) shared.total[i] = x;
        } else if (lane < CLUSTER) {
            double *slot = &shared.blocks[turn % 2][rank_in_cluster<CLUSTER>()][i];
            store_in_block<CLUSTER>(slot, lane, x);
        }
    }
    cluster_barrier<CLUSTER>();
    if (CLUSTER > 1) {
        if (threadIdx.x < N) {
            double x = Operation::nothing();
            for (int rank = 0; rank < CLUSTER; rank++) x = Operation::of(x, shared.blocks[turn % 2][rank][threadIdx.x]);
            shared.total[threadIdx.x] = x;
        }
        __syncthreads();
    }
    turn++;
}
