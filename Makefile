# `make backtest` and `make test` need nothing but Python's pip or uv; everything else they bring along.
# With uv the same without make: `uv run ntrader run-backtest ...` and `uv run pytest`.

BOOTSTRAP := .uv-bootstrap/bin/uv
# `uv --version` rather than `command -v uv`: a pyenv shim exists even where no uv answers behind it.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo $(BOOTSTRAP))
NEEDED := $(filter $(BOOTSTRAP),$(UV))

BACKTEST := --strategy sma_crossover --config config/strategies/sma_crossover.yaml --symbol AAPL \
            --start-date 2008-01-01 --end-date 2012-12-31 --initial-capital 100000

.PHONY: backtest test format docs

backtest: $(NEEDED)
	@$(UV) run --locked --no-dev ntrader run-backtest $(BACKTEST)

test: $(NEEDED)
	$(UV) run --locked pytest -n 3 --dist loadfile --no-loadscope-reorder

format: $(NEEDED)
	$(UV) run --locked ruff check --fix
	$(UV) run --locked ruff format

docs: $(NEEDED)
	$(UV) run --locked python docs/generate.py

# The first Python that can make a virtual environment: the one of .python-version, or the system's.
$(BOOTSTRAP):
	@for python in python3 /usr/bin/python3; do \
	    $$python -m venv .uv-bootstrap >/dev/null 2>&1 && .uv-bootstrap/bin/pip install --quiet uv && exit 0; \
	    rm -rf .uv-bootstrap; \
	done; echo "No uv, and no Python that could install it: see https://docs.astral.sh/uv/" >&2; exit 1
