# Every target sets up what it needs, from nothing, and remembers it.
SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint bench clean

VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready
BUILT := install/.built
BENCH ?= history actor node_throughput reset_storm live_equals_training recorder
LIB := install/ros2_lstm_policy/lib/ros2_lstm_policy
SOURCES := $(shell find ros2_lstm_policy launch config checkpoints resource -type f \
             -not -path '*/__pycache__/*' 2>/dev/null) setup.py setup.cfg package.xml

# A ROS that the shell has sourced would mix with the pinned wheels.
unexport PYTHONPATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH ROS_DISTRO
export COLCON_LOG_LEVEL ?= error
export COLCON_HOME := $(CURDIR)/build/.colcon
export PYTHON PIP_ARGS INSTRUCTION

help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  demo options: TASK= INSTRUCTION= CHECKPOINT= ACTOR= EPISODES= SEED= REAL_TIME=1'
	@echo '  set-up options: PYTHON=python3.12 VENV=/path/to/venv PIP_ARGS="..." (docs/install.md)'

setup: $(READY)  ## Create .venv with every pinned dependency

$(READY): $(wildcard requirements/*)
	@requirements/install.sh $(VENV)
	@touch $@

build: $(BUILT)  ## Build and install the package with colcon

$(BUILT): $(READY) $(SOURCES)
	@$(RUN)/colcon build
	@touch $@

demo: $(BUILT)  ## Run the simulated robot and the policy; summary, video and picture in outputs/
	@. install/setup.bash && exec $(LIB)/demo \
	  $(if $(TASK),--task '$(TASK)') $(if $(INSTRUCTION),--instruction "$$INSTRUCTION") \
	  $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') $(if $(ACTOR),--actor '$(ACTOR)') \
	  $(if $(EPISODES),--episodes '$(EPISODES)') $(if $(SEED),--seed '$(SEED)') \
	  $(if $(filter-out 0 no false,$(REAL_TIME)),--real-time)

test: $(BUILT)  ## Build, run every test and linter with colcon, show the results
	@rm -f build/ros2_lstm_policy/pytest.xml
	@. install/setup.bash && status=0 && \
	  { $(RUN)/colcon test --event-handlers console_direct+ --return-code-on-test-failure \
	    || status=$$?; } && \
	  { $(RUN)/colcon test-result --verbose --test-result-base build/ros2_lstm_policy \
	    || status=1; } && exit $$status

lint: $(READY)  ## Run the linters alone
	@$(RUN)/python -m pytest -q -m linter

bench: $(BUILT)  ## Run the benchmarks that need no GPU, or BENCH='name ...' with ARGS='...'
	@. install/setup.bash && for name in $(BENCH); do \
	  echo "== benchmarks/$$name.py $(ARGS)" && $(RUN)/python benchmarks/$$name.py $(ARGS); done

clean:  ## Remove what was built and drawn; .venv stays
	rm -rf build install log outputs
