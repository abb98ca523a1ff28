"""Networks of texts: tokenisers, architectures, generation with a cache of keys and values."""

from __future__ import annotations

from semanticlens.nn.language.generate import LanguageModel
from semanticlens.nn.language.sentencepiece import SentencePiece
from semanticlens.nn.language.text_model import TextModel
from semanticlens.nn.language.tokenizer_json import JsonTokenizer
from semanticlens.nn.language.tokenizers import Llama2cTokenizer, Tokenizer, WordPiece

__all__ = ["JsonTokenizer", "LanguageModel", "Llama2cTokenizer", "SentencePiece", "TextModel", "Tokenizer", "WordPiece"]
