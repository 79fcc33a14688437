"""The files for Kubernetes and Slurm, against Kubernetes' schemas, the real command lines, and a dry run with
a stand-in for srun.
"""

import copy
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from sweeps.cli import options, worker
from sweeps.workers.launcher import STOP_SECONDS
from tracking.exits import Exit

ROOT = Path(__file__).parents[1]
MANIFESTS = {
    (document["kind"], document["metadata"]["name"]): document
    for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
}
JOBS = {name: document for (kind, name), document in MANIFESTS.items() if kind == "Job"}
SCRIPTS = sorted((ROOT / "deploy/slurm").glob("*.sbatch"))
DOCS = (ROOT / "docs/deploy.md").read_text()
SRUN = """#!/bin/sh
while case $1 in --*) true ;; *) false ;; esac; do echo "srun $1" >&2; shift; done
exec "$@"
"""


def refusals(manifest):
    """What Kubernetes' schema says against a manifest."""
    try:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    except kubernetes_validate.ValidationError as error:
        return error.message
    return None


def pod(name):
    return JOBS[name]["spec"]["template"]["spec"]


@pytest.mark.parametrize("key", MANIFESTS, ids="/".join)
def test_manifests_follow_kubernetes_schemas(key):
    assert refusals(MANIFESTS[key]) is None


def test_the_schema_refuses_a_typing_error():
    wrong = copy.deepcopy(JOBS["lscal-workers"])
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    assert "terminationGracePeriod" in refusals(wrong)


@pytest.mark.parametrize("name", JOBS)
def test_pods_have_no_privileges_and_time_to_stop(name):
    spec = pod(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["terminationGracePeriodSeconds"] > STOP_SECONDS
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", JOBS)
def test_passwords_come_from_secrets_which_the_page_says_how_to_make(name):
    (container,) = pod(name)["containers"]
    secrets = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]
        for entry in container["env"]
        if "secretKeyRef" in entry["valueFrom"]
    }
    assert secrets.keys() == {"PGPASSWORD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    (made,) = re.findall(r"create secret generic (\S+)((?:.*\\\n)*.*)", DOCS)
    assert {secret["name"] for secret in secrets.values()} == {made[0]}
    assert {secret["key"] for secret in secrets.values()} == set(re.findall(r"--from-file=(\S+?)=", made[1]))
    urls = [value for value in MANIFESTS["ConfigMap", "lscal-stores"]["data"].values() if "://" in value]
    assert len(urls) == 2
    assert [url for url in urls if re.search(r"://[^/]*:[^/]*@", url)] == []


@pytest.mark.parametrize("name", JOBS)
def test_what_a_pod_refers_to_is_there(name):
    spec = pod(name)
    (container,) = spec["containers"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {other for kind, other in MANIFESTS if kind == "PersistentVolumeClaim"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in spec["volumes"]
    }
    assert [source["configMapRef"]["name"] for source in container["envFrom"]] == ["lscal-stores"]
    mounted = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    data = MANIFESTS["ConfigMap", "lscal-stores"]["data"]
    assert mounted == {data["LSCAL_STATE"]: False, data["LSCAL_DATA"]: True, data["HOME"]: False}
    assert "create configmap lscal-study --from-literal=name=" in DOCS


def test_the_containers_commands_are_ours():
    module, *words = pod("lscal-sweep")["containers"][0]["args"]
    assert module == "sweeps.run"
    assert vars(options.parser().parse_args(words))["workers"] == "0"
    module, *words = pod("lscal-workers")["containers"][0]["args"]
    assert module == "sweeps.worker"
    assert worker.parser().parse_args(words).study == "$(LSCAL_STUDY)"
    limits = pod("lscal-workers")["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1


def test_wrong_input_is_not_tried_again_but_for_a_single_worker():
    def rules(name):
        return [
            (rule["action"], rule.get("onExitCodes", {}).get("values"))
            for rule in JOBS[name]["spec"]["podFailurePolicy"]["rules"]
        ]

    assert rules("lscal-sweep") == [("FailJob", [Exit.WRONG_INPUT]), ("Ignore", None)]
    assert rules("lscal-workers") == [("Ignore", None)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_their_options_come_first(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    lines = path.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(options) > 5
    assert max(options) < first, "Slurm reads no options after the first command"
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number]) for number in options)
    named = dict(lines[number].removeprefix("#SBATCH --").partition("=")[::2] for number in options)
    assert named["signal"] == "TERM@60"
    assert float(named["signal"].partition("@")[2]) > STOP_SECONDS
    assert "requeue" in named


@pytest.fixture
def submitted(tmp_path):
    """Start a script as Slurm would, with the command line and the environment given."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text(SRUN)
    (tmp_path / "bin/srun").chmod(0o755)
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LSCAL_", "OPTUNA_", "MLFLOW_"))
    }
    path = os.pathsep.join((str(tmp_path / "bin"), str(Path(sys.executable).parent), clean["PATH"]))
    slurm = {
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "PATH": path,
        "PYTHONPATH": str(ROOT),
    }
    started = []

    def submit(script, *words, **environment):
        started.append(
            subprocess.Popen(
                ["bash", str(ROOT / "deploy/slurm" / script), *words],
                cwd=tmp_path,
                env={**clean, **slurm, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield submit
    for process in started:
        process.kill()
        process.communicate()


def test_what_is_missing_is_named(submitted, tmp_path):
    given = {"LSCAL_STUDY": "digits/mlp@12345678", "OPTUNA_STORAGE": "sqlite:///o.db"}
    for name in ("LSCAL_STUDY", "OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        process = submitted("workers.sbatch", **{key: value for key, value in given.items() if key != name})
        output, _ = process.communicate(timeout=20)
        assert process.returncode != 0
        assert name in output


def test_scripts_run_our_commands_and_hand_sigterm_on(submitted, tmp_path):
    stores = {
        "OPTUNA_STORAGE": f"sqlite:///{tmp_path}/o.db",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
    }
    away = {**stores, "OPTUNA_STORAGE": "postgresql+psycopg://optuna@127.0.0.1:1/optuna"}
    sweep = submitted("sweep.sbatch", "digits/mlp", "--trials", "3", "--dry-run", **stores)
    lost = submitted("workers.sbatch", LSCAL_STUDY="digits/mlp@12345678", **stores)
    waiting = submitted("workers.sbatch", LSCAL_STUDY="digits/mlp@12345678", **away)
    lines = iter(waiting.stdout.readline, "")
    assert next(line for line in lines if "Trying again" in line)
    waiting.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert waiting.wait(STOP_SECONDS) == Exit.INTERRUPTED
    assert time.monotonic() - started < STOP_SECONDS
    output, _ = lost.communicate(timeout=60)
    assert lost.returncode == Exit.WRONG_INPUT, output
    assert "digits/mlp@12345678" in output
    assert "srun --cpus-per-task=1" in output
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, output
    assert "workers: 0" in output
    assert "trials: 3" in output


def test_the_page_names_what_exists():
    for name in re.findall(r"deploy/(?:kubernetes|slurm)/[\w.]+\w", DOCS):
        assert (ROOT / name).exists(), name
    for words in re.findall(r"^\s*python -m sweeps\.(run|worker) (.*?)(?:\s+#.*)?$", DOCS, re.M):
        parser = options.parser() if words[0] == "run" else worker.parser()
        assert parser.parse_args(shlex.split(words[1]))
