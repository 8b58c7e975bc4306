"""`load_model`: a network by name, by Python function, or from an exported file."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from torch import nn

from edgeward.core.errors import ConfigError, EdgewardError, ModelError
from edgeward.core.randomness import Seed
from edgeward.job.tables import parse_toml
from edgeward.load.weights import load_state, read_state
from edgeward.train.population import Factory, build

_FORMS = "net:NAME?key=value, path.py:function, package.module:function, or FILE.pt2"


def load_model(
    spec: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    root: Path | None = None,
    keep: bool = False,
) -> Factory:
    """Return a factory of the network that `spec` names, tried once.

    Args:
        spec: `net:resnet?depth=20` (a net of `edgeward.nets`), `path.py:function` (the file is executed),
            `package.module:function`, or a `.pt2` file of `torch.export.save` (read without running code).
        arguments: keyword arguments of the function or net; they win over those in `spec`.
        weights: a `.safetensors` file or a checkpoint of plain tensors; every built module then starts from them.
        root: folder that relative paths start at.
        keep: build a `.pt2` with the weights stored in it; by default they are drawn afresh, because an audit whose
            shadow models start from weights that have seen the records would understate the leak.

    Returns: a function without arguments that builds a fresh `nn.Module`.
    Guarantee: `.pt2` and weights run no code of the file (assumed of PyTorch's restricted readers, measured by tests);
    `path.py:function` runs the whole file with your rights.
    Raises `ConfigError` for a spec of no known form, `ModelError` for a network that cannot be built.
    """
    start = root or Path()
    if spec.startswith("net:"):
        factory = _registered(spec[len("net:") :], arguments or {})
    elif spec.endswith(".pt2"):
        factory = _exported(start / spec, arguments or {}, keep=keep)
    elif ":" in spec:
        factory = _function(spec, start, arguments or {})
    else:
        raise _no_form(spec)
    checked = _checked(factory, spec)
    first = build(checked, Seed(0))
    if weights is None:
        return checked
    path = start / weights
    state = read_state(path)
    load_state(first, state, name=path.name)

    def with_weights() -> nn.Module:
        module = checked()
        load_state(module, state, name=path.name)
        return module

    return with_weights


def query(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name?key=value&key=value`; values are TOML, or plain words.

    >>> query("mlp?hidden=[32,16]&classes=10&norm=batch")
    ('mlp', {'hidden': [32, 16], 'classes': 10, 'norm': 'batch'})
    """
    name, _, rest = text.partition("?")
    arguments: dict[str, Any] = {}
    for item in filter(None, rest.split("&")):
        key, equals, value = item.partition("=")
        if not key.isidentifier() or not equals:
            raise ConfigError(f"'{item}' is not an argument", expected="key=value", came=repr(item), fix=_FORMS)
        arguments[key] = _value(unquote(value))
    return name, arguments


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}", name="argument")["value"]
    except ConfigError:
        return text


def _no_form(spec: str) -> ConfigError:
    from edgeward.nets import NETS

    near = difflib.get_close_matches(spec, list(NETS), n=1, cutoff=0.5)
    return ConfigError(
        f"'{spec}' names no model",
        expected=_FORMS,
        came=repr(spec),
        fix=f"did you mean 'net:{near[0]}'?" if near else "write for instance my_model.py:build",
    )


def _registered(text: str, arguments: Mapping[str, Any]) -> Factory:
    from edgeward.nets import NETS

    name, given = query(text)
    return _bind(NETS[name], {**given, **arguments}, f"net:{name}")


def _bind(function: Callable[..., Any], arguments: Mapping[str, Any], spec: str) -> Factory:
    """Fix the arguments of `function`, after every unknown and missing one is reported together."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = {}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in arguments]
    unknown = [] if anything or not parameters else [n for n in arguments if n not in named]
    problems = [f"argument '{n}' is missing" for n in needed]
    for name in unknown:
        near = difflib.get_close_matches(name, named, n=1, cutoff=0.5)
        problems.append(f"argument '{name}' is unknown" + (f"; did you mean '{near[0]}'?" if near else ""))
    if problems:
        raise ConfigError(
            f"{spec} cannot be called:\n    " + "\n    ".join(problems),
            expected=f"arguments {', '.join(named) or 'none'}",
            came=", ".join(arguments) or "none",
            fix=f'give them in [model], or as "{spec}?key=value"'
            if spec.startswith("net:")
            else "give them in [model]",
        )
    fixed = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return lambda: function(**fixed)


def _exported(path: Path, arguments: Mapping[str, Any], *, keep: bool) -> Factory:
    from edgeward.graph import to_module
    from edgeward.graph.program import capture_program
    from edgeward.load.archive import read_archive

    if arguments:
        raise ConfigError(
            "a .pt2 file takes no arguments", expected="none", came=", ".join(arguments), fix="remove them"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = capture_program(read_archive(path))
    if keep:
        return lambda: to_module(network)
    return lambda: _redrawn(to_module(network))


def _redrawn(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
    return module


def _function(spec: str, root: Path, arguments: Mapping[str, Any]) -> Factory:
    place, _, name = spec.rpartition(":")
    module = _from_file(root / place) if place.endswith(".py") else _imported(place)
    function = getattr(module, name, None)
    if not callable(function):
        offered = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        near = difflib.get_close_matches(name, offered, n=1, cutoff=0.5)
        raise ModelError(
            f"'{place}' has no function '{name}'",
            expected="a function that returns an nn.Module",
            came=f"callables: {', '.join(offered[:10]) or 'none'}",
            fix=f"did you mean '{near[0]}'?" if near else "define it, or name another one",
        )
    return _bind(function, arguments, spec)


def _from_file(path: Path) -> Any:
    note = "naming a .py file executes that file with your rights"
    if not path.is_file():
        raise ModelError(f"there is no file '{path.name}'", expected=f"a Python file ({note})", came=str(path))
    identity = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"edgeward_model_{identity}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ModelError(f"'{path.name}' is not Python", expected=f"a Python file ({note})", came=str(path))
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise ModelError(
            f"'{path.name}' does not run: {type(error).__name__}: {error}",
            expected=f"a file that imports without error ({note})",
            came=_where(error, path),
            fix="run it once with python to see the whole traceback",
        ) from error
    return module


def _imported(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise ModelError(
            f"the module '{place}' cannot be imported: {type(error).__name__}: {error}",
            expected="an installed Python module (importing it executes it)",
            came=repr(place),
            fix="install it, or give the file as path.py:function",
        ) from error


def _checked(factory: Factory, spec: str) -> Factory:
    def checked() -> nn.Module:
        try:
            module = factory()
        except EdgewardError:
            raise
        except Exception as error:
            raise ModelError(
                f"'{spec}' does not build a network: {type(error).__name__}: {error}",
                expected="a function that returns an nn.Module",
                came=_where(error, None),
                fix="call the function once by hand",
            ) from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"'{spec}' does not build a network",
                expected="an nn.Module",
                came=type(module).__name__,
                fix="return the module itself, untrained",
            )
        return module

    return checked


def _where(error: BaseException, path: Path | None) -> str:
    """Return 'file, line n' of the innermost frame, in `path` where given."""
    found, trace = "an exception", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if path is None or file == path or file == path.resolve():
            found = f"{file.name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
