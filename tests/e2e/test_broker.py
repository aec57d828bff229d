"""A program signs in by a code, shares a file and reads a part of it, as Spyglass's coming client does."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from rigs.gateway import Gateway
from rigs.person import Person

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = os.urandom(5_000_000)


def call(
    method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        reply = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        return reply.status, reply.read(), {name.lower(): value for name, value in reply.headers.items()}


def test_from_signing_in_to_reading_a_part(tmp_path: Path) -> None:
    with Gateway(tmp_path, environment={"KACHERY_BROKER": "store"}) as gateway:
        base = f"{gateway.url}/api/v1"
        alice = Person(gateway, "alice")
        alice.accept_invitation()
        gateway.admin("grant", "alice", "--zone", "store", "upload")

        _, told, _ = call("POST", f"{base}/auth/device", b"")
        codes = json.loads(told)
        asked = json.dumps({"device_code": codes["device_code"]}).encode()
        status, _, headers = call("POST", f"{base}/auth/token", asked)
        assert (status, headers["retry-after"]) == (428, str(codes["interval"]))
        page = alice.browser.visit(codes["verification_uri"])
        page = alice.browser.submit(page, page.form("code"), code=codes["user_code"])
        assert "Done." in page.text
        status, told, _ = call("POST", f"{base}/auth/token", asked)
        assert status == 200
        bearer = {"Authorization": f"Bearer {json.loads(told)['access_token']}"}

        def share(scope: str) -> dict[str, Any]:
            description = {
                "sha256": hashlib.sha256(CONTENT).hexdigest(),
                "size_bytes": len(CONTENT),
                "spyglass_name": "session7_ABC.nwb",
                "file_class": "analysis",
                "visibility": {"scope": scope, "teams": []},
            }
            status, told, _ = call("POST", f"{base}/file", json.dumps(description).encode(), bearer)
            assert status == 200, told
            given: dict[str, Any] = json.loads(told)
            return given

        given = share("private")
        assert call("PUT", given["upload_url"], CONTENT, given["upload_headers"])[0] == 200
        _, told, _ = call("GET", f"{base}/file/resolve?name=session7_ABC.nwb", headers=bearer)
        file_id = json.loads(told)["file_id"]
        status, part, _ = call("GET", f"{base}/file/{file_id}/content", headers={**bearer, "Range": "bytes=100-199"})
        assert (status, part) == (206, CONTENT[100:200])
        assert call("GET", f"{base}/file/{file_id}/content")[0] == 401

        # the same file by the gateway's other protocols: the zone is private
        sha1 = hashlib.sha1(CONTENT).hexdigest()
        find = {"type": "findFileRequest", "hashAlg": "sha1", "hash": sha1, "zoneName": "store"}
        status, _, _ = call("POST", f"{gateway.url}/api/findFile", json.dumps(find).encode())
        assert status == 401

        assert share("public")["deduplicated"] is True
        assert call("GET", f"{base}/file/{file_id}/content")[1] == CONTENT
