# Every dependency has the version and the hash of requirements.lock. It is renewed, after a change of pyproject.toml too, by
#   uv pip compile pyproject.toml --extra postgres --extra dashboard --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade -o requirements.lock
FROM python:3.11-slim AS builder
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
# The dependencies, torch above all, are gigabytes: their layer outlives a change of the sources.
COPY requirements.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY lscal ./lscal
COPY sweeps ./sweeps
COPY tracking ./tracking
RUN pip install --no-deps .

FROM python:3.11-slim
# A volume at /state takes the owner of the folder which it covers.
RUN useradd --uid 10001 --create-home lscal && install -d -o lscal -g lscal -m 700 /state
COPY --from=builder /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet LSCAL_STATE=/state
USER lscal
WORKDIR /home/lscal
# A sweep is stopped as by Ctrl-C: it says how to go on, and keeps what is finished.
STOPSIGNAL SIGINT
# What is run is named as for `python -m`: docker run lscal sweeps.run digits/mlp
ENTRYPOINT ["python", "-m"]
CMD ["sweeps.run", "--help"]
