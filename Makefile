# Every command a person runs. `make` alone lists them.

CARGO   ?= cargo
TRIPLE  := x86_64-unknown-linux-musl
IMAGES  := weft-operator weft-drive weft-engine weft-initiator weft-csi
OUT     := target/$(TRIPLE)/image
LAB     := target/debug/weft-lab
# Further arguments of `make bench`: BENCH='--rounds 3 --only null'
BENCH   ?=
# How many `make recoveries` does.
RECOVERIES ?= 100000
# How many seeds `make sim` runs.
SEEDS   ?= 2000
# Rows of the fault matrix that `make faults` runs; none for all.
ROWS    ?=
# Tests of the cluster tier that `make cluster` runs.
CLUSTER ?= --lib --bins --test t1_tour --test t2_raw_block --test t3_kills --test t4_bad_input --test t5_operator_dies --test t8_mirror --test t9_moves
export CARGO_TERM_COLOR ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo down test check unit local faults guest reconnects cluster long machine fuzz recoveries sim models soak full idle rebuild bench crds images tools packages deny lab toolchain binaries

help: ## list these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: packages lab binaries ## bring a real cluster up on this machine, install Weft, run the tour, leave it up
	$(LAB) tools
	$(CARGO) run --locked -p weft-e2e-cluster --bin weft-demo

down: ## take the cluster of `make demo` down; leaves nothing behind
	$(LAB) down

test: packages ## all that CI runs: check, recoveries, local, guest and cluster tiers, fuzzing
	sh e2e/stage.sh "check: format, lints, unit and plan tests" $(MAKE) check
	sh e2e/stage.sh "recoveries: the slice store from every prefix of recorded lives" $(MAKE) recoveries
	sh e2e/stage.sh "images: static executables of every pod" $(MAKE) lab binaries
	sh e2e/stage.sh "local tier: real processes on loopback" $(MAKE) local
	sh e2e/stage.sh "tools: Kubernetes and the guest's kernel (once, 20 minutes; cached outside the tree)" $(MAKE) tools
	sh e2e/stage.sh "guest tier: a real Linux kernel as NVMe/TCP host" $(MAKE) guest
	sh e2e/beside.sh 'sh e2e/stage.sh "fuzz: every decoder" $(MAKE) fuzz' \
	  sh e2e/stage.sh "cluster tier: a real cluster on this machine" $(MAKE) cluster

full: test ## make test, what takes long on a cluster, and the lab's own tests (it leaves nothing behind)
	sh e2e/stage.sh "cluster tier, the long ones: figures, growth, takeovers" $(MAKE) long
	sh e2e/stage.sh "guest tier: a hundred reconnects" $(MAKE) reconnects
	sh e2e/stage.sh "models: the membership in wider bounds" $(MAKE) models
	sh e2e/stage.sh "lab: brought up, killed, taken down" $(MAKE) machine

recoveries: ## 100,000 recoveries of the slice store after deaths and power cuts (minutes)
	WEFT_RECOVERIES=$(RECOVERIES) $(CARGO) test --locked -p weft-drive --lib -- \
	  --ignored --exact store::tests::crash::as_many_recoveries_as_are_asked_for_lose_nothing --nocapture

sim: ## 2,000 seeds of the simulation: engines, drives, host, operator, faults on everything (SEEDS=, a minute)
	WEFT_SIM_SEEDS=$(SEEDS) $(CARGO) test --locked -p weft-engine --test sim -- seeds_lose_nothing --nocapture

models: ## the membership's model in bounds that take minutes to search, and long ways through it at random
	$(CARGO) test --locked -p weft-engine --lib -- --ignored membership::model --nocapture

soak: ## a million recoveries, a hundred thousand seeds
	$(MAKE) recoveries RECOVERIES=1000000
	$(MAKE) sim SEEDS=100000

fuzz: ## fuzzes every decoder for 60 s (WEFT_FUZZ_SECONDS); needs a C++ compiler
	sh e2e/fuzz/run.sh

check: ## formatting, lints, unit tests: minutes, no root, no cluster
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked

unit: ## unit and plan tests alone
	$(CARGO) test --locked

local: binaries ## real processes on loopback, killed and stopped (root: FUSE and loop devices)
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) test --locked -p weft-e2e-local -- --test-threads=2
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) run --locked -p weft-e2e-local --bin faults

faults: binaries ## the fault matrix on real processes; prints and stores a table (ROWS='1 3')
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) run --locked -p weft-e2e-local --bin faults -- $(ROWS)

guest: binaries ## a real Linux kernel connects to a real engine (root: network namespace)
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) test --locked -p weft-guest -- --test-threads=1 --nocapture

cluster: lab binaries ## the tour, kills, bad input and figures on a real cluster; takes it down at the end
	status=0; WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) test --locked -p weft-e2e-cluster --no-fail-fast $(CLUSTER) -- \
	  --test-threads=1 --nocapture || status=$$?; $(LAB) down && exit $$status

long: ## the tests on a real cluster that take longest: figures, growth, takeovers, ten minutes without a control plane, adopt
	$(MAKE) cluster CLUSTER='--test t6_figures --test t7_expand --test t10_takeovers --test t11_without_control_plane --test t12_adopt'

reconnects: binaries ## a hundred cut connections of a Linux kernel under verified writes
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) test --locked -p weft-guest --test linux -- --ignored --test-threads=1 --nocapture

machine: ## the lab's own tests (root, and the machine for themselves)
	$(CARGO) test --locked -p weft-lab --features machine --test lab -- --nocapture

idle: binaries ## memory and wake-ups of idle processes, unattached and attached
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) run --locked -p weft-e2e-local --bin idle

rebuild: binaries ## how fast a member is brought up to date, beside a raw copy on the same file system (3 GiB of room)
	WEFT_BIN=$(CURDIR)/$(OUT) $(CARGO) run --locked -p weft-e2e-local --bin rebuild

bench: toolchain ## how fast the data path is, beside bare TCP, other targets and the raw file (two cores, 5 minutes)
	sh e2e/packages.sh fio nbdkit qemu-system-common
	$(CARGO) build --locked --profile image --target $(TRIPLE) -p weft-bench -p weft-drive -p weft-engine
	WEFT_BIN=$(CURDIR)/$(OUT) $(OUT)/weft-bench $(BENCH)

crds: ## print the CRDs into crds/yaml and the chart
	$(CARGO) run --locked -q -p weft-operator -- crds --into crds/yaml
	cp crds/yaml/*.yaml charts/weft/crd/

toolchain: ## the Rust target of the static executables, where it is missing
	@[ -d "$$(rustc --print target-libdir --target $(TRIPLE))" ] || rustup target add $(TRIPLE)

binaries: toolchain ## the static executables that the images carry
	$(CARGO) build --locked --profile image --target $(TRIPLE) $(addprefix -p ,$(IMAGES))

lab: ## the lab program
	$(CARGO) build --locked -p weft-lab

images: lab binaries ## build the images and load them into the lab that is up
	$(LAB) images

tools: lab ## build what is cached outside the tree: Kubernetes and the guest's kernel
	$(LAB) tools

packages: ## install the Debian packages that the tests need (asks first; YES=1 answers)
	sh e2e/packages.sh

deny: ## licences, advisories, bans (needs cargo-deny)
	cargo deny check
