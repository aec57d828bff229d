"""nginx on loopback as the yardstick for serving a file, with its own configuration in a scratch directory."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rigs.gateway import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Both are quoted: over loopback the plain one is faster, because curl pays for what sendfile saves the server.
CONFIGURATIONS = {
    "nginx, sendfile": "sendfile on; tcp_nopush on;",
    "nginx, no sendfile": "sendfile off; output_buffers 2 1m;",
}

_CONFIGURATION = """\
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
user {user};
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/octet-stream;
    {transfer}
    server {{
        listen 127.0.0.1:{port};
        {content}
    }}
}}
"""


class NginxMissing(Exception):
    """nginx is not installed."""


@contextmanager
def serving(root: Path | str, transfer: str, directory: Path) -> Iterator[str]:
    """Serve a directory, or another server as a reverse proxy, while the context lasts.

    Args:
        root: The directory, or the other server's address.
        transfer: The directives that make the difference.
        directory: Where its configuration, log and temporary files go.

    Yields:
        The base address.

    Raises:
        NginxMissing: If there is no nginx.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise NginxMissing("nginx is not installed; `apt-get install nginx-light` gives it")
    directory.mkdir(parents=True)
    port = free_port()
    configuration = directory / "nginx.conf"
    user = Path.home().owner()
    content = f"root {root};" if isinstance(root, Path) else f"location / {{ proxy_pass {root}; }}"
    configuration.write_text(
        _CONFIGURATION.format(directory=directory, content=content, transfer=transfer, port=port, user=user)
    )
    url = f"http://127.0.0.1:{port}"
    with (directory / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-c", str(configuration), "-e", str(directory / "error.log")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise NginxMissing(f"nginx ended with {process.returncode}")
        try:
            urllib.request.urlopen(url + "/", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NginxMissing("nginx did not answer within ten seconds")
