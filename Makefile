# Every target makes the virtual environment by itself; `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DISTS := pyproject.toml plugins/image/pyproject.toml plugins/text/pyproject.toml plugins/audio/pyproject.toml plugins/mlflow/pyproject.toml flows/pyproject.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint bench docs install clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(BIN)/tl run . demo/image demo/audio

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -c 'import sentence_transformers, sklearn' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet -c constraints.txt sentence-transformers scikit-learn
	$(BIN)/python -m benchmarks.features; measured=$$?; $(BIN)/python -m benchmarks.features --report && exit $$measured

docs: $(STAMP)
	$(BIN)/python -m docs.reference

install: $(STAMP)

$(STAMP): $(DISTS) constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "tl needs Python 3.11 to 3.13, this is %d.%d; try: make PYTHON=python3.12" % sys.version_info[:2])'
	@test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	@echo "Installing into $(VENV) (some 6 GB with PyTorch, a few minutes) ..."
	@cache=$$("$(BIN)/python" -m pip cache dir 2>/dev/null); \
		{ mkdir -p "$$cache" && test -w "$$cache"; } 2>/dev/null || export PIP_NO_CACHE_DIR=1; \
		"$(BIN)/python" -m pip install --quiet -c constraints.txt -e '.[eval,report,hub,openvino,tune,adapters,search,dev]' -e plugins/image -e plugins/text -e plugins/audio -e plugins/mlflow -e flows \
		|| { echo "installing failed: see above; it needs a package index (PyPI, or PIP_INDEX_URL) this once, after it all works offline" >&2; exit 1; }
	@touch "$@"

clean:
	rm -rf "$(VENV)" .prefect tl-run $(foreach project,. demo/image demo/audio,$(project)/artifacts $(project)/.tl)
