"""Trains the tiny model on one CPU thread and writes `checkpoint.pt`.

    python3 train.py [--steps 3000] [--seed 1] [--out checkpoint.pt]

Deterministic for one machine and one BLAS: text, weights and batches come from seeds. The matrix
products run in bfloat16 (autocast), everything else and the weights in float32; losses printed as
`held-out` are computed in float32.
"""

import argparse
import math
import pathlib
import random
import time

import torch
import torch.nn.functional as F

import text
from model import Config, Llama
from tokenizer import Tokenizer

TOKENS_PER_STEP = 2048
SHORT, LONG = 256, 512  # window lengths; only the last steps pay for the long one
LONG_SHARE = 0.15
PEAK_RATE, WARMUP = 3e-3, 100
HELD_OUT_SEED = 1_000_000


def documents(tokenizer, seed, count):
    """Token stream `<end> story <end> story ...` (N,) and the positions of `<end>`.

    One document in ten is four stories joined by newlines, so that a plain text file with one
    story per line is familiar too.
    """
    rng = random.Random(f"documents-{seed}")
    stories = iter(text.stories(seed, count))
    stream, starts = [], []
    for first in stories:
        lines = [first] + [s for _, s in zip(range(3), stories)] if rng.random() < 0.1 else [first]
        starts.append(len(stream))
        stream += [tokenizer.end] + tokenizer.encode("\n".join(lines))
    return torch.tensor(stream), torch.tensor(starts)


def batch(stream, starts, length, generator):
    """Random windows (B, length + 1): four in five begin with a story, the others anywhere."""
    count, limit = TOKENS_PER_STEP // length, len(stream) - length - 1
    begin = starts[torch.randint(len(starts), (count,), generator=generator)].clamp(max=limit)
    anywhere = torch.randint(limit, (count,), generator=generator)
    begin = torch.where(torch.rand(count, generator=generator) < 0.8, begin, anywhere)
    return stream[begin[:, None] + torch.arange(length + 1)]


def held_out_loss(model, tokenizer, count=200):
    """Mean nats per token over held-out stories, each on its own after `<end>`, f32."""
    total = tokens = 0
    with torch.no_grad():
        for story in text.stories(HELD_OUT_SEED, count):
            ids = torch.tensor([[tokenizer.end] + tokenizer.encode(story) + [tokenizer.end]])
            logits = model(ids[:, :-1])
            total += F.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()
            tokens += ids.shape[1] - 1
    return total / tokens


def optimizer_of(model):
    """AdamW; weight decay for matrices only."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                              {"params": norms, "weight_decay": 0.0}], betas=(0.9, 0.95))


def rate(step, steps):
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default="checkpoint.pt")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    generator = torch.Generator().manual_seed(options.seed)

    began = time.time()
    tokenizer = Tokenizer.load()
    # About as many stories as the run reads tokens (190 tokens a story): hardly any repeats.
    count = options.steps * TOKENS_PER_STEP // 190
    stream, starts = documents(tokenizer, options.seed, count)
    model = Llama(Config(vocab=len(tokenizer.tokens)))
    optimizer = optimizer_of(model)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {count} stories, "
          f"{len(stream)} tokens, {time.time() - began:.0f} s to prepare", flush=True)

    mean = []
    for step in range(options.steps):
        length = LONG if step >= options.steps * (1 - LONG_SHARE) else SHORT
        ids = batch(stream, starts, length, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, options.steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            line = f"step {step + 1}  train {sum(mean) / len(mean):.4f}"
            if (step + 1) % 500 == 0 or step + 1 == options.steps:
                line += f"  held-out {held_out_loss(model, tokenizer):.4f}"
                torch.save(model.state_dict(), options.out)
            print(f"{line}  {time.time() - began:.0f} s", flush=True)
            mean = []


if __name__ == "__main__":
    main()
