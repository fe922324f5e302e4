// Runs the kernel on the CPU: tasks in, solutions out, both files of raw numbers. See `tests/cuda_kernel.rs`.

#include "cuda_on_the_cpu.h"

// In the order in which the host hands them to the compiler.
#include "../../src/mixture/cuda/device.cu"
#include "../../src/mixture/cuda/reduce.cu"
#include "../../src/mixture/cuda/row.cu"
#include "../../src/mixture/cuda/sweep.cu"
#include "../../src/mixture/cuda/kernel.cu"

struct Task {
    // Of the logits: 0 f32, 1 f16, 2 bf16.
    int element, cluster, cached, threads, rows, vocabulary, rule, rounds, offset;
    int padding;
    double alpha;
};

template <class Element, int CLUSTER, bool CACHED>
void run(const Task &task, const char *policy, const char *target, double *solutions) {
    const Rule rule = {task.rule, task.rounds, task.alpha};
    const int fours = (task.vocabulary + 6) / 4, share = (fours + CLUSTER - 1) / CLUSTER;
    const size_t bytes = BEFORE_THE_CACHE + (CACHED ? size_t(share) * 32 : 0);
    cuda_on_the_cpu::launch(task.rows, CLUSTER, task.threads, bytes, [&] {
        solve_row<Element, CLUSTER, CACHED>(
            (const Element *)policy, (const Element *)target, solutions, task.vocabulary, rule
        );
    });
}

int main(int count, char **arguments) {
    FILE *in = count == 3 ? std::fopen(arguments[1], "rb") : nullptr;
    FILE *out = count == 3 ? std::fopen(arguments[2], "wb") : nullptr;
    if (!in || !out) return 1;
    Task task;
    while (std::fread(&task, sizeof(task), 1, in) == 1) {
        const size_t bytes = size_t(task.rows) * task.vocabulary * (task.element == 0 ? 4 : 2);
        // An offset moves the rows away from whole addresses, the target's by one more where it is odd.
        std::vector<double> memory[2];
        char *side[2];
        for (int i = 0; i < 2; i++) {
            memory[i].resize(bytes / 8 + 8);
            char *aligned = (char *)(((uintptr_t)memory[i].data() + 15) / 16 * 16);
            side[i] = aligned + task.offset * (i + 1) * (task.element == 0 ? 4 : 2);
            if (std::fread(side[i], 1, bytes, in) != bytes) return 2;
        }
        std::vector<double> solutions(size_t(task.rows) * FIELDS, 0.0);
        // Not all twelve, which take long to compile.
        const auto variant = [&](int element, int cluster, int cached) {
            return task.element == element && task.cluster == cluster && task.cached == cached;
        };
        double *to = solutions.data();
        if (variant(0, 1, 1)) run<F32, 1, true>(task, side[0], side[1], to);
        else if (variant(0, 1, 0)) run<F32, 1, false>(task, side[0], side[1], to);
        else if (variant(0, 4, 1)) run<F32, 4, true>(task, side[0], side[1], to);
        else if (variant(1, 4, 0)) run<F16, 4, false>(task, side[0], side[1], to);
        else if (variant(2, 1, 1)) run<BF16, 1, true>(task, side[0], side[1], to);
        else return 4;
        if (std::fwrite(solutions.data(), 8, solutions.size(), out) != solutions.size()) return 3;
    }
    return std::fclose(out);
}
