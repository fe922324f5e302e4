"""PyTorch's share of the comparison: reads a task a line, answers with the seconds that it took.

The bisection is the common form: probabilities with an epsilon in the logarithm, twenty halvings, each with a
softmax of the mixed log-probabilities and the two divergences over the whole batch.
"""

import sys
import time

import torch

EPSILON = 1e-10


def bisection(p, t, rounds=20):
    """alpha at which KL(q||p) = KL(q||t), for a batch of probabilities [B, V]."""
    log_p, log_t = torch.log(p + EPSILON), torch.log(t + EPSILON)
    low, high = torch.zeros(p.shape[0], 1), torch.ones(p.shape[0], 1)
    for _ in range(rounds):
        alpha = 0.5 * (low + high)
        q = torch.softmax(alpha * log_p + (1 - alpha) * log_t, dim=-1)
        log_q = torch.log(q + EPSILON)
        kl_p = (q * (log_q - log_p)).sum(-1, keepdim=True)
        kl_t = (q * (log_q - log_t)).sum(-1, keepdim=True)
        # More weight on the policy brings q nearer to it.
        low, high = torch.where(kl_p > kl_t, alpha, low), torch.where(kl_p > kl_t, high, alpha)
    return 0.5 * (low + high)


def main():
    source = sys.stdin.buffer
    print(f"{torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    policy = target = p = t = None
    for line in iter(source.readline, b""):
        task = line.decode().strip()
        if task.startswith("logits"):
            rows, vocabulary = map(int, task.split()[1:])

            def read():
                data = bytearray(source.read(4 * rows * vocabulary))
                return torch.frombuffer(data, dtype=torch.float32).reshape(rows, vocabulary)

            policy, target = read(), read()
            p, t = torch.softmax(policy, -1), torch.softmax(target, -1)
            continue
        start = time.perf_counter()
        with torch.inference_mode():
            if task == "bisection, 20 rounds":
                bisection(p, t)
            elif task == "softmax and multinomial, from one row":
                torch.multinomial(torch.softmax(policy, -1), 1)
            else:
                sys.exit(f"unknown task {task!r}")
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
