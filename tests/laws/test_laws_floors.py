"""Law 1 and 2: imports only go down; rooms of one floor do not know each other; what ships never sees records."""

import pytest

from laws.laws_tree import FLOORS, SOURCE, dotted, files, imports, room

# The doors write the report, so they may know that one room of their own floor.
NEIGHBOURS = {("front", "report")}


def edges():
    for path in files():
        here = room(dotted(path))
        for line, module in imports(path):
            if module.split(".")[0] == "edgeward":
                yield f"{path.relative_to(SOURCE)}:{line}", here, room(module), module


def test_every_room_has_a_floor():
    rooms = {room(dotted(path)) for path in files()}
    assert rooms <= FLOORS.keys(), f"rooms without a floor: {sorted(rooms - FLOORS.keys())}"


def test_imports_only_go_down():
    wrong = [
        f"{place}: {here} (floor {FLOORS[here]}) imports {module} (floor {FLOORS[there]})"
        for place, here, there, module in edges()
        if module != "edgeward" and here != there and (here, there) not in NEIGHBOURS and FLOORS[there] >= FLOORS[here]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("leaving", ["deploy", "report"])
def test_what_leaves_the_house_never_sees_records(leaving):
    wrong = [f"{place}: {module}" for place, here, there, module in edges() if here == leaving and there == "data"]
    assert not wrong, "\n".join(wrong)
