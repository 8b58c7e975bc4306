"""Exit 0 when this environment has everything pyproject.toml asks for, editable edgeward included."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def missing(requirements: list[str]) -> list[str]:
    """Return the requirements that are not met here."""
    from packaging.requirements import Requirement

    found = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                found.append(text)
        except PackageNotFoundError:
            found.append(text)
    return found


def main() -> int:
    """Check this environment against pyproject.toml."""
    try:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib

        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
        lacking = missing([*project["dependencies"], *project["optional-dependencies"]["dev"], "edgeward"])
    except ModuleNotFoundError as error:
        lacking = [str(error.name)]
    if lacking:
        sys.stderr.write(f"to install: {', '.join(lacking)}\n")
        return 1
    import edgeward

    here = Path("src/edgeward").resolve()
    return 0 if Path(str(edgeward.__file__)).resolve().parent == here else 1


if __name__ == "__main__":
    sys.exit(main())
