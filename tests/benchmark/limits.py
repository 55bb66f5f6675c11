"""What the figures of the benchmarks may be at most."""

from __future__ import annotations

from collections.abc import Mapping

LIMITS: dict[str, float] = {
    "executions of a client": 12,
    "executions of a server": 12,
    "times as long with 20 jobs as with 1": 1.15,
    "times the floor with 40 clients": 4,
    "s for 1,000 repositories": 2,
    "openings": 2,
    "openings with the id on record": 1,
    "s that repository_info adds": 0.1,
    "s that a unit adds": 1,
    "% that a unit adds to a minute or more": 3,
}


class Verdict:
    """Judges figures as they come; that one is too much ends nothing before all are measured."""

    def __init__(self) -> None:
        self._missed: list[str] = []

    def of(self, figures: Mapping[str, float]) -> str:
        """What to print beside figures: each with its limit."""
        said = []
        for name, figure in figures.items():
            most = LIMITS[name]
            within = figure <= most
            said.append(f"{name}: {figure:.4g} {f'<= {most:g}' if within else f'> {most:g}, too much'}")
            if not within:
                self._missed.append(said[-1])
        return "; ".join(said)

    def end(self) -> int:
        """Say once more what was too much; the exit code."""
        for each in self._missed:
            print(f"missed: {each}", flush=True)
        return 1 if self._missed else 0
