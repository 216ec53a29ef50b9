"""A server of S3's protocol on this machine, in a process of its own: moto's, with two things that it lacks.

Moto looks whether there is an object and then makes one, in two steps, between which another request may come; S3 does not. So
here requests to create wait for one another. And who calls himself `stranger` may do nothing.

    python tests/s3_server.py       prints its port, and serves until its input ends
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

BUCKET, STRANGER = "hub", "stranger"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class OneCreates:
    """The server's application, behind which nothing is created twice."""

    def __init__(self, application: Callable[..., Iterable[bytes]]):
        self._application = application
        self._creating = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if f"Credential={STRANGER}/" in environ.get("HTTP_AUTHORIZATION", ""):
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_DENIED)))])
            return [_DENIED]
        if environ.get("HTTP_IF_NONE_MATCH") == "*":
            with self._creating:
                return self._application(environ, start_response)
        return self._application(environ, start_response)


def serve() -> None:
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = OneCreates(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= environment(server.server_port)
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
    print(server.server_port, flush=True)
    sys.stdin.read()


def environment(port: int) -> dict[str, str]:
    """What leads clients to a server at a port of this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """The environment that leads to a server, which runs while the block does."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield environment(int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(30)


if __name__ == "__main__":
    serve()
