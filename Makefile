# make demo: map refusal in a real model and in two tunings of it, one that refuses and one that does not, then the page;
# then what the directions of the others do in the one that refuses, and the page again. make test: everything that CI runs.
# make docs: the documents as a site.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test install docs
install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps sweeps==0.3.0 # W&B's search: asks for an old numpy, does not need it
	touch $@

demo: install
	$(RUN) launch.py experiment=demo
	$(RUN) -m rcm.report runs --out page
	$(RUN) launch.py experiment=transplant
	$(RUN) -m rcm.report runs --out page

# Files in the order of their names: in that of xdist, by the number of tests, the longest come last and one worker idles.
test: install
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

docs: install
	$(RUN) -m mkdocs serve
