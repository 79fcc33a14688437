"""`python -m tracking.serve` serves recommendations and pages over HTTP, read-only; `api` has the routes."""

import argparse
import sys
from collections.abc import Sequence

from tracking.exits import Exit
from tracking.mlflow.client import DEFAULT_URI, WrongAddress, is_server
from tracking.recommend import resolved


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m tracking.serve", description="Serve recommendations and pages, read-only."
    )
    flags.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; beyond 127.0.0.1 whoever reaches it can read everything",
    )
    flags.add_argument("--port", type=int, default=8000)
    flags.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients reach it, besides localhost",
    )
    flags.add_argument("--tracking-uri", help=f"by default MLFLOW_TRACKING_URI, or else {DEFAULT_URI}")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: serves until it is interrupted. Returns its exit code, see `tracking.exits`."""
    options = parser().parse_args(arguments)
    uri = resolved(options.tracking_uri)
    try:
        is_server(uri)
    except WrongAddress as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.WRONG_INPUT
    import uvicorn  # these take two seconds, which --help does not wait for

    from tracking.api.middleware import ReadOnlyMiddleware
    from tracking.api.routes import application

    uvicorn.run(
        ReadOnlyMiddleware(application(uri), options.allowed_host),
        host=options.host,
        port=options.port,
        http="h11",  # its limit on the size of a request's head holds
        h11_max_incomplete_event_size=65536,
        ws="none",
        proxy_headers=False,
        server_header=False,
    )
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
