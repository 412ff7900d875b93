# make demo      install what the demo needs into .venv and run it: three to six minutes on two cores
# make test      install what the tests need and run the default ones
# make test-all  the slow ones too, and say which lines no test reaches (which makes Python nearly half as fast)
# make check     lint, types, import contracts
# make notebook  the tutorial as tutorial.ipynb
# make site      the pages of docs/ as out/site
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all check notebook site clean

demo: .venv/.demo
	$(BIN)/fewshot demo

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not shapes and $(DEFAULT)"

	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "shapes and $(DEFAULT)" --jaxtyping-packages=$(SHAPES)

DEFAULT := not slow and not gpu and not network
# Where tensors are, the shapes in the signatures are checked at every call; torch.compile and the checker exclude each other.
SHAPES := fewshot.model,fewshot.kernels,fewshot.train.muon,fewshot.generate.sampling,fewshot.generate.scores,fewshot.generate.engine,fewshot.generate.next_logits,fewshot.evaluate.models.language_model,fewshot.evaluate.models.gpt,fewshot.evaluate.scoring.logprobs,beartype.beartype

test-all: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu and not network" --cov=fewshot --cov-report=term:skip-covered --cov-fail-under=85

check: .venv/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

notebook: .venv/.test
	$(BIN)/jupytext --to notebook --output tutorial.ipynb docs/tutorial.md

site: .venv/.test
	$(BIN)/zensical build --clean

.venv/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/.test: .venv/.demo
	$(PIP) -e '.[test]'
	touch $@

.venv/.check: .venv/.demo
	$(PIP) -e '.[check,test]'
	touch $@

clean:
	rm -rf .venv out
