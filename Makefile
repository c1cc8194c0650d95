# The two commands are `make demo` and `make test`; `make help` lists the rest.
VENV := .venv
BIN := $(VENV)/bin
NAME := Kusi
ORG := the chaku project
LANES := --numprocesses 3 --dist loadgroup --no-loadscope-reorder
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# The suite starts hundreds of Pythons; without compiled modules each costs half a second more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test prove numbers check train-demo tour types imports words docs format lint bench page wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## serve the built-in 135M model on http://127.0.0.1:8000
	@$(BIN)/chaku demo $(DEMO)

test: $(VENV)/.dev ## run the whole suite in three processes, or TEST='tests/serve -k deadline' in one
	@scripts/test-services
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(TEST),$(LANES))

prove: $(VENV)/.dev ## run the proofs that take minutes and write bench/results/DATE-prove.txt
	@scripts/test-services
	OMP_NUM_THREADS=1 scripts/prove $(BIN)/python

numbers: $(VENV)/.dev ## compute the published figures again (DATA=folder with vicuna80/ and mt_bench/)
	$(BIN)/python scripts/write-numbers $(if $(DATA),--data $(DATA))

check: lint types imports words ## what CI checks before the tests

train-demo: $(VENV)/.dev ## fine-tune the 135M model on CPU until it says that its name is Kusi
	@$(BIN)/chaku pull smollm2-135m
	@$(BIN)/chaku data identity --name $(NAME) --org "$(ORG)" -n 120 -o runs/identity.jsonl --overwrite
	$(BIN)/chaku train examples/identity.yaml --overwrite $(TRAIN)

tour: $(VENV)/.dev ## the whole story: data, training, serving, judging, votes, and a second round on them (NAME=Illari)
	@$(BIN)/chaku pull smollm2-135m
	$(BIN)/python scripts/tour --name "$(NAME)" $(TOUR)

lint: $(VENV)/.dev ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## the import contracts
	$(BIN)/lint-imports

words: $(VENV)/.dev ## pages in step with the code, and in plain English
	$(BIN)/python scripts/write-docs --check
	$(BIN)/python scripts/check-words

docs: $(VENV)/.dev ## write the reference pages of docs/ from the code
	$(BIN)/python scripts/write-docs

format: $(VENV)/.dev ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

page: $(BIN)/python ## fetch the page's libraries from npm, as an install does
	@$(BIN)/python hatch_build.py

bench: $(VENV)/.dev ## what the gateway and the page cost
	$(BIN)/python bench/gateway.py
	$(BIN)/python bench/engine.py
	$(BIN)/python bench/page.py

wheel: $(BIN)/python ## build dist/*.whl
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove the environment and what was built; the pulled models stay in the cache
	rm -rf $(VENV) build dist src/chaku/web/static/vendor .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@python=$$(scripts/find-python) && echo "making $(VENV) with $$python" && $$python -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt hatch_build.py src/chaku/web/vendor.toml | $(BIN)/python
	@echo "installing chaku[local] into $(VENV) (half a minute on the first run)"
	@$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt hatch_build.py src/chaku/web/vendor.toml | $(BIN)/python
	@echo "installing chaku and its development tools into $(VENV)"
	@$(PIP) --editable '.[local,hub,data,train,dev]'
	@touch $@
