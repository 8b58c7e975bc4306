"""What the tests of split deployments give to the command line, and how they harm what it wrote."""

import shutil

STRATEGY = {"name": "Tiny one", "blocks": [{"stage": 1, "kind": "pw", "width": 8}], "preset": "anti"}
EPOCHS, STEPS = 6, 8
NONCE = "00112233445566778899aabbccddeeff"


def arguments(folder, *more):
    given = [f"{folder}/net.py:net", "--weights", folder / "net.safetensors", "--data", folder / "data.npz"]
    given += ["--strategy", folder / "strategy.json", "--preset", "anti", "--queries", 20, "--attackers", 1]
    given += ["--attack-steps", STEPS, "--epochs", EPOCHS, "--workdir", folder / "run", "--quiet"]
    return ["mirror", *given, *more]


def copied(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    return tmp_path / "run" / "bundle"


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
