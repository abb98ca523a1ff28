"""Files: atomic writes, tensor files read by memory map, provenance records, content hashes."""

from semanticlens.io.files import atomic_write, sha256_of_arrays, sha256_of_file
from semanticlens.io.tensors import TensorFile, read_tensors, write_tensors

__all__ = ["TensorFile", "atomic_write", "read_tensors", "sha256_of_arrays", "sha256_of_file", "write_tensors"]
