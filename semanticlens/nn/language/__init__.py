"""Networks of texts: tokenisers, architectures, generation with a cache of keys and values."""

from __future__ import annotations

from semanticlens.nn.language.generate import LanguageModel
from semanticlens.nn.language.tokenizers import Llama2cTokenizer, Tokenizer, WordPiece

__all__ = ["LanguageModel", "Llama2cTokenizer", "Tokenizer", "WordPiece"]
