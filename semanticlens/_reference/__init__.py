"""NumPy twins of the kernels: written to be read, and the oracle the kernels are tested against."""
