"""Linear layers multiplied in 8 bits: int8 on a CPU, float8 on CUDA.

Entry point: `apply.quantize`.
"""
