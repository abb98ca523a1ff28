"""Networks from files: bundles of this package, and bare weights of the architectures in :mod:`semanticlens.nn.zoo`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semanticlens._errors import ModelFileError
from semanticlens.io import read_tensors

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    input_shape: Sequence[int] | None = None,
    fold: bool = True,
    verify: bool = True,
    allow_nonfinite: bool = False,
) -> Any:
    """Load a network, or a language model with its tokeniser.

    Parameters
    ----------
    path : path-like
        A bundle (``.safetensors`` written by ``net.save`` or a model's ``save``), or weights without a graph (``.pth``, ``.pt``, ``.npz``,
        ``.safetensors``) of an architecture in :mod:`semanticlens.nn.zoo`, a checkpoint of llama2.c (``.bin``), or an ONNX
        file (extra ``onnx``).  A folder with ``config.json``, weights and tokeniser of a GPT-2-, llama- or BERT-like model gives
        a language model (or, for BERT, a :class:`semanticlens.nn.language.TextModel`).
    arch : str, optional
        The architecture of bare weights, where it is not to be told from their names and shapes.
    input_shape : sequence of int, optional
        Of an ONNX file that leaves sizes open: the input's shape without the batch.
    fold : bool
        Fold batch normalisation into the layers before it, which is faster; False keeps every node, so that each can
        be recorded.
    verify : bool
        Compare a bundle with the SHA-256 it carries.
    allow_nonfinite : bool
        Accept parameters that hold NaN or infinity.

    Returns
    -------
    Network, LanguageModel or TextModel

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is damaged, of an unknown kind, or its architecture is not known.
    UnsupportedOperationError
        If the network uses an operation this package does not have.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        from semanticlens.nn.load.model_folder import load_folder

        return load_folder(path)
    if path.suffix == ".onnx":
        from semanticlens.nn.load.onnx import read_onnx

        onnx = read_onnx(path, input_shape=input_shape, allow_nonfinite=allow_nonfinite)
        return _folded(onnx) if fold else onnx
    if path.suffix == ".bin" and arch is None:
        from semanticlens.nn.load.llama2c import is_llama2c, read_llama2c

        if is_llama2c(path):
            return read_llama2c(path)
    net = _read(path, arch, verify, allow_nonfinite)
    return _folded(net) if fold and hasattr(net, "nodes") else net


def _folded(net: Any) -> Any:
    from semanticlens.nn.fold import fold_batch_norm

    return fold_batch_norm(net)


def _read(path: Path, arch: str | None, verify: bool, allow_nonfinite: bool) -> Any:
    from semanticlens.nn.load import bundle

    if path.suffix == ".safetensors":
        tensors = read_tensors(path)
        if bundle.is_bundle(tensors.metadata):
            if arch is not None:
                raise ModelFileError(f"{path} is a bundle that holds its own graph; leave out arch={arch!r}")
            if "language" in tensors.metadata:
                from semanticlens.nn.language.text_model import read_model

                return read_model(tensors, path, verify=verify, allow_nonfinite=allow_nonfinite)
            return bundle.read_bundle(path, verify=verify, allow_nonfinite=allow_nonfinite)
    elif path.suffix not in (".pth", ".pt", ".npz", ".bin", ".ckpt"):
        raise ModelFileError(
            f"{path}: the ending {path.suffix!r} is not known; known are .safetensors (a bundle, or weights), "
            ".pth, .pt and .npz (weights)"
        )
    try:
        from semanticlens.nn import zoo
        from semanticlens.nn.load.state_dict import load_state_dict
    except ImportError as error:
        raise ModelFileError(
            f"{path}: weights without a graph need semanticlens.nn.zoo, which this installation lacks ({error})"
        ) from None
    state = load_state_dict(path)
    from semanticlens.nn.load import model_folder

    config = model_folder.read_config(path) if arch is None else None
    if config is not None:
        made = model_folder.model(state, config, path)
        return made.net if config["model_type"] == "bert" else made
    name = arch if arch is not None else zoo.detect(state)
    if name is None:
        alike = zoo.fitting(state)
        if alike:
            raise ModelFileError(
                f"{path}: names and shapes alone do not tell {' and '.join(alike)} apart; name one with arch=..."
            )
        raise ModelFileError(
            f"{path}: these weights fit none of the known architectures; name one with arch=..., or export the "
            "network to a bundle"
        )
    return zoo.build(name, state, path=path)
