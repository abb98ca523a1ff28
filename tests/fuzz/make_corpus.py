"""Makes the seeds in tests/fuzz/corpus: small valid files of each kind, for the fuzzer to start from.  Findings are added by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from semanticlens.io import write_tensors

CORPUS = Path(__file__).resolve().parent / "corpus"


def seeds(name: str) -> Path:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tensors() -> None:
    folder = seeds("tensors")
    write_tensors(folder / "two.safetensors", {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(3)}, {"k": "v"})
    write_tensors(folder / "empty.safetensors", {})
    write_tensors(folder / "scalar.safetensors", {"s": np.float64(1).reshape(()), "e": np.zeros((0, 4), np.int8), "t": np.array([True])})
    header = json.dumps({"h": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (folder / "bfloat16.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\x40")
    header = json.dumps({"h": {"dtype": "F32", "shape": [0, 2**61], "data_offsets": [0, 0]}}).encode()
    (folder / "found-empty-with-huge-strides.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


if __name__ == "__main__":
    tensors()
