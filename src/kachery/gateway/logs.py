"""The gateway's log: one JSON object a line on stderr, or words and colours on a terminal.

Requests are named by the pattern of their route, never by their address: addresses carry rights. Tokens, signatures,
passwords and keys are not written anywhere. A log that cannot be written never breaks what it tells about.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def make_log(level: str = "info") -> FilteringBoundLogger:
    """A log on stderr.

    Args:
        level: The least important level that is written; one of `LEVELS`.
    """
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    log: FilteringBoundLogger = structlog.wrap_logger(
        _Stderr(), processors=processors, wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level])
    )
    return log


class _Stderr:
    """Writes lines, and gives up in silence: a full disk or a closed pipe must not fail a request."""

    def msg(self, message: str) -> None:
        try:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = exception = critical = msg


class ForwardToLog(logging.Handler):
    """Hands the messages of libraries to the log.

    Args:
        log: Where they go.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        details: dict[str, Any] = {"source": record.name, "text": record.getMessage()}
        if record.exc_info:
            details["exc_info"] = record.exc_info
        self._log.log(record.levelno, "library", **details)
