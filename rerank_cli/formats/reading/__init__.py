"""Files to rows and records: JSON lines, JSON arrays, TSV and Parquet; grouping, sorting, resuming.

Knows `shapes` and `storage`; not corpora, outputs or runs. Entry points: `file_records.open_files`,
`sources.RowSource`.
"""
