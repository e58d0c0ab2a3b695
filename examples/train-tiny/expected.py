"""Reads `../tiny.gguf` back, writes `expected.json` and `heldout.txt`.

    python3 expected.py

The weights are the file's, dequantized, and torch computes in f32: an oracle that shares no code
with bitloom. Per prompt: ids with `<|endoftext|>` in front, the logits after the prompt, 64 greedy
ids and their text. Prints the loss over held-out stories and the smallest gap between the two best
logits; an implementation whose error stays below half of that gap must give the same tokens.
"""

import json
import pathlib

import torch

import gguf
import text
from export import tensor_names
from model import Config, Llama
from tokenizer import Tokenizer
from train import HELD_OUT_SEED, held_out_loss

HERE = pathlib.Path(__file__).parent
# Prompts that settle the plot: where the grammar throws dice, logits lie close together, and a
# rounding error could turn the choice.
PROMPTS = [
    "Once upon a time, a brave boy named Tom wanted to build a tent.",
    "Once upon a time, there was a little girl named Lily. Lily was afraid of the dark. One night,",
]
NEW_TOKENS = 64
HELD_OUT_LINES = 40


def load(path):
    """The file's model and tokenizer; the configuration comes from the file's keys."""
    keys, tensors = gguf.read(path)
    config = Config(
        vocab=keys["llama.vocab_size"], dim=keys["llama.embedding_length"],
        layers=keys["llama.block_count"], heads=keys["llama.attention.head_count"],
        kv_heads=keys["llama.attention.head_count_kv"], hidden=keys["llama.feed_forward_length"],
        context=keys["llama.context_length"], rope_base=keys["llama.rope.freq_base"],
        eps=keys["llama.attention.layer_norm_rms_epsilon"])
    model = Llama(config)
    model.load_state_dict({ours: torch.from_numpy(tensors[name])
                           for name, ours in tensor_names(config).items()})
    tokenizer = Tokenizer(tuple(m.split(" ")) for m in keys["tokenizer.ggml.merges"])
    assert tokenizer.tokens == keys["tokenizer.ggml.tokens"]
    return model, tokenizer


@torch.no_grad()
def greedy(model, ids, count):
    """`count` ids after `ids`, the logits after `ids` (V,), and the smallest top-two gap."""
    ids, first, gap = list(ids), None, float("inf")
    start = len(ids)
    for _ in range(count):
        logits = model(torch.tensor([ids]))[0, -1]
        first = logits if first is None else first
        best = logits.topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[start:], first, gap


def main():
    torch.set_num_threads(1)
    model, tokenizer = load(HERE.parent / "tiny.gguf")
    print(f"held-out loss of the Q8_0 file {held_out_loss(model, tokenizer):.4f} nats per token")
    cases = []
    for prompt in PROMPTS:
        ids = [tokenizer.end] + tokenizer.encode(prompt)
        new, first, gap = greedy(model, ids, NEW_TOKENS)
        print(f"{prompt} |{tokenizer.decode(new)}\n  smallest gap {gap:.4f}")
        cases.append({"prompt": prompt, "prompt_tokens": ids, "tokens": new,
                      "text": tokenizer.decode(new), "smallest_gap": round(gap, 5),
                      "logits_first": [float(f"{x:.7g}") for x in first.tolist()]})
    (HERE / "expected.json").write_text(
        "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    held_out = text.stories(HELD_OUT_SEED, HELD_OUT_LINES)
    (HERE / "heldout.txt").write_text("\n".join(held_out) + "\n")


if __name__ == "__main__":
    main()
