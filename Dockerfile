# Two stages: what builds stays behind; what runs is one virtual environment, the topologies and compiled kernels.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all:
WORKDIR /src

# The locked packages first: this layer changes only with the locks.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/streamer \
    && /opt/streamer/bin/pip install --require-hashes --requirement requirements.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY streamer ./streamer
RUN /opt/build/bin/hatchling build --target wheel --directory /opt/wheel \
    && /opt/streamer/bin/pip install --no-deps --no-index /opt/wheel/*.whl

# Importing the kernels compiles them, for any processor of this architecture: the image runs elsewhere than it was built.
# -I: the installed package, not the copy in this folder; the cache knows a source by its path.
RUN NUMBA_CACHE_DIR=/opt/kernels NUMBA_CPU_NAME=generic /opt/streamer/bin/python -I -c "import streamer.operators.rolling.kernels, streamer.operators.closing.kernels, streamer.operators.rolling.panes, streamer.worker.worker"


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="streamer" \
      org.opencontainers.image.licenses="Apache-2.0"

# Ids above 10000 collide with no user of the host. No home, no shell: nobody logs in.
RUN groupadd --gid 10001 streamer \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin streamer

COPY --from=build /opt/streamer /opt/streamer
COPY --from=build /opt/kernels /opt/kernels
COPY topologies /app/topologies
WORKDIR /app

# numba takes a cache only where it may write, and the root file system is read-only: the start copies it to /tmp.
ENV PATH=/opt/streamer/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/kernels \
    NUMBA_CPU_NAME=generic \
    STREAMER_HTTP=0.0.0.0:8080

USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]

# exec: the service is process 1 and gets SIGTERM itself, so that it drains.
ENTRYPOINT ["/bin/sh", "-c", "cp -R /opt/kernels /tmp/ && exec streamer \"$@\"", "streamer"]
CMD ["run", "topologies/sensor.py:sensor"]
