# What a person types. `make setup` is what the others depend on; it does nothing when nothing changed.
.DEFAULT_GOAL := help
.PHONY: help setup demo posttrain evaluate pipeline test lint clean

help:
	@echo "make setup     .venv, system packages (root on Debian), the dev image, the tiny token store"
	@echo "make demo      the main path on real SLURM: train, be preempted, resume, compare, draw the dashboard"
	@echo "make posttrain SFT, DPO and GRPO in a row on real SLURM, each preempted once; three seeds, curves drawn"
	@echo "make evaluate  a model that finds numbers in a text, scored at three checkpoints on real SLURM, preempted once"
	@echo "make pipeline  from texts to scores in one submission, once undisturbed and once preempted at random"
	@echo "make test      all tests"
	@echo "make lint      ruff, mypy, shellcheck"
	@echo "make clean     stop the dev SLURM and Prometheus, remove .cache and runs"

setup:
	@slurm/setup

demo: setup
	@.venv/bin/python jobs/tiny/demo.py

posttrain: setup
	@.venv/bin/python jobs/tiny/posttrain.py

evaluate: setup
	@.venv/bin/python jobs/tiny/evaluate.py

pipeline: setup
	@.venv/bin/python jobs/tiny/pipeline.py

# Two that compute, and one that waits for SLURM. Where a machine stands still for seconds, who waits for something fails:
# what fails is run once more, and named (AGAIN) with what was wrong. By hand (`pytest FILE`) nothing is run twice. Where
# Python itself does not get to run any more the process ends after 900 s, and pytest-xdist goes on with another.
test: setup
	@.venv/bin/python -m pytest -n 3 --reruns 1 -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	MYPYPATH=monitoring .venv/bin/mypy --strict monitoring/draw.py monitoring/draw_steps.py monitoring/draw_posttrain.py monitoring/picture
	.venv/bin/mypy --strict -m monitoring.generate -p monitoring.source
	shellcheck -x slurm/setup slurm/install-packages slurm/dev/up slurm/dev/down slurm/dev/status slurm/hooks/prolog slurm/hooks/epilog slurm/hooks/health-check docker/build-dev-image docker/debian-base docker/lock
	.venv/bin/python -c "from xgen.cluster.host import host_library; print(host_library())" | shellcheck -s bash -

clean:
	-@[ ! -d /var/lib/xgen-dev-slurm ] || slurm/dev/down
	-@[ ! -d /var/lib/xgen-dev-slurm-second ] || slurm/dev/down --second
	-@[ ! -d .cache/monitor ] || .venv/bin/xgen monitor down
	rm -rf .cache runs
