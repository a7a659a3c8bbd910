#!/bin/bash
# One file on eight nodes: each task of the array reranks its shard, a last job merges them.
#
#   job=$(sbatch --parsable deploy/slurm-array.sh)
#   sbatch --dependency="afterok:$job" --wrap "rerank merge out-*-of-00008.jsonl -o out.jsonl"
#
#SBATCH --job-name=rerank
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=rerank-%A-%a.log

# --shard auto takes the number of this task and the size of the array from Slurm's environment.
# It stops ten minutes before the limit above; a signal of Slurm stops it too.
rerank run candidates.jsonl -o out.jsonl --shard auto --max-duration 7h50m \
  --model BAAI/bge-reranker-v2-m3 --progress-interval 300
code=$?

# 10: the time was over. The same task goes on from there, in the queue like any other.
if [ "$code" -eq 10 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
  exit 0
fi
# 3: finished, with bad records.
[ "$code" -eq 3 ] && exit 0
exit "$code"
