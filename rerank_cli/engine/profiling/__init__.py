"""What a device could do and what it did: matrix-multiply peak, floating-point operations, machine.

Knows models and devices; not samples or reports. Face: `flops.costs_of`, `peak.matmul_peak`, `machine.machine_of`.
"""
