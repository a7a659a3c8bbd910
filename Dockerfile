# An image with rerank; models are downloaded into /models, files are read and written in /data.
#
#   docker build -t rerank .                                          CPU
#   docker build -t rerank:cuda --build-arg TORCH=cu130 .             NVIDIA cards
#   docker run --rm -v rerank-models:/models -v "$PWD":/data --user "$(id -u):$(id -g)" rerank \
#     run candidates.jsonl -o reranked.jsonl -m BAAI/bge-reranker-v2-m3        (with a card: --gpus all)

FROM python:3.11-slim-bookworm AS build
# A folder of https://download.pytorch.org/whl: cpu, or that of a CUDA release.
ARG TORCH=cpu
ARG EXTRAS=eval,metrics,peft,ray,remote
RUN python -m venv /opt/rerank
ENV PATH=/opt/rerank/bin:$PATH
WORKDIR /build
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY rerank_cli rerank_cli
# torch first: the index of this build of it is then not asked for anything else.
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "https://download.pytorch.org/whl/${TORCH}" \
      --extra-index-url https://pypi.org/simple torch \
 && pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/rerank /opt/rerank
# Any user may run it (--user): what it writes goes to the volumes.
RUN useradd --uid 1000 --create-home rerank && mkdir /models /data && chown rerank /models /data && chmod 1777 /models
ENV PATH=/opt/rerank/bin:$PATH HF_HOME=/models
VOLUME /models
WORKDIR /data
USER 1000
ENTRYPOINT ["rerank"]
CMD ["--help"]
