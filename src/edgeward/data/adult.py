"""`adult`: the census income table of UCI."""

from __future__ import annotations

from typing import Final

from edgeward.data.columns import Columns, as_number
from edgeward.data.datasets import DATASETS, Pools, Request
from edgeward.data.files import SourceFile, damaged, read_source
from edgeward.data.records import Records

ORIGIN: Final = "the UCI Machine Learning Repository, data set Adult"
_TRAIN: Final = SourceFile(
    ("tabular/adult.data.gz", "adult/adult.data.gz"),
    (
        "fb9b6b419c38dd70d75d31f014b7f0905bf76e9625473c593455e31679a93184",
        "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    ),
    ORIGIN,
)
_TEST: Final = SourceFile(
    ("tabular/adult.test.gz", "adult/adult.test.gz"),
    (
        "5dd8e51005f6a86e42f058d66a957721196362cf8e8dde3efc8508532af4a083",
        "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
    ),
    ORIGIN,
)
_NUMERIC: Final = (0, 2, 4, 10, 11, 12)
_FEATURES: Final = 14


def parse_adult(content: bytes, name: str) -> tuple[list[list[str]], list[int]]:
    """Return the 14 cells of every row and its label (1: more than 50K); '?' stays as a category of its own."""
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise damaged(name, "text in ASCII", "other bytes") from None
    rows, labels = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.split(",")]
        label = cells.pop().removesuffix(".")
        numbers = len(cells) == _FEATURES and all(as_number(cells[j]) is not None for j in _NUMERIC)
        if not numbers or label not in ("<=50K", ">50K"):
            raise damaged(name, f"{_FEATURES} features and <=50K or >50K a line", f"another form in line {number}")
        rows.append(cells)
        labels.append(int(label == ">50K"))
    return rows, labels


@DATASETS.register("adult")
def adult(request: Request) -> Pools:
    """Return Adult: 32561 + 16281 people, 6 standardised numbers and 8 one-hot columns, two classes (income > 50K).

    Numbers and categories are fitted on the training role; the number of features depends on its categories (about
    108). Source: Kohavi, KDD 1996; UCI.
    """
    train, train_y = parse_adult(read_source(request.root, _TRAIN), _TRAIN.paths[0])
    test, test_y = parse_adult(read_source(request.root, _TEST), _TEST.paths[0])
    columns, codes = Columns.code(train + test, [j in _NUMERIC for j in range(_FEATURES)])
    members = Records.of(codes[: len(train)], train_y, "train")
    return Pools(members, Records.of(codes[len(train) :], test_y, "holdout"), classes=2, finish=columns.encode)
