"""Writes `../tiny.gguf` from `checkpoint.pt`: matrices Q8_0, norms F32.

    python3 export.py [--checkpoint checkpoint.pt] [--out ../tiny.gguf]

No matrix is permuted: the model was trained with rope on adjacent pairs (see model.py). There is
no output.weight, since the embedding is tied.
"""

import argparse
import pathlib

import torch

import gguf
from model import Config
from tokenizer import Tokenizer

HERE = pathlib.Path(__file__).parent
NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type

# torch name in a block -> GGUF name in blk.N
BLOCK_NAMES = {
    "attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}


def tensor_names(config):
    """{GGUF name: torch name}, in file order."""
    names = {"token_embd.weight": "embedding.weight", "output_norm.weight": "norm.weight"}
    for i in range(config.layers):
        for ours, theirs in BLOCK_NAMES.items():
            names[f"blk.{i}.{theirs}.weight"] = f"blocks.{i}.{ours}.weight"
    return names


def metadata(config, tokenizer):
    """The keys that llama.cpp reads for a llama model with a GPT-2 tokenizer."""
    u32, number, flag, text = gguf.U32, gguf.FLOAT, gguf.BOOL, gguf.STRING
    texts, numbers = (gguf.ARRAY, text), (gguf.ARRAY, gguf.I32)
    types = [CONTROL if i == tokenizer.end else NORMAL for i in range(len(tokenizer.tokens))]
    return {
        "general.architecture": (text, "llama"),
        "general.name": (text, "bitloom tiny stories"),
        "general.license": (text, "apache-2.0"),
        "general.file_type": (u32, 7),  # mostly Q8_0
        "general.quantization_version": (u32, 2),
        "general.alignment": (u32, gguf.ALIGNMENT),
        "llama.vocab_size": (u32, config.vocab),
        "llama.context_length": (u32, config.context),
        "llama.embedding_length": (u32, config.dim),
        "llama.block_count": (u32, config.layers),
        "llama.feed_forward_length": (u32, config.hidden),
        "llama.attention.head_count": (u32, config.heads),
        "llama.attention.head_count_kv": (u32, config.kv_heads),
        "llama.attention.layer_norm_rms_epsilon": (number, config.eps),
        "llama.rope.dimension_count": (u32, config.head_dim),
        "llama.rope.freq_base": (number, config.rope_base),
        "tokenizer.ggml.model": (text, "gpt2"),
        "tokenizer.ggml.pre": (text, "gpt-2"),
        "tokenizer.ggml.tokens": (texts, tokenizer.tokens),
        "tokenizer.ggml.token_type": (numbers, types),
        "tokenizer.ggml.merges": (texts, [" ".join(pair) for pair in tokenizer.merges]),
        "tokenizer.ggml.bos_token_id": (u32, tokenizer.end),
        "tokenizer.ggml.eos_token_id": (u32, tokenizer.end),
        "tokenizer.ggml.add_bos_token": (flag, True),
        "tokenizer.ggml.add_eos_token": (flag, False),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=pathlib.Path, default=HERE / "checkpoint.pt")
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent / "tiny.gguf")
    options = parser.parse_args()
    tokenizer = Tokenizer.load()
    config = Config(vocab=len(tokenizer.tokens))
    state = torch.load(options.checkpoint)
    tensors = {name: state[ours].numpy() for name, ours in tensor_names(config).items()}
    assert len(tensors) == len(state), "the checkpoint has tensors that the file does not name"
    size = gguf.write(options.out, metadata(config, tokenizer), tensors)
    print(f"{options.out.name}: {len(tensors)} tensors, {size} bytes")


if __name__ == "__main__":
    main()
