# The short names of what a person would type. `make PYTHON=python3.12 demo` picks the interpreter.
PYTHON ?= python3
BIN := .venv/bin
RUN := demo_run
INPUT ?=
# Those that compare with others, need no argument and are done in minutes. Who is not installed is
# left out with a word. docs/design.md lists the others.
BENCHMARKS := train_step loader checkpoint convert encode text_rules minhash wikitext html_text

.PHONY: demo test test-slow test-long test-beam test-oracle test-tpu test-gpu lint bench lock clean

# The whole job on real text, in minutes; `make demo INPUT=DIR` trains on your own documents.
# Started again, each command finds what is done and goes on.
demo: .venv/installed
	$(BIN)/llama-jax data build demo --out $(RUN)/data $(if $(INPUT),--input $(INPUT))
	$(BIN)/llama-jax train demo --run-dir $(RUN)/model
	$(BIN)/llama-jax eval $(RUN)/model
	$(BIN)/llama-jax generate $(RUN)/model --prompt "import" --prompt "class" --max-new-tokens 80 --temperature 0.7
	test -d $(RUN)/hf || $(BIN)/llama-jax convert to-hf $(RUN)/model $(RUN)/hf

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow and not long and not tpu" --numprocesses 2

# The long tests, and the comparisons with PyTorch and transformers.
test-slow: .venv/parity
	$(BIN)/python -m pytest -m "slow or parity"

# What CI leaves to people: many kills, a restart certificate, runs in buckets of S3 and GCS, and a
# planned recipe compiled for a TPU.
test-long: .venv/parity .venv-tpu/installed
	$(BIN)/python -m pytest -m "long and not tpu"
	.venv-tpu/bin/python -m pytest -m long tests/cli/test_doctor_tpu.py

# A build through Apache Beam, in an environment of its own.
test-beam: .venv-beam/installed
	.venv-beam/bin/python -m pytest -m slow -k beam tests/data_pipelines

# Rules beside datatrove's and spaCy's, in an environment of its own.
test-oracle: .venv-oracle/installed
	.venv-oracle/bin/python -m pytest tests/data_pipelines/test_rules_oracle.py

# Steps compiled for TPUs that are not here, in an environment of its own: libtpu takes 700 MB.
test-tpu: .venv-tpu/installed
	.venv-tpu/bin/python -m pytest -m "(tpu or slow) and not long" --numprocesses 2 tests/aot tests/cli/test_doctor_tpu.py tests/cli/test_doctor_tune.py

# Steps compiled for GPUs that are not here, in an environment of its own: 5.5 GB, so not in CI.
test-gpu: .venv-gpu/installed
	.venv-gpu/bin/python -m pytest tests/cli/test_doctor_gpu.py

lint: .venv/installed
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/basedpyright

# Those that have peers in the other environment run there.
BESIDE_PEERS := text_rules minhash wikitext

bench: .venv/parity .venv-oracle/installed
	for name in $(filter-out $(BESIDE_PEERS),$(BENCHMARKS)); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	for name in $(BESIDE_PEERS); do echo "== $$name"; .venv-oracle/bin/python benchmarks/$$name.py || exit 1; done

# Versions alone, for every Python and platform: no hashes, no address of an index.
lock:
	uv pip compile pyproject.toml --extra data --extra quant --extra dev --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header --no-emit-index-url --upgrade -o requirements.lock
	uv pip compile pyproject.toml --extra beam --extra data --extra dev --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header --no-emit-index-url --upgrade -o requirements-beam.lock
	uv pip compile pyproject.toml --extra oracle --extra data --extra dev --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header --no-emit-index-url --constraint requirements.lock --upgrade -o requirements-oracle.lock
	uv pip compile pyproject.toml --extra tpu --extra data --extra dev --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header --no-emit-index-url --constraint requirements.lock --upgrade -o requirements-tpu.lock
	uv pip compile pyproject.toml --extra cuda --extra data --extra dev --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header --no-emit-index-url --constraint requirements.lock --upgrade -o requirements-cuda.lock

clean:
	rm -rf .venv .venv-beam .venv-oracle .venv-tpu .venv-gpu $(RUN)

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llama_jax needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv-beam/installed: requirements-beam.lock pyproject.toml
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/python -m pip install --quiet --requirement requirements-beam.lock
	.venv-beam/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv-oracle/installed: requirements-oracle.lock pyproject.toml
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install --quiet --requirement requirements-oracle.lock
	.venv-oracle/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv-tpu/installed: requirements-tpu.lock pyproject.toml
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install --quiet --requirement requirements-tpu.lock
	.venv-tpu/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv-gpu/installed: requirements-cuda.lock pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --requirement requirements-cuda.lock
	.venv-gpu/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv/parity: requirements-parity.lock .venv/installed
	$(BIN)/python -m pip install --quiet --requirement requirements-parity.lock
	touch $@
