# ntrader as an image: the worker, the Prefect server and the command line, all from what uv.lock says.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir "uv>=0.9,<1"
ENV UV_PROJECT_ENVIRONMENT=/opt/ntrader UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1
WORKDIR /src
# The libraries change less often than the code, and are a layer of their own.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project --no-cache
COPY README.md LICENSE prefect.yaml alembic.ini ./
COPY alembic alembic
COPY ntrader ntrader
COPY storage storage
COPY tasks tasks
COPY flows flows
COPY cli cli
RUN uv sync --locked --no-dev --no-editable --no-cache

FROM python:3.13-slim
RUN useradd --create-home --uid 1000 ntrader && install -d -o ntrader -g ntrader /data
COPY --from=build /opt/ntrader /opt/ntrader
# Prefect's server copies its pages to where it may write.
ENV PATH=/opt/ntrader/bin:$PATH NTRADER_HOME=/data DO_NOT_TRACK=1 PYTHONUNBUFFERED=1 \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect-ui
USER 1000
WORKDIR /home/ntrader
VOLUME /data
CMD ["ntrader", "--help"]
