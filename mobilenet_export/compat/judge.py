"""Does that file load in that release, and does that release install on that board?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mobilenet_export.compat.boards import Board
from mobilenet_export.compat.facts import Package, Problem, Release, Requirements, Version, version_text

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where it is to run; None where that is left open.

    Attributes:
        board: The computer.
        python: Version of two parts; that of the board's system where None.
    """

    board: Board | None = None
    python: Version | None = None

    @property
    def effective_python(self) -> Version | None:
        """The version given, else that of the board's current system, if there is a board."""
        return self.python or (self.board.systems[0].python if self.board else None)


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes, no or unknown (None), and why."""

    yes: bool | None
    why: str = ""

    @property
    def text(self) -> str:
        """The answer in words."""
        word = {True: "yes", False: "no", None: "unknown"}[self.yes]
        return f"{word}: {self.why}" if self.why else word


@dataclass(frozen=True, slots=True)
class Judgement:
    """One file in one release.

    Attributes:
        file: Name of it.
        package: On PyPI.
        release: Its version, as text.
        loads: Whether the release accepts the file.
        wheel: Whether pip finds a wheel.
        first_that_loads: The oldest release in the table that does; None where none does.
        known_bad: Problems that strike on that board for sure.
        cautions: Problems that depend on what else is installed.
    """

    file: str
    package: str
    release: str
    loads: Answer
    wheel: Answer
    first_that_loads: str | None
    known_bad: tuple[Problem, ...]
    cautions: tuple[Problem, ...]

    @property
    def works(self) -> bool | None:
        """False where anything stands against it, None where something is unknown."""
        answers = (self.loads.yes, self.wheel.yes)
        if False in answers or self.known_bad:
            return False
        return None if None in answers else True

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able table."""
        return {
            "file": self.file,
            "runtime": self.package,
            "version": self.release,
            "works": self.works,
            "loads": {"answer": self.loads.yes, "why": self.loads.why},
            "wheel": {"answer": self.wheel.yes, "why": self.wheel.why},
            "first_that_loads": self.first_that_loads,
            "known_bad": [_problem_to_json(problem) for problem in self.known_bad],
            "cautions": [_problem_to_json(problem) for problem in self.cautions],
        }


def _problem_to_json(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("label", "happens", "remedy", "source")} | {
        "first": version_text(problem.first),
        "fixed": version_text(problem.fixed) if problem.fixed else None,
    }


@dataclass(frozen=True, slots=True)
class CompatReport:
    """All files in all releases.

    Attributes:
        target: Where they are to run.
        requirements: File → what it needs.
        judgements: Of every file in every release that reads its format.
        asked: Whether the releases were asked for, and so have to work each; else one for every file has to.
    """

    target: Target
    requirements: Mapping[str, Requirements]
    judgements: tuple[Judgement, ...]
    asked: bool

    @property
    def verdict(self) -> Verdict:
        """Fail where something asked for does not work; inconclusive where it hangs on something unknown."""
        outcomes = [self._outcome(file) for file in self.requirements if file not in self.left_out]
        return "fail" if False in outcomes else "inconclusive" if None in outcomes else "pass"

    @property
    def left_out(self) -> list[str]:
        """The files that none of the runtimes reads."""
        judged = {judgement.file for judgement in self.judgements}
        return [file for file in self.requirements if file not in judged]

    def _outcome(self, file: str) -> bool | None:
        works = [judgement.works for judgement in self.judgements if judgement.file == file]
        if self.asked:
            return False if False in works else None if None in works else True
        return True if True in works else None if None in works else False

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table."""
        board, python = self.target.board, self.target.effective_python
        return {
            "verdict": self.verdict,
            "device": {
                "name": board.name,
                "cpu": board.cpu,
                "architecture": board.architecture,
                "features": list(board.features),
                "memory_mb": board.memory_mb,
                "system": board.system(python).name,
            }
            if board
            else None,
            "python": version_text(python) if python else None,
            "runtimes_asked_for": self.asked,
            "files": {
                file: {"stamps": dict(needs.stamps), "operators": dict(needs.operators)}
                for file, needs in self.requirements.items()
            },
            "left_out": self.left_out,
            "rows": [judgement.to_json() for judgement in self.judgements],
        }


def judge(file: str, needs: Requirements, package: Package, version: Version, target: Target) -> Judgement:
    """Judge one file in one release on one board."""
    cpu = target.board.cpu if target.board else None
    problems = [problem for problem in package.problems if problem.concerns(version)]
    able = (release for release in package.releases if not refusals(needs, release))
    return Judgement(
        file=file,
        package=package.name,
        release=version_text(version),
        loads=does_load(needs, package, version),
        wheel=has_wheel(package, version, target),
        first_that_loads=next((version_text(r.version) for r in able), None),
        known_bad=tuple(problem for problem in problems if cpu in problem.cpus),
        cautions=tuple(problem for problem in problems if not (cpu and problem.cpus)),
    )


def does_load(needs: Requirements, package: Package, version: Version) -> Answer:
    """Whether a release accepts a file; of one that is not in the table, what the nearest older one can is safe."""
    release = package.nearest(version)
    if release is None:
        return Answer(None, f"older than {version_text(package.releases[0].version)}, the first in our table")
    against, open_questions = refusals(needs, release), unknowns(needs, release)
    reasons = ", ".join(against or open_questions)
    if release.version != version:
        nearest = f"{version_text(release.version)} before it"
        if reasons:
            return Answer(None, f"not in our table; {nearest}: {reasons}")
        return Answer(True, f"{nearest} does; not in our table")
    return Answer(False if against else None, reasons) if reasons else Answer(True)


def refusals(needs: Requirements, release: Release) -> list[str]:
    """Name all that a file needs and a release does not have."""
    found = [
        f"{name} {value} > {release.stamps[name]}"
        for name, value in needs.stamps.items()
        if value > release.stamps.get(name, value)
    ]
    if release.operators is None:
        return found
    for name, value in needs.operators.items():
        able = release.operators.get(name)
        if able is None:
            found.append(f"no {name}")
        elif value > able:
            found.append(f"{name} v{value} > v{able}")
    return found


def unknowns(needs: Requirements, release: Release) -> list[str]:
    """Name the stamps that the table says nothing of, such as operators of a vendor's domain."""
    return [f"our table says nothing of {name}" for name in needs.stamps if name not in release.stamps]


def has_wheel(package: Package, version: Version, target: Target) -> Answer:
    """Whether pip finds a wheel of a release that runs on the board's system."""
    release = package.nearest(version)
    if release is None or release.version != version:
        return Answer(None, "not in our table")
    wheels, board = release.wheels, target.board
    python = target.effective_python
    if board and not (wheels := tuple(w for w in wheels if board.architecture in w.architectures)):
        return Answer(False, f"none for {board.architecture}")
    if python and not (fit := tuple(w for w in wheels if w.oldest_python <= python <= w.newest_python)):
        return Answer(False, f"{wheels[0].pythons} only")
    wheels = fit if python else wheels
    if board and board.system(python).glibc < wheels[0].glibc:
        return Answer(False, f"needs glibc {version_text(wheels[0].glibc)}")
    everywhere = " ".join(sorted({name for wheel in wheels for name in wheel.architectures}))
    return Answer(True) if board else Answer(True, everywhere if python else wheels[0].pythons)
