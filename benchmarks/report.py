"""Lines of the benchmark, their goals, and the table that is written about them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from measure import Sample

Figure = Literal["wall", "process", "cpu", "peak", "read"]
TIMES: tuple[Figure, ...] = ("wall", "process", "cpu")


@dataclass(frozen=True)
class Contender:
    """One program in a line.

    Args:
        name: What it is called in the table.
        measure: Takes one sample; whatever it needs fresh is made before its clock starts.
    """

    name: str
    measure: Callable[[], Sample]


@dataclass(frozen=True)
class Goal:
    """What a line is meant to show.

    Args:
        subject: The contender that it is about.
        figure: Which figure of its samples.
        limit: The factor by which it must beat `against`, or, without one, the figure that it must not exceed.
        against: The contender that it is compared with.
    """

    subject: str
    figure: Figure
    limit: float
    against: str | None = None

    def verdict(self, line: Line) -> str:
        """The goal in words, with what was measured; information, never an assertion."""
        reached = [self._reached(line, take) for take in (statistics.median, min)]
        words = "reached" if reached[0] >= self.limit else "NOT reached"
        if self.against is None:
            show = _bytes if self.figure in ("peak", "read") else _seconds
            words = "reached" if reached[0] <= self.limit else "NOT reached"
            figures = f"{show(reached[0])} median, {show(reached[1])} best"
            return f"{self.subject} at most {show(self.limit)}: {figures}; {words}"
        return (
            f"{self.subject} at least {self.limit:.2f} times {self.against} ({self.figure} time): "
            f"{reached[0]:.2f} by medians, {reached[1]:.2f} by best; {words}"
        )

    def _reached(self, line: Line, take: Callable[[list[float]], float]) -> float:
        own = take(line.figures(self.subject, self.figure))
        return own if self.against is None else take(line.figures(self.against, self.figure)) / own


@dataclass
class Line:
    """One comparison: contenders that do the same work, interleaved.

    Args:
        name: Short, for the command line.
        title: What is done.
        amount: How much one sample does, in `unit`; 0 when a rate means nothing.
        unit: `MiB` or `files`.
        contenders: The programs.
        goals: What the line is meant to show.
        rounds: How many samples each contender gives, unless the command line says otherwise.
    """

    name: str
    title: str
    amount: float
    unit: str
    contenders: list[Contender]
    goals: list[Goal]
    rounds: int = 5
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def measure(self, rounds: int | None, say: Callable[[str], None]) -> None:
        """Take all samples, one of each contender in turn."""
        for number in range(rounds or self.rounds):
            for contender in self.contenders:
                sample = contender.measure()
                self.samples.setdefault(contender.name, []).append(sample)
                say(f"{self.name} {number + 1}: {contender.name} {sample.wall:.3f} s")

    def figures(self, contender: str, figure: Figure) -> list[float]:
        """One figure of all samples of a contender."""
        values = [getattr(sample, figure) for sample in self.samples[contender]]
        return [float(value) for value in values if value is not None]

    def markdown(self) -> str:
        """The line's table and verdicts."""
        unit = f"{self.unit}/s (median)" if self.amount else ""
        shows_read = any(sample.read is not None for taken in self.samples.values() for sample in taken)
        more = " read by who shares |" if shows_read else ""
        rows = [
            f"## {self.title}\n",
            f"| program | wall, best | wall, median | {unit} | process, median | CPU, median | peak memory |{more}",
            "|---|---|---|---|---|---|---|" + ("---|" if shows_read else ""),
        ]
        for contender in self.contenders:
            wall = self.figures(contender.name, "wall")
            peaks = self.figures(contender.name, "peak")
            times = [min(wall), *(statistics.median(self.figures(contender.name, figure)) for figure in TIMES)]
            best, median, process, cpu = [_seconds(value) for value in times]
            rate = f"{self.amount / statistics.median(wall):,.0f}" if self.amount else ""
            memory = _bytes(max(peaks)) if peaks else ""
            read = f" {_bytes(statistics.median(self.figures(contender.name, 'read')))} |" if shows_read else ""
            rows.append(f"| {contender.name} | {best} | {median} | {rate} | {process} | {cpu} | {memory} |{read}")
        rows.append("")
        rows += [f"- {goal.verdict(self)}" for goal in self.goals]
        return "\n".join(rows) + "\n"


def write(lines: list[Line], directory: Path, versions: dict[str, str]) -> Path:
    """Write the table and all samples.

    Args:
        lines: What was measured.
        directory: Where `<date>.md` and `<date>.json` go.
        versions: Which programs took part.

    Returns:
        The table's path.
    """
    now = datetime.now(UTC)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    header = [
        f"# Measured on {now:%Y-%m-%d %H:%M} UTC\n",
        f"{machine}; " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "\n",
        "Everything on one machine over loopback, contenders interleaved. Trust ratios more than figures. "
        "`wall` is the operation, `process` includes the start of the program.\n",
    ]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y-%m-%d-%H%M}.md"
    path.write_text("\n".join(header) + "\n" + "\n".join(line.markdown() for line in lines))
    samples = {
        line.name: {name: [asdict(sample) for sample in taken] for name, taken in line.samples.items()}
        for line in lines
    }
    document = {"time": now.isoformat(), "machine": machine, "versions": versions, "samples": samples}
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    return path


def _seconds(value: float) -> str:
    if value == 0:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def _bytes(value: float) -> str:
    return f"{value / (1 << 20):.0f} MiB"
