"""nginx in front of several servers, as docs/several-processes.md has it: each request goes to the next of them."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from rigs.gateway import START, free_port

_CONFIGURATION = """\
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
user {user};
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream kachery {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://kachery;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering off;
            proxy_request_buffering off;
            client_max_body_size 0;
            proxy_read_timeout 300s;
            proxy_send_timeout 300s;
        }}
    }}
}}
"""


class Front:
    """The proxy.

    Args:
        directory: Where its configuration, log and temporary files go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: list[int] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def set_servers(self, ports: list[int]) -> None:
        """Say which ports of 127.0.0.1 are behind it."""
        self._ports = ports

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        assert program is not None, "nginx is not installed; `apt-get install nginx-light` gives it"
        self._directory.mkdir(parents=True)
        configuration = self._directory / "nginx.conf"
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in self._ports)
        configuration.write_text(
            _CONFIGURATION.format(directory=self._directory, servers=servers, port=self.port, user=Path.home().owner())
        )
        self._process = subprocess.Popen(
            [program, "-c", str(configuration)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/probe", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, (self._directory / "error.log").read_text()
                assert time.monotonic() < deadline, "nginx does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
