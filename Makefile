# install, demo, test, check, bench: everything a person or a machine does with this repository.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where pip finds PyTorch; empty means pip's own configuration.
TORCH_INDEX ?=
PYTEST_FLAGS ?= -n 2
NAME ?=
ALL ?=
RUNS ?= 3

.PHONY: install demo test test-loaded check bench clean

install: $(STAMP)

$(STAMP): pyproject.toml scripts/install
	PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH_INDEX="$(TORCH_INDEX)" bash scripts/install
	touch $(STAMP)

demo: install
	$(BIN)/edgeward demo --workdir runs/demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" $(PYTEST_FLAGS)

test-loaded: install
	bash scripts/test-under-load $(RUNS)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(MAKE) test

# The peers that are not there yet are made first; without a network only the benchmarks that want them fail.
bench: install
	$(if $(NAME),,-$(BIN)/python -m benchmarks.peers --missing)
	$(BIN)/python -m benchmarks $(if $(NAME),$(NAME),$(if $(ALL),--slow,--all)) --save

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
