#!/bin/bash
# A job on a Ray cluster: the driver runs on its head node, one actor on each card of the cluster.
#
#   RAY_ADDRESS=http://head:8265 bash deploy/ray-job.sh
#
# rerank is installed on all nodes (the image of the Dockerfile, for example), and files are where all of them
# or the head node can read them. Started again, the job goes on from its last commit.
set -euo pipefail
ray job submit --no-wait --entrypoint-num-cpus 1 -- \
  rerank run s3://my-bucket/candidates.jsonl -o s3://my-bucket/out.jsonl --checkpoint s3://my-bucket/out.checkpoint \
  --model BAAI/bge-reranker-v2-m3 --ray auto --workers 1..16
