#!/usr/bin/env bash
# Runs all that needs an NVIDIA GPU and prints tables: the solver and models (logits, gradients, training, a cache) against
# the CPU's; the times of the solver and of training steps of GPT-2 124M against PyTorch's on the same GPU. QSTAR_PYTHON
# names a Python that has PyTorch.
#
#     tests/gpu.sh            # builds first
#     tests/gpu.sh BINARY     # runs a bench that was built elsewhere: cargo bench --features cuda --bench gpu --no-run
set -euo pipefail

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "no GPU here: nothing was run"
    exit 0
fi
date -u +"%Y-%m-%d %H:%M UTC"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
binary=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
if [ -n "$binary" ]; then
    exec "$binary"
fi
cargo bench --features cuda --bench gpu
