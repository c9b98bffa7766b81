# On a fresh machine two commands are enough: `make export` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
LEGACY := .venv-legacy/bin
COMPARE := .venv-compare/bin
MEDIAPIPE := .venv-mediapipe/bin
IMPORT := .venv-import/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The CPU build of torch. Only for Linux on x86-64 is it not the default one; README, "Install", says more.
TORCH ?= torch==2.13.0$(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),+cpu)

.DEFAULT_GOAL := help
.PHONY: help setup export test test-legacy test-sweep test-wheel test-completion test-arm test-ssh test-adb test-mediapipe test-import test-phone test-report fuzz test-kill test-pick reproduce coverage phone-assets accuracy compare clean

help:
	@echo "make export                        set up, then export MobileNetV2 with int8 to ./mobilenet_v2_100_224"
	@echo "make test                          set up, then format check, lint, types and fast tests"
	@echo "make test-legacy                   our files in tflite-runtime 2.14 and onnxruntime 1.16 (Python 3.11)"
	@echo "make test-sweep                    6 widths x 4 resolutions of both architectures"
	@echo "make test-wheel                    an installed wheel finds its data"
	@echo "make test-completion               Tab in bash, zsh and fish (Debian as root installs them)"
	@echo "make test-arm                      bundles on emulated Raspberry Pis, in the real aarch64 wheels"
	@echo "make test-ssh                      mnx deploy to a real sshd (Debian as root installs one)"
	@echo "make test-adb                      mnx deploy adb to a real adbd for arm64 (Debian as root installs adb)"
	@echo "make test-mediapipe                our TFLite files and their metadata in MediaPipe's ImageClassifier"
	@echo "make test-import                   files of real Keras and TensorFlow give their logits here"
	@echo "make phone-assets                  bring the browser runtimes of mnx phone from npm"
	@echo "make test-phone                    mnx phone in a real Chromium (Debian as root installs one)"
	@echo "make test-report                   report.html in a real Chromium (Debian as root installs one)"
	@echo "make fuzz                          1,000 wrong files for every reader (FUZZ=N)"
	@echo "make test-kill                     kill -9 at random moments, two exports at once, full and read-only disks"
	@echo "make test-pick                     mnx pick: here, over a Dask cluster, killed, and on a device by ssh"
	@echo "make reproduce                     two clean checkouts export the same bytes"
	@echo "make coverage                      which lines the fast tests do not reach"
	@echo "make accuracy DATA=DIR LABELS=CSV  the drift figures of the README, on labelled ImageNet photos"
	@echo "make compare DATA=DIR LABELS=CSV   our int8 files beside those of ONNX Runtime, NNCF and AEQ, in one table"

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11"; echo "hint: make PYTHON=python3.11 …"; exit 3; }
	@$(PYTHON) -m venv .venv \
	  || { echo "error: $(PYTHON) cannot make virtual environments"; echo "hint: apt install python3-venv"; exit 3; }
	@$(BIN)/pip install --quiet "$(TORCH)" \
	  || { echo "error: pip finds no $(TORCH)"; \
	       echo "hint: set PIP_EXTRA_INDEX_URL to the CPU index that pytorch.org/get-started shows for pip;"; \
	       echo "hint: or take the CUDA build, several GB: make TORCH=torch==2.13.0 …"; exit 3; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

export: setup
	$(BIN)/mnx export --arch v2 --int8 --force

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile

.venv-legacy/ready: tests/legacy/requirements.txt
	$(PYTHON) -m venv .venv-legacy
	$(LEGACY)/pip install --quiet --requirement tests/legacy/requirements.txt
	@touch $@

# Fresh bundles of both architectures, loaded by runtimes of 2023.
test-legacy: setup .venv-legacy/ready
	rm -rf build/legacy
	$(BIN)/mnx export --arch v1 --fp16 --int8 --io float32,uint8,int8 --out build/legacy/v1
	$(BIN)/mnx export --arch v2 --fp16 --int8 --io float32,uint8,int8 --out build/legacy/v2
	PYTHONPATH=. LEGACY_BUNDLES=build/legacy/v1:build/legacy/v2 \
	  $(LEGACY)/python -m pytest -c tests/legacy/pytest.ini tests/legacy

test-sweep: setup
	$(BIN)/pytest -m slow tests/test_sweep.py

test-wheel: setup
	$(BIN)/pytest -m slow tests/test_wheel.py

test-completion: setup
	sh tests/setup_shells.sh
	$(BIN)/pytest tests/test_comfort.py -k complet

# As root on Debian these two install what they need; elsewhere they skip, and say what is missing.
test-arm: setup
	sh tests/setup_devices.sh
	$(BIN)/pytest -m slow tests/test_arm.py

test-ssh: setup
	sh tests/setup_devices.sh
	$(BIN)/pytest -m slow tests/test_deploy.py tests/test_pi.py

test-adb: setup
	sh tests/setup_devices.sh
	$(BIN)/pytest -m slow tests/test_adb.py

.venv-mediapipe/ready: tests/mediapipe/requirements.txt constraints.txt
	sh tests/mediapipe/setup.sh
	$(PYTHON) -m venv .venv-mediapipe
	$(MEDIAPIPE)/pip install --quiet --constraint constraints.txt --requirement tests/mediapipe/requirements.txt
	@touch $@

# With DATA on 20 photos of that folder, else on shipped images.
test-mediapipe: setup .venv-mediapipe/ready
	rm -rf build/mediapipe
	$(BIN)/mnx export --arch v1 --int8 --softmax --formats tflite --io float32,uint8,int8 --out build/mediapipe/v1
	$(BIN)/mnx export --arch v2 --int8 --softmax --formats tflite --io float32,uint8,int8 --out build/mediapipe/v2
	PYTHONPATH=. MEDIAPIPE_BUNDLES=build/mediapipe/v1:build/mediapipe/v2 DATA="$(DATA)" \
	  $(MEDIAPIPE)/python -m pytest -c tests/mediapipe/pytest.ini tests/mediapipe

.venv-import/ready: tests/importers/requirements.txt
	$(PYTHON) -m venv .venv-import
	$(IMPORT)/pip install --quiet --requirement tests/importers/requirements.txt
	@touch $@

# Real Keras and TensorFlow write the files in an environment of their own, with what they compute.
test-import: setup .venv-import/ready
	rm -rf build/import
	$(IMPORT)/python tests/importers/make_files.py build/import models/weights/mobilenet_v1_100_imagenet1k_google.safetensors
	IMPORT_FILES=build/import $(BIN)/pytest -m slow tests/test_importers.py

# The runtimes that `mnx phone` serves: exact versions, checked against the lock file's hashes, no scripts run.
PHONE := mobilenet_export/phone
phone-assets: build/npm/ready

build/npm/ready: $(PHONE)/package.json $(PHONE)/package-lock.json $(PHONE)/assets.py | setup
	@command -v npm >/dev/null || { echo "error: npm is not installed"; echo "hint: apt install npm"; exit 3; }
	mkdir -p build/npm
	cp $(PHONE)/package.json $(PHONE)/package-lock.json build/npm
	npm ci --prefix build/npm --ignore-scripts --no-audit --no-fund
	$(BIN)/python -m mobilenet_export.phone.assets build/npm/node_modules
	@touch $@

test-phone: setup phone-assets
	sh tests/setup_browser.sh
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/pytest -m slow tests/test_phone_browser.py

# Screenshots and prints are left in build/report/.
test-report: setup
	sh tests/setup_browser.sh
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/pytest -m slow tests/test_report_browser.py

fuzz: setup
	$(BIN)/pytest -m slow tests/fuzz

test-kill: setup
	$(BIN)/pytest -m slow tests/test_kill.py

test-pick: setup
	sh tests/setup_devices.sh
	$(BIN)/pytest -m slow tests/test_pick.py

reproduce: setup
	$(BIN)/python tests/reproduce.py

coverage: setup
	$(BIN)/pip install --quiet --constraint constraints.txt pytest-cov
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile \
	  --cov=mobilenet_export --cov-report=term:skip-covered

accuracy: setup
	DATA="$(DATA)" LABELS="$(LABELS)" $(BIN)/pytest -m slow tests/test_accuracy.py tests/test_hostile.py

.venv-compare/ready: tests/compare/requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-compare
	$(COMPARE)/pip install --quiet --constraint constraints.txt --requirement tests/compare/requirements.txt
	@touch $@

# Also without DATA, on the images that ship. COMPARE_OPTIONS are more of tests/compare/compare.py: --markdown, …
compare: setup .venv-compare/ready
	$(BIN)/python tests/compare/compare.py $(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels "$(LABELS)") \
	  $(COMPARE_OPTIONS)

clean:
	rm -rf .venv .venv-legacy .venv-compare .venv-mediapipe .venv-import build
