// Enough of CUDA to run a kernel's own source on a CPU. The threads of a block (of all blocks of a cluster) are fibers
// of one thread of the system: each runs until it waits, at a barrier or a shuffle, for others that have not come yet.
// Blocks (clusters) run one after another.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <ucontext.h>

#define CUDA_ON_THE_CPU
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
// Of a kernel without clusters: blocks run one after another.
#define __shared__ static

struct float4 {
    float x, y, z, w;
};
struct ushort4 {
    unsigned short x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace cuda_on_the_cpu {

struct Index {
    unsigned x, y, z;
};

// Counts arrivals, and goes up by one generation when all have come.
struct Barrier {
    int arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    double values[32];
};

struct Block {
    Barrier barrier;
    std::vector<Warp> warps;
    std::vector<double> memory;
};

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    Index thread, block;
    int rank;
    bool done;
};

inline Fiber *current;
inline ucontext_t scheduler;
inline std::vector<Block> blocks;
inline Barrier cluster;
inline Index block_size;
inline int cluster_size;

inline void pass_on() { swapcontext(&current->context, &scheduler); }

inline void wait(Barrier &barrier, int expected) {
    const int generation = barrier.generation;
    if (++barrier.arrived == expected) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    while (barrier.generation == generation) pass_on();
}

inline Block &here() { return blocks[current->rank]; }

inline Warp &warp() { return here().warps[current->thread.x / 32]; }

// Runs `body` as `rows` clusters of `cluster_size` blocks of `threads` threads with `bytes` of shared memory each.
template <class Body>
void launch(int rows, int blocks_in_cluster, int threads, size_t bytes, const Body &body) {
    static const Body *running;
    running = &body;
    block_size = {unsigned(threads), 1, 1};
    cluster_size = blocks_in_cluster;
    std::vector<Fiber> fibers(size_t(threads) * cluster_size);
    for (Fiber &fiber : fibers) fiber.stack.resize(64 * 1024);
    for (int row = 0; row < rows; row++) {
        cluster = Barrier();
        blocks.assign(cluster_size, Block());
        for (Block &block : blocks) {
            block.warps.resize(threads / 32);
            // Not zeros: what a kernel does not set it must not read.
            block.memory.assign(bytes / 8, std::nan(""));
        }
        for (size_t i = 0; i < fibers.size(); i++) {
            Fiber &fiber = fibers[i];
            fiber.rank = int(i) / threads;
            fiber.thread = {unsigned(i % threads), 0, 0};
            fiber.block = {unsigned(row * cluster_size + fiber.rank), 0, 0};
            fiber.done = false;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.data();
            fiber.context.uc_stack.ss_size = fiber.stack.size();
            fiber.context.uc_link = &scheduler;
            void (*enter)() = [] {
                (*running)();
                current->done = true;
            };
            makecontext(&fiber.context, enter, 0);
        }
        for (size_t left = fibers.size(); left > 0;) {
            for (Fiber &fiber : fibers) {
                if (fiber.done) continue;
                current = &fiber;
                swapcontext(&scheduler, &fiber.context);
                left -= fiber.done;
            }
        }
    }
}

// A number in [-1, 1] that is always the same for the same bits.
inline float noise(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = (bits ^ (bits >> 16)) * 0x7feb352du;
    bits = (bits ^ (bits >> 15)) * 0x846ca68bu;
    return float(int32_t(bits ^ (bits >> 16))) * 4.6566129e-10f;
}

}  // namespace cuda_on_the_cpu

#define threadIdx cuda_on_the_cpu::current->thread
#define blockIdx cuda_on_the_cpu::current->block
#define blockDim cuda_on_the_cpu::block_size
#define DYNAMIC_SHARED(name) unsigned char *name = (unsigned char *)cuda_on_the_cpu::here().memory.data()

inline void __syncthreads() { cuda_on_the_cpu::wait(cuda_on_the_cpu::here().barrier, int(blockDim.x)); }

inline double __shfl_xor_sync(unsigned, double value, int other) {
    cuda_on_the_cpu::Warp &warp = cuda_on_the_cpu::warp();
    const int lane = threadIdx.x % 32;
    warp.values[lane] = value;
    cuda_on_the_cpu::wait(warp.barrier, 32);
    const double found = warp.values[lane ^ other];
    cuda_on_the_cpu::wait(warp.barrier, 32);
    return found;
}

template <class To, class From>
To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

inline float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float __int_as_float(int bits) { return same_bits<float>(bits); }
inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }

inline float __double2float_rd(double x) {
    const float y = float(x);
    return double(y) > x ? std::nextafterf(y, -INFINITY) : y;
}

template <class T>
T __ldg(const T *at) {
    if (uintptr_t(at) % sizeof(T) != 0) std::abort(); // as a GPU would
    return *at;
}

inline int min(int a, int b) { return a < b ? a : b; }
using std::isfinite;

// As far off as ex2.approx.ftz.f32 may be: 2^-22 of the value, here at random.
inline float exp2_fast(float x) {
    if (x < -126.0f) return 0.0f;
    return float(std::exp2(double(x)) * (1.0 + 2.3841858e-7 * double(cuda_on_the_cpu::noise(x))));
}

inline float f16_to_f32(unsigned short bits) {
    const unsigned sign = unsigned(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    const float size = exponent == 0 ? std::ldexp(float(fraction), -24)
                                     : std::ldexp(float(1024 + fraction), int(exponent) - 25);
    return sign ? -size : size;
}

template <int CLUSTER>
int rank_in_cluster() {
    return cuda_on_the_cpu::current->rank;
}

template <int CLUSTER>
void cluster_barrier() {
    cuda_on_the_cpu::wait(cuda_on_the_cpu::cluster, int(blockDim.x) * cuda_on_the_cpu::cluster_size);
}

template <int CLUSTER>
void store_in_block(double *here, int rank, double value) {
    const size_t place = here - cuda_on_the_cpu::here().memory.data();
    cuda_on_the_cpu::blocks[rank].memory.data()[place] = value;
}
