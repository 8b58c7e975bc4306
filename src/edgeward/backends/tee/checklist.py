"""The fourteen questions a split deployment answers before it may be called anything (R1 to R14)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, final

from edgeward.core.units import human

if TYPE_CHECKING:
    from edgeward.backends.tee.deployment import SplitDeployment
    from edgeward.backends.tee.manifest import SplitManifest

Answer = Literal["provided", "measured", "stated", "not provided"]


@final
@dataclass(frozen=True)
class Requirement:
    """One question of the checklist with its answer and what the answer rests on."""

    key: str
    question: str
    answer: Answer
    by: str


@final
@dataclass(frozen=True)
class Evidence:
    """What is known about one build of a deployment; None where nobody measured or provided it.

    `source_lines` and `code_bytes` are those of the trusted application, `audit` and `membership` the verdict
    sentences of the stealing and membership audits, `tier` the notice of the world that runs it, `counter` the sealed
    blob's, `reproducible` whether two builds gave the same bytes. `planned`: no release is written yet, so that what
    sealing does is stated and not provided.
    """

    tier: str
    secure_ram_bytes: int | None = None
    secure_ram_limit: int | None = None
    source_lines: int | None = None
    code_bytes: int | None = None
    counter: int | None = None
    attested: str | None = None
    audit: str | None = None
    membership: str | None = None
    reproducible: bool | None = None
    planned: bool = False


@final
@dataclass(frozen=True)
class Checklist:
    """R1 to R14 for one deployment.

    Source: our reading of Mo, Tarkhani, Haddadi, "Machine Learning with Confidential Computing: A Systematization of
    Knowledge" (ACM CSUR; arXiv 2208.10134), one requirement for each axis it compares systems by.
    """

    requirements: tuple[Requirement, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (key, question, answer) for the card."""
        return [(r.key, r.question, f"{r.answer}: {r.by}") for r in self.requirements]

    def missing(self) -> tuple[str, ...]:
        """Return the keys of what is not provided."""
        return tuple(r.key for r in self.requirements if r.answer == "not provided")

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plain form."""
        return [asdict(r) for r in self.requirements]


def checklist(deployment: SplitDeployment | SplitManifest, evidence: Evidence) -> Checklist:
    """Answer R1 to R14 for `deployment`, or for what its manifest declares.

    What `evidence` lacks is "not provided", never assumed.
    """
    traffic, e = deployment.traffic, evidence
    way = "one-way" if traffic.one_way else "two-way"
    moved = f"{way}, {traffic.switches} switches and {human(traffic.bytes, 'B')} per inference"
    sealing: Answer = "stated" if e.planned else "provided"
    sealed = counter = None
    if e.planned:
        sealed = "a release seals them with AES-256-GCM; they are opened inside the secure world"
        counter = "a release has a counter inside the authenticated data; its own card names it"
    elif e.counter is not None:
        sealed = "AES-256-GCM, opened inside the secure world"
        counter = (
            f"counter {e.counter} inside the authenticated data, kept under the deployment's identity; as hard to turn "
            "back as the device's storage"
        )
    ram = None if e.secure_ram_bytes is None else _of(e.secure_ram_bytes, e.secure_ram_limit)
    tcb = None if e.source_lines is None else f"{e.source_lines} lines of C, {human(e.code_bytes or 0, 'B')} of code"
    audits = None if e.audit is None else f"{e.audit}; membership: {e.membership or 'not measured'}"
    built = None if not e.reproducible else "two builds gave the same bytes"
    leaves = {"label": "the label alone", "topk": "a list of labels", "logits": "logits, which feed stealing attacks"}
    limit = deployment.query_limit
    asked = "any number of times" if limit is None else f"{limit} times on one device, counted in the secure world"
    return Checklist(
        (
            _answer("R1", "Which assets, against whom?", "stated", "the asset matrix"),
            _answer("R2", "Are secure weights never in clear outside?", sealing, sealed),
            _answer("R3", "Is secure memory bounded and checked?", "measured", ram),
            _answer("R4", "How large is the trusted code?", "measured", tcb),
            _answer("R5", "What is attested?", "provided", e.attested),
            _answer("R6", "Is rollback refused?", sealing, counter),
            _answer("R7", "Is the normal world's work verified?", "provided", None, "nothing checks the taps it sends"),
            _answer("R8", "Was it attacked?", "measured", audits),
            _answer("R9", "What leaves the secure world?", "stated", f"{leaves[deployment.policy]}; {asked}"),
            _answer("R10", "Side channels?", "stated", deployment.assets.side_channels),
            _answer("R11", "What traffic?", "stated", moved),
            _answer("R12", "Is the build reproducible?", "measured", built),
            _answer("R13", "Are masks fresh?", "stated", "no masks are used: nothing returns to the normal world")
            if traffic.one_way
            else _answer("R13", "Are masks fresh?", "provided", None),
            _answer("R14", "Where do pre- and post-processing run?", "stated", _pipeline(deployment.policy)),
        )
    )


def _answer(
    key: str, question: str, answer: Answer, by: str | None, otherwise: str = "no evidence given"
) -> Requirement:
    return (
        Requirement(key, question, answer, by)
        if by is not None
        else Requirement(key, question, "not provided", otherwise)
    )


def _of(used: int, limit: int | None) -> str:
    return human(used, "B") if limit is None else f"{human(used, 'B')} of {human(limit, 'B')}"


def _pipeline(policy: str) -> str:
    last = "arg-max inside the secure world" if policy == "label" else "arg-max in the normal world"
    return f"pre-processing and quantisation of taps in the normal world, {last}"
