"""Writes the files of tables in this folder with the programs that people use; README.md has their versions.

    python make_tables.py FOLDER

Needs pandas, polars, duckdb, datasets, pyarrow, pyspark (Java), csvkit, openpyxl, xlsxwriter and xlwt, and the
commands sqlite3 and jq. Of large files only the beginning is kept.
"""

import csv
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import xlwt

PAIRS = [
    ("q1", "what is a panda?", "d1", "Panda", 'A bear that says "hi", and\nlives in China; 熊猫', 12.5),
    ("q1", "what is a panda?", "d2", None, "hi\tthere", 11.0),
    ("q2", 'capital of "France"', "d3", "Paris", "Paris, the capital", 3.25),
    ("q2", 'capital of "France"', "d4", None, "", 0.5),
]
COLUMNS = ["query_id", "query", "docid", "title", "text", "score"]
REQUESTS = [
    {
        "id": "q1",
        "query": "what is a panda?",
        "documents": ['A bear that says "hi", and\nlives in China; 熊猫', "hi\tthere"],
    },
    {"id": "q2", "query": 'capital of "France"', "documents": ["Paris, the capital"]},
]
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in PAIRS]


def by_pandas(out):
    frame = pd.DataFrame(ROWS)
    frame.to_csv(out / "pandas.index.csv")
    frame.to_csv(out / "pandas.semicolon.csv", sep=";", decimal=",", index=False)
    frame.to_csv(out / "pandas.tab.tsv", sep="\t", index=False)
    frame.to_csv(out / "pandas.quoted.csv", quoting=csv.QUOTE_ALL, encoding="utf-8-sig", index=False)
    for suffix in ("gz", "xz", "bz2", "zst", "zip"):
        frame.to_csv(out / f"pandas.csv.{suffix}", index=False)
    frame.to_csv(out / "pandas.csv.tar.gz", index=False)
    frame.to_csv(out / "pandas.backslash.csv", escapechar="\\", doublequote=False, index=False)
    frame.to_csv(out / "pandas.utf16.csv", encoding="utf-16", index=False)
    frame.replace("熊猫", "Bär", regex=True).to_csv(out / "pandas.cp1252.csv", encoding="cp1252", index=False)
    frame.to_json(out / "pandas.lines.jsonl", orient="records", lines=True)
    frame.to_json(out / "pandas.records.json", orient="records")
    frame.to_json(out / "pandas.indented.json", orient="records", indent=2)
    for orient in ("columns", "split", "table"):
        frame.to_json(out / f"pandas.{orient}.json", orient=orient)
    frame.to_parquet(out / "pandas.parquet")
    frame.to_feather(out / "pandas.feather")
    frame.astype({"query": "category"}).to_feather(out / "pandas.categories.feather")
    frame.to_excel(out / "pandas.xlsx", index=False)
    frame.to_excel(out / "pandas.openpyxl.xlsx", index=False, engine="openpyxl")
    frame.to_pickle(out / "pandas.pickle")
    frame.to_orc(out / "pandas.orc")
    frame.to_html(out / "pandas.html")
    with sqlite3.connect(out / "sqlite.db") as connection:
        connection.execute("PRAGMA page_size = 512")
        frame.to_sql("pairs", connection, index=False)
    run = frame[["query_id", "docid", "score"]]
    run.to_csv(out / "pandas.run.csv", index=False)
    run.assign(score=1).to_csv(out / "pandas.qrels.csv", index=False)
    frame[["docid", "title", "text"]].to_csv(out / "pandas.corpus.csv", index=False)
    frame[["query_id", "query"]].drop_duplicates().to_csv(out / "pandas.queries.csv", index=False, sep=";")


def by_polars(out):
    frame = pl.DataFrame(ROWS)
    frame.write_csv(out / "polars.csv")
    frame.write_csv(out / "polars.quoted.tsv", separator="\t", quote_style="always")
    frame.write_ndjson(out / "polars.ndjson")
    frame.write_json(out / "polars.json")
    frame.write_parquet(out / "polars.parquet")
    frame.write_ipc(out / "polars.arrow", compression="uncompressed")
    frame.write_ipc(out / "polars.zstd.arrow", compression="zstd")
    frame.write_ipc_stream(out / "polars.stream.arrow")
    frame.write_avro(out / "polars.avro")
    pl.DataFrame(REQUESTS).write_ipc(out / "polars.requests.arrow")


def by_duckdb(out):
    frame = pl.DataFrame(ROWS).to_arrow()
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch, "pairs.duckdb")
        connection = duckdb.connect(str(database))
        connection.register("frame", frame)
        connection.execute("CREATE TABLE pairs AS SELECT * FROM frame")
        connection.execute(f"COPY pairs TO '{out}/duckdb.csv'")
        connection.execute(f"COPY pairs TO '{out}/duckdb.bar.csv' (DELIMITER '|')")
        connection.execute(f"COPY pairs TO '{out}/duckdb.csv.gz'")
        connection.execute(f"COPY pairs TO '{out}/duckdb.json'")
        connection.execute(f"COPY pairs TO '{out}/duckdb.array.json' (ARRAY true)")
        connection.execute(f"COPY pairs TO '{out}/duckdb.parquet' (COMPRESSION zstd)")
        connection.close()
        (out / "duckdb.begin.duckdb").write_bytes(database.read_bytes()[:4096])


def by_datasets(out):
    with tempfile.TemporaryDirectory() as scratch:
        for name, rows in (("pairs", ROWS), ("requests", REQUESTS)):
            datasets.Dataset.from_list(rows).save_to_disk(Path(scratch, name))
            shutil.copy(Path(scratch, name, "data-00000-of-00001.arrow"), out / f"datasets.{name}.arrow")
        shutil.copytree(Path(scratch, "pairs"), out / "datasets.saved", dirs_exist_ok=True)
    found = datasets.Dataset.from_list(ROWS)
    found.to_csv(out / "datasets.csv")
    found.to_json(out / "datasets.jsonl")
    found.to_parquet(out / "datasets.parquet")


def by_pyarrow(out):
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(
        out / "pyarrow.lz4.arrows", table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as w:
        w.write_table(table, max_chunksize=1)
    pa.feather.write_feather(table, out / "pyarrow.feather", compression="zstd", chunksize=2)
    pa.feather.write_feather(table, out / "pyarrow.v1.feather", version=1)
    pa.csv.write_csv(table, out / "pyarrow.csv")
    pq.write_table(table, out / "pyarrow.parquet", use_dictionary=True, row_group_size=2)


def by_python(out):
    with (out / "python.excel.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *PAIRS])
    np.save(out / "numpy.npy", np.array([row[4] for row in PAIRS]))
    np.savez(out / "numpy.npz", texts=np.array([row[4] for row in PAIRS]))
    (out / "python.pickle").write_bytes(pickle.dumps(ROWS))
    (out / "python.indented.json").write_text(json.dumps(REQUESTS[0], indent=2, ensure_ascii=False) + "\n")
    book = xlwt.Workbook()
    sheet = book.add_sheet("pairs")
    for number, row in enumerate([COLUMNS, *PAIRS]):
        for column, cell in enumerate(row):
            sheet.write(number, column, cell)
    book.save(str(out / "xlwt.xls"))


def by_commands(out):
    def run(command, name):
        (out / name).write_bytes(subprocess.run(command, shell=True, check=True, capture_output=True, cwd=out).stdout)

    run("sqlite3 -csv -header sqlite.db 'SELECT * FROM pairs'", "sqlite.csv")
    run("sqlite3 -json sqlite.db 'SELECT * FROM pairs'", "sqlite.json")
    run("sqlite3 sqlite.db .dump", "sqlite.sql")
    lines = "\n".join(json.dumps(request, ensure_ascii=False) for request in REQUESTS)
    (out / "jq.objects.json").write_bytes(subprocess.run(["jq", "."], input=lines.encode(), capture_output=True).stdout)
    scripts = Path(sys.executable).parent
    run(f"{scripts}/csvformat -T pandas.index.csv", "csvkit.tab.tsv")
    run(f"{scripts}/csvjson --stream pandas.quoted.csv", "csvkit.jsonl")


def by_spark(out):
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    frame = spark.createDataFrame(PAIRS, COLUMNS).coalesce(1)
    with tempfile.TemporaryDirectory() as scratch:
        frame.write.csv(f"{scratch}/csv", header=True)
        frame.write.csv(f"{scratch}/escaped", header=True, escape='"')
        frame.write.json(f"{scratch}/json")
        frame.write.parquet(f"{scratch}/parquet")
        frame.write.json(f"{scratch}/json.gz", compression="gzip")
        names = {"csv": "spark.csv", "escaped": "spark.escaped.csv", "json": "spark.json", "parquet": "spark.parquet"}
        for folder, name in (names | {"json.gz": "spark.json.gz"}).items():
            (part,) = Path(scratch, folder).glob("part-*")
            shutil.copy(part, out / name)
    spark.stop()


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute()
    for write in (by_pandas, by_polars, by_duckdb, by_datasets, by_pyarrow, by_python, by_commands, by_spark):
        write(folder)
