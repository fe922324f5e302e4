"""PyTorch's share of the training steps: reads `step ROWS TIME f32|bf16` a line, answers with the seconds of one step, and
`memory` with the largest number of bytes that tensors took so far. The device is the first argument.

GPT-2 (124M) without dropout, as PyTorch is used by hand: `scaled_dot_product_attention`, the loss from logits over the
vocabulary, the global norm clipped to 1, fused AdamW. In bf16 by autocast, with weights in f32.
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY, POSITIONS, WIDTH, LAYERS, HEADS = 50257, 1024, 768, 12, 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.attn_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.mlp_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        rows, length, _ = x.shape
        q, k, v = (
            part.view(rows, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(WIDTH, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(attended.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        return self.ln_f(self.blocks(x)) @ self.wte.weight.T


def main():
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"{torch.get_num_threads()} threads"
    torch.manual_seed(0)
    model = GPT2().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    print(f"{torch.__version__}, {where}", flush=True)
    for line in sys.stdin:
        task, *rest = line.split()
        if task == "memory":
            print(torch.cuda.max_memory_allocated() if on_gpu else 0, flush=True)
            continue
        rows, length, dtype = int(rest[0]), int(rest[1]), rest[2]
        ids = torch.randint(VOCABULARY, (rows, length + 1), device=device)
        wait()
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bf16"):
            logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        wait()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
