"""Laws 4 and 5 on the source: no pickle, no network, no evaluation, no global seeds, no mutable module state."""

import ast

import pytest

from laws.laws_tree import SOURCE, dotted, files, imports, parsed, room

FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
NETWORK = {"socket", "ssl", "urllib.request", "http", "requests", "ftplib", "smtplib", "urllib3", "httpx", "aiohttp"}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
# (file, name): the reason it may.
ALLOWED_IMPORTS = {
    ("load/weights.py", "pickle.UnpicklingError"): "the name of the refusal only",
    ("load/weights.py", "pickle"): "the same import, seen as its module",
    ("backends/tee/process_world.py", "socket"): "a pair of connected sockets between two processes, never an address",
    ("backends/tee/process_child.py", "socket"): "the other end of that pair; it may make no system calls for more",
    (
        "backends/mpc/transport/stream.py",
        "socket",
    ): "parties of a secure computation speak over a socket the user asked for",
    (
        "backends/mpc/transport/rendezvous.py",
        "socket",
    ): "they connect or listen at the address the user gave, and nowhere else",
    ("backends/mpc/deployment/reception.py", "socket"): "a waiting party closes the connections of silent strangers",
    ("backends/mpc/transport/pair.py", "socket"): "a pair of connected sockets within one process, never an address",
    ("backends/mpc/transport/tls.py", "ssl"): "the parties' channel is TLS 1.3 with certificates on both sides",
    ("backends/mpc/transport/identity.py", "ssl"): "a party looks at its own certificate, in memory, before it speaks",
}
SEEDERS = (
    "torch.manual_seed",
    "torch.default_generator.manual_seed",
    "torch.random.manual_seed",
    "torch.seed",
    "np.random.seed",
    "numpy.random.seed",
)
SEEDERS += ("random.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all")
GLOBAL_DRAWS = ("np.random.rand", "np.random.randn", "np.random.randint", "np.random.permutation", "np.random.shuffle")
GLOBAL_DRAWS += ("np.random.choice", "np.random.normal", "random.random", "random.shuffle", "random.choice")


def name(path):
    return path.relative_to(SOURCE).as_posix()


def calls(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_no_pickle_and_no_network():
    wrong = []
    for path in files():
        for line, module in imports(path):
            banned = any(module == n or module.startswith(n + ".") for n in FORBIDDEN | NETWORK)
            if banned and (name(path), module) not in ALLOWED_IMPORTS:
                wrong.append(f"{name(path)}:{line}: {module}")
    assert not wrong, "\n".join(wrong)


def test_every_exception_to_the_import_law_is_in_use():
    seen = {(name(path), module) for path in files() for _, module in imports(path)}
    assert ALLOWED_IMPORTS.keys() <= seen


def test_no_evaluation():
    wrong = [f"{name(p)}:{n.lineno}: {f}" for p in files() for n, f in calls(p) if f in CALLS]
    assert not wrong, "\n".join(wrong)


def test_torch_load_is_always_restricted():
    wrong = []
    for path in files():
        for node, function in calls(path):
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if function == "torch.load" and given.get("weights_only") != "True":
                wrong.append(f"{name(path)}:{node.lineno}: torch.load without weights_only=True")
            if function in ("np.load", "numpy.load") and given.get("allow_pickle") not in ("False", None):
                wrong.append(f"{name(path)}:{node.lineno}: numpy.load with pickle")
            if given.get("shell") == "True" or function in ("os.system", "os.popen"):
                wrong.append(f"{name(path)}:{node.lineno}: a shell")
    assert not wrong, "\n".join(wrong)


def forked(path):
    """Return the calls inside `with torch.random.fork_rng(...)`, which restores the generator's state."""
    inside = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items):
            inside |= {id(inner) for inner in ast.walk(node)}
    return inside


def test_no_global_seeding_and_no_global_draws():
    wrong = []
    for path in files():
        inside = forked(path)
        for node, function in calls(path):
            if function in GLOBAL_DRAWS or (function in SEEDERS and id(node) not in inside):
                wrong.append(f"{name(path)}:{node.lineno}: {function}")
    assert not wrong, "\n".join(wrong)


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS = {"list", "dict", "set", "defaultdict", "deque", "OrderedDict", "Counter", "bytearray", "collections.deque"}
READ_ONLY = ("Mapping", "Sequence", "Final", "dict[", "tuple", "frozenset", "Collection", "Set")


def mutated(path):
    """Return the module-level names that some code of the file changes in place or declares global."""
    changing = {"append", "add", "update", "setdefault", "pop", "clear", "extend", "remove", "insert", "popitem"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Global):
            yield from node.names
        method = node.func if isinstance(node, ast.Call) else None
        if isinstance(method, ast.Attribute) and method.attr in changing and isinstance(method.value, ast.Name):
            yield method.value.id
        targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
        targets = [node.target] if isinstance(node, ast.AugAssign) else targets
        for target in targets:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                yield target.value.id


def module_names(path):
    for node in parsed(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for target in targets:
            if isinstance(target, ast.Name) and node.value is not None:
                yield target.id, node.value


def local_names(path):
    """Return names that functions of the file bind themselves (these hide a module-level name)."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            arguments = node.args
            yield from (a.arg for a in [*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs])
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id


def test_no_module_level_state_changes():
    wrong = []
    for path in files():
        hidden, changed = set(local_names(path)), set(mutated(path))
        for identifier, value in module_names(path):
            made = isinstance(value, MUTABLE) or (isinstance(value, ast.Call) and ast.unparse(value.func) in MAKERS)
            if made and identifier in changed - hidden:
                wrong.append(f"{name(path)}: {identifier} is module-level and changed")
        wrong += [
            f"{name(path)}: global {n}"
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Global)
            for n in node.names
        ]
    assert not wrong, "\n".join(wrong)


def public(path):
    """Yield (owner, function) of every public function and method of a file."""
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield "", node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and (not inner.name.startswith("_") or inner.name == "__init__"):
                    yield node.name, inner


def test_everything_public_is_annotated():
    wrong = []
    for path in files():
        for owner, function in public(path):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            static = any("staticmethod" in ast.unparse(d) for d in function.decorator_list)
            arguments = arguments[1:] if owner and not static else arguments
            bare = [a.arg for a in arguments if a.annotation is None]
            if bare or function.returns is None:
                wrong.append(f"{name(path)}:{function.lineno}: {owner}.{function.name} {bare or 'has no return type'}")
    assert not wrong, "\n".join(wrong)


def test_classes_are_abstract_or_final():
    """A class that can be made is final; one that is meant to be extended is abstract, a protocol or an error."""
    open_bases = {"ABC", "Protocol", "Exception", "TypedDict", "NamedTuple"}
    parents = {}
    for path in files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                parents.setdefault(node.name, []).append((path, node))
    used = {ast.unparse(b).split("[")[0].split(".")[-1] for v in parents.values() for _, n in v for b in n.bases}
    wrong = []
    for class_name, places in parents.items():
        for path, node in places:
            is_final = any(ast.unparse(d).split(".")[-1] == "final" for d in node.decorator_list)
            bases = {ast.unparse(b).split("[")[0].split(".")[-1] for b in node.bases}
            is_error = path.name == "errors.py" or class_name.endswith("Error") or bases & {"Exception"}
            is_abstract = bool(bases & open_bases) or class_name in used or "Enum" in "".join(bases)
            if not (is_final or is_abstract or is_error or class_name.startswith("_")):
                wrong.append(f"{name(path)}:{node.lineno}: {class_name} is neither abstract nor final")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [p for p in files() if p.name == "__init__.py"], ids=dotted)
def test_exports_are_sorted_and_explicit(path):
    """`from x import A as A`, one line each, in the order of their modules and names; no `__all__` to fall behind."""
    assert "__all__" not in [n for n, _ in module_names(path)]
    lines = [n for n in parsed(path).body if isinstance(n, ast.ImportFrom) and n.module != "__future__"]
    implicit = [a.name for n in lines for a in n.names if a.asname != a.name]
    assert room(dotted(path)) == "front" or not implicit or not lines, implicit
    keys = [
        (n.module, a.name.startswith("_"), not a.name.isupper(), not a.name[0].isupper(), a.name.lower())
        for n in lines
        for a in n.names
    ]
    assert keys == sorted(keys), [k[-1] for k in keys]
