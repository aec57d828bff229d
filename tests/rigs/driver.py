"""Calls one function of the module that is installed beside this interpreter. Runs in every environment.

Reads `{"module", "function", "args", "kwargs"}` from stdin and writes `{"value"}` or `{"error"}` to the file named by
its only argument, because the function may print what it likes.
"""

import base64
import importlib
import json
import os
import sys


def decode(value):
    if isinstance(value, dict) and "ndarray" in value:
        import numpy

        return numpy.array(value["ndarray"], dtype=value["dtype"])
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def encode(value):
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return {"ndarray": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: encode(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def redirect(url):
    """kachery 2.0.1 has the address of its server in its code."""
    import requests

    post = requests.post
    requests.post = lambda address, **options: post(address.replace("https://kachery.vercel.app", url), **options)


def main():
    request = json.load(sys.stdin)
    try:
        module = importlib.import_module(request["module"])
        if os.environ.get("INSTEAD_OF_VERCEL"):
            redirect(os.environ["INSTEAD_OF_VERCEL"])
        function = getattr(module, request["function"])
        value = function(
            *[decode(item) for item in request["args"]],
            **{name: decode(item) for name, item in request["kwargs"].items()},
        )
        answer = {"value": encode(value)}
    except Exception as error:
        answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
    with open(sys.argv[1], "w") as reply:
        json.dump(answer, reply)


if __name__ == "__main__":
    main()
