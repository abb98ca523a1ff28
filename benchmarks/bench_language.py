"""Tokens per second of the real stories260K against an eager llama in plain torch with a cache of keys and values, greedy, in turn.

    python benchmarks/bench_language.py [--tokens 200] [--threads 1 2] [--repeats 7] [--no-record]

Both start from the same prompt and must write the same tokens.  The torch model does per token what a plain port does: dense
layers, RMS norm, rotation as a product of complex numbers, scaled_dot_product_attention over a preallocated cache.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, compare, ratio, record
from torch.nn import functional as F

import semanticlens as sl

PROMPT = "Once upon a time"


class Llama:
    """Eager float32 llama on the parameters of our network."""

    def __init__(self, net: sl.Network, context: int) -> None:
        p = {key: torch.from_numpy(np.array(value)) for key, value in net.params.items()}
        q = next(node for node in net.nodes if node.op == "reshape" and ".q." in node.name).attrs["shape"]
        k = next(node for node in net.nodes if node.op == "reshape" and ".k." in node.name).attrs["shape"]
        rotary = next(node for node in net.nodes if node.op == "rotary")
        assert rotary.attrs["interleaved"]
        self.heads, self.width, self.kv = q[1], q[2], k[1]
        self.eps = next(node for node in net.nodes if node.op == "rms_norm").attrs["eps"]
        self.embedding, self.last = p["embed_tokens.weight"], p["norm.weight"]
        self.head = p.get("lm_head.weight", self.embedding)
        count = len({key.split(".")[1] for key in p if key.startswith("layers.")})
        self.layers = [{key.removeprefix(f"layers.{i}."): value for key, value in p.items() if key.startswith(f"layers.{i}.")}
                       for i in range(count)]
        self.cache = [torch.zeros(2, 1, self.kv, context, self.width) for _ in range(count)]
        speed = rotary.attrs["base"] ** (-torch.arange(self.width // 2, dtype=torch.float64) / (self.width // 2))
        angles = torch.arange(context, dtype=torch.float64)[:, None] * speed
        self.turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)

    def rotated(self, x: torch.Tensor, place: int) -> torch.Tensor:
        pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns[place : place + x.shape[2]]).flatten(-2)

    def step(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        """Logits (vocabulary,) behind the last of the ids (1, T)."""
        x, n = F.embedding(ids, self.embedding), ids.shape[1]
        for p, cache in zip(self.layers, self.cache, strict=True):
            h = F.rms_norm(x, x.shape[-1:], p["input_layernorm.weight"], self.eps)
            q, k, v = (F.linear(h, p[f"self_attn.{part}_proj.weight"]).view(1, n, -1, self.width).transpose(1, 2) for part in "qkv")
            cache[0][:, :, place : place + n] = self.rotated(k, place)
            cache[1][:, :, place : place + n] = v
            keys, values = cache[:, :, :, : place + n]
            h = F.scaled_dot_product_attention(self.rotated(q, place), keys, values, is_causal=n > 1, enable_gqa=True)
            x = x + F.linear(h.transpose(1, 2).reshape(1, n, -1), p["self_attn.o_proj.weight"])
            h = F.rms_norm(x, x.shape[-1:], p["post_attention_layernorm.weight"], self.eps)
            h = F.silu(F.linear(h, p["mlp.gate_proj.weight"])) * F.linear(h, p["mlp.up_proj.weight"])
            x = x + F.linear(h, p["mlp.down_proj.weight"])
        return F.linear(F.rms_norm(x, x.shape[-1:], self.last, self.eps), self.head)[0, -1]

    @torch.inference_mode()
    def generate(self, ids: list[int], count: int) -> list[int]:
        ids, place, new = list(ids), 0, torch.tensor([ids])
        for _ in range(count):
            logits = self.step(new, place)
            place += new.shape[1]
            token = int(logits.argmax())
            new = torch.tensor([[token]])
            ids.append(token)
        return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    path = Path(os.environ.get("SEMANTICLENS_DATA", ROOT / "../shared/data")) / "models/stories260K.bin"
    model = sl.load(path)
    theirs, prompt = Llama(model.net, model.context), model.encode(PROMPT)
    rows: list[dict[str, Any]] = []
    for n_threads in given.threads:
        torch.set_num_threads(n_threads)
        ours = model.generate_ids(prompt, max_new_tokens=given.tokens, n_threads=n_threads)
        if ours != theirs.generate(prompt, given.tokens)[: len(ours)] or len(ours) < len(prompt) + given.tokens:
            raise SystemExit("ours and torch's tokens differ, or a text ended early: times of different work mean nothing")
        calls = {"ours": lambda n=n_threads: model.generate_ids(prompt, max_new_tokens=given.tokens, n_threads=n),
                 "torch": lambda: theirs.generate(prompt, given.tokens)}
        times = compare(calls, repeats=given.repeats, warmup=2, clock="cpu" if n_threads == 1 else "wall")
        speed = {name: given.tokens / times[name]["seconds"] for name in calls}
        rows.append({"threads": n_threads, "tokens": given.tokens, "tokens_per_second": speed,
                     "ratio": ratio(times, "torch", "ours"), "times": times})
        print(f"stories260K, {n_threads} thread(s): ours {speed['ours']:.0f} tokens/s, torch {speed['torch']:.0f}, "
              f"{rows[-1]['ratio']:.2f} x torch", flush=True)
    if not given.no_record:
        record("language", rows, prompt=PROMPT)


if __name__ == "__main__":
    main()
