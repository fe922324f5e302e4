"""PyTorch's share of the comparison of models, with transformers as it comes: eager, f32, dropout off.

Reads a task a line, answers with a number. `step CASE` and `generate CASE` take seconds; `memory` is the largest resident
memory of this process in MB. AdamW is torch's default for the CPU, the gradient's norm is clipped to 1.
"""

import logging
import resource
import sys
import time

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

CASES = {
    "124M": (dict(), 4, 128),
    "small": (dict(vocab_size=4096, n_positions=256, n_embd=128, n_layer=4, n_head=4), 32, 64),
}
GENERATION = {"rows": 8, "prompt": 16, "new": 64}


class Case:
    def __init__(self, name):
        sizes, self.rows, self.time = CASES[name]
        config = GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **sizes)
        config.bos_token_id = config.eos_token_id = None
        torch.manual_seed(0)
        self.model = GPT2LMHeadModel(config)
        self.ids = torch.randint(0, config.vocab_size, (self.rows, self.time))
        self.prompt = torch.randint(0, config.vocab_size, (GENERATION["rows"], GENERATION["prompt"]))
        self.optimizer = None

    def step(self):
        self.model.train()
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        loss = self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def generate(self):
        self.model.eval()
        with torch.inference_mode():
            tokens = GENERATION["new"]
            self.model.generate(
                self.prompt, attention_mask=torch.ones_like(self.prompt), do_sample=True, top_k=0,
                min_new_tokens=tokens, max_new_tokens=tokens, pad_token_id=0,
            )


def main():
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    print(f"{torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads", flush=True)
    cases = {}
    for line in sys.stdin:
        task, *rest = line.split()
        if task == "memory":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, flush=True)
            continue
        if rest[0] not in cases:
            cases[rest[0]] = Case(rest[0])
        case = cases[rest[0]]
        start = time.perf_counter()
        case.step() if task == "step" else case.generate()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
