// What the hardware has and C++ has not: fast 2^x, half precision, clusters of blocks. A header that runs kernels on a
// CPU defines CUDA_ON_THE_CPU and brings its own. NVRTC needs no include for any of this.

#define LOG2_E 1.4426950408889634
#define LN_2 0.6931471805599453
#define INFINITY_F32 __int_as_float(0x7f800000)
#define INFINITY_F64 __longlong_as_double(0x7ff0000000000000ll)

#ifndef CUDA_ON_THE_CPU

#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// 2^x, to a relative error of 2^-22; 0 below 2^-126.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float f16_to_f32(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

// The place of this block among the blocks that share a row.
template <int CLUSTER>
__device__ __forceinline__ int rank_in_cluster() {
    unsigned rank = 0;
    if constexpr (CLUSTER > 1) asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return int(rank);
}

// All threads of all blocks of the row; what was stored before it is seen after it.
template <int CLUSTER>
__device__ __forceinline__ void cluster_barrier() {
    if constexpr (CLUSTER > 1) {
        asm volatile("barrier.cluster.arrive.release;" ::: "memory");
        asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
    } else {
        __syncthreads();
    }
}

// Stores to the place that `here` has in the shared memory of another block of the row.
template <int CLUSTER>
__device__ __forceinline__ void store_in_block(double *here, int rank, double value) {
    if constexpr (CLUSTER > 1) {
        unsigned there, address = unsigned(__cvta_generic_to_shared(here));
        asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
        asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(there), "d"(value) : "memory");
    } else {
        *here = value;
    }
}

#endif

// Logits as they lie in memory. Four of them are read at once.
struct F32 {
    typedef float4 Four;
    float bits;
    static __device__ __forceinline__ void four(const Four &x, float (&to)[4]) {
        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    }
    __device__ __forceinline__ float value() const { return bits; }
};

struct F16 {
    typedef ushort4 Four;
    unsigned short bits;
    static __device__ __forceinline__ void four(const Four &x, float (&to)[4]) {
        to[0] = f16_to_f32(x.x), to[1] = f16_to_f32(x.y), to[2] = f16_to_f32(x.z), to[3] = f16_to_f32(x.w);
    }
    __device__ __forceinline__ float value() const { return f16_to_f32(bits); }
};

struct BF16 {
    typedef ushort4 Four;
    unsigned short bits;
    static __device__ __forceinline__ float widen(unsigned short bits) { return __uint_as_float(unsigned(bits) << 16); }
    static __device__ __forceinline__ void four(const Four &x, float (&to)[4]) {
        to[0] = widen(x.x), to[1] = widen(x.y), to[2] = widen(x.z), to[3] = widen(x.w);
    }
    __device__ __forceinline__ float value() const { return widen(bits); }
};
