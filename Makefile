.POSIX:
# lima-c: `make run` shows a VM, `make test` tests it; see README.
VERSION = 2.2.0-c
PREFIX = /usr/local
CC = cc
MUSLCC = musl-gcc
CFLAGS = -O2

WARN = -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes
HARDEN = -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
ALL_CFLAGS = $(WARN) -DVERSION=\"$(VERSION)\" $(CPPFLAGS) $(CFLAGS)
SAN = -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

# One for each guest architecture that there is a compiler for, else an empty
# file.  Freestanding, so nothing but a compiler is needed.
AGENTS = lima-guestagent.x86_64 lima-guestagent.aarch64 lima-guestagent.riscv64
AGENT_CFLAGS = $(WARN) -Os -ffreestanding -nostdlib -static -fno-pie -fno-stack-protector -fno-unwind-tables \
	-fno-asynchronous-unwind-tables -Wl,--build-id=none,-z,noexecstack,-z,norelro,-z,noseparate-code -s

# make and sh both expand the stars
EMBED = guest/boot.sh guest/mkimage.sh guest/user-data.in templates/images templates/*.yaml templates/*/*.yaml \
	$(AGENTS)
SRC = lima.c yaml.c config.h embed.h
LINKS = lima nerdctl.lima docker.lima podman.lima apptainer.lima kubectl.lima

# what a program is missing for, and the Debian package that has it
RUNNEEDS = cc:gcc qemu-system-$$(uname -m):qemu-system-$$(uname -m | sed 's/x86_64/x86/;s/aarch64/arm/') \
	qemu-img:qemu-utils ssh:openssh-client curl:curl mmdebstrap:mmdebstrap newuidmap:uidmap \
	mke2fs:e2fsprogs gzip:gzip xz:xz-utils musl-gcc:musl-tools
TESTNEEDS = $(RUNNEEDS) isoinfo:genisoimage busybox:busybox shellcheck:shellcheck \
	mandoc:mandoc script:bsdutils bzip2:bzip2 zstd:zstd jq:jq pgrep:procps expect:expect socat:socat unshare:util-linux rsync:rsync qemu-system-aarch64:qemu-system-arm \
	arch-test:arch-test /usr/lib/binfmt.d/qemu-aarch64.conf:qemu-user-static swtpm:swtpm /usr/share/ovmf/OVMF.fd:ovmf aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu ss:iproute2

all: limactl $(LINKS)

config.h:
	cp config.def.h $@

# gzip members, and the scripts without their comments
embed.h: $(EMBED) Makefile
	@{ echo '/* made by make out of guest/ and templates/ */'; \
	n=0; for f in $(EMBED); do \
		[ -s "$$f" ] || continue; \
		echo "static const unsigned char embed$$n[] = {"; \
		case $$f in *.sh) sed '/^[[:blank:]]*#\([^!]\|$$\)/d' "$$f" ;; *) cat "$$f" ;; esac | gzip -9n | \
		od -An -v -tx1 | sed 's/ *\([0-9a-f][0-9a-f]\)/0x\1,/g'; \
		echo '};'; n=$$((n + 1)); \
	done; \
	echo 'static const struct embed { const char *name; const unsigned char *data; size_t len; } embeds[] = {'; \
	n=0; for f in $(EMBED); do \
		[ -s "$$f" ] || continue; \
		echo "	{ \"$${f#guest/}\", embed$$n, sizeof embed$$n },"; n=$$((n + 1)); \
	done; \
	echo '};'; } >$@.tmp && mv $@.tmp $@

limactl: $(SRC)
	$(CC) $(ALL_CFLAGS) $(HARDEN) -fPIE -pie -Wl,-z,relro,-z,now $(LDFLAGS) -o $@ lima.c

# one file that needs nothing beside it, and as small as it gets
SMALL = -Os -fstack-protector -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables \
	-Wl,--gc-sections,-z,noseparate-code
static: limactl-static
limactl-static: $(SRC)
	$(MUSLCC) $(ALL_CFLAGS) $(HARDEN) $(SMALL) -static -s $(LDFLAGS) -o $@ lima.c

lima-guestagent: $(AGENTS)
$(AGENTS): guestagent.c
	@f=$@; a=$${f#*.}; has() { command -v "$$1" >/dev/null 2>&1; }; \
	m=$$($(CC) -dumpmachine 2>/dev/null) || m=$$(uname -m)-; \
	if [ "$${m%%-*}" = $$a ]; then set -- $(CC); \
	elif [ "$$(uname -m)" = $$a ] && has cc; then set -- cc; \
	elif has $$a-linux-gnu-gcc; then set -- $$a-linux-gnu-gcc; \
	elif has clang && has ld.lld; then set -- clang --target=$$a-linux-gnu -fuse-ld=lld; \
	else echo "no compiler for $$a: no guest agent for such guests (gcc-$$a-linux-gnu has one)"; >$@; exit 0; fi; \
	"$$@" $(AGENT_CFLAGS) -o $@ guestagent.c

limactl-asan: $(SRC)
	$(CC) $(ALL_CFLAGS) $(SAN) -o $@ lima.c

$(LINKS):
	ln -sf limactl $@

# Install what is missing: apt-get on Debian and Ubuntu, elsewhere name it.
setup-run: ; @set -- $(RUNNEEDS); $(SETUP)
setup-bench: ; @set -- $(TESTNEEDS) socat:socat; $(SETUP)
setup-test: ; @set -- $(TESTNEEDS); $(SETUP)
SETUP = want=; for n; do command -v "$${n%%:*}" >/dev/null 2>&1 || \
		[ -x "/usr/sbin/$${n%%:*}" ] || [ -x "/sbin/$${n%%:*}" ] || \
		[ -f "$${n%%:*}" ] || \
		want="$$want $${n\#*:}"; done; \
	[ -e /usr/include/stdlib.h ] || want="$$want libc6-dev"; \
	[ -n "$$want" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
		echo "please install the programs of these Debian packages:$$want" >&2; exit 1; fi; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "installing:$$want"; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$want >/dev/null

# Boot the default instance and show something out of it.
run: setup-run
	@$(MAKE) all
	LIMA_SUDO=1 ./limactl start --yes
	./lima uname -a
	./lima cat /etc/os-release
	@echo
	@echo 'It runs. Next:'
	@echo '  ./lima                   a shell in it'
	@echo '  ./limactl list           what there is'
	@echo '  ./limactl stop           shut it down'
	@echo '  ./limactl delete default remove it'

test: setup-test
	@for f in $(AGENTS); do [ -s $$f ] || rm -f $$f; done   # there may be a compiler now
	@$(MAKE) all static lima-guestagent
	LIMA_SUDO=1 ./test.sh

# Medians, and ratios against a bare QEMU boot of the same image.
bench: setup-bench
	@$(MAKE) all static
	LIMA_SUDO=1 ./tests/bench.sh

check: limactl-asan
	LIMACTL=./limactl-asan ./test.sh unit

# Each parser for a bounded time, by clang's libFuzzer; SECONDS=600 make fuzz
# for longer.  What it finds stays as fuzz-*, to become a seed in tests/seeds.
SECONDS = 15
FUZZ = qcow2 size gotmpl safe quote locator header sftp agent expr
FUZZFLAGS = -handle_xfsz=0 -max_total_time=$(SECONDS) -max_len=4000 -timeout=5 -rss_limit_mb=1500 -verbosity=0 -print_final_stats=1
fuzz: fuzz-yaml fuzz-lima
	@d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && for t in yaml $(FUZZ); do \
		mkdir "$$d/$$t"; p=./fuzz-lima s=tests/seeds/$$t; [ $$t != yaml ] || p=./fuzz-yaml s=tests/yaml/seeds; \
		printf '%-8s ' $$t; FUZZ=$$t $$p $(FUZZFLAGS) -artifact_prefix=fuzz-$$t- "$$d/$$t" $$s >"$$d/log" 2>&1 || \
			{ tail -n 40 "$$d/log"; exit 1; }; \
		awk '/number_of_executed/ { n = $$2 } END { print n " runs" }' "$$d/log"; done
fuzz-yaml: tests/fuzz-yaml.c yaml.c
	clang -g -O1 -fsanitize=fuzzer,address,undefined -o $@ tests/fuzz-yaml.c
fuzz-lima: tests/fuzz.c $(SRC)
	clang -g -O1 -fsanitize=fuzzer,address,undefined -DVERSION=\"$(VERSION)\" -o $@ tests/fuzz.c

lint: config.h embed.h
	shellcheck -s sh guest/*.sh test.sh
	mandoc -T lint -W warning limactl.1
	cppcheck -q --std=c11 --enable=warning,portability --inline-suppr lima.c guestagent.c
	@awk -f tests/budget.awk lima.c

D = $(DESTDIR)$(PREFIX)
COMPLETIONS = bash:bash-completion/completions/limactl zsh:zsh/site-functions/_limactl \
	fish:fish/vendor_completions.d/limactl.fish

install: all
	mkdir -p $D/bin $D/share/man/man1
	cp limactl $D/bin/limactl
	for l in $(LINKS); do ln -sf limactl $D/bin/$$l; done
	cp limactl.1 $D/share/man/man1/limactl.1
	for c in $(COMPLETIONS); do f=$D/share/$${c#*:}; mkdir -p "$${f%/*}" && \
		LIMA_HOME=/nonexistent ./limactl completion $${c%%:*} >"$$f" || exit 1; done

uninstall:
	cd $D/bin && rm -f limactl $(LINKS)
	rm -f $D/share/man/man1/limactl.1
	for c in $(COMPLETIONS); do rm -f $D/share/$${c#*:}; done

dist:
	git archive --prefix=lima-c-$(VERSION)/ HEAD | gzip >lima-c-$(VERSION).tar.gz

clean:
	rm -f fuzz-yaml fuzz-lima limactl limactl-static limactl-asan $(AGENTS) embed.h $(LINKS)

.PHONY: all static lima-guestagent setup-run setup-test run test bench check fuzz lint install uninstall dist clean
