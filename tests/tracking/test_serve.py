"""The HTTP API: a real process, real requests, and requests that nobody should send."""

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families
from published import PAGE, free_port, made, process, publish

from tracking.api.middleware import ReadOnlyMiddleware, accepted, has
from tracking.api.routes import application
from tracking.mlflow.versions import folder_of
from tracking.recommend import recommendation
from tracking.serve import main

TASK = "/v1/tasks/digits/mlp"
OLD, NEW = made(epsilon=0.25), made(epsilon=0.1, created="2026-12-01T00:00:00+00:00")
SECRETS = ("Traceback", 'File "', "sqlite", "secret", "/tmp", str(Path.home()), "mlflow.db", "postgresql")


@pytest.fixture(scope="module")
def folder(initialised, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(initialised, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"  # absolute: MLflow keeps one engine per URI, of any directory
    for record in (OLD, NEW, made("fashion_mnist/cnn", epsilon=0.0)):
        publish(MlflowClient(uri, uri), record)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """A real process of the command, in the store's folder."""
    port = free_port()
    flags = f"--port {port} --tracking-uri sqlite:///mlflow.db".split()
    with process("tracking.serve", *flags, folder=folder) as log:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text())
        yield "127.0.0.1", port


@contextlib.contextmanager
def served(uri, names=()):
    """The application in a thread of this process."""
    server = uvicorn.Server(
        uvicorn.Config(
            ReadOnlyMiddleware(application(uri), names), port=0, log_level="error", http="h11", ws="none"
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()


def ask(address, target, method="GET", **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, target, headers=named)
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, reply.headers, body


def send(address, raw):
    """Whatever comes back to bytes that may be no request."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(raw)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
                if b"\r\n\r\n" in received and (match := re.search(rb"content-length: (\d+)", received)):
                    _, _, body = received.partition(b"\r\n\r\n")
                    if len(body) >= int(match[1]):
                        break
        return received.decode(errors="replace")


def problem(answer, status):
    """The problem details of an answer, which must be of that status and complete."""
    code, headers, body = answer
    content = json.loads(body)
    assert (code, headers["content-type"]) == (status, "application/problem+json")
    assert content["status"] == status
    assert set(content) == {"type", "title", "status", "detail"}
    assert not any(secret in body for secret in SECRETS)
    return content["detail"]


def test_curl_with_plain_text_gives_the_number(address):
    assert ask(address, f"{TASK}/recommendation", Accept="text/plain")[2] == "0.1\n"
    assert ask(address, f"{TASK}/recommendation?version=1", Accept="text/plain;q=0.9, image/*")[2] == "0.25\n"


def test_the_record_is_the_same_as_a_pull_gives(address, folder):
    status, headers, body = ask(address, f"{TASK}/recommendation?policy=raw&version=1")
    assert (status, headers["content-type"]) == (200, "application/json")
    content = json.loads(body)
    assert content.pop("version") == 1
    assert len(content.pop("answer")) == 3
    assert set(content.pop("policies")) == {"safe", "accuracy", "calibrated", "utility"}
    pulled = recommendation("digits/mlp", "raw", 1, f"sqlite:///{folder}/mlflow.db")
    assert content == json.loads(pulled.to_json())
    assert content["policy"] == "raw"


def test_tasks_and_history_list_published_versions(address):
    tasks = json.loads(ask(address, "/v1/tasks")[2])["tasks"]
    assert [(one["task"], one["version"], one["epsilon"], one["recommended"]) for one in tasks] == [
        ("digits/mlp", 2, 0.1, True),
        ("fashion_mnist/cnn", 1, 0.0, True),
    ]
    assert ask(address, "/v1/tasks", Accept="text/plain")[2] == "digits/mlp\t0.1\nfashion_mnist/cnn\t0\n"
    history = json.loads(ask(address, f"{TASK}/history")[2])["versions"]
    assert [(one["version"], one["epsilon"], one["recommended"]) for one in history] == [
        (2, 0.1, True),
        (1, 0.25, False),
    ]


def test_the_page_of_each_version_is_the_artifact_of_its_run(address):
    for query, created in (("", NEW.created), ("?version=1", OLD.created)):
        status, headers, body = ask(address, f"{TASK}/page{query}", Accept="text/html")
        assert (status, headers["content-type"], body) == (200, "text/html; charset=utf-8", PAGE + created)
        policies = set(headers["content-security-policy"].split("; "))
        assert {"default-src 'none'", "script-src 'unsafe-inline'"} <= policies
        assert {"img-src data:", "frame-ancestors 'none'"} <= policies
    _, _, body = ask(address, "/")
    for task in ("digits/mlp", "fashion_mnist/cnn"):
        assert f'href="v1/tasks/{task}/page"' in body


def test_the_documentation_loads_nothing_and_names_every_route(address):
    _, _, body = ask(address, "/docs")
    paths = json.loads(ask(address, "/openapi.json")[2])["paths"]
    assert len(paths) == 6
    assert all(path in body for path in paths)
    assert not re.search(r"(src=|https?:|<script|<link|@import)", body)


@pytest.mark.parametrize(
    "route",
    f"/v1/tasks /healthz / /docs /openapi.json {TASK}/recommendation {TASK}/history {TASK}/page".split(),
)
def test_every_answer_has_an_etag_a_304_a_head_and_safe_headers(address, route):
    status, headers, body = ask(address, route)
    assert status == 200
    etag = headers["etag"]
    assert ask(address, route)[1]["etag"] == etag
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = ask(address, route, If_None_Match=condition)
        assert (again[0], again[1]["etag"], again[2]) == (304, etag, "")
        assert again[1]["cache-control"] == "no-cache"
    assert ask(address, route, If_None_Match='"other"')[0] == 200
    code, of_head, empty = ask(address, route, "HEAD")
    assert (code, empty, of_head["content-length"]) == (200, "", str(len(body.encode())))
    assert (of_head["etag"], of_head["content-type"]) == (etag, headers["content-type"])
    assert (headers["x-content-type-options"], headers["vary"]) == ("nosniff", "Accept")
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["server"] is None
    assert headers["access-control-allow-origin"] is None


def test_etags_differ_where_answers_do(address):
    cases = [(query, media) for query in ("", "?version=1") for media in ("*/*", "text/plain")]
    etags = [ask(address, f"{TASK}/recommendation{one}", Accept=media)[1]["etag"] for one, media in cases]
    assert len(set(etags)) == 4


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/v1/tasks/no/such/recommendation", 404, "nothing is published for task 'no/such'"),
        ("/v1/tasks/digit/mlp/history", 404, "Did you mean 'digits/mlp'"),
        (f"{TASK}/recommendation?policy=nope", 404, "there are: accuracy, calibrated, raw, safe"),
        (f"{TASK}/recommendation?version=7", 404, "there are: 2, 1"),
        (f"{TASK}/page?version=7", 404, "there are: 2, 1"),
        (f"{TASK}/recommendation?version=0", 422, "query.version"),
        (f"{TASK}/recommendation?version=1e99", 422, "query.version"),
        (f"{TASK}/recommendation?version={'9' * 300}", 422, "query.version"),
        (f"{TASK}/recommendation?policy=", 422, "query.policy"),
        (f"{TASK}/recommendation?policy=' OR 1=1".replace(" ", "%20"), 422, "query.policy"),
        (f"{TASK}/recommendation?polcy=raw", 422, "no parameter 'polcy' here; allowed are: policy, version."),
        (f"{TASK}/recommendation?policy=raw&policy=safe", 422, "twice"),
        (f"{TASK}/page?policy=raw", 422, "allowed are: version"),
        ("/metrics?name=x", 422, "allowed are: none"),
        ("/v1/tasks/a--b/c/history", 422, "path.dataset"),
        ("/v1/tasks/a/%20/history", 422, "path.architecture"),
        ("/v1/tasks/%00/a/page", 422, "path.dataset"),
        ("/v1/tasks/", 404, "Not Found"),
        (f"{TASK}/recommendation/", 404, "Not Found"),
        ("/v1/tasks?" + "x" * 40000, 414, "longer"),
    ],
)
def test_a_wrong_request_is_answered_with_problem_details(address, target, status, said):
    assert said in problem(ask(address, target), status)


def test_other_media_types_are_refused(address):
    assert "application/json and text/plain" in problem(ask(address, "/v1/tasks", Accept="text/html"), 406)
    assert "text/html" in problem(ask(address, f"{TASK}/page", Accept="application/json"), 406)
    assert "text/plain" in problem(ask(address, "/metrics", Accept="text/html"), 406)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_can_be_written(address, method):
    for route in ("/v1/tasks", f"{TASK}/recommendation", "/", "/docs"):
        answer = ask(address, route, method)
        problem(answer, 405)
        assert answer[1]["allow"] == "GET, HEAD"


def test_local_and_given_host_names_are_served_and_others_refused(address, folder):
    foreign = "evil.example localhost.evil.example evil.example:8000 localhost@evil.example [::1"
    for host in (*foreign.split(), "127.0.0.1.evil.example", "", "a b"):
        problem(ask(address, "/v1/tasks", Host=host), 421)
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1:80", "[::1]:8000", "192.168.1.7"):
        assert ask(address, "/healthz", Host=host)[0] == 200, host
    with served(f"sqlite:///{folder}/mlflow.db", ["epsilon.example"]) as named:
        assert ask(named, "/healthz", Host="Epsilon.Example:8000")[0] == 200
        problem(ask(named, "/healthz", Host="other.example"), 421)


def files_of(folder):
    """The contents of its files, but logs."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}


def test_hostile_requests_change_nothing_and_leak_nothing(address, folder):
    """Raw bytes on the socket, as no client library would send them; then all is as before."""
    names = [
        *r".. %2e%2e ..%2f.. %2fetc%2fpasswd ..\.. %00 %0d%0aSet-Cookie:x '%20OR%201=1%20-- {{7*7}}".split(),
        *"${jndi:x} <script> %ff%fe %F0%9F%92%A9 ~root con - -- %25%32%65 ;ls |id $(id) `id` \x7f".split(),
        "a" * 3000,
    ]
    forms = ["/v1/tasks/@/mlp/page", "/v1/tasks/@/@/recommendation", "/@", f"{TASK}/page?version=@"]
    forms += [f"{TASK}/recommendation?policy=@"]
    targets = [form.replace("@", name) for form in forms for name in names]
    targets += "/v1/tasks/../../../../etc/passwd /../mlflow.db //etc/passwd /.git/config /mlruns".split()
    targets += [f"{TASK}/page/../../../../../etc/passwd"]
    raw = [f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1") for target in targets]
    raw += [
        b"GET /v1/tasks HTTP/1.1\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://evil.example/v1/tasks HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/tasks?" + b"x=1&" * 30000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200000 + b"\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAccept: " + b"a/b;q=0.5," * 1000 + b"\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nAccept: \xff\xfe;q=nan\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: evil.example\r\n"
        b"If-None-Match: \xff,,,\"\r\n\r\n",
        b"GET /v1/tasks HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET \r\n\r\n",
    ]  # fmt: skip
    before = files_of(folder)
    for one in raw:
        received = send(address, one)
        shown = one[:90]
        assert re.match(r"HTTP/1\.1 (200|400|404|406|414|421|422|431) ", received), (shown, received[:200])
        assert not any(secret in received for secret in (*SECRETS, "root:", "Set-Cookie")), shown
    assert files_of(folder) == before
    assert ask(address, f"{TASK}/recommendation", Accept="text/plain")[2] == "0.1\n"
    assert "Traceback" not in (folder / "tracking.serve.log").read_text()


def test_a_store_that_is_away_is_503_without_its_address(tmp_path):
    dead = free_port()
    server = f"://me:secret@127.0.0.1:{dead}"
    for uri in (f"sqlite:///{tmp_path}/none.db", f"http{server}", f"postgresql+psycopg{server}/mlflow"):
        with served(uri) as address:
            for route in ("/healthz", "/v1/tasks", f"{TASK}/recommendation", "/"):
                answer = ask(address, route)
                problem(answer, 503)
                assert answer[1]["retry-after"] == "5"
                assert str(dead) not in answer[2]
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_not_of_its_version_is_not_shown(client, uri):
    """A run whose files another publication has replaced, and a version without a run."""
    _, run_id = publish(client, OLD)
    other = NEW.recommendations["safe"].to_json()
    client.log_text(run_id, other, f"{folder_of(OLD.created)}/recommendation.safe.json")
    with served(uri) as address:
        assert "were changed" in problem(ask(address, f"{TASK}/page"), 404)
        assert ask(address, "/")[0] == 200
        number, run_id = publish(client, replace(NEW, task="digits/lost"))
        for wrong in ("0" * 32, "../../../etc"):
            client.set_model_version_tag("digits--lost", str(number), "run_id", wrong)
            problem(ask(address, "/v1/tasks/digits/lost/page"), 404)


def test_evidence_of_another_form_leaves_the_index_page_standing(client, uri):
    for task, evidence in (("digits/mlp", ""), ("digits/old", '{"task": "x"}'), ("digits/odd", "[]")):
        _, run_id = publish(client, replace(OLD, task=task))
        if evidence:
            client.log_text(run_id, evidence, f"{folder_of(OLD.created)}/evidence.json")
    with served(uri) as address:
        status, _, body = ask(address, "/")
    assert status == 200
    assert "v1/tasks/digits/mlp/page" in body
    assert "digits/old" not in body


def test_what_is_published_while_it_runs_is_served_next(client, uri):
    publish(client, OLD)
    route = f"{TASK}/recommendation"
    with served(uri) as address:
        _, headers, body = ask(address, route, Accept="text/plain")
        assert body == "0.25\n"
        publish(client, NEW)
        status, _, body = ask(address, route, Accept="text/plain", If_None_Match=headers["etag"])
        assert (status, body) == (200, "0.1\n")


def test_a_store_of_an_unknown_kind_is_refused_at_the_start(capsys):
    assert main(["--tracking-uri", "ftp://me:secret@host/x"]) == 2
    error = capsys.readouterr().err
    assert "allowed are" in error
    assert "secret" not in error


def metrics(address):
    """Samples of /metrics by name and labels."""
    media = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    status, headers, body = ask(address, "/metrics", Accept=media)
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def labels(**values):
    return tuple(sorted(values.items()))


def test_metrics_count_requests_by_route_and_published_tasks(client, uri):
    for record in (OLD, made("fashion_mnist/cnn", epsilon=0.0), NEW):
        publish(client, record)
    with served(uri) as address:
        before = metrics(address)
        for (
            target
        ) in f"{TASK}/recommendation /v1/tasks/no/such/recommendation /nowhere /v1/tasks?x=1".split():
            ask(address, target)
        ask(address, "/v1/tasks", "HEAD")
        ask(address, "/v1/tasks", "POST")
        for number in range(20):
            ask(address, f"/{number}", f"INVENTED{number}")
        ask(address, "/v1/tasks", Host="evil.example")
        found = metrics(address)
    assert (before["lscal_tracking_up", ()], before["lscal_published_tasks", ()]) == (1, 2)
    counted = {own: value for (name, own), value in found.items() if name == "lscal_api_requests_total"}
    template = "/v1/tasks/{dataset}/{architecture}/recommendation"
    assert counted == {
        labels(route=route, method=method, status=status): count
        for route, method, status, count in (
            ("/metrics", "GET", "200", 1),
            (template, "GET", "200", 1),
            (template, "GET", "404", 1),
            ("none", "GET", "404", 1),
            ("/v1/tasks", "GET", "422", 1),
            ("/v1/tasks", "GET", "200", 1),
            ("/v1/tasks", "POST", "405", 1),
            ("none", "other", "404", 20),
        )
    }
    assert found["lscal_api_request_seconds_count", labels(route=template)] == 2
    assert found["lscal_api_request_seconds_bucket", labels(le="+Inf", route=template)] == 2


def test_metrics_are_there_while_the_store_is_away(tmp_path):
    with served(f"http://me:secret@127.0.0.1:{free_port()}") as address:
        ask(address, "/v1/tasks")
        found = metrics(address)
    assert found["lscal_tracking_up", ()] == 0
    assert ("lscal_published_tasks", ()) not in found
    assert found["lscal_api_requests_total", labels(method="GET", route="/v1/tasks", status="503")] == 1


def test_schemathesis_finds_no_failure(address, tmp_path):
    """The command of docs, with fewer examples."""
    flags = "run http://{}:{}/openapi.json --checks all --max-examples 15".format(*address).split()
    command = [sys.executable, "-m", "schemathesis.cli", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("header", "media"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/plain", "text/plain"),
        ("TEXT/PLAIN", "text/plain"),
        ("text/*", "text/plain"),
        ("application/json;q=0.1, text/plain;q=0.2", "text/plain"),
        ("text/plain;q=0.1, */*;q=0.2", "application/json"),
        ("*/*, application/json;q=0", "text/plain"),
        ("text/html, */*;q=0.8", "application/json"),
        ("application/json;q=nan", "application/json"),
        ("text/html", None),
        ("*/*;q=0", None),
        (";;;,,,", None),
    ],
)
def test_media_types_are_agreed_on_as_in_rfc_9110(header, media):
    assert accepted(header, ("application/json", "text/plain")) == media


def test_etags_are_compared_weakly():
    assert has(['W/"a", "b"'], '"a"')
    assert has(['"x"', '"b"'], '"b"')
    assert not has(['"ab"'], '"a"')
    assert not has([], '"a"')
