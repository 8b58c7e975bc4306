"""`mpc`: networks on records that stay secret, simulated in one process or deployed among real parties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final, overload

import numpy as np
import torch
from torch import Tensor, nn

from edgeward.backends.mpc.deployment.agreement import ASSISTANT_PORT, PORTS, TRIO_TRUST, TRUST, Address, Terms
from edgeward.backends.mpc.inference.expense import CostTable
from edgeward.backends.mpc.inference.lowering import Lowered, lower
from edgeward.backends.mpc.inference.reference import OutOfRange as OutOfRange
from edgeward.backends.mpc.inference.reference import check_range
from edgeward.backends.mpc.inference.simulation import Simulation
from edgeward.backends.mpc.inference.simulation import simulate as _simulate
from edgeward.backends.mpc.replicated.simulation import TrioSimulation, simulate_three
from edgeward.backends.mpc.tensor.run import given as given
from edgeward.backends.mpc.tensor.run import simulate_function as simulate_function
from edgeward.backends.mpc.transport.network import LAN, WAN
from edgeward.backends.mpc.transport.network import Network as Link
from edgeward.core.errors import ConfigError, DataError, unknown_name
from edgeward.graph import capture
from edgeward.graph.network import Network

if TYPE_CHECKING:
    from edgeward.backends.mpc.deployment.asking import Client
    from edgeward.backends.mpc.deployment.dealing import Dealt
    from edgeward.backends.mpc.deployment.joining import Expense, Material
    from edgeward.backends.mpc.deployment.trio import Assistance

Net: TypeAlias = "nn.Module | Network | Lowered"
LINKS = {"lan": LAN, "wan": WAN}
_HOST = "127.0.0.1"
_DEALER, _ASSISTANT, _AHEAD = f"{_HOST}:{PORTS[2]}", f"{_HOST}:{ASSISTANT_PORT}", 2
_SIMULATED = "simulated: one process held the model, the records and all masks"


def lowered(
    net: Net, shape: tuple[int, ...], records: int = 1, *, sample: np.ndarray | Tensor | None = None, **options: Any
) -> Lowered:
    """Return the plan of `net` for batches of `records` records of `shape`; `options` are those of `lower`.

    `sample`: records [n, *shape] like those to come, on which every layer is looked at for values that leave its range.
    Without one nobody looks at the layers behind the first weights: the client knows its records, not the weights.
    Cost: a pass of the plan in the clear over the sample. Raises: `UnsupportedOperators` with every layer that has no
    protocol and what to do; `OutOfRange` with layer, range and remedy; `DataError` for a sample that does not fit.
    """
    plan = _lowered(net, shape, records, options)
    if sample is not None:
        check_range(plan.plan, plan.model, _records(sample))
    return plan


def _records(x: np.ndarray | Tensor) -> np.ndarray:
    """Return records as float32. Raises: `DataError` for others than numbers."""
    records = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    came = f"{records.dtype} {list(records.shape)}"
    if records.ndim >= 2 and len(records) and records.dtype.kind in "fiu":
        with np.errstate(over="ignore"):
            single = records.astype(np.float32)
        if np.isfinite(single).all():
            return single
    raise DataError("no records to run on", expected="finite numbers of float32, the batch axis first", came=came)


def _lowered(net: Net, shape: tuple[int, ...], records: int, options: dict[str, Any]) -> Lowered:
    if isinstance(net, Lowered):
        if net.plan.input_shape != (records, *shape):
            came = f"{records} records of {list(shape)}"
            raise DataError("the plan is for other records", expected=str(list(net.plan.input_shape)), came=came)
        return net
    return lower(net if isinstance(net, Network) else capture(net, shape), records, **options)


@final
class SimulatedRun:
    """Runs networks on records as all parties at once; what was counted is there after each run."""

    def __init__(self, parties: int, link: Link | None, options: dict[str, Any]) -> None:
        """Prepare; see `simulate`."""
        self._parties, self._link, self._options = parties, link, options
        self._last: tuple[Lowered, Simulation | TrioSimulation] | None = None

    def __call__(self, net: Net, x: np.ndarray | Tensor) -> Any:
        """Return the answer for `x` [n, ...] as the owner of the records gets it, of the type of `x`.

        Before anything is run the plan is computed in the clear, to see that no value leaves its range.
        Raises: `UnsupportedOperators`, `DataError`, of these `OutOfRange` with layer, range and remedy.
        """
        records = _records(x)
        plan = lowered(net, tuple(records.shape[1:]), len(records), **self._options)
        check_range(plan.plan, plan.model, records)
        play = _simulate if self._parties == 2 else simulate_three
        simulation = play(plan, records, network=self._link)
        self._last = (plan, simulation)
        answer = np.asarray(simulation.answer, np.float32)
        return (
            torch.from_numpy(answer).to(x.dtype if x.is_floating_point() else torch.float32)
            if isinstance(x, Tensor)
            else answer
        )

    @property
    def costs(self) -> CostTable:
        """Return what the meter of the records' owner counted in the last run, per layer."""
        return self._run()[1].metered[0]

    @property
    def declared(self) -> CostTable:
        """Return what the plan of the last run declares for the owner of the records, per layer."""
        declared = self._run()[1].declared
        return declared[0] if isinstance(declared, tuple) else declared

    @property
    def report(self) -> dict[str, Any]:
        """Return the last run as plain JSON: costs per layer and in sum, and what holds against whom."""
        plan, simulation = self._run()
        return {
            "kind": "simulation",
            "notice": _SIMULATED,
            "plan": plan.plan.digest,
            "metered": simulation.metered[0].to_json(self._link),
            "metered_equals_declared": simulation.agrees,
            **(TRUST if self._parties == 2 else TRIO_TRUST),
        }

    def __enter__(self) -> SimulatedRun:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; the counts stay."""

    def _run(self) -> tuple[Lowered, Simulation | TrioSimulation]:
        if self._last is None:
            raise ConfigError("nothing was run yet", fix="call the run with a network and records")
        return self._last


def simulate(parties: int = 2, *, network: Link | str | None = None, **options: Any) -> SimulatedRun:
    """Return a run that plays all parties in this process, as a `with` block.

    Args: `parties`: 2 (client and server, with a dealer) or 3 (with a helper instead of the dealer); `network`: a link
    to throttle ("lan", "wan" or a `Link`);
    `options`: as of `lower` (`ring`, `layout`).
    Guarantee: none about secrecy, since one process holds everything; answers, bytes and rounds are those of a
    deployment against one semi-honest, static party (two: with a trusted offline dealer). Values that would leave a
    range are refused first (`OutOfRange`). Unaudited. A plain function on secret tensors runs by `simulate_function`.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> with simulate(parties=2) as run:
    ...     y = run(net, torch.ones(1, 4))
    >>> y.shape, run.costs.online.rounds, run.report["kind"]
    (torch.Size([1, 2]), 7, 'simulation')
    """
    if parties not in (2, 3):
        raise ConfigError("no such deployment", expected="parties=2 or parties=3", came=f"parties={parties}")
    return SimulatedRun(parties, _link(network), options)


def _link(network: Link | str | None) -> Link | None:
    if isinstance(network, str):
        if network not in LINKS:
            raise unknown_name("network", network, LINKS)
        return LINKS[network]
    return network


@final
@dataclass(frozen=True)
class DealerRole:
    """The party that makes one-time material; it knows every mask and must see no message of the others."""

    listen: Address
    terms: Terms
    folder: Path | None = None

    def run(self, *, batches: int | None = None, dealt: Callable[[int], None] = lambda count: None) -> Dealt:
        """Serve one server and one client until one of them is done. Raises: `ChannelError`, `StoreError`."""
        from edgeward.backends.mpc.deployment.dealing import deal
        from edgeward.backends.mpc.deployment.journal import FolderJournal

        journal = None if self.folder is None else FolderJournal(self.folder)
        return deal(self.listen, self.terms, journal=journal, batches=batches, dealt=dealt)


@final
@dataclass(frozen=True)
class ServerRole:
    """The owner of the model; it learns neither records nor answers. Its `third` party deals, or computes with it."""

    lowered: Lowered = field(repr=False)
    listen: Address
    third: Material | Assistance
    terms: Terms

    def run(self, *, answered: Callable[[int], None] = lambda count: None) -> Expense:
        """Serve one client until it is done. Raises: `ChannelError`, `SupplyError`, `StoreError`."""
        from edgeward.backends.mpc.deployment.joining import Material
        from edgeward.backends.mpc.deployment.serving import serve, serve_with_assistant

        if isinstance(self.third, Material):
            return serve(self.lowered, self.listen, self.terms, self.third, answered=answered)
        return serve_with_assistant(self.lowered, self.listen, self.terms, self.third, answered=answered)


@final
@dataclass(frozen=True)
class AssistantRole:
    """The third of three parties, who holds neither records nor model; it must work with neither of the others."""

    listen: Address
    terms: Terms
    plan: str = ""

    def run(self, *, answered: Callable[[int], None] = lambda count: None) -> Expense:
        """Compute with one server and one client until they are done. Raises: `ChannelError`."""
        from edgeward.backends.mpc.deployment.assisting import assist

        return assist(self.listen, self.terms, plan=self.plan, answered=answered)


@overload
def deploy(
    role: Literal["dealer"],
    *,
    keys: Path | str | None,
    listen: str = ...,
    folder: Path | None = ...,
    patience: float = ...,
    timeout: float = ...,
    note: Callable[[str], None] = ...,
) -> DealerRole: ...


@overload
def deploy(
    role: Literal["assistant"],
    *,
    keys: Path | str | None,
    parties: int = ...,
    listen: str = ...,
    plan: str = ...,
    patience: float = ...,
    timeout: float = ...,
    network: Link | str | None = ...,
    note: Callable[[str], None] = ...,
) -> AssistantRole: ...


@overload
def deploy(
    role: Literal["server"],
    *,
    keys: Path | str | None,
    model: Lowered,
    sample: np.ndarray | None = ...,
    listen: str = ...,
    parties: int = ...,
    dealer: str | None = ...,
    assistant: str | None = ...,
    ahead: int = ...,
    store: Path | None = ...,
    patience: float = ...,
    timeout: float = ...,
    network: Link | str | None = ...,
    note: Callable[[str], None] = ...,
) -> ServerRole: ...


@overload
def deploy(
    role: Literal["client"],
    *,
    keys: Path | str | None,
    server: str = ...,
    parties: int = ...,
    dealer: str | None = ...,
    assistant: str | None = ...,
    ahead: int = ...,
    store: Path | None = ...,
    plan: str = ...,
    patience: float = ...,
    timeout: float = ...,
    network: Link | str | None = ...,
    note: Callable[[str], None] = ...,
) -> Client: ...


def deploy(
    role: str,
    *,
    keys: Path | str | None,
    parties: int = 2,
    model: Lowered | None = None,
    sample: np.ndarray | None = None,
    listen: str = "",
    server: str = f"{_HOST}:{PORTS[1]}",
    dealer: str | None = _DEALER,
    assistant: str | None = None,
    folder: Path | None = None,
    ahead: int = _AHEAD,
    store: Path | None = None,
    plan: str = "",
    patience: float = 30.0,
    timeout: float = 300.0,
    network: Link | str | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> DealerRole | AssistantRole | ServerRole | Client:
    """Return a role in a deployment: `.run()` of "dealer", "assistant" and "server", a `with` block as "client".

    Args: `keys`: this role's folder of `edgeward secure keys` (None: no TLS, among processes of one machine only);
    `parties`: 2 (client and server, with a dealer) or 3 (with an assistant, who computes with them, instead);
    `model`: what `lowered` gave, at the server; `sample`: the server's own records [n, ...] like those to come, on
    which it looks for layers that leave their range; `listen`, `server`, `dealer`, `assistant`: addresses as host:port
    (`dealer` None: use what `store` holds); `folder`, `store`: where the dealer and a party keep sealed material over
    restarts; `ahead`: batches of material to hold; `plan`: the digest the client, or the assistant, insists on;
    `patience`: seconds in which the others must appear; `timeout`: seconds for which the other party may compute in
    silence; `note`: told in one line what happens.
    Guarantee: against one semi-honest, static party; two parties: the dealer is trusted and offline; three: nobody
    alone is trusted, but any two that work together know everything, the assistant and either of the others included.
    Channels are TLS 1.3 with certificates on both sides. The client's owner alone learns the answers. Unaudited.
    The client looks at its own records before it sends a byte of them, at the steps before the first weights.
    Raises: `ConfigError` for what does not fit, `OutOfRange` for a sample; when the role runs, `ChannelError` and
    others.
    """
    if parties not in (2, 3):
        raise ConfigError("no such deployment", expected="parties=2 or parties=3", came=f"parties={parties}")
    parties = 3 if role == "assistant" else parties
    terms = Terms(None if keys is None else Path(keys), patience, timeout, _link(network), note, parties)
    roles = ("dealer" if parties == 2 else "assistant", "server", "client")
    if role not in roles:
        raise unknown_name("role", role, roles)
    if role == "dealer":
        return DealerRole(Address.parse(listen or _DEALER), terms, folder)
    third = _third(parties, dealer, assistant, ahead, store or folder)
    if role == "assistant":
        return AssistantRole(Address.parse(listen or _ASSISTANT), terms, plan)
    if role == "server":
        if model is None:
            raise ConfigError("the server brings the model", fix="give model=mpc.lowered(net, shape)")
        if sample is not None:
            check_range(model.plan, model.model, _records(sample))
        return ServerRole(model, Address.parse(listen or f"{_HOST}:{PORTS[1]}"), third, terms)
    from edgeward.backends.mpc.deployment.asking import Client

    return Client(Address.parse(server), terms, third, plan=plan)


def _third(
    parties: int, dealer: str | None, assistant: str | None, ahead: int, store: Path | None
) -> Material | Assistance:
    """Return where the third party is and what it gives. Raises: `ConfigError` for what the other deployment has."""
    from edgeward.backends.mpc.deployment.joining import Material
    from edgeward.backends.mpc.deployment.trio import Assistance

    if parties == 3:
        if dealer != _DEALER or store is not None or ahead != _AHEAD:
            raise ConfigError(
                "three parties have no dealer and keep no material",
                expected="an assistant alone",
                came="a dealer, a store, a folder or batches ahead",
                fix="leave them out, or run with two parties and a dealer",
            )
        return Assistance(Address.parse(assistant or _ASSISTANT))
    if assistant is not None:
        raise ConfigError("two parties have no assistant", expected="a dealer", came=assistant, fix="choose parties=3")
    return Material(None if dealer is None else Address.parse(dealer), ahead, store)
