"""The HTTP API: the recommended ε of every task, why, and the pages, read from the tracking store alone.

No route writes. Errors are problem details; the checks of all requests and answers are in `middleware`.
"""

import html
import json
import logging
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version as installed
from typing import Annotated, Any, Self

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from tracking.api.metrics import Counted, RequestMetrics
from tracking.api.middleware import PROBLEM, accepted, problem
from tracking.mlflow import registry, versions
from tracking.mlflow.client import TrackingUnavailable, is_server
from tracking.mlflow.runs import connect
from tracking.mlflow.versions import HIGHEST, RECORD, NotPublished, Version
from tracking.names import LONGEST, PART
from tracking.numbers import plain
from tracking.records.evidence import Evidence
from tracking.records.schema import WrongRecord
from tracking.report import page
from tracking.report.answer import Whole

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"
REMEMBERED = 64
"""Files of runs that are kept in memory."""
Dataset = Annotated[str, Path(pattern=f"^{PART}$", max_length=LONGEST, examples=["digits"])]
Architecture = Annotated[str, Path(pattern=f"^{PART}$", max_length=LONGEST, examples=["mlp"])]
Policy = Annotated[
    str | None,
    Query(
        pattern="^[a-z][a-z_]*$",
        max_length=40,
        description="By default the one that the sweep was run with.",
    ),
]
Number = Annotated[
    int | None,
    Query(ge=1, le=HIGHEST, description="Of an earlier publication; by default the recommended one."),
]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VersionSummary:
    """One version of a task, in short."""

    task: str
    version: int
    epsilon: float
    policy: str
    created: str
    run_id: str
    recommended: bool

    @classmethod
    def of(cls, found: Version) -> Self:
        """The version, by its sweep's policy."""
        epsilon = found.recommendation().epsilon
        return cls(
            found.task, found.number, epsilon, found.policy, found.created, found.run_id, found.recommended
        )


@dataclass(frozen=True)
class Tasks:
    """The recommended version of every task, by name."""

    tasks: tuple[VersionSummary, ...]


@dataclass(frozen=True)
class History:
    """All versions of a task, the latest first."""

    task: str
    versions: tuple[VersionSummary, ...]


@dataclass(frozen=True, kw_only=True)
class Answer(Whole):
    """A recommendation in full, its three sentences among it, with the number of its version."""

    version: int


@dataclass(frozen=True)
class Health:
    """That the store answers."""

    status: str


@dataclass(frozen=True)
class Problem:
    """Problem details of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


ERRORS = {
    404: "There is no such thing.",
    406: "It is not available in the media type that Accept names.",
    414: "The path with its query is too long.",
    421: "The Host header names a host that is not served.",
    422: "A parameter is not of its form, is unknown, or is given twice.",
    503: "The tracking store does not answer.",
}


def responses_of(model: type | None, *media: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of a route's answers: 200 with JSON of a model or in other media types, and every
    error.
    """
    content = {name: {"schema": {"type": "string"}} for name in media}
    fine: dict[str, Any] = {
        "description": "It was found.",
        "content": content,
        **({"model": model} if model else {}),
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        200: fine,
        304: {"description": "It is the one that If-None-Match names."},
        **{
            status: {"description": text, "content": {PROBLEM: {"schema": schema}}}
            for status, text in ERRORS.items()
        },
    }


class Files:
    """The files of published versions, the latest kept in memory: they do not change."""

    def __init__(self, uri: str):
        self.client = lru_cache(maxsize=1)(lambda: connect(uri))
        self.read = lru_cache(maxsize=REMEMBERED)(self.fetch)
        self.evidence = lru_cache(maxsize=REMEMBERED)(self.parse)

    def fetch(self, found: Version, path: str) -> bytes:
        """A file of a version's run. Errors: NotPublished."""
        if (
            registry.artifact(self.client(), found.run_id, f"{found.folder}/{RECORD}{found.policy}.json")
            != found.records[found.policy].encode()
        ):
            raise NotPublished(
                "The run of this version carries no such records: its tags or its files were changed."
            )
        if (content := registry.artifact(self.client(), found.run_id, f"{found.folder}/{path}")) is None:
            raise NotPublished(f"The run of this version has no {path}.")
        return content

    def parse(self, found: Version) -> Evidence:
        """The evidence of a version. Errors: NotPublished; WrongRecord."""
        return Evidence.from_json(self.read(found, "evidence.json").decode(errors="replace"), "evidence.json")


def application(uri: str) -> FastAPI:
    """The routes, reading from a tracking store. Errors: WrongAddress where that is neither server nor
    database.
    """
    is_server(uri)
    app = FastAPI(
        title="Recommended label smoothing",
        description="How much label smoothing (ε, in the ε/K convention) to train each task with. Read-only.",
        version=installed("lscal"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(only_known)],
        default_response_class=Response,
        exception_handlers={
            HTTPException: refused,
            RequestValidationError: malformed,
            NotPublished: missing,
            WrongRecord: missing,
            TrackingUnavailable: away,
            Exception: failed,
        },
    )
    request_metrics = RequestMetrics(uri)
    app.add_middleware(Counted, request_metrics=request_metrics)
    add_records(app, uri)
    add_pages(app, uri, Files(uri))
    add_service(app, uri, request_metrics)
    app.openapi_schema = amended(app.openapi())
    return app


def add_records(app: FastAPI, uri: str) -> None:
    """The routes that answer with records."""

    @app.get("/v1/tasks", responses=responses_of(Tasks, TEXT), summary="Every task with its recommended ε")
    def tasks(request: Request) -> Response:
        found = [VersionSummary.of(one) for one in versions.recommended(uri)]
        return reply(
            request,
            asdict(Tasks(tuple(found))),
            "".join(f"{one.task}\t{plain(one.epsilon)}\n" for one in found),
        )

    @app.get(
        "/v1/tasks/{dataset}/{architecture}/recommendation",
        responses=responses_of(Answer, TEXT),
        summary="The recommended ε of a task, and why",
    )
    def recommendation(
        request: Request,
        dataset: Dataset,
        architecture: Architecture,
        policy: Policy = None,
        version: Number = None,
    ) -> Response:
        found = versions.version(uri, f"{dataset}/{architecture}", version)
        record = found.recommendation(policy)
        links = {"page": f"/v1/tasks/{found.task}/page?version={found.number}"}
        whole = Answer(**vars(Whole.of(found.recommendations(), record.policy, links)), version=found.number)
        return reply(request, json.loads(whole.to_json()), f"{plain(record.epsilon)}\n")

    @app.get(
        "/v1/tasks/{dataset}/{architecture}/history",
        responses=responses_of(History, TEXT),
        summary="All versions of a task, the latest first",
    )
    def history(request: Request, dataset: Dataset, architecture: Architecture) -> Response:
        task = f"{dataset}/{architecture}"
        found = [
            VersionSummary.of(one) for one in versions.history(uri, task) or [versions.version(uri, task)]
        ]
        lines = (
            f"{one.version}\t{plain(one.epsilon)}\t{one.policy}\t{one.created}"
            f"\t{'recommended' if one.recommended else ''}\n"
            for one in found
        )
        return reply(request, asdict(History(task, tuple(found))), "".join(lines))


def add_pages(app: FastAPI, uri: str, files: Files) -> None:
    """The routes that answer with pages."""

    @app.get(
        "/v1/tasks/{dataset}/{architecture}/page",
        responses=responses_of(None, HTML),
        summary="The page about a task",
    )
    def task_page(
        request: Request, dataset: Dataset, architecture: Architecture, version: Number = None
    ) -> Response:
        agreed(request, HTML)
        return Response(
            files.read(versions.version(uri, f"{dataset}/{architecture}", version), "page.html"),
            media_type=HTML,
        )

    @app.get("/", responses=responses_of(None, HTML), summary="The page that compares all tasks")
    def index(request: Request) -> Response:
        agreed(request, HTML)
        evidences = []
        for found in versions.recommended(uri):
            try:
                evidences.append(files.evidence(found))
            except (NotPublished, WrongRecord) as error:
                log.warning("%s is not on the index page: %s", found.task, error)
        return Response(page.index(evidences, lambda task: f"v1/tasks/{task}/page"), media_type=HTML)


def add_service(app: FastAPI, uri: str, request_metrics: RequestMetrics) -> None:
    """The routes about the service itself."""

    @app.get("/healthz", responses=responses_of(Health, TEXT), summary="Whether the tracking store answers")
    def health(request: Request) -> Response:
        versions.touch(uri)
        return reply(request, asdict(Health("ok")), "ok\n")

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        agreed(request, TEXT)
        return Response(request_metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        agreed(request, HTML)
        return Response(described(app.openapi()), media_type=HTML)


def only_known(request: Request) -> None:
    """Refuse a query with parameters that OpenAPI does not name, or one twice: `?polcy=raw` must not give
    another policy's ε.
    """
    documented = (
        request.app.openapi()["paths"]
        .get(request.scope["route"].path, {})
        .get("get", {})
        .get("parameters", [])
    )
    allowed = [parameter["name"] for parameter in documented if parameter["in"] == "query"]
    given = [name for name, _ in request.query_params.multi_items()]
    if unknown := sorted(set(given) - set(allowed)):
        raise HTTPException(
            422,
            f"There is no parameter {unknown[0][:40]!r} here; allowed are: {', '.join(allowed) or 'none'}.",
        )
    if len(given) != len(set(given)):
        raise HTTPException(422, "A parameter is given twice.")


def agreed(request: Request, *offered: str) -> str:
    """The media type of the answer. Errors: 406."""
    media = accepted(request.headers.get("accept"), offered)
    if media is None:
        raise HTTPException(406, f"There is only {' and '.join(offered)} here.")
    return media


def reply(request: Request, content: Any, text: str) -> Response:
    """JSON, or plain text for a client that prefers it."""
    media = agreed(request, JSON, TEXT)
    return Response(json.dumps(content, ensure_ascii=False) if media == JSON else text, media_type=media)


async def refused(_: Request, error: Any) -> Response:
    """The answer to a route or method that is not there, and to other refusals of a route."""
    headers = {"allow": "GET, HEAD"} if error.status_code == 405 else error.headers
    return problem(error.status_code, str(error.detail), headers)


async def malformed(_: Request, error: Any) -> Response:
    """The answer to a parameter that is not of its form; its value is not repeated."""
    wrong = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return problem(422, "; ".join(wrong))


async def missing(_: Request, error: Any) -> Response:
    """The answer where nothing is published."""
    return problem(404, str(error))


async def away(_: Request, error: Any) -> Response:
    """The answer while the store is away; where it lies is for the server's own log."""
    log.warning("%s", error)
    return problem(503, "The tracking store does not answer.", {"retry-after": "5"})


async def failed(_: Request, error: Any) -> Response:
    """The answer to a defect of ours, whose trace goes to the server's own log."""
    return problem(500, f"The server failed ({type(error).__name__}); the reason is in its log.")


def amended(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what types do not express: a query has no null, and an infinite number of
    degrees of freedom is one.
    """
    schemas = schema["components"]["schemas"]
    schemas["Interval"]["properties"]["freedom"] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    schemas["Problem"] = TypeAdapter(Problem).json_schema()
    for methods in schema["paths"].values():
        for parameter in methods["get"].get("parameters", []):
            if "anyOf" in parameter["schema"]:
                parameter["schema"] = parameter["schema"]["anyOf"][0]
    return schema


def described(schema: dict[str, Any]) -> str:
    """The OpenAPI document as a page that loads nothing."""
    parts = []
    for path, methods in schema["paths"].items():
        get = methods["get"]
        rows = "".join(
            f"<tr><td><code>{html.escape(one['name'])}</code><td>{one['in']}"
            f"<td>{html.escape(one.get('description', ''))}"
            for one in get.get("parameters", [])
        )
        media = " · ".join(html.escape(name) for name in get["responses"]["200"]["content"])
        parts.append(
            f"<h2><code>GET {html.escape(path)}</code></h2><p>{html.escape(get['summary'])}."
            f" {media}</p><table>{rows}</table>"
        )
    errors = "".join(f"<tr><td>{status}<td>{html.escape(text)}" for status, text in ERRORS.items())
    title = html.escape(schema["info"]["title"])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport"'
        f' content="width=device-width"><title>{title}</title>'
        "<style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui;max-width:50rem;margin:2rem"
        " auto;padding:0 1rem}"
        "h2{font-size:1rem;margin-top:2rem}td{padding:0 1rem 0 0;vertical-align:top}</style>"
        f"<h1>{title}</h1><p>{html.escape(schema['info']['description'])} <a"
        ' href="openapi.json">openapi.json</a> · <a href="./">all tasks</a></p>'
        f"{''.join(parts)}<h2>Errors</h2><p>{html.escape(PROBLEM)}</p><table>{errors}</table></html>"
    )
