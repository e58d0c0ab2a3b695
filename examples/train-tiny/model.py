"""Llama architecture in torch: RMSNorm, rope on adjacent pairs, GQA, SwiGLU, tied embedding.

Rope turns the pairs (0,1), (2,3), ... of each head, as llama.cpp's llama graph does, so that the
weights go to GGUF without the permutation that checkpoints with half-split rope need.
Shapes: B batch, T tokens, D dim, H heads, G kv heads, E head_dim, V vocab.
"""

import dataclasses

import torch
import torch.nn.functional as F


@dataclasses.dataclass
class Config:
    vocab: int = 1024
    dim: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 352
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self):
        return self.dim // self.heads


class RMSNorm(torch.nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rope_table(config):
    """cos and sin, each (context, head_dim / 2), angle t * base^(-2i / head_dim)."""
    i = torch.arange(0, config.head_dim, 2, dtype=torch.float64)
    angle = torch.outer(torch.arange(config.context, dtype=torch.float64),
                        config.rope_base ** (-i / config.head_dim))
    return angle.cos().float(), angle.sin().float()


def rope(x, cos, sin):
    """x (B, T, heads, E); cos and sin (T, E / 2)."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        linear = lambda n_in, n_out: torch.nn.Linear(n_in, n_out, bias=False)
        self.attn_norm = RMSNorm(c.dim, c.eps)
        self.q = linear(c.dim, c.heads * c.head_dim)
        self.k = linear(c.dim, c.kv_heads * c.head_dim)
        self.v = linear(c.dim, c.kv_heads * c.head_dim)
        self.o = linear(c.heads * c.head_dim, c.dim)
        self.ffn_norm = RMSNorm(c.dim, c.eps)
        self.gate = linear(c.dim, c.hidden)
        self.up = linear(c.dim, c.hidden)
        self.down = linear(c.hidden, c.dim)

    def attend(self, x, cos, sin, mask):
        """x (B, T, D) -> (B, T, D); mask (T, T) is -inf above the diagonal."""
        c, (b, t, _) = self.c, x.shape
        group = c.heads // c.kv_heads
        q = rope(self.q(x).view(b, t, c.heads, -1), cos, sin) * c.head_dim ** -0.5
        k = rope(self.k(x).view(b, t, c.kv_heads, -1), cos, sin)
        v = self.v(x).view(b, t, c.kv_heads, -1)
        # Heads that share a kv head are stacked along T: (B * G, group * T, E).
        q = q.view(b, t, c.kv_heads, group, -1).permute(0, 2, 3, 1, 4)
        q = q.reshape(b * c.kv_heads, group * t, -1)
        k = k.permute(0, 2, 3, 1).reshape(b * c.kv_heads, -1, t)
        v = v.permute(0, 2, 1, 3).reshape(b * c.kv_heads, t, -1)
        score = torch.bmm(q, k).float().view(-1, group, t, t) + mask
        out = torch.bmm(score.softmax(-1).view(-1, group * t, t), v.to(score.dtype))
        out = out.view(b, c.kv_heads, group, t, -1).permute(0, 3, 1, 2, 4)
        return self.o(out.reshape(b, t, -1))

    def forward(self, x, cos, sin, mask):
        x = x + self.attend(self.attn_norm(x), cos, sin, mask)
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(torch.nn.Module):
    def __init__(self, config=Config()):
        super().__init__()
        self.config = config
        self.embedding = torch.nn.Embedding(config.vocab, config.dim)
        self.blocks = torch.nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        # The two matrices that write into the residual stream start smaller, as in GPT-2.
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02 if "embedding" in name else p.shape[1] ** -0.5
                if name.endswith((".o.weight", ".down.weight")):
                    std *= (2 * config.layers) ** -0.5
                torch.nn.init.normal_(p, std=std)

    def forward(self, ids):
        """ids (B, T) -> logits (B, T, V)."""
        t = ids.shape[1]
        mask = torch.full((t, t), float("-inf")).triu(1)
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos[:t], self.sin[:t], mask)
        return F.linear(self.norm(x), self.embedding.weight)
