"""An S3 of one's own: moto answers the real protocol on a port of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem


@contextmanager
def s3_server() -> Iterator[str]:
    """Yields host and port."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


def new_folder(server: str) -> str:
    """The URL of an empty folder."""
    options = f"endpoint_override={server}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    url = f"s3://key:secret@bucket/{uuid4()}?{options}"
    filesystem, path = FileSystem.from_uri(url)
    filesystem.create_dir(path)
    return url
