// Runs kernels of the blocks on the CPU: launches in, all their tensors out, both files of raw numbers. See
// `tests/cuda_blocks.rs`.

#include "cuda_on_the_cpu.h"

#include <string>
#include <type_traits>
#include <utility>

// In the order in which the host hands them to the compiler.
#include "../../src/nn/cuda/value.cu"
#include "../../src/nn/cuda/norm.cu"
#include "../../src/nn/cuda/sums.cu"
#include "../../src/nn/cuda/elementwise.cu"
#include "../../src/nn/cuda/softmax.cu"
#include "../../src/nn/cuda/update.cu"

struct Arg {
    // 0 a tensor, 1 none, 2 an integer, 3 a long one, 4 a float.
    uint32_t kind;
    std::vector<char> bytes;
};

template <class T>
T as(Arg &arg, T *) {
    const uint32_t kind = sizeof(T) == 8 ? 3 : std::is_same<T, float>::value ? 4 : 2;
    if (arg.kind != kind) std::exit(3);
    T value;
    std::memcpy(&value, arg.bytes.data(), sizeof(T));
    return value;
}

template <class T>
T *as(Arg &arg, T **) {
    if (arg.kind > 1) std::exit(3);
    return arg.kind == 1 ? nullptr : (T *)arg.bytes.data();
}

template <class... Types, size_t... Places>
void run(void (*kernel)(Types...), std::vector<Arg> &args, int blocks, int threads, std::index_sequence<Places...>) {
    if (args.size() != sizeof...(Types)) std::exit(4);
    cuda_on_the_cpu::launch(blocks, 1, threads, 0, [&] { kernel(as(args[Places], (Types *)nullptr)...); });
}

template <class... Types>
void run(void (*kernel)(Types...), std::vector<Arg> &args, int blocks, int threads) {
    run(kernel, args, blocks, threads, std::index_sequence_for<Types...>());
}

void run(const std::string &name, std::vector<Arg> &args, int blocks, int threads) {
#define KERNEL(kernel) if (name == #kernel) return run(kernel, args, blocks, threads)
    KERNEL(norm_forward);
    KERNEL(norm_backward);
    KERNEL(column_sums);
    KERNEL(sum_parts);
    KERNEL(sum_rows);
    KERNEL(add_sums);
    KERNEL(bias_gelu);
    KERNEL(bias_gelu_backward);
    KERNEL(swiglu);
    KERNEL(swiglu_backward);
    KERNEL(rope);
    KERNEL(store_keys_and_values);
    KERNEL(measure_logits);
    KERNEL(logits_gradient);
    KERNEL(kl_of_logits);
    KERNEL(masked_softmax);
    KERNEL(softmax_backward);
    KERNEL(adamw);
    KERNEL(add_in_place);
    KERNEL(squared_norms);
    std::exit(5);
}

int main(int count, char **arguments) {
    FILE *in = count == 3 ? std::fopen(arguments[1], "rb") : nullptr;
    FILE *out = count == 3 ? std::fopen(arguments[2], "wb") : nullptr;
    if (!in || !out) return 1;
    const auto number = [&] {
        uint32_t n;
        if (std::fread(&n, 4, 1, in) != 1) std::exit(2);
        return n;
    };
    char name[32];
    while (std::fread(name, sizeof(name), 1, in) == 1) {
        const uint32_t blocks = number(), threads = number();
        std::vector<Arg> args(number());
        for (Arg &arg : args) {
            arg.kind = number();
            arg.bytes.resize(number());
            if (!arg.bytes.empty() && std::fread(arg.bytes.data(), arg.bytes.size(), 1, in) != 1) return 2;
        }
        run(name, args, blocks, threads);
        for (const Arg &arg : args) {
            if (arg.kind == 0) std::fwrite(arg.bytes.data(), arg.bytes.size(), 1, out);
        }
    }
    return std::fclose(out);
}
