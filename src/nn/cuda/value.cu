// Values as they lie in memory, f32 or bf16 (VALUE_BITS 32 or 16), and sums over the threads of a block. All arithmetic
// is in f32. A block is whole warps; the order of every sum is fixed, so that the same input gives the same bits.

#if VALUE_BITS == 16

typedef unsigned short Value;

__device__ __forceinline__ float load(Value bits) { return __uint_as_float(unsigned(bits) << 16); }

// To the nearest, ties to even.
__device__ __forceinline__ Value store(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return Value(bits >> 16 | 0x40u); // a NaN stays one
    return Value((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#else

typedef float Value;

__device__ __forceinline__ Value store(float x) { return x; }

#endif

__device__ __forceinline__ float load(float x) { return x; }

#define ALL_LANES 0xffffffffu
#define MOST_WARPS 32

struct Sum {
    static __device__ __forceinline__ float nothing() { return 0.0f; }
    template <class T>
    static __device__ __forceinline__ T of(T a, T b) { return a + b; }
};

struct Maximum {
    static __device__ __forceinline__ float nothing() { return __int_as_float(0xff800000); }
    template <class T>
    static __device__ __forceinline__ T of(T a, T b) { return a > b ? a : b; }
};

// Reduces N values of every thread; all threads get the outcome.
template <class Operation, class T, int N>
__device__ __forceinline__ void reduce(T (&x)[N]) {
    __shared__ T warps[N][MOST_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, count = blockDim.x / 32;
    __syncthreads(); // an earlier outcome may still be read
#pragma unroll
    for (int i = 0; i < N; i++) {
        for (int other = 16; other > 0; other /= 2) x[i] = Operation::of(x[i], T(__shfl_xor_sync(ALL_LANES, x[i], other)));
        if (lane == 0) warps[i][warp] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        x[i] = lane < count ? warps[i][lane] : T(Operation::nothing());
        for (int other = 16; other > 0; other /= 2) x[i] = Operation::of(x[i], T(__shfl_xor_sync(ALL_LANES, x[i], other)));
    }
}

template <class T, int N>
__device__ __forceinline__ void block_sum(T (&x)[N]) { reduce<Sum>(x); }

__device__ __forceinline__ float block_max(float x) {
    float value[1] = {x};
    reduce<Maximum>(value);
    return value[0];
}
