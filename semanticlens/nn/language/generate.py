"""Generation: a causal network run token by token, with the keys and values of earlier tokens kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semanticlens._errors import DataError, UnsupportedOperationError
from semanticlens._kernels import resolve_threads
from semanticlens.nn.edit import Edit, Edits, apply_all, by_node
from semanticlens.nn.graph import INPUT, Checked
from semanticlens.nn.language.decode import Decoder
from semanticlens.nn.language.text_model import TextModel
from semanticlens.nn.language.tokenizers import Tokenizer
from semanticlens.nn.network import Network
from semanticlens.nn.ops import Call, Forward

__all__ = ["LanguageModel", "Steps"]

F32 = NDArray[np.float32]
_PLACED = ("positions", "rotary")  # operations that depend on the place of a token
_MIXING = (
    "attention",
    "mean",
    "max",
    "sum",
    "select",
    "slice",
    "roll",
    "pad_axes",
    "concat",
    "pick_largest",
    "flatten",
)


@dataclass
class Steps:
    """A causal network in steps: each call goes on where the last one ended.

    Operations on single tokens are run on the new tokens alone; causal attention keeps keys and values and lets the new
    queries look at all of them; positions count on.  The values equal those of one run over all tokens up to rounding.
    """

    net: Network
    edits: Edits = field(default_factory=dict)
    n_threads: int = 1
    place: int = 0
    kept: dict[str, tuple[F32, F32]] = field(default_factory=dict)
    _work: list[tuple[Checked, Forward, Call]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        for item in self.net._graph:
            along_features = item.attrs.get("axis") == 2 and item.op.name in ("slice", "concat", "select")
            if item.op.name in _MIXING and not item.attrs.get("causal") and not along_features:
                raise UnsupportedOperationError(
                    f"node {item.node.name!r} ({item.op.name}) mixes tokens in a way that later ones could change; only "
                    "causal networks can be run in steps"
                )

            params = {role: self.net.params[key] for role, key in item.node.params.items()}
            self._work.append((item, item.op.kernel, Call(item.attrs, params, "none", self.net._prepare(item))))

    def step(self, ids: NDArray[Any]) -> F32:
        """The output for new tokens (B, n)."""
        with np.errstate(all="ignore"):
            return self._step(ids)

    def _step(self, ids: NDArray[Any]) -> F32:
        values: dict[str, F32] = {INPUT: apply_all(self.edits.get(INPUT, ()), ids.astype(np.float32))}
        for item, kernel, call in self._work:
            name, op = item.node.name, item.op.name
            xs = [values[source] for source in item.node.inputs]
            if op in _PLACED:
                call = replace(call, attrs={**call.attrs, "offset": call.attrs["offset"] + self.place})
            elif op == "attention":
                xs[1:3] = self._keep(name, xs[1], xs[2])
            y = kernel(call, xs, None, self.n_threads)
            values[name] = apply_all(self.edits[name], y) if name in self.edits else y
        self.place += ids.shape[1]
        return values[self.net.output]

    def _keep(self, name: str, keys: F32, values: F32) -> tuple[F32, F32]:
        if name in self.kept:
            keys = np.concatenate([self.kept[name][0], keys], axis=-2)
            values = np.concatenate([self.kept[name][1], values], axis=-2)
        self.kept[name] = keys, values
        return keys, values


class LanguageModel(TextModel):
    """A causal network with its tokeniser.

    Parameters
    ----------
    net : Network
        Token ids (T,) -> logits (T, vocabulary).
    tokenizer : Tokenizer, optional
        Left out, only token ids can be used.
    context : int
        Most tokens.
    end : int or sequence of int, optional
        The tokens that end a text.
    """

    kind = "causal"

    def __init__(
        self, net: Network, tokenizer: Tokenizer | None, *, context: int, end: int | Sequence[int] | None = None
    ) -> None:
        super().__init__(net, tokenizer, context=context)
        self._decoders: list[Decoder] = []  # ready for the next text
        self.ends = frozenset(() if end is None else (end,) if isinstance(end, int) else end)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "end": sorted(self.ends)}

    def logits(self, prompt: str | Sequence[int] | NDArray[Any], *, n_threads: int | None = None) -> F32:
        """Logits (T, vocabulary) behind every token of one text."""
        logits: F32 = self.net(np.asarray([self._ids(prompt)]), n_threads=n_threads)[0]
        return logits

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        seed: int = 0,
        edits: Iterable[Edit] = (),
        n_threads: int | None = None,
    ) -> str:
        """The prompt and what the model writes after it.

        Parameters
        ----------
        prompt : str or sequence of int
        max_new_tokens : int
            Fewer where the text ends or the context is full.
        temperature : float
            0 takes the likeliest token each time (the lowest id among equals); above, tokens are drawn from
            ``softmax(logits / temperature)``.
        seed : int
            Of the draws.
        edits : iterable of Edit
            Applied in every step; ``token`` counts within a step, so leave it out for edits of all tokens.
        n_threads : int, optional

        Returns
        -------
        str
        """
        ids = self.generate_ids(
            prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, edits=edits, n_threads=n_threads
        )
        if self.tokenizer is None:
            raise DataError("this model came without a tokeniser: use generate_ids")
        return self.tokenizer.decode(ids)

    def generate_ids(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        seed: int = 0,
        edits: Iterable[Edit] = (),
        n_threads: int | None = None,
    ) -> list[int]:
        """Token ids of prompt and continuation; parameters as in :meth:`generate`."""
        if max_new_tokens < 0 or not 0.0 <= temperature < np.inf:
            raise ValueError(f"max_new_tokens={max_new_tokens}, temperature={temperature}: must not be negative")
        ids = self._ids(prompt)
        changed = by_node((*self.net.edits, *((edits,) if isinstance(edits, Edit) else edits)), self.net.resolve)
        rng, room = np.random.default_rng(seed), min(max_new_tokens, self.context - len(ids))
        if room == 0:
            return ids
        found = list(ids)
        for logits in self._logits(found, changed, resolve_threads(n_threads)):
            token = _choose(logits, temperature, rng)
            if token in self.ends:
                break
            found.append(token)
            if len(found) == len(ids) + room:
                break
        return found

    def _logits(self, ids: list[int], edits: Edits, n_threads: int) -> Iterator[F32]:
        """Logits behind the last of ``ids``, again and again; the caller appends a token each time."""
        steps = Steps(self.net, edits, n_threads)
        yield steps.step(np.asarray([ids]))[0, -1]
        if edits or not Decoder.takes(self.net):
            while True:
                yield steps.step(np.asarray([ids[-1:]]))[0, -1]
        try:
            decoder = self._decoders.pop()
        except IndexError:
            decoder = Decoder(self.net, n_threads)
        if decoder.n_threads != n_threads:
            decoder = Decoder(self.net, n_threads)
        decoder.start(steps.kept, steps.place)
        try:
            while True:
                yield decoder.step(ids[-1])
        finally:
            self._decoders.append(decoder)


def _choose(logits: ArrayLike, temperature: float, rng: np.random.Generator) -> int:
    scores = np.asarray(logits, np.float64)
    if temperature == 0.0:
        return int(scores.argmax())
    weights = np.exp((scores - scores.max()) / temperature)
    return int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
