"""A resource as upstream's daemon is one: it runs the released `kachery-cloud-store` for a file that is asked for.

    upstream_resource.py RELAY NAME ZONE SECRET PATH SHA1 COMMAND…

The published daemon cannot be installed from a registry. This one keeps to what is known of its protocol: it answers
when the upload is done or when the client's patience is over, whichever comes first. It serves one file, until killed.
"""

import json
import subprocess
import sys
import threading
import time

from websockets.sync.client import connect


def main():
    """Connect, say `ready`, and serve."""
    relay, name, zone, secret, path, sha1, *command = sys.argv[1:]
    state = {"status": "queued"}
    done = threading.Event()

    def upload():
        state["status"] = "running"
        failed = subprocess.run([*command, path], stdout=subprocess.DEVNULL, check=False).returncode
        state["status"] = "error" if failed else "completed"
        done.set()

    job = threading.Thread(target=upload)
    with connect(relay.replace("http", "ws", 1)) as line:
        hello = {"type": "initialize", "resourceName": name, "zone": zone, "proxySecret": secret}
        line.send(json.dumps(hello))
        assert json.loads(line.recv(timeout=20)) == {"type": "acknowledge"}
        print("ready", flush=True)
        for text in line:
            asked = json.loads(text)
            request = asked["request"]
            status = {"status": "not-found"}
            if request["uri"] == f"sha1://{sha1}":
                if job.ident is None:
                    job.start()
                done.wait(request["timeoutMsec"] / 1000)
                status = {**state, "size": 0, "bytesUploaded": 0, "timestampRequested": int(time.time() * 1000)}
            answer = {"type": "fileUpload", "status": status}
            line.send(json.dumps({"type": "responseToClient", "requestId": asked["requestId"], "response": answer}))


if __name__ == "__main__":
    main()
