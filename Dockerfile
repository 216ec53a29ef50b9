# graftax serve in a container, on CPUs. What is behind the image's name are the options of graftax serve:
#
#   docker build -t graftax .
#   docker run --rm -p 127.0.0.1:8000:8000 -v graftax:/cache -v "$PWD/backbones:/backbones:ro" graftax -b /backbones/llama --hub s3://team/hub
#
# compose.yaml has it together with a hub.

FROM python:3.12-slim AS build
WORKDIR /graftax
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# the versions that are tested, of which one or two are built from their sources
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --constraint /constraints.txt "graftax[serve,hub] @ file://$(echo /wheels/graftax-*.whl)"

# compiled programs, the index of the hub and copies of its adapters, and what was fetched from the Hugging Face Hub
ENV XDG_CACHE_HOME=/cache GRAFTAX_CACHE=/cache/xla HF_HOME=/cache/huggingface
RUN useradd --uid 10001 --home-dir /cache --create-home --shell /usr/sbin/nologin graftax
USER 10001
VOLUME /cache

EXPOSE 8000
# a base is read, and perhaps fetched, before it is ready
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["graftax", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--help"]
