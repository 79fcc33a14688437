"""Makes the users of the MLflow server which are no administrators, or gives them their passwords again.
Standard library alone.

Environment: MLFLOW_TRACKING_URI; MLFLOW_AUTH_ADMIN_PASSWORD; MLFLOW_SWEEPS_PASSWORD and MLFLOW_API_PASSWORD
of users `sweeps` and `api`.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request

USERS = {"sweeps": "MLFLOW_SWEEPS_PASSWORD", "api": "MLFLOW_API_PASSWORD"}


def ask(method: str, path: str, content: dict[str, str]) -> str:
    """As administrator, have the server do something: "", or the error code with which it refuses."""
    credentials = base64.b64encode(f"admin:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(  # the address is that of docker-compose.yml
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/users/{path}",
        json.dumps(content).encode(),
        {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        answer = error.read().decode(errors="replace")
        return (
            str(json.loads(answer)["error_code"])
            if answer.startswith("{")
            else f"{error.code} {error.reason}"
        )
    return ""


def main() -> int:
    """Make each user; one which is there is given its password."""
    for name, variable in USERS.items():
        content = {"username": name, "password": os.environ[variable]}
        refused = ask("POST", "create", content)
        if refused == "RESOURCE_ALREADY_EXISTS":
            refused = ask("PATCH", "update-password", content)
        if refused:
            print(
                f"user {name} could not be made: {refused}. {variable} needs at least 12 characters.",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
