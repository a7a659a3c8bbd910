"""Files to records: JSON lines, JSON arrays, TSV and Parquet; grouping, sorting, positions to resume from.

Knows `shapes` and `storage`; not corpora, outputs or runs. Face: `file_records.open_files`, `sources.RowSource`.
"""
