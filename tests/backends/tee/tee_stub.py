"""A network of a few lines of C for testing secure worlds: xor with the weights, then arg-max or the logits."""

import numpy as np

from edgeward.codegen.emit import Program

_HEADER = """
#include <stdint.h>
#define EDGEWARD_NET_WEIGHTS_BYTES {weights}
#define EDGEWARD_NET_ARENA_BYTES {arena}
#define EDGEWARD_NET_INPUTS 2
#define EDGEWARD_NET_OUTPUTS 1
#define EDGEWARD_NET_INPUT_BYTES_0 {classes}
#define EDGEWARD_NET_INPUT_BYTES_1 3
#define EDGEWARD_NET_OUTPUT_BYTES_0 {output}
int edgeward_net_run(const uint8_t *weights, const int8_t *const *inputs, int8_t *const *outputs, uint8_t *arena);
"""

# logits[i] = a[i] + b[i % 3] ^ weights[i], through the arena so that its bounds are exercised.
_SOURCE = """
#include "net.h"
int edgeward_net_run(const uint8_t *weights, const int8_t *const *inputs, int8_t *const *outputs, uint8_t *arena) {{
    for (int i = 0; i < {classes}; i++) arena[i] = (uint8_t)((uint8_t)(inputs[0][i] + inputs[1][i % 3]) ^ weights[i]);
    arena[EDGEWARD_NET_ARENA_BYTES - 1] = 7;
    if (!{argmax}) {{
        for (int i = 0; i < {classes}; i++) outputs[0][i] = (int8_t)arena[i];
        return 0;
    }}
    int best = 0;
    for (int i = 1; i < {classes}; i++)
        if ((int8_t)arena[i] > (int8_t)arena[best]) best = i;
    for (int i = 0; i < 4; i++) outputs[0][i] = (int8_t)(best >> (8 * i));
    return 0;
}}
"""


def stub_program(*, classes=10, argmax=True, weights=4096, arena=1024):
    """A program of two inputs, `classes` and 3 bytes."""
    figures = {"weights": weights, "arena": arena, "classes": classes, "argmax": int(argmax)}
    figures["output"] = 4 if argmax else classes
    files = {"net.h": _HEADER.format(**figures), "net.c": _SOURCE.format(**figures)}
    return Program(files, arena, weights, (classes, 3), (4,) if argmax else (classes,))


def stub_logits(inputs, weights):
    """The stub's arithmetic in NumPy."""
    a, b = (np.asarray(x, np.int8).astype(np.int16) for x in inputs)
    index = np.arange(a.size)
    total = (a + b[index % 3]).astype(np.uint8)
    return (total ^ np.frombuffer(weights[: a.size], np.uint8)).view(np.int8)
