"""What a run counts and how it tells: statistics, progress, Prometheus' file.

Entry points: `statistics.RunStatistics`, `progress.showing`, `metrics.MetricsFile`.
"""
