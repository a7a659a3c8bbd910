"""An Airflow DAG: rerank last night's candidates, then measure the result.

A task that was stopped is started again by Airflow and goes on from its last commit: `retries` may be large.
"""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag

CANDIDATES = "/data/candidates/{{ ds }}.jsonl"
RERANKED = "/data/reranked/{{ ds }}.jsonl"


@dag(schedule="@daily", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False, max_active_runs=1)
def rerank() -> None:
    # Exit code 3: finished, with bad records. They are in the file of --errors, and do not fail the task.
    reranked = BashOperator(
        task_id="rerank",
        bash_command=(
            f"rerank run {CANDIDATES} -o {RERANKED} --model BAAI/bge-reranker-v2-m3 --top-n 20 --quiet"
            f" --on-error skip --errors {RERANKED}.rejected.jsonl --metrics /var/lib/node_exporter/rerank.prom"
            " || [ $? -eq 3 ]"
        ),
        retries=20,
        retry_delay=timedelta(minutes=1),
    )
    measured = BashOperator(task_id="measure", bash_command=f"rerank eval {RERANKED} --qrels /data/qrels.tsv")
    reranked >> measured


rerank()
