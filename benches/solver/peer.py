"""PyTorch's share of the comparison: reads a task a line, answers with the seconds that it took. The device is the
first argument (cpu if there is none); the logits lie there before a task begins, the answer on the host at its end.

The bisection is written twice: as it is usually met, with functions of probabilities that take their own
logarithms (and an epsilon in them), and with the logarithms of policy and target taken out of the loop.
"""

import sys
import time

import torch

EPSILON = 1e-10


def geometric_mixture(p, t, alpha):
    return torch.softmax(alpha * torch.log(p + EPSILON) + (1 - alpha) * torch.log(t + EPSILON), dim=-1)


def kl(q, p):
    return (q * (torch.log(q + EPSILON) - torch.log(p + EPSILON))).sum(-1, keepdim=True)


def bisection(p, t, rounds=20):
    """alpha at which KL(q||p) = KL(q||t), for a batch of probabilities [B, V]."""
    low, high = torch.zeros_like(p[:, :1]), torch.ones_like(p[:, :1])
    for _ in range(rounds):
        alpha = 0.5 * (low + high)
        q = geometric_mixture(p, t, alpha)
        # More weight on the policy brings q nearer to it.
        more = kl(q, p) > kl(q, t)
        low, high = torch.where(more, alpha, low), torch.where(more, high, alpha)
    return 0.5 * (low + high)


def tuned_bisection(p, t, rounds=20):
    """The same with nothing done twice: K'(alpha) = E_q[log p - log t] has the sign that decides."""
    log_t = torch.log(t + EPSILON)
    d = torch.log(p + EPSILON) - log_t
    low, high = torch.zeros_like(p[:, :1]), torch.ones_like(p[:, :1])
    for _ in range(rounds):
        alpha = 0.5 * (low + high)
        q = torch.softmax(torch.addcmul(log_t, alpha, d), dim=-1)
        less = torch.linalg.vecdot(q, d).unsqueeze(-1) < 0
        low, high = torch.where(less, alpha, low), torch.where(less, high, alpha)
    return 0.5 * (low + high)


def main():
    source = sys.stdin.buffer
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"{torch.get_num_threads()} threads"
    print(f"{torch.__version__}, {where}", flush=True)
    policy = target = p = t = None
    for line in iter(source.readline, b""):
        task = line.decode().strip()
        if task.startswith("logits"):
            rows, vocabulary = map(int, task.split()[1:])

            def read():
                data = bytearray(source.read(4 * rows * vocabulary))
                return torch.frombuffer(data, dtype=torch.float32).reshape(rows, vocabulary).to(device)

            policy, target = read(), read()
            p, t = torch.softmax(policy, -1), torch.softmax(target, -1)
            continue
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.inference_mode():
            if task == "bisection, 20 rounds":
                bisection(p, t).cpu()
            elif task == "tuned bisection, 20 rounds":
                tuned_bisection(p, t).cpu()
            elif task == "softmax and multinomial, from one row":
                torch.multinomial(torch.softmax(policy, -1), 1).cpu()
            else:
                sys.exit(f"unknown task {task!r}")
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
