FROM python:3.11-slim AS builder
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
# The dependencies, torch above all, are gigabytes: their layer outlives a change of the sources.
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['postgres'], sep='\n')" > /tmp/requirements.txt \
    && pip install -r /tmp/requirements.txt
COPY README.md LICENSE ./
COPY lscal ./lscal
COPY sweeps ./sweeps
COPY tracking ./tracking
RUN pip install ".[postgres]"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home lscal
COPY --from=builder /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
USER lscal
WORKDIR /home/lscal
# A sweep is stopped as by Ctrl-C: it says how to go on, and keeps what is finished.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "sweeps.run"]
