"""Runs cells of a notebook, one after the other, in whatever environment it is started in.

Each line of stdin is a JSON text with a cell; each line of stdout is what came of it: `{"value": …}` with what its last
expression gives, or `{"error": {"kind", "message"}}`. What the cells write goes to stderr.
"""

import ast
import json
import os
import sys
import traceback


def run(cell, names):
    """Execute a cell; what its last expression gives, if that is one."""
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def main():
    cells = os.fdopen(os.dup(0), "r")
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    names = {"__name__": "__main__"}
    for line in cells:
        try:
            reply = {"value": run(json.loads(line), names)}
        except BaseException as error:
            traceback.print_exc()
            reply = {"error": {"kind": [base.__name__ for base in type(error).__mro__], "message": str(error)}}
        sys.stdout.flush()
        sys.stderr.flush()
        replies.write(json.dumps(reply, default=repr) + "\n")


main()
