# The few commands a person types. Each creates what it needs; nothing has to be activated.
PYTHON ?= python3
VENV := .venv
EDGENN := $(VENV)/bin/edgenn
RUNTIME_VENV := .venv-tflite-runtime
MEDIAPIPE_VENV := .venv-mediapipe
LOWEST_VENV := .venv-lowest

.PHONY: help install demo test test-slow test-arm test-lowest docs bench check clean
help:
	@echo "make install    .venv with every extra; .venv/bin/edgenn is the command"
	@echo "make demo       the whole road on drawn garments: train, quantize, classify a video, report.html"
	@echo "make test       the tests (under 10 minutes on 2 cores)"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-arm   deployment to an emulated Raspberry Pi (root)"
	@echo "make test-lowest  the device's tests with the lowest versions of what it needs"
	@echo "make docs       the documentation as pages, in site/"
	@echo "make bench      every command of BENCHMARKS.md, side by side with what it says (hours)"
	@echo "make check      ruff, mypy, import contract"

install: $(VENV)/.installed

# Written last, so an interrupted install is taken up again by the next make.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "edgenn needs Python 3.11 to 3.13 and %s is %d.%d: make PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# tflite-runtime wants NumPy 1, LiteRT's environment has NumPy 2: the tests compare the two across environments.
# It has no wheel for Python 3.12 and later; the tests that need it say so and are skipped there.
$(RUNTIME_VENV)/.installed: pyproject.toml $(VENV)/.installed
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  $(PYTHON) -m venv $(RUNTIME_VENV) && \
	  $(RUNTIME_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'tflite-runtime==2.14.0' 'numpy<2' 'opencv-python-headless<4.12' 'click>=8.1' && \
	  touch $@; \
	else echo "tflite-runtime has no wheel for this Python: its tests are skipped"; fi

# MediaPipe brings another OpenCV; tflite-support, which reads our metadata as MediaPipe's own tools do, has no wheel above
# Python 3.11.
$(MEDIAPIPE_VENV)/.installed: pyproject.toml $(VENV)/.installed
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  $(PYTHON) -m venv $(MEDIAPIPE_VENV) && \
	  $(MEDIAPIPE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'mediapipe>=1.0' 'tflite-support>=0.4.4' && \
	  touch $@; \
	else echo "tflite-support has no wheel for this Python: MediaPipe's tests are skipped"; fi

demo: install
	$(EDGENN) demo --out demo --overwrite

test: install $(RUNTIME_VENV)/.installed $(MEDIAPIPE_VENV)/.installed
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

test-slow: install $(RUNTIME_VENV)/.installed $(MEDIAPIPE_VENV)/.installed
	$(VENV)/bin/python -m pytest -m slow

test-arm: install $(RUNTIME_VENV)/.installed
	$(VENV)/bin/python -m pytest -m arm tests/deployment

# Material announces the end of MkDocs 1 unless told not to. The pages load nothing from another host.
docs: install
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@! grep -rlE '<(script|link|img|iframe)[^>]+(src|href)="https?://' site --include=*.html

# Hours: every command of BENCHMARKS.md. PHOTOS, WEIGHTS, CORAL and RUNS are folders, ONLY names benchmarks.
bench: install $(RUNTIME_VENV)/.installed $(MEDIAPIPE_VENV)/.installed
	$(VENV)/bin/python -m tools.bench $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(CORAL),--coral "$(CORAL)") $(if $(RUNS),--runs "$(RUNS)") $(if $(ONLY),--only $(ONLY)) $(if $(UNDER),--under $(UNDER))

# The device's tests with the lowest versions that pyproject.toml allows (Python 3.11). A small model is made beforehand,
# since there is no TensorFlow in there.
$(LOWEST_VENV)/.installed: pyproject.toml $(VENV)/.installed
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(VENV)/bin/python tools/lowest_versions.py device > $(LOWEST_VENV)/lowest.txt
	$(LOWEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST_VENV)/lowest.txt -e '.[device]' pytest hypothesis pillow jinja2 'cryptography==38.0.4'
	rm -rf $(LOWEST_VENV)/tiny && mkdir $(LOWEST_VENV)/tiny
	$(VENV)/bin/python -c "from pathlib import Path; from tests.conftest import make_tiny; make_tiny(Path('$(LOWEST_VENV)/tiny'))"
	@touch $@

# The schema's vocabulary is that of the newest LiteRT.
test-lowest: $(LOWEST_VENV)/.installed
	EDGENN_TEST_TINY=$(CURDIR)/$(LOWEST_VENV)/tiny $(LOWEST_VENV)/bin/python -m pytest tests/device --deselect tests/device/test_flatbuffer.py::test_vocabulary_is_that_of_the_schema

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) $(RUNTIME_VENV) $(MEDIAPIPE_VENV) $(LOWEST_VENV) demo dist site
