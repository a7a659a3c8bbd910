"""Measures a device and counts work: matrix-multiply peak, floating-point operations, machine description.

Depends on models and devices. Entry points: `flops.costs_of`, `peak.matmul_peak`, `machine.machine_of`.
"""
