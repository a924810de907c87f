# The words that CI and people share. Everything happens in .venv; nothing is installed elsewhere.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

TEST_MODELS := minilm-int8 minilm-fp32 wordllama-256 smollm2-135m qwen2.5-coder-0.5b
DEMO_MODELS := minilm-int8 qwen2.5-coder-0.5b qwen2.5-coder-1.5b

.PHONY: setup models check test test-quick demo train serve baselines bench bench-gateway bench-certificates clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	    --constraint constraints.txt --editable '.[train,embedded,postgres,otel,dev]'
	touch $(READY)

check: setup  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

models: setup
	$(BIN)/cascade models pull $(TEST_MODELS)

test: models  ## the whole suite on the real embedded engine
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

test-quick: setup  ## without engines and statistics
	$(BIN)/python -m pytest -m "not slow" -x -q

demo: setup  ## distil, certify, promote and serve a proxy on real reviews
	$(BIN)/cascade models pull $(DEMO_MODELS)
	$(BIN)/python data/fetch.py reviews
	$(BIN)/cascade demo

train: setup  ## make train RECIPE=training/recipes/spam.yaml
	$(BIN)/cascade train $(RECIPE) --promote

serve: setup
	$(BIN)/cascade serve --config serving/gateway.yaml

baselines: setup  ## BARGAIN, LOTUS, SUPG and TRACER, for training/experiments
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
	    --requirement training/experiments/baselines.txt

bench: setup  ## embedding, fitting and an easy mix; needs a bbc-topic champion
	$(BIN)/python serving/bench/embedding.py
	OMP_NUM_THREADS=1 $(BIN)/python training/experiments/fitting.py
	$(BIN)/python training/experiments/mix.py training/recipes/bbc-topic.yaml

bench-gateway: setup  ## what the gateway adds to a request; faults; three times its capacity
	$(BIN)/python serving/bench/overhead.py
	$(BIN)/python serving/bench/client.py
	$(BIN)/python serving/bench/faults.py
	$(BIN)/python serving/bench/overload.py

bench-certificates: setup  ## is a certificate ever false too often? under 2 hours
	OMP_NUM_THREADS=1 $(BIN)/python training/experiments/validity.py --seeds 1000

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
