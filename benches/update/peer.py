"""TRL's share of the comparison of updates: GRPOTrainer and RLOOTrainer as they come, on stories260K.

    pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0 datasets accelerate
    HF_HOME=... python peer.py grpo        # or rloo

reads a task a line, answers with a number. `update` takes the seconds of one update (rollout, reward, loss, step) of the
trainer's own loop, `memory` is the largest resident memory of this process in MB. The first line says the versions, once
two updates have warmed it up.

16 prompts with 4 responses of 32 tokens each, drawn at temperature 1; all in f32 on the CPU with two threads, one step of
AdamW for each rollout, no dropout, no recomputation, no vLLM. What is not named here is TRL's default: GRPO has no penalty
(beta 0, no reference model), RLOO has one (beta 0.05).
"""

import os
import resource
import sys
import tempfile
import time
import warnings

os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
warnings.filterwarnings("ignore")

import datasets
import torch
import transformers
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

THREADS = 2
PROMPTS, RESPONSES, TOKENS = 16, 4, 32
WARM_UP = 2
ADJECTIVES, ANIMALS = ("big", "happy", "little", "sad"), ("bear", "bird", "cat", "dog")


def prompts():
    return [f"Once upon a time there was a {adjective} {animal}." for adjective in ADJECTIVES for animal in ANIMALS]


def reward(completions, **_):
    """The share of the letter e."""
    return [text.count("e") / max(len(text), 1) for text in completions]


class TurnByTurn(TrainerCallback):
    """Holds the trainer's loop before each update until one is asked for, and says how long it took."""

    def __init__(self, answers):
        self.answers, self.start, self.trainer = answers, 0.0, None

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == WARM_UP:
            self.answer(f"{torch.__version__}, transformers {transformers.__version__}, TRL {trl.__version__}, "
                        f"{torch.get_num_threads()} threads")
        while state.global_step >= WARM_UP:
            task = sys.stdin.readline().strip()
            if not task:
                sys.exit()
            if task == "update":
                break
            self.answer(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        seconds = time.perf_counter() - self.start
        assert self.trainer._metrics["train"]["completions/min_length"][-1] == TOKENS, "a response is shorter"
        if state.global_step > WARM_UP:
            self.answer(seconds)

    def answer(self, what):
        print(what, file=self.answers, flush=True)


def main():
    method = sys.argv[1].upper()
    # What libraries print is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(THREADS)
    transformers.logging.set_verbosity_error()
    rows = prompts()
    assert len(rows) == PROMPTS
    turns = TurnByTurn(answers)
    with tempfile.TemporaryDirectory() as folder:
        args = getattr(trl, f"{method}Config")(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            disable_tqdm=True, save_strategy="no", logging_strategy="no", max_steps=1_000_000,
            per_device_train_batch_size=PROMPTS * RESPONSES, gradient_accumulation_steps=1,
            num_generations=RESPONSES, max_completion_length=TOKENS, generation_kwargs=dict(min_new_tokens=TOKENS),
        )
        turns.trainer = getattr(trl, f"{method}Trainer")(
            model=AutoModelForCausalLM.from_pretrained("qstar/stories260K", dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained("qstar/stories260K", padding_side="left"),
            # Many rows: the end of an epoch costs time.
            reward_funcs=reward, train_dataset=datasets.Dataset.from_list([dict(prompt=row) for row in rows] * 256),
            args=args, callbacks=[turns],
        )
        turns.trainer.train()


if __name__ == "__main__":
    main()
