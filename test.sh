#!/bin/sh
# shellcheck disable=SC2016,SC2317  # backquotes in messages; sections are called by name
# test.sh - tests of lima-c, TAP on stdout: ./test.sh [SECTION...]
#
# Without an argument all sections run; `unit` is all that need no guest and
# take a minute, `guest` all that boot real ones. The sections stand below and,
# one a file, in tests/unit-NAME.sh and tests/guest-NAME.sh. LIMACTL names another binary than
# ./limactl. Each section has a fresh LIMA_HOME; most of what QEMU and ssh do
# is played by tests/fake.c, first in PATH. At the end nothing of a run may be
# left: no process, socket, instance or temporary file.
#
# A test is: run something, state what must hold, and `ok TEXT`, which prints
# the result and what did not hold.
set -eu
cd "$(dirname "$0")"

unit='cli yaml names image iso fakes list static tree' guest=vm
for f in tests/unit-*.sh tests/guest-*.sh; do
	n=${f##*/*-}
	case $f in
	*'*'*) ;;
	tests/unit-*) unit="$unit ${n%.sh}" ;;
	*) guest="$guest ${n%.sh}" ;;
	esac
done
case ${1-} in
-h | --help) echo "usage: ./test.sh [unit | guest | bench | SECTION...]; sections: $unit $guest"; exit 0 ;;
bench) shift; exec ./tests/bench.sh "$@" ;;
esac

# Start again with a known environment; what is kept says where things are.
if [ -z "${TEST_CLEAN-}" ]; then
	set -- sh ./test.sh "$@"
	for v in PATH TERM TMPDIR CC LIMACTL LIMA_ACCEL LIMA_SUDO ASAN_OPTIONS http_proxy https_proxy no_proxy; do
		eval "x=\${$v-}"
		[ -z "$x" ] || set -- "$v=$x" "$@"
	done
	exec env -i TEST_CLEAN=1 LC_ALL=C "XDG_CACHE_HOME=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}" "$@"
fi

LIMACTL=$(realpath "${LIMACTL:-./limactl}")
[ -x "$LIMACTL" ] || { echo "Bail out! no $LIMACTL; run make"; exit 1; }
realcache=$XDG_CACHE_HOME
realpath=$PATH
uid=$(id -u)
# Sockets have short paths, so a deep TMPDIR is no place for them.
case ${TMPDIR-} in /* ) [ ${#TMPDIR} -le 30 ] || TMPDIR=/tmp ;; *) TMPDIR=/tmp ;; esac
top=$TMPDIR
T=$(mktemp -d "$top/lt.XXXXXX")
chmod 755 "$T"
# for users who cannot reach ours
mkdir "$T/any"
cp "$LIMACTL" "$T/any/limactl"
anyone=$T/any/limactl
tab=$(printf '\t')
out=$T/out err=$T/err
failures=$T/why
n=0 passed=0 failed=0 skipped=0
homes=
mkdir "$T/tmp"
TMPDIR=$T/tmp
export TMPDIR

# --- the harness --------------------------------------------------------------

# alive: pids whose command line or environment names our directory. The greps
# get the name through stdin and a scrubbed environment, so as not to be found.
alive() {
	printf '%s\n' "$T" | env -i PATH="$realpath" sh -c '
		grep -lsF -f - /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null |
		sed -n "s,^/proc/\([0-9]*\)/.*,\1,p" | sort -u'
}

# asroot COMMAND...
asroot() { if [ "$uid" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# cleanup: end what we started. Only a run that fails or is stopped needs it.
cleanup() {
	trap - EXIT HUP INT TERM
	PATH=$realpath
	for h in $homes; do
		for d in "$h"/*/lima.yaml; do
			[ -e "$d" ] || continue
			d=${d%/lima.yaml}
			rm -f "$d/protected"
			LIMA_HOME=$h timeout 30 "$LIMACTL" delete -f "${d##*/}" >/dev/null 2>&1 </dev/null || :
		done
	done
	for p in $(alive); do
		kill -KILL "$p" 2>/dev/null || :
	done
	if [ -n "${mounted-}" ]; then asroot umount "$mounted" 2>/dev/null || :; fi
	chmod -R u+w "$T" 2>/dev/null || :
	rm -rf "$T"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 129' HUP
trap 'exit 143' TERM

comment() { sed 's/^/# /'; }

# result STATUS TEXT
result() {
	n=$((n + 1))
	if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	printf '%s %d - %s: %s\n' "$1" "$n" "$sect" "$2"
}

# bad TEXT: what was stated does not hold
bad() { printf '%s\n' "$1" >>"$failures"; }

# ok TEXT: the end of a test
ok() {
	if [ ! -s "$failures" ]; then
		result ok "$1"
	else
		result 'not ok' "$1"
		{
			cat "$failures"
			printf 'after: %s (status %s)\n' "$cmd" "$rc"
			[ ! -s "$out" ] || { echo 'stdout:'; head -c 2000 "$out" | tail -n 20; echo; }
			[ ! -s "$err" ] || { echo 'stderr:'; tail -n 20 "$err" | cut -c 1-500; }
			for f in serial.log ha.stderr.log; do
				[ ! -s "${dir-}/$f" ] || { echo "$f:"; tail -n 20 "$dir/$f" | cut -c 1-300; }
			done
		} | tr -d '\000\r' | comment
	fi
	: >"$failures"
}

# skip TEXT REASON
skip() {
	n=$((n + 1)) skipped=$((skipped + 1))
	printf 'ok %d - %s: %s # SKIP %s\n' "$n" "$sect" "$1" "$2"
	: >"$failures"
}

have() { command -v "$1" >/dev/null 2>&1; }

# run COMMAND...: its status in $rc, its words in $out and $err, stdin empty,
# or what feed wrote. limit: seconds for the next one.
limit=120 input=/dev/null
run() {
	cmd=$*
	rc=0
	timeout "$limit" "$@" >"$out" 2>"$err" <"$input" || rc=$?
	limit=120 input=/dev/null
}
lc() {
	# containerd's archive is not fetched for tests: whom they ask for it answers no
	case ${1-} in
	create) run env "https_proxy=${https_proxy-http://127.0.0.1:1}" "$LIMACTL" "$@" ;;
	*) run "$LIMACTL" "$@" ;;
	esac
}
feed() {
	printf '%s' "$1" >"$T/in"
	input=$T/in
}

# await SECONDS COMMAND...: until the command succeeds, in three times of that:
# a machine may be busy
await() {
	awaited=$(($1 * 60))
	shift
	until "$@" >/dev/null 2>&1; do
		awaited=$((awaited - 1))
		[ "$awaited" -gt 0 ] || return 1
		sleep 0.05
	done
}

# background ARG...: limactl in the background, in a group of its own as on a
# terminal, its stdin from $T/in; collect SECONDS: wait for it, or kill it
background() {
	cmd="limactl $* &"
	[ -e "$T/in" ] || : >"$T/in"
	setsid "$LIMACTL" "$@" <"$T/in" >"$out" 2>"$err" &
	pid=$!
}
ended() { ! kill -0 "$pid" 2>/dev/null; }
collect() {
	await "$1" ended || { bad "still runs after $1 s"; send KILL "-$pid"; }
	rc=0
	wait "$pid" || rc=$?
}
# send SIGNAL PID...
send() {
	sig=$1
	shift
	kill -s "$sig" -- "$@" 2>/dev/null || bad "no process $* to send $sig"
}
filesize() { [ "$(stat -c %s "$1" 2>/dev/null)" = "$2" ]; }

# --- what can be stated -------------------------------------------------------

status() { [ "$rc" = "$1" ] || bad "status is $rc, not $1"; }
holds() { "$@" >/dev/null 2>&1 || bad "does not hold: $*"; }
fails() { if "$@" >"$T/fails" 2>&1; then bad "holds, but must not: $*: $(head -n 3 "$T/fails")"; fi; }
same() { [ "$1" = "$2" ] || bad "expected '$2', got '$1'"; }
noout() { [ ! -s "$out" ] || bad 'stdout is not empty'; }
noerr() { [ ! -s "$err" ] || bad 'stderr is not empty'; }
outis() { [ "$(cat "$out")" = "$1" ] || bad "stdout is not '$1'"; }
outhas() { grep -qF -- "$1" "$out" || bad "stdout lacks: $1"; }
outre() { grep -qE -- "$1" "$out" || bad "stdout has no line like: $1"; }
outlacks() { if grep -qF -- "$1" "$out"; then bad "stdout has: $1"; fi; }
errhas() { grep -qF -- "$1" "$err" || bad "stderr lacks: $1"; }
errlacks() { if grep -qF -- "$1" "$err"; then bad "stderr has: $1"; fi; }
filehas() { grep -qF -- "$2" "$1" || bad "${1##*/} lacks: $2"; }
filelacks() { if grep -qF -- "$2" "$1"; then bad "${1##*/} has: $2"; fi; }
mode() { same "$(stat -c %a "$1" 2>&1)" "$2"; }

# escaped TEXT: as it stands between the quotes of a log line
escaped() {
	printf '%s\n' "$1" | sed "s/[\\\\\"]/\\\\&/g;s/$tab/\\\\t/g" |
		awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }'
}
# quoted TEXT: as the value of a key in a log line
quoted() {
	case $1 in
	*[!A-Za-z0-9._/@^+-]*) printf '"%s"' "$(escaped "$1")" ;;
	*) printf %s "$1" ;;
	esac
}

# logged LEVEL TEXT: a line of stderr says exactly this
logged() {
	line="level=$1 msg=$(quoted "$2")"
	grep -qF -- "$line" "$err" || bad "stderr lacks: $line"
}

# shape: stderr is nothing but log lines
shape() {
	if grep -vqE '^time="[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(Z|[+-][0-9:]{5})" level=[a-z]+ msg=' "$err"; then
		bad 'stderr has a line that is no log line'
	fi
}

# fatal TEXT: failed with this as its last line and nothing on stdout
fatal() {
	status 1
	noout
	shape
	line="level=fatal msg=$(quoted "$1")"
	case $(tail -n 1 "$err") in
	*"\" $line") ;;
	*) bad "the last line is not: $line" ;;
	esac
}

# fatalhas TEXT: failed, with one fatal line that contains this
fatalhas() {
	status 1
	noout
	shape
	line=$(escaped "$1")
	case $(tail -n 1 "$err") in
	*level=fatal*"$line"*) ;;
	*) bad "the last line is not fatal with: $1" ;;
	esac
	same "$(grep -c level=fatal "$err")" 1
}

# begin SECTION: a home of its own
begin() {
	sect=$1
	HOME=$T/$1.home
	LIMA_HOME=$T/$1
	XDG_CACHE_HOME=$T/cache
	PATH=$realpath
	mkdir "$HOME" "$LIMA_HOME"
	homes="$homes $LIMA_HOME"
	cmd='' rc=0
	: >"$out"
	: >"$err"
	: >"$failures"
	unset LIMA_ACCEL http_proxy https_proxy
	export HOME LIMA_HOME XDG_CACHE_HOME PATH
}

# libraries PROGRAM: what it is linked to
libraries() { ldd "$1" 2>/dev/null | sed -n 's/.*[[:blank:]]\(\/[^ ]*\) (0x.*/\1/p'; }

# beginguest SECTION NAME: the same for an instance NAME of the image that the
# default template builds ($image), kept where all runs keep theirs
beginguest() {
	begin "$1"
	XDG_CACHE_HOME=$realcache
	export XDG_CACHE_HOME
	vm=$2
	dir=$LIMA_HOME/$vm
	image=$(sed -n 's/.*location: *"\{0,1\}\(mmdebstrap:[^" ]*\).*/\1/p' templates/default.yaml | head -n 1)
}

# nothing: no instance, half-made one or process of this section
nothing() {
	for f in "$LIMA_HOME"/* "$LIMA_HOME"/.[!.]*; do
		[ -e "$f" ] || continue
		case ${f##*/} in _*) ;; *) bad "left over: ${f##*/}" ;; esac
	done
	for p in $(alive); do
		bad "left over: process $p $(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | cut -c 1-200)"
	done
}

finish() {
	nothing
	sockets=$(find "$LIMA_HOME" -type s 2>/dev/null)
	[ -z "$sockets" ] || bad "left over: $sockets"
	ok 'nothing is left over'
	# the next section is not to suffer
	if [ -n "$(alive)" ]; then
		# shellcheck disable=SC2046  # one word each
		kill -KILL $(alive) 2>/dev/null || :
	fi
}

# build-fakes: tests/fake.c under its names
fakes=$T/fake
host=$(uname -m)
qemu=qemu-system-$host
buildfakes() {
	[ ! -d "$fakes" ] || return 0
	mkdir "$fakes" "$fakes/www"
	${CC:-cc} -O1 -w -o "$fakes/fake" tests/fake.c || { echo 'Bail out! tests/fake.c does not compile'; exit 1; }
	for f in qemu-system-x86_64 qemu-system-aarch64 ssh httpd; do
		cp "$fakes/fake" "$fakes/$f"
	done
}
# plan LINES: what the fake QEMU does
plan() {
	rm -f "$fakes"/go* "$fakes"/argv.* "$fakes"/starts.* "$fakes/sshfail"
	printf '%s\n' "$1" >"$fakes/plan"
}
goodboot='serial Linux version 6.1
serial lima-ssh-ready iid-1
serial lima-boot-done iid-1 0'

# fake image: any file serves
tiny='{images: [location: /etc/profile], disk: 1M, mounts: []}'
mk() {	# mk NAME [TEXT]: a stopped instance
	feed "${2:-$tiny}"
	lc create --name "$1" -
}

# nopath PROGRAM...: a PATH without these
nopath() {
	rm -rf "${T:?}/bin"
	mkdir "$T/bin"
	IFS=:
	for d in $realpath; do
		ln -s "$d"/* "$T/bin/" 2>/dev/null || :	# the first of a name wins
	done
	unset IFS
	for f; do
		rm -f "$T/bin/$f"
	done
	PATH=$T/bin
}

# --- cli ----------------------------------------------------------------------

commands() { "$LIMACTL" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'; }

test_cli() {
	begin cli

	for w in --version -v; do
		lc "$w"
		status 0
		noerr
		outis 'limactl version 2.2.0'
		ok "$w"
	done

	for w in '' --help -h help; do
		lc ${w:+"$w"}
		status 0
		noerr
		outre '^Commands:'
		ok "limactl $w prints the commands"
	done
	commands >"$T/commands"
	for c in create start stop shell list delete validate info; do
		holds grep -qx "$c" "$T/commands"
	done
	ok 'the commands of this version are listed'
	while read -r c; do
		lc "$c" --help
		status 0
		noerr
		outhas "limactl $c"
		outhas --log-level
		cp "$out" "$T/help"
		lc help "$c"
		holds cmp "$T/help" "$out"
		ok "$c --help and help $c"
		[ "$c" = help ] || holds grep -qE "^\\.It Cm .*$c" limactl.1
		ok "$c is in limactl.1"
	done <"$T/commands"

	# a command that reads nothing must say nothing on stdout when it fails
	lc bogus
	fatal 'unknown command "bogus" for "limactl"'
	ok 'unknown command'
	lc strat
	fatal "unknown command \"strat\" for \"limactl\"

Did you mean this?
${tab}start"
	ok 'unknown command like another'
	lc ssh
	fatal "unknown command \"ssh\" for \"limactl\"

Did you mean this?
${tab}shell"
	ok 'ssh means shell'
	lc --debug bogus
	fatal 'unknown command "bogus" for "limactl"'
	ok 'unknown command after a flag'
	lc --log-level error bogus
	fatal 'unknown command "bogus" for "limactl"'
	ok 'unknown command after a flag with a value'

	lc list --nope
	fatal 'unknown flag: --nope'
	ok 'unknown flag'
	lc list --nope=3
	fatal 'unknown flag: --nope'
	ok 'unknown flag with a value'
	lc -Z
	fatal "unknown shorthand flag: 'Z' in -Z"
	ok 'unknown short flag'
	lc list --force
	fatal 'unknown flag: --force'
	ok 'a flag of another command'
	lc list --format
	fatal 'flag needs an argument: --format'
	ok 'missing value'
	lc list -f
	fatal "flag needs an argument: 'f' in -f"
	ok 'missing value of a short flag'
	lc create --cpus x
	fatal 'invalid argument "x" for "--cpus" flag: strconv.ParseInt: parsing "x": invalid syntax'
	ok 'bad number'
	lc create --cpus ''
	fatal 'invalid argument "" for "--cpus" flag: strconv.ParseInt: parsing "": invalid syntax'
	ok 'empty number'
	lc list --json=maybe
	fatal 'invalid argument "maybe" for "--json" flag: strconv.ParseBool: parsing "maybe": invalid syntax'
	ok 'bad boolean'
	lc stop --force=2
	fatal 'invalid argument "2" for "-f, --force" flag: strconv.ParseBool: parsing "2": invalid syntax'
	ok 'bad boolean of a flag with a letter'
	lc start --timeout soon
	fatal 'invalid argument "soon" for "--timeout" flag: time: invalid duration "soon"'
	ok 'bad duration'
	lc create --memory=lots
	fatalhas 'invalid argument "lots" for "--memory" flag: '
	ok 'bad size'

	lc delete
	fatalhas '`limactl delete` requires at least 1 arg(s), only received 0.
See `limactl delete --help`.

Usage:  limactl delete '
	ok 'too few arguments: the message of four parts'
	lc validate
	fatalhas '`limactl validate` requires at least 1 arg(s), only received 0.
See `limactl validate --help`.

Usage:  limactl validate '
	ok 'validate without a file'
	lc create a b
	fatalhas '`limactl create` accepts at most 1 arg(s), received 2.
See `limactl create --help`.

Usage:  limactl create '
	ok 'too many arguments'
	lc info foo
	fatalhas '`limactl info` unknown command "foo" for "limactl info".
See `limactl info --help`.

Usage:  limactl info'
	ok 'an argument to a command without any'

	lc --tty --yes list
	fatal 'cannot use both --tty and --yes flags at the same time'
	ok '--tty with --yes'
	lc list --tty=false -y
	fatal 'cannot use both --tty and --yes flags at the same time'
	ok '--tty=false with -y after the command'
	lc --log-format xml list
	fatal 'unsupported log-format: `xml`'
	ok 'unsupported log format'
	lc --log-level loud list
	fatal 'not a valid logrus Level: "loud"'
	ok 'bad log level'

	lc list
	status 0
	noout
	logged warning 'No instance found. Run `limactl create` to create an instance.'
	same "$(wc -l <"$err")" 1
	shape
	ok 'the text of a log line'
	lc list --log-format json
	status 0
	noout
	holds grep -qE '^\{"level":"warning","msg":"No instance found\. Run `limactl create` to create an instance\.","time":"[^"]*"\}$' "$err"
	ok '--log-format json after the command'
	lc --log-level=ERROR list
	status 0
	noerr
	ok '--log-level in capitals drops a warning'
	lc --log-level '' list
	logged warning 'No instance found. Run `limactl create` to create an instance.'
	ok 'an empty log level is info'
	lc list plain
	logged warning 'No instance matching plain found.'
	cp "$err" "$T/err1"
	lc list "tab${tab}quote\"back\\slash"
	logged warning "No instance matching tab${tab}quote\"back\\slash found."
	ok 'tab, quote and backslash are escaped in a log line'
	lc list 'two
lines'
	logged warning 'No instance matching two
lines found.'
	shape
	ok 'a line break is escaped in a log line'
	esc=$(printf '\033')
	if have script; then
		run script -qec "'$LIMACTL' list" /dev/null
		outre "WARN.*\\[0000\\].* No instance found\\. Run .limactl create. to create an instance\\."
		outhas "${esc}[33m"
		outlacks 'level='
		ok 'a log line on a terminal'
	fi
	lc list "a${esc}[31mb"
	errlacks "$esc"
	ok 'an escape sequence does not reach the log'
	lc list 'käse'
	errhas 'No instance matching käse found.'
	ok 'UTF-8 stays as it is'
	lc --log-format 'a b'
	fatal 'unsupported log-format: `a b`'
	ok 'a value stands in backquotes'
	lc --log-format 'a`b'
	fatal 'unsupported log-format: "a`b"'
	ok 'a value with a backquote stands in double quotes'
	lc --log-format ''
	# Go prints `` for nothing
	fatal 'unsupported log-format: ``'
	ok 'an empty value'

	for c in --version list 'list --json' info 'create --name x -' 'shell nope true' 'stop nope'; do
		# shellcheck disable=SC2086
		run sh -c 'exec "$@" <&- >&- 2>&-' sh "$LIMACTL" $c
		[ "$rc" -le 1 ] || bad "status $rc"
		rm -rf "$LIMA_HOME/x"
		ok "$c with standard descriptors closed"
	done
	for c in --version --help 'list --help' info; do
		# shellcheck disable=SC2086,SC2016
		run sh -c 'exec "$@" >/dev/full' sh "$LIMACTL" $c
		status 1
		errhas 'no space left on device'
		ok "$c onto a full device fails"
	done

	ln -s "$LIMACTL" "$T/lima"
	for w in --help -h; do
		run "$T/lima" "$w"
		status 0
		noerr
		same "$(head -n 1 "$out")" 'Usage: lima [COMMAND...]'
		ok "lima $w"
	done
	for w in --version -v; do
		run "$T/lima" "$w"
		status 0
		noerr
		outis 'limactl version 2.2.0'
		ok "lima $w"
	done
	run "$T/lima" uname
	fatal 'instance `default` does not exist, run `limactl create default` to create a new instance'
	ok 'lima without an instance'
	run env LIMA_INSTANCE=other "$T/lima" uname
	fatal 'instance `other` does not exist, run `limactl create other` to create a new instance'
	ok 'LIMA_INSTANCE'
	run "$T/lima" --nonexistent-flag
	fatal 'unknown flag: --nonexistent-flag'
	ok 'lima with an unknown flag'

	lc shell
	fatal 'requires instance name as first argument'
	ok 'shell without a name'
	lc shell --tty=false nonexistent
	fatal 'instance `nonexistent` does not exist, run `limactl create nonexistent` to create a new instance'
	sed 's/^time="[^"]*"//' "$err" >"$T/err1"
	lc shell --tty=false --instance nonexistent
	sed 's/^time="[^"]*"//' "$err" >"$T/err2"
	holds cmp "$T/err1" "$T/err2"
	ok 'shell NAME and shell --instance NAME say the same of a missing instance'
	lc shell --instance nonexistent --nonexistent-flag
	fatal 'unknown flag: --nonexistent-flag'
	ok 'shell --instance with an unknown flag'
	lc shell --instance nonexistent -- --x
	fatalhas 'does not exist'
	ok 'shell --instance NAME -- --x is no flag'
	lc shell nonexistent --x
	fatalhas 'does not exist'
	ok 'a flag after the name belongs to the command'
	lc shell nonexistent start
	logged warning 'Perhaps you meant `limactl start`?'
	ok 'shell NAME start asks back'
	lc shell ../x true
	fatalhas 'does not exist'
	ok 'shell with a path for a name'
	lc stop nope
	fatal "open $LIMA_HOME/nope/lima.yaml: no such file or directory"
	ok 'stop of a missing instance'
	lc start ./no.yaml
	fatal "open $(pwd -P)/no.yaml: no such file or directory"
	lc edit --cpus=2 ./no.yaml
	fatal "open $(pwd -P)/no.yaml: no such file or directory"
	ok 'start and edit of a missing file name its whole path'
	run env -u HOME -u LIMA_HOME "$LIMACTL" list
	fatalhas 'neither $HOME nor $LIMA_HOME is set'
	run env -u HOME "$LIMACTL" list -q
	status 0
	run env -i "$LIMACTL" yq -n true
	outis true
	run env -i "$LIMACTL" --version
	status 0
	ok 'without $HOME and $LIMA_HOME only what needs none of them works'
	lc start template:nope
	fatalhas 'template `nope.yaml` not found'
	ok 'start of a missing template'
	lc create --list-templates
	status 0
	noerr
	outre '^default$'
	ok '--list-templates'
	lc create --list-drivers
	status 0
	noerr
	outis qemu
	ok '--list-drivers'

	lc info
	status 0
	noerr
	outre '"version": "2\.2\.0"'
	outhas "\"limaHome\": \"$LIMA_HOME\""
	outre '"name": "(kvm|tcg)"'
	if have jq; then holds jq -e 'any(.templates[]; .name == "default") and .hostOS == "linux" and (.accelerator.reason | length > 0)' "$out"; fi
	ok 'info is JSON and names the accelerator with its reason'
	run env LIMA_ACCEL=tcg "$LIMACTL" info
	outre '"name": "tcg"'
	ok 'info with LIMA_ACCEL'

	finish
}

# --- yaml ---------------------------------------------------------------------

# yamltap FILE: results of another TAP program, counted as ours
yamltap() {
	while IFS= read -r line; do
		case $line in
		'ok '*) result ok "${line#* - }" ;;
		'not ok '*) result 'not ok' "${line#* - }" ;;
		'#'*) printf '%s\n' "$line" ;;
		esac
	done <"$1"
}

# refuse TEXT MESSAGE WHAT: validate says so, with its position
refuse() {
	printf '%s\n' "$1" >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	fatalhas "failed to validate YAML file \`$HOME/t.yaml\`: "
	fatalhas "$2"
	ok "$3"
}

test_yaml() {
	begin yaml

	if [ -f tests/yaml-test.c ]; then
		san=-fsanitize=address,undefined
		echo 'int main(void){return 0;}' >"$T/x.c"
		${CC:-cc} ${san:+"$san"} -o "$T/x" "$T/x.c" 2>/dev/null && "$T/x" || san=
		if ${CC:-cc} -g -O1 -w ${san:+"$san"} -o "$T/yaml-test" tests/yaml-test.c 2>"$err"; then
			limit=120
			run "$T/yaml-test"
			yamltap "$out"
			status 0
			ok "tests/yaml-test.c${san:+ with sanitizers} ends well"
		else
			bad 'does not compile'
			ok tests/yaml-test.c
		fi
	else
		skip 'the cases of the parser' 'no tests/yaml-test.c'
	fi

	at='failed to unmarshal YAML (main file `'$HOME/t.yaml'`): '
	refuse 'images: [
' "${at}[" 'a flow list without an end'
	refuse 'images:
- location: x
	arch: y' "${at}[3:" 'a tab for indentation, with its line'
	refuse 'a: 1
a: 2' "${at}[2:1]" 'a key twice, with its position'
	refuse 'cpus: [1]' "${at}[1:7]" 'a list for a number, with its position'
	refuse 'images: [{location: x}]
cpus: many' "${at}[2:7]" 'a word for a number'
	refuse 'images: [{location: x}]
cpus: 99999999999999999999' "${at}[2:7]" 'a number too large'
	refuse 'images: [{location: x}]
cpus: -1' 'cpus' 'a negative number of CPUs'
	refuse 'images: [{location: x}]
plain: 3' "${at}[2:8]" 'a number for a boolean'
	refuse 'images: {location: x}' "${at}[1:9]" 'a mapping for a list'
	refuse 'images: [x]' "${at}[1:10]" 'a string for a mapping in a list'
	refuse 'images: [{location: x}]
ssh: 3' "${at}[2:6]" 'a number for a mapping'
	refuse 'just words' "${at}[1:1] string was used where mapping is expected" 'a string for a document'
	refuse '- 1' "${at}[1:1] sequence was used where mapping is expected" 'a list for a document'
	refuse '{}' 'field `images` must be set' 'no images'
	refuse 'images: []' 'field `images` must be set' 'an empty list of images'
	refuse 'images: [{arch: x86_64}]' 'images[0].location' 'an image without location'
	refuse 'images: [{location: x, arch: mips}]' 'got `mips`' 'an image of an unknown architecture'
	refuse 'images: [{location: x}]
arch: mips' 'field `arch` must be one of [x86_64 aarch64 armv7l ppc64le riscv64 s390x]; got `mips`' 'an unknown architecture'
	refuse 'images: [{location: x}]
os: Plan9' 'field `os` must be one of [`Linux` `Darwin` `FreeBSD` `Windows`]; got `Plan9`' 'an unknown system'
	refuse 'images: [{location: x}]
memory: 4QiB' 'memory' 'a bad size of the memory'
	refuse 'images: [{location: x}]
disk: -1' 'disk' 'a bad size of the disk'
	refuse 'images: [{location: x}]
user: {uid: 0}' 'uid' 'uid 0'
	refuse 'images: [{location: x}]
user: {uid: 4294967296}' 'uid' 'a uid too large'
	refuse 'images: [{location: x}]
user: {name: root}' '`root`' 'user root'
	refuse 'images: [{location: x}]
user: {name: "a:b"}' 'user.name' 'a user name that would break passwd'
	refuse 'images: [{location: x}]
user: {home: relative}' 'home' 'a home that is no absolute path'
	refuse 'images: [{location: x}]
user: {shell: bash}' 'field `user.shell` must be an absolute path, got `bash`' 'a shell that is no absolute path'
	refuse 'images: [{location: x}]
ssh: {localPort: 22}' 'field `ssh.localPort` must not be 22' 'ssh port 22'
	refuse 'images: [{location: x}]
ssh: {localPort: 65536}' 'field `ssh.localPort` must be < 65536' 'an ssh port too large'
	refuse 'images: [{location: x}]
minimumLimaVersion: 99.0.0' 'template requires Lima version `99.0.0`; this is only `2.2.0' 'a template for a later version'
	refuse 'images: [{location: x}]
minimumLimaVersion: new' 'field `minimumLimaVersion` must be a semvar value, got `new`: new is not in dotted-tri format' 'a version that is none'
	refuse 'images: [{location: x}]
vmType: krunkit' 'vmType `krunkit` is not a registered driver' 'another driver'

	: >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	fatalhas "$HOME/t.yaml"
	ok 'an empty file'
	lc validate "$HOME/none.yaml"
	fatalhas 'no such file or directory'
	ok 'a file that is not there'
	lc validate "$HOME"
	status 1
	fatalhas "$HOME"
	ok 'a directory for a file'
	feed "$tiny"
	lc validate -
	fatalhas "can't determine instance name from template locator \`-\`"
	ok 'validate of stdin'

	printf '%s\n' 'images: [{location: x}]' 'cpu: 2' 'mem: 3' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	status 0
	noout
	logged warning 'Non-strict YAML detected; please check for typos'
	same "$(grep -c Non-strict "$err")" 1
	holds grep -qF '[2:1] unknown field' "$err"
	logged info "\`$HOME/t.yaml\`: OK"
	ok 'unknown keys are warned of once, with a position'
	printf '%s\n' 'images: [{location: x}]' 'ssh: {overVsock: true}' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	status 0
	logged warning '.ssh.overVsock is not implemented yet for QEMU driver'
	sed -i 's/true/false/' "$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	errlacks overVsock
	run env LIMA_SSH_OVER_VSOCK=true "$LIMACTL" validate --fill "$HOME/t.yaml"
	outhas 'overVsock: true'
	logged warning '$LIMA_SSH_OVER_VSOCK is deprecated; set `ssh.overVsock` in the configuration'
	ok 'ssh.overVsock is taken and said to do nothing'
	printf '%s\r\n' 'images:' '- location: x' 'cpus: 3' >"$HOME/t.yaml"
	lc validate --fill "$HOME/t.yaml"
	status 0
	outre '^cpus: 3$'
	ok 'line ends of DOS'
	printf '\357\273\277images: [location: x]\n' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	status 0
	ok 'a byte order mark and a bare pair in a list'
	printf '{"images": [{"location": "x"}], "cpus": 5}' >"$HOME/t.yaml"
	lc validate --fill "$HOME/t.yaml"
	status 0
	outre '^cpus: 5$'
	ok 'JSON is YAML'
	lc validate "$HOME/t.yaml" --fill
	noerr2=$(grep -c 'level=info' "$err")
	same "$noerr2" 1
	cp "$out" "$HOME/filled.yaml"
	lc validate --fill "$HOME/filled.yaml"
	status 0
	holds cmp "$HOME/filled.yaml" "$out"
	ok 'the filled configuration fills to itself'
	if have python3 && python3 -c 'import yaml' 2>/dev/null; then
		holds python3 -c 'import sys, yaml; assert yaml.safe_load(open(sys.argv[1]))["cpus"] == 5' "$HOME/filled.yaml"
		ok 'another parser reads the filled configuration'
	fi
	for f in templates/*.yaml; do
		lc validate "$f"
		status 0
		noout
		errlacks warning
		ok "$f is valid and without a warning"
	done

	# override > instance > default
	mkdir "$LIMA_HOME/_config"
	printf 'cpus: 7\nmemory: 7GiB\ndisk: 7GiB\nimages: [{location: /default}]\n' >"$LIMA_HOME/_config/default.yaml"
	printf 'cpus: 9\nimages: [{location: /override}]\n' >"$LIMA_HOME/_config/override.yaml"
	printf 'cpus: 8\nmemory: 8GiB\nimages: [{location: /instance}]\n' >"$HOME/t.yaml"
	lc validate --fill "$HOME/t.yaml"
	status 0
	outre '^cpus: 9$'
	outre '^memory: "?8GiB"?$'
	outre '^disk: "?7GiB"?$'
	ok 'override wins over the instance, the instance over default'
	same "$(sed -n '/^cpus/q;s/.*location: *"\{0,1\}\(\/[a-z]*\).*/\1/p' "$out" | tr '\n' ' ')" '/override /instance /default '
	ok 'images of all three files follow each other'
	printf 'cpus: [\n' >"$LIMA_HOME/_config/override.yaml"
	lc validate "$HOME/t.yaml"
	fatalhas "override file \`$LIMA_HOME/_config/override.yaml\`): ["
	ok 'an error in override.yaml names that file'
	rm -r "$LIMA_HOME/_config"

	# the text of lima.yaml
	text='# my machine
images:   # two
    - location: "/etc/profile"   # any file
      arch:     "'$(uname -m)'"
disk: 1M

# end'
	mk same "$text"
	status 0
	noout
	printf '%s' "$text" >"$T/text"
	holds cmp "$T/text" "$LIMA_HOME/same/lima.yaml"
	ok 'create without flags stores the text byte for byte'
	feed "$text"
	lc create --name flag --cpus 3 --memory 2.5 -
	status 0
	printf '%s\n' "$text" | diff - "$LIMA_HOME/flag/lima.yaml" | grep '^<' >"$T/lost" || :
	same "$(cat "$T/lost")" ''
	filehas "$LIMA_HOME/flag/lima.yaml" 'cpus: 3'
	filehas "$LIMA_HOME/flag/lima.yaml" '2.5GiB'
	ok 'create --cpus 3 --memory 2.5 keeps comments and layout'
	lc list --format '{{.CPUs}} {{.Memory}} {{.Disk}}' flag
	outis '3 2684354560 1048576'
	ok 'flags reach the configuration'
	for f in cpus=-1 arch=mips vm-type=vz ssh-port=99999 ssh-port=22; do
		feed "$tiny"
		lc create --name no "--$f" -
		status 1
		fails test -e "$LIMA_HOME/no"
		ok "create --$f is refused and leaves nothing"
	done
	lc delete same flag
	status 0
	ok 'delete of two'

	finish
}

# --- names --------------------------------------------------------------------

badname() {	# badname NAME REASON
	lc create --name "$1" template:default
	fatal "instance name \`$1\` is not a valid identifier: $2"
	fails test -e "$LIMA_HOME/$1/lima.yaml"
	ok "name '$(printf %s "$1" | cut -c 1-20 | tr '\n' ' ')'"
}

test_names() {
	begin names
	re='^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$'

	for w in -a .a a- a. a..b a--b a_-b 'a b' a/b ../a 'ä' '*'; do
		badname "$w" "identifier \`$w\` must match $re"
	done
	lc create --name 'a
b' template:default
	fatal "instance name \"a\\nb\" is not a valid identifier: identifier \"a\\nb\" must match $re"
	ok 'a name with a line break'
	long=$(printf '%077d' 0)
	badname "$long" "identifier \`$long\` greater than maximum length (76 characters)"
	for w in a.yml a.yaml a.YAML a.Yml; do
		lc create --name "$w" template:default
		fatal "instance name \`$w\` must not end with .yml or .yaml suffix"
		ok "name $w"
	done
	for w in a 0 A-b_c.d yaml x.yamlx; do
		mk "$w"
		status 0
		noout
		holds test -f "$LIMA_HOME/$w/disk"
		lc delete "$w"
		status 0
		ok "name $w serves"
	done
	for w in delete stop start; do
		lc "$w" ../x
		status 1
		ok "$w of a name with a path is refused"
	done

	mk host.na_me-x
	lc list --format '{{.Hostname}}' host.na_me-x
	outis lima-host-na-me-x
	ok 'the host name of an instance'
	mk host.na_me-x
	fatal 'instance `host.na_me-x` already exists'
	ok 'create of what exists, from stdin'
	lc create host.na_me-x
	fatal 'instance `host.na_me-x` already exists'
	ok 'create of what exists, by name'
	feed "$tiny"
	lc start --name host.na_me-x -
	fatal "instance \`host.na_me-x\` already exists (\`$LIMA_HOME/host.na_me-x\`)"
	ok 'start of what exists, from stdin'
	lc create --name other host.na_me-x
	fatal 'instance name `host.na_me-x` and CLI flag --name=`other` cannot be specified together'
	ok 'a name and another --name'
	lc delete host.na_me-x
	mkdir "$LIMA_HOME/empty"
	mk empty
	fatal "instance \`empty\` already exists (\`$LIMA_HOME/empty\`)"
	ok 'a directory without lima.yaml is not taken over'
	rmdir "$LIMA_HOME/empty"
	: >"$LIMA_HOME/file"
	mk file
	fatal "instance \`file\` already exists (\`$LIMA_HOME/file\`)"
	ok 'a file in the place of the directory'
	rm "$LIMA_HOME/file"

	feed "$tiny"
	lc create -
	fatal 'must pass instance name with --name when reading template from stdin'
	ok 'stdin without --name'
	feed "$tiny"
	lc create --tty=true --name x -
	fatal 'cannot use --tty=true when reading template from stdin'
	ok 'stdin with --tty=true'
	feed ''
	lc create --name x -
	status 1
	ok 'an empty stdin'
	printf '%s' "$tiny" >"$HOME/My-File.YAML"
	lc create "$HOME/My-File.YAML"
	status 0
	logged info 'Run `limactl start my-file` to start the instance.'
	holds test -d "$LIMA_HOME/my-file"
	mode "$LIMA_HOME/my-file" 700
	mode "$LIMA_HOME/my-file/lima.yaml" 644
	mode "$LIMA_HOME/my-file/lima-version" 444
	mode "$LIMA_HOME/my-file/cloud-config.yaml" 444
	filehas "$LIMA_HOME/my-file/cloud-config.yaml" "$(cut -d' ' -f2 "$LIMA_HOME/_config/user.pub")"
	filelacks "$LIMA_HOME/my-file/cloud-config.yaml" ssh_keys
	mode "$LIMA_HOME/_config/user" 600
	holds grep -qE '^v?2\.2\.0' "$LIMA_HOME/my-file/lima-version"
	lc delete my-file
	ok 'the name of a file, in small letters; modes of what is made'
	printf '%s' "$tiny" >"$HOME/-x.yaml"
	lc create "$HOME/-x.yaml"
	fatal "filename \`-x\` is invalid: identifier \`-x\` must match $re"
	ok 'the name of a file that is none'
	printf '%s' "$tiny" >"$HOME/u.yaml"
	lc create "file://$HOME/u.yaml"
	status 0
	lc delete u
	status 0
	ok 'a file:// template'
	run sh -c 'cd "$HOME" && exec "$0" create ./u.yaml' "$LIMACTL"
	status 0
	lc delete u
	ok 'a relative template'

	# LIMA_HOME itself
	deep=$T/names/x
	while [ ${#deep} -lt 65 ]; do deep=${deep}x; done
	mkdir "$deep"
	max=$((107 - ${#deep} - 27))
	w=$(printf "%0${max}d" 0)
	feed "$tiny"
	run env LIMA_HOME="$deep" "$LIMACTL" create --name "$w" -
	status 0
	ok 'the longest name that fits a socket path'
	feed "$tiny"
	run env LIMA_HOME="$deep" "$LIMACTL" create --name "${w}1" -
	fatalhas "instance name \`${w}1\` too long: \`$deep/${w}1/ssh.sock.1234567890123456\` must be less than UNIX_PATH_MAX=108 characters, but is 108"
	fails test -e "$deep/${w}1"
	ok 'one more letter is refused'
	rm -r "$deep"

	: >"$HOME/file"
	feed "$tiny"
	run env LIMA_HOME="$HOME/file" "$LIMACTL" create --name x -
	fatalhas "$HOME/file"
	same "$(wc -l <"$err")" 1
	ok 'a file for LIMA_HOME'
	run env LIMA_HOME="$HOME/none" "$LIMACTL" list
	status 0
	fails test -e "$HOME/none"
	ok 'list makes no LIMA_HOME'
	mkdir -m 555 "$HOME/ro"
	if [ "$uid" != 0 ]; then
		feed "$tiny"
		run env LIMA_HOME="$HOME/ro" "$LIMACTL" create --name x -
		fatalhas "$HOME/ro"
		same "$(wc -l <"$err")" 1
		ok 'a LIMA_HOME that cannot be written'
	elif unshare -m sh -c 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"' "$HOME/ro" 2>/dev/null; then
		feed "$tiny"
		run unshare -m sh -c 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && LIMA_HOME=$0 exec "$1" create --name x -' "$HOME/ro" "$LIMACTL"
		fatalhas "$HOME/ro"
		same "$(wc -l <"$err")" 1
		ok 'a LIMA_HOME that cannot be written'
	else
		skip 'a LIMA_HOME that cannot be written' 'root writes everywhere, and mounting is not allowed'
	fi
	mkdir "$HOME/real"
	ln -s "$HOME/real" "$HOME/link"
	feed "$tiny"
	run env LIMA_HOME="$HOME/link" "$LIMACTL" create --name x -
	status 0
	run env LIMA_HOME="$HOME/link" "$LIMACTL" list --format '{{.Dir}}'
	outis "$HOME/real/x"
	ok 'a LIMA_HOME that is a link is resolved'
	mkdir "$HOME/a, b%c'd"
	feed "$tiny"
	run env LIMA_HOME="$HOME/a, b%c'd" "$LIMACTL" create --name x -
	status 0
	run env LIMA_HOME="$HOME/a, b%c'd" "$LIMACTL" delete x
	status 0
	ok 'a LIMA_HOME with comma, blank, percent and quote'
	run env -u LIMA_HOME "$LIMACTL" list
	status 0
	run env -u LIMA_HOME "$LIMACTL" create template:nope
	status 1
	ok 'without LIMA_HOME ~/.lima is used'

	# users and uids of the host, as far as create and validate go
	for u in bob:1000:Bob:bob:1000 'Bob.Smith:1000:Bob Smith:lima:1000' 'bob:999:Böb, "the" Ünïcode:bob:999' \
		bob:70000::bob:70000 'root2:0:x:lima:1000' 'sys$tem:1001:x:lima:1001' alice:65534:x:alice:1000; do
		IFS=: read -r name id gecos guest gid <<-END
			$u
		END
		if [ "$uid" != 0 ] || ! unshare -m true 2>/dev/null; then
			skip "host user $name, uid $id" 'needs root and mount name spaces'
			continue
		fi
		grep -v "^$name:" /etc/passwd | awk -F: -v id="$id" '$3 != id' >"$T/passwd"
		printf '%s:x:%s:100:%s:%s:/bin/sh\n' "$name" "$id" "$gecos" "$HOME" >>"$T/passwd"
		mkdir "$HOME/u$id"
		chown "$id" "$HOME/u$id"
		printf '%s' "$tiny" >"$HOME/user.yaml"
		run unshare -m sh -c 'mount --bind "$1/passwd" /etc/passwd && shift &&
			exec setpriv --reuid "$1" --regid 100 --clear-groups env HOME="$2" LIMA_HOME="$2/lh" "$3" validate --fill "$4"' \
			sh "$T" "$id" "$HOME/u$id" "$anyone" "$HOME/user.yaml"
		status 0
		cp "$out" "$T/filled"
		holds grep -qE "^  name: \"?$guest\"?$" "$T/filled"
		holds grep -qE "^  uid: $gid$" "$T/filled"
		holds grep -qE "^  home: \"?/home/$guest\\.linux\"?$" "$T/filled"
		run unshare -m sh -c 'mount --bind "$1/passwd" /etc/passwd && shift &&
			exec setpriv --reuid "$1" --regid 100 --clear-groups env HOME="$2" LIMA_HOME="$2/lh" XDG_CACHE_HOME="$2/cache" TMPDIR="$2" "$3" create "$4"' \
			sh "$T" "$id" "$HOME/u$id" "$anyone" "$HOME/user.yaml"
		status 0
		holds test -f "$HOME/u$id/lh/user/disk"
		case $guest/$name/$id in
		*/root2/0 | "$name/$name/$gid") ;;
		*) errhas "level=warning" ;;
		esac
		rm -rf "$HOME/u$id"
		ok "host user $name, uid $id: $guest, uid $gid in the guest"
	done
	if [ "$uid" = 0 ] && have setpriv; then
		mkdir "$HOME/nouid"
		chown 54321 "$HOME/nouid"
		run setpriv --reuid 54321 --regid 54321 --clear-groups env HOME="$HOME/nouid" LIMA_HOME="$HOME/nouid/l" TMPDIR="$HOME/nouid" "$anyone" create "$HOME/user.yaml"
		fatalhas 54321
		fatalhas passwd
		fails test -e "$HOME/nouid/l/user"
		ok 'a uid without a passwd entry: one line that tells the cure'
	else
		skip 'a uid without a passwd entry' 'needs root'
	fi

	finish
}

# --- image --------------------------------------------------------------------

# gone NAME: a failed create left nothing
gone() {
	fails test -e "$LIMA_HOME/$1"
	for f in "$LIMA_HOME"/.[!.]*; do
		[ ! -e "$f" ] || bad "left over: ${f##*/}"
	done
	[ -z "$(ls -A "$TMPDIR")" ] || bad "left in TMPDIR: $(ls -A "$TMPDIR")"
}

sha() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
requests() { grep -c "^$1 [0-9]" "$fakes/requests" 2>/dev/null || :; }

test_image() {
	begin image
	buildfakes
	raw=$HOME/raw.img
	head -c 300000 /dev/urandom >"$raw"
	digest=sha256:$(sha256sum "$raw" | cut -d ' ' -f 1)

	mk one "{images: [{location: $raw}], disk: 1M}"
	status 0
	noout
	errhas 'msg="Attempting to download the image"'
	logged info "Resize instance one's disk from 293KiB to 1MiB"
	logged info 'Run `limactl start one` to start the instance.'
	holds cmp "$raw" "$LIMA_HOME/one/basedisk"
	run qemu-img info "$LIMA_HOME/one/disk"
	outre '^file format: qcow2$'
	outre '^virtual size: .*\(1048576 bytes\)'
	outre '^backing file: basedisk \('
	outre '^backing file format: raw$'
	ok 'a raw file: basedisk, and disk as an overlay that names it by relative path'
	mode "$LIMA_HOME/one" 700
	rm -f "$T/copy"
	cp "$raw" "$T/copy"
	printf y | dd of="$LIMA_HOME/one/basedisk" conv=notrunc 2>/dev/null
	holds cmp "$raw" "$T/copy"
	ok "the user's image shares nothing with basedisk"
	lc delete one
	status 0
	ok 'delete'

	mk one "{images: [{location: $raw, digest: \"$digest\"}], disk: 1M}"
	status 0
	lc delete one
	ok 'a digest that fits'
	mk one "{images: [{location: $raw, digest: \"sha256:$(sha x)\"}], disk: 1M}"
	status 1
	noout
	errhas "expected digest \`sha256:$(sha x)\`, got \`$digest\`"
	gone one
	ok 'a digest that does not fit'
	for d in md5:abc sha256:12 nonsense; do
		mk one "{images: [{location: $raw, digest: \"$d\"}], disk: 1M}"
		status 1
		errhas "$d"
		gone one
		ok "digest $d"
	done
	mk one "{images: [{location: $HOME/none}, {location: $raw, digest: \"sha256:$(sha x)\"}, {location: $raw}], disk: 1M}"
	status 0
	errhas "$HOME/none"
	same "$(grep -c Attempting "$err")" 3
	ok 'a missing file and a wrong digest: the next image serves'
	lc delete one
	mk one "{images: [{location: $HOME/none}, {location: $HOME/none2}], disk: 1M}"
	status 1
	noout
	fatalhas 'images'
	errhas "$HOME/none2"
	gone one
	ok 'no image can be had'
	other=aarch64
	[ "$(uname -m)" != aarch64 ] || other=x86_64
	mk one "{images: [{location: $raw, arch: $other}], disk: 1M}"
	fatalhas "$(uname -m)"
	gone one
	ok 'no image of the architecture'
	mk one "{images: [{location: ftp://x/y}], disk: 1M}"
	status 1
	errhas 'ftp://x/y'
	gone one
	ok 'a location of an unknown kind'
	mk one "{images: [{location: $HOME}], disk: 1M}"
	status 1
	gone one
	ok 'a directory for an image'
	mk one "{images: [{location: $raw}], disk: 100K}"
	fatalhas 'disk shrinking is not supported'
	gone one
	ok 'an image larger than the disk'
	mk one "{images: [{location: $raw, kernel: {location: /etc/profile, cmdline: a=b}, initrd: {location: /etc/group}}], disk: 1M}"
	status 0
	holds cmp /etc/profile "$LIMA_HOME/one/kernel"
	holds cmp /etc/group "$LIMA_HOME/one/initrd"
	lc delete one
	ok 'kernel and initrd of an image'

	qemu-img create -q -f qcow2 "$HOME/q.img" 1M
	mk one "{images: [{location: $HOME/q.img}], disk: 2M}"
	status 0
	run qemu-img info "$LIMA_HOME/one/disk"
	outre '^backing file format: qcow2$'
	outre '\(2097152 bytes\)'
	lc delete one
	ok 'a qcow2 image'
	qemu-img create -q -f qcow2 -F raw -b /etc/passwd "$HOME/q.img" 1M
	mk one "{images: [{location: $HOME/q.img}], disk: 2M}"
	status 1
	noout
	errhas 'backing file'
	gone one
	ok 'a qcow2 image with a backing file is refused'
	qemu-img create -q -f qcow2 -o data_file="$HOME/q.raw" "$HOME/q.img" 1M
	mk one "{images: [{location: $HOME/q.img}], disk: 2M}"
	status 1
	errhas 'external data file'
	gone one
	ok 'a qcow2 image with an external data file is refused'
	qemu-img create -q -f qcow2 "$HOME/q.img" 1M
	printf '\177' | dd of="$HOME/q.img" bs=1 seek=24 conv=notrunc 2>/dev/null
	mk one "{images: [{location: $HOME/q.img}], disk: 2M}"
	status 1
	gone one
	ok 'a qcow2 image of an absurd size is refused'
	printf 'QFI\373\0\0\0\011' >"$HOME/q.img"
	mk one "{images: [{location: $HOME/q.img}], disk: 2M}"
	[ "$rc" -le 1 ] || bad "status $rc"
	[ "$rc" = 1 ] || lc delete one
	gone one
	ok 'a cut qcow2 header'

	for z in gzip:gz bzip2:bz2 xz:xz zstd:zst; do
		if ! have "${z%:*}"; then
			skip "an image compressed by ${z%:*}" "${z%:*} is not installed"
			continue
		fi
		"${z%:*}" -c <"$raw" >"$HOME/raw.img.${z#*:}"
		mk one "{images: [{location: $HOME/raw.img.${z#*:}}], disk: 1M}"
		status 0
		holds cmp "$raw" "$LIMA_HOME/one/basedisk"
		lc delete one
		ok "an image compressed by ${z%:*}"
		head -c 100000 "$HOME/raw.img.${z#*:}" >"$HOME/cut.${z#*:}"
		mk one "{images: [{location: $HOME/cut.${z#*:}}], disk: 1M}"
		status 1
		gone one
		ok "a cut image compressed by ${z%:*}"
	done

	# downloads
	if ! have curl && ! have wget; then
		skip 'downloads' 'neither curl nor wget is installed'
	else
		rm -f "$fakes/port"
		"$fakes/httpd" >/dev/null 2>&1 &
		server=$!
		await 10 test -s "$fakes/port"
		url=http://127.0.0.1:$(cat "$fakes/port")
		cp "$raw" "$fakes/www/a.img"
		mk one "{images: [{location: $url/a.img, digest: \"$digest\"}], disk: 1M}"
		status 0
		noout
		holds cmp "$raw" "$LIMA_HOME/one/basedisk"
		errhas "from \`$url/a.img\`"
		c=$XDG_CACHE_HOME/lima/download/by-url-sha256/$(sha "$url/a.img")
		holds cmp "$raw" "$c/data"
		same "$(cat "$c/url")" "$url/a.img"
		holds test -f "$c/sha256.digest"
		same "$(cat "$c/time" 2>/dev/null)" 'Thu, 01 Jan 2026 00:00:00 GMT'
		same "$(cat "$c/type" 2>/dev/null)" 'application/octet-stream'
		ok 'http: the image, and the names of the cache'
		mk two "{images: [{location: $url/a.img, digest: \"$digest\"}], disk: 1M}"
		status 0
		logged info "Using cache \`$c/data\`"
		same "$(requests a.img)" 1
		ok 'a second create uses the cache'
		rm -rf "$XDG_CACHE_HOME/lima/download"
		lc list -q
		status 0
		run qemu-img check -q "$LIMA_HOME/one/disk"
		status 0
		lc delete one two
		status 0
		ok 'clearing the cache breaks no instance'
		mk one "{images: [{location: $url/a.img, digest: \"sha256:$(sha x)\"}], disk: 1M}"
		status 1
		errhas "expected digest \`sha256:$(sha x)\`, got \`$digest\`"
		gone one
		fails test -e "$c/data"
		ok 'a download of another digest is refused and not kept'
		mk one "{images: [{location: $url/none}, {location: $url/a.img}], disk: 1M}"
		status 0
		errhas "$url/none"
		lc delete one
		ok '404, then the next image'
		mk one "{images: [{location: http://127.0.0.1:1/x}], disk: 1M}"
		status 1
		errhas 'http://127.0.0.1:1/x'
		gone one
		ok 'a server that is not there'
		start=$(date +%s)
		mk one "{images: [{location: http://no-such-host.invalid/x}, {location: $raw}], disk: 1M}"
		status 0
		[ $(($(date +%s) - start)) -le 8 ] || bad "took $(($(date +%s) - start)) s"
		lc delete one
		ok 'a host that does not resolve: the next image at once'
		if have xz; then
			xz -c <"$raw" >"$fakes/www/b.img.xz"
			mk one "{images: [{location: $url/b.img.xz}], disk: 1M}"
			status 0
			holds cmp "$raw" "$LIMA_HOME/one/basedisk"
			lc delete one
			ok 'a compressed download'
		fi

		# ^C in the middle, as a terminal sends it, to the whole group
		cp "$raw" "$fakes/www/slow.img"
		part=$XDG_CACHE_HOME/lima/download/by-url-sha256/$(sha "$url/slow.img")/data.part
		printf '%s' "{images: [{location: $url/slow.img, digest: \"$digest\"}], disk: 1M}" >"$T/in"
		background create --name one -
		holds await 10 test -s "$part"
		await 5 filesize "$part" 150000 || :
		send INT "-$pid"
		collect 5
		fatalhas interrupted
		gone one
		ok '^C during a download: one line and no instance'
		input=$T/in
		lc create --name one -
		status 0
		holds cmp "$raw" "$LIMA_HOME/one/basedisk"
		holds grep -qE '^slow.img [1-9]' "$fakes/requests"
		lc delete one
		ok 'the next create goes on where the download stopped'
		rm -rf "$XDG_CACHE_HOME/lima/download"
		background create --name one -
		holds await 10 test -s "$part"
		send TERM "$pid"
		collect 5
		fatalhas interrupted
		gone one
		ok 'SIGTERM to limactl alone during a download'
		rm -rf "$XDG_CACHE_HOME/lima/download"
		background create --name one -
		holds await 10 test -s "$part"
		send KILL "-$pid"
		collect 5
		lc list -q
		noout
		mk one
		status 0
		lc delete one
		gone one
		ok 'a create that was killed: not listed, and the next one sweeps'
		printf '%s' "{images: [{location: $url/a.img}], disk: 1M}" >"$T/in"
		# two at once: one download
		rm -rf "$XDG_CACHE_HOME/lima/download" "$fakes/requests"
		printf '%s' "{images: [{location: $url/a.img}], disk: 1M}" >"$T/in"
		background create --name one -
		"$LIMACTL" create --name two - <"$T/in" >"$T/out2" 2>"$T/err2" || bad 'the second failed'
		collect 10
		status 0
		same "$(requests a.img)" 1
		lc delete one two
		status 0
		ok 'two creates at once download once'
		background create --name one -
		"$LIMACTL" create --name one - <"$T/in" >"$T/out2" 2>"$T/err2" && rc2=0 || rc2=$?
		collect 10
		same "$((rc + rc2))" 1
		holds test -f "$LIMA_HOME/one/disk"
		lc delete one
		status 0
		gone one
		ok 'two creates of one name at once: one wins'
		kill "$server"
		wait "$server" 2>/dev/null || :
	fi

	# programs that are not there or fail
	for p in qemu-img:qemu-utils ssh-keygen:openssh-client; do
		rm -rf "$LIMA_HOME/_config"
		nopath "${p%:*}"
		mk one
		PATH=$realpath
		status 1
		fatalhas "${p%:*}: not found"
		errhas "${p#*:}"
		gone one
		ok "${p%:*} is missing: one line that names the package"
		mkdir "$T/bad"
		printf '#!/bin/sh\necho "%s: no good" >&2\nexit 3\n' "${p%:*}" >"$T/bad/${p%:*}"
		chmod +x "$T/bad/${p%:*}"
		PATH=$T/bad:$realpath
		rm -rf "$LIMA_HOME/_config"
		mk one
		PATH=$realpath
		fatalhas 'no good'
		gone one
		rm -r "$T/bad"
		ok "${p%:*} fails: one line with its words"
	done
	nopath curl wget
	mk one '{images: [{location: http://127.0.0.1:1/x}], disk: 1M}'
	PATH=$realpath
	status 1
	errhas curl
	gone one
	ok 'curl and wget are missing: it is said'
	nopath xz
	if [ -e "$HOME/raw.img.xz" ]; then
		mk one "{images: [{location: $HOME/raw.img.xz}], disk: 1M}"
		status 1
		errhas 'xz: not found'
		gone one
		ok 'xz is missing: it is said'
	fi
	PATH=$realpath
	nopath mmdebstrap
	run env XDG_CACHE_HOME="$T/nocache" "$LIMACTL" create --name one - </dev/null
	printf '{images: [{location: "mmdebstrap:bookworm"}]}' >"$T/in"
	input=$T/in
	run env XDG_CACHE_HOME="$T/nocache" "$LIMACTL" create --name one -
	PATH=$realpath
	status 1
	errhas 'mmdebstrap'
	gone one
	[ -z "$(find "$T/nocache" -name '*.tmp')" ] || bad 'left in the cache'
	ok 'mmdebstrap is missing: it is said and nothing stays'
	printf '{images: [{location: "mmdebstrap:no_such;suite"}]}' >"$T/in"
	input=$T/in
	run env XDG_CACHE_HOME="$T/nocache" "$LIMACTL" create --name one -
	status 1
	gone one
	[ -z "$(find "$T/nocache" -name '*.tmp')" ] || bad 'left in the cache'
	ok 'a suite that does not exist'

	# no space
	if [ "$uid" = 0 ] && unshare -m true 2>/dev/null; then
		mkdir "$HOME/small"
		head -c 3000000 /dev/urandom >"$HOME/big.img"
		printf '%s' "{images: [{location: $HOME/big.img}], disk: 4M}" >"$T/in"
		input=$T/in
		run unshare -m sh -c 'mount -t tmpfs -o size=1m none "$0" && LIMA_HOME=$0 "$1" create --name x -; r=$?
			ls -A "$0" | grep -v ^_config; exit $r' "$HOME/small" "$LIMACTL"
		fatalhas 'o space left on device'
		ok 'no space: one line and nothing left'
		printf '%s' "$tiny" >"$T/in"
		input=$T/in
		run unshare -m sh -c 'mount -t tmpfs -o size=80k none "$0" && LIMA_HOME=$0 "$1" create --name x -; r=$?
			ls -A "$0" | grep -v ^_config; exit $r' "$HOME/small" "$LIMACTL"
		fatalhas 'o space left on device'
		ok 'no space for the overlay'
	else
		skip 'no space' 'needs root and mount name spaces'
	fi

	finish
}

# --- iso ----------------------------------------------------------------------

field() { "$LIMACTL" list --format "{{.$2}}" "$1" 2>/dev/null; }
is() { [ "$(field "$1" Status)" = "$2" ]; }

test_iso() {
	begin iso
	buildfakes
	PATH=$fakes:$realpath
	plan "$goodboot"
	mk dev '{images: [{location: /etc/profile}], disk: 1M, user: {comment: "Ünï \"q\" $x @home@"}}'
	lc start dev
	status 0
	iso=$LIMA_HOME/dev/cidata.iso
	mode "$iso" 600
	same "$(dd if="$iso" bs=1 skip=32769 count=5 2>/dev/null)" CD001
	same "$(dd if="$iso" bs=1 skip=32808 count=8 2>/dev/null)" 'cidata  '
	same "$(($(stat -c %s "$iso") % 2048))" 0
	ok 'cidata.iso: mode, volume identifier and size'
	cp "$iso" "$T/first.iso"
	lc stop dev
	lc start dev
	status 0
	holds cmp "$T/first.iso" "$iso"
	ok 'the next start writes the same bytes'

	if have isoinfo; then
		run isoinfo -d -i "$iso"
		status 0
		outre '^Volume id: cidata *$'
		outhas 'Rock Ridge'
		ok 'isoinfo: label and Rock Ridge'
		run isoinfo -R -l -i "$iso"
		for f in meta-data user-data network-config lima.env boot.sh authorized_keys ssh_host_ed25519_key ssh_host_ed25519_key.pub; do
			outre " $f *\$"
		done
		outre '^-r-x?w?.* user-data *$|^-rw-------.* user-data *$'
		ok 'isoinfo: the names'
		for f in user-data meta-data network-config lima.env authorized_keys boot.sh ssh_host_ed25519_key ssh_host_ed25519_key.pub; do
			isoinfo -R -x "/$f" -i "$iso" >"$T/$f" 2>/dev/null || bad "cannot read $f"
		done
		sed '/^[[:blank:]]*#\([^!]\|$\)/d' guest/boot.sh >"$T/wanted"        # without comments
		holds cmp "$T/wanted" "$T/boot.sh"
		holds cmp "$LIMA_HOME/_config/user.pub" "$T/authorized_keys"
		holds cmp "$LIMA_HOME/dev/ssh_host_ed25519_key" "$T/ssh_host_ed25519_key"
		holds cmp "$LIMA_HOME/dev/ssh_host_ed25519_key.pub" "$T/ssh_host_ed25519_key.pub"
		filehas "$T/meta-data" 'local-hostname: lima-dev'
		filehas "$T/lima.env" 'LIMA_CIDATA_NAME=dev'
		filehas "$T/lima.env" 'LIMA_CIDATA_COMMENT=Ünï "q" $x @home@'
		filehas "$T/network-config" '52:55:55'
		ok 'the files say what the instance is'
		same "$(head -n 1 "$T/user-data")" '#cloud-config'
		# that it is YAML, by the parser at hand: an unknown key is all it finds
		cp "$T/user-data" "$HOME/ud.yaml"
		lc validate "$HOME/ud.yaml"
		errlacks 'failed to unmarshal'
		if have python3 && python3 -c 'import yaml' 2>/dev/null; then
			run python3 -c '
import sys, yaml
d = yaml.safe_load(open(sys.argv[1]))
u = d["users"][0]
assert u["gecos"] == "Ünï \"q\" $x @home@", u["gecos"]
assert u["ssh_authorized_keys"] == [open(sys.argv[2]).read().strip()], u["ssh_authorized_keys"]
assert u["homedir"].endswith(".linux") and str(u["uid"]).isdigit()
assert d["ssh_keys"]["ed25519_private"] == open(sys.argv[3]).read()
assert all("content" in f for f in d["write_files"])
m = yaml.safe_load(open(sys.argv[4]))
assert m["local-hostname"] == "lima-dev" and m["instance-id"]
' "$T/user-data" "$LIMA_HOME/_config/user.pub" "$LIMA_HOME/dev/ssh_host_ed25519_key" "$T/meta-data"
			status 0
		fi
		holds grep -q '@[a-z]*@' "$T/user-data"	# in the comment
		same "$(grep -c '^@\|: @\|"@[a-z]*@"' "$T/user-data")" 0
		ok 'user-data is YAML and no placeholder is left'
	else
		skip 'what is in cidata.iso' 'isoinfo is not installed'
	fi
	if have xorriso; then
		run xorriso -indev "$iso" -find / -exec lsdl --
		status 0
		errlacks SORRY
		outre "'/boot.sh'"
		ok 'xorriso reads it'
	fi
	lc stop dev
	lc delete dev
	finish
}

# --- fakes --------------------------------------------------------------------

agentpid() { field "$1" HostAgentPID; }
qemupid() { field "$1" DriverPID; }
starts() { if [ -e "$fakes/starts.$1" ]; then wc -l <"$fakes/starts.$1"; else echo 0; fi; }
argv() { holds grep -qxF -- "$1" "$fakes/argv.$qemu"; }
argvhas() { holds grep -qF -- "$1" "$fakes/argv.$qemu"; }
# pair OPTION VALUE: the two follow each other
pair() { grep -xF -A1 -- "$1" "$fakes/argv.$qemu" | grep -qxF -- "$2" || bad "QEMU lacks $1 $2"; }
# clean NAME: a stopped instance without anything of its last run
clean() {
	is "$1" Stopped || bad "$1 is '$(field "$1" Status)'"
	for f in "$LIMA_HOME/$1"/*.pid "$LIMA_HOME/$1"/*.sock "$LIMA_HOME/$1"/*.tmp "$LIMA_HOME/$1/ha.qmp"; do
		[ ! -e "$f" ] || bad "left over: ${f##*/}"
	done
}
word() {	# word EXPECTED WORDS...: what ssh gets to run
	expected=$1
	shift
	lc shell dev "$@"
	status 0
	outis "$expected"
}
# stuck LINE WHAT: the console says LINE, and start fails at once
stuck() {
	plan "serial Linux version 6.1
serial something before
$1"
	lc start dev
	status 1
	noout
	shape
	errhas "$2"
	errhas 'something before'
	case $(tail -n 1 "$err") in *level=fatal*) ;; *) bad 'the last line is not fatal' ;; esac
	clean dev
	[ "$(($(date +%s) - now))" -le 8 ] || bad 'took longer than 8 s'
	ok "the console says: ${1#* }"
}
# master: $m2 is a fake ssh master that lives, and not $m
master() {
	while read -r m2; do
		if [ "$m2" != "$m" ] && grep -qsz '^-N$' "/proc/$m2/cmdline"; then return 0; fi
	done <"$fakes/starts.ssh"
	return 1
}
wakeups() { awk '/^voluntary_ctxt_switches/ { print $2 }' "/proc/$1/status"; }
info() { curl -s --max-time 5 --unix-socket "$LIMA_HOME/dev/ha.sock" "$@"; }

test_fakes() {
	begin fakes
	buildfakes
	PATH=$fakes:$realpath
	mk dev
	status 0

	# the good case
	plan "$goodboot"
	LIMA_TEST_SECRET=1 lc start dev
	status 0
	noout
	shape
	logged info 'Using the existing instance `dev`'
	logged info 'Starting the instance `dev` with internal VM driver `qemu`'
	port=$(field dev SSHLocalPort)
	logged info "SSH Local Port: $port"
	case $(tail -n 1 "$err") in
	*'msg="READY. Run `limactl shell dev` to open the shell."') ;;
	*) bad 'the last line is not READY' ;;
	esac
	ok 'start: the lines up to READY'
	lc list dev
	outre "^dev +Running +127\\.0\\.0\\.1:$port +qemu "
	lc list --json dev
	outhas '"status":"Running"'
	outhas "\"sshLocalPort\":$port,"
	outhas "\"hostAgentPID\":$(cat "$LIMA_HOME/dev/ha.pid")"
	outhas "\"driverPID\":$(cat "$LIMA_HOME/dev/qemu.pid")"
	ok 'list of a running instance'
	log=$LIMA_HOME/dev/ha.stdout.log
	holds grep -qE '^\{"time":"[0-9T:-]+\.[0-9]{9}(Z|[+-][0-9:]+)","status":\{"sshLocalPort":'"$port"'\}\}$' "$log"
	same "$(sed -n '1s/.*"status"://p' "$log")" "{\"sshLocalPort\":$port}}"
	same "$(sed -n '$s/.*"status"://p' "$log")" "{\"running\":true,\"sshLocalPort\":$port}}"
	ok 'ha.stdout.log: first the port, then running'
	if grep -vqE '^\{.*"level":"(debug|info|warning)","msg":".*","time":"[^"]*"\}$' "$LIMA_HOME/dev/ha.stderr.log"; then
		bad 'a line of ha.stderr.log is not JSON'
	fi
	filehas "$LIMA_HOME/dev/ha.stderr.log" 'hostagent socket created at'
	ok 'ha.stderr.log: JSON lines'
	for f in ha.sock qmp.sock ssh.sock; do
		[ "$f" != ha.sock ] || mode "$LIMA_HOME/dev/$f" 600
		holds test -S "$LIMA_HOME/dev/$f"
	done
	mode "$LIMA_HOME/dev/ssh.config" 600
	mode "$LIMA_HOME/dev/known_hosts" 600
	mode "$LIMA_HOME/dev/ssh_host_ed25519_key" 600
	ok 'modes of sockets, keys and ssh.config'
	lc start dev
	status 0
	logged info 'The instance `dev` is already running. Run `limactl shell dev` to open the shell.'
	same "$(starts "$qemu")" 1
	ok 'start of what runs'

	# QEMU's command line
	cp "$fakes/argv.$qemu" "$T/argv"
	pair -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
	argv -nodefaults
	argv -no-user-config
	pair -display none
	pair -name lima-dev
	pair -pidfile "$LIMA_HOME/dev/qemu.pid"
	ok 'QEMU: sandbox, no defaults, names'
	if grep -x -A1 -e -drive "$T/argv" | grep -v '^-' | grep -vq 'format='; then bad 'a drive without format='; fi
	[ "$(grep -cx -e -drive "$T/argv")" -ge 2 ] || bad 'too few drives'
	argvhas "file=$LIMA_HOME/dev/disk,if=none,format=qcow2,discard=unmap,detect-zeroes=unmap"
	argvhas "file=$LIMA_HOME/dev/cidata.iso,if=none,format=raw,readonly=on"
	ok 'QEMU: every drive has its format, the disk discards, cidata is read-only'
	argvhas "hostfwd=tcp:127.0.0.1:$port-:22"
	argvhas net=192.168.5.0/24
	argvhas free-page-reporting=on
	argvhas virtio-rng
	argvhas "virtio-net"
	same "$(grep -c hostfwd= "$T/argv")" 1
	ok 'QEMU: network, ssh on 127.0.0.1 alone, balloon, rng'
	argvhas "path=$LIMA_HOME/dev/qmp.sock"
	argvhas "path=$LIMA_HOME/dev/serial.sock"
	argvhas "logfile=$LIMA_HOME/dev/serial.log"
	ok 'QEMU: monitors and console'
	same "$(cut -d ' ' -f 1 "$fakes/fds.$qemu" | sort -n | tr '\n' ' ')" '0 1 2 3 '
	holds grep -q '^0 /dev/null$' "$fakes/fds.$qemu"
	holds grep -q '^3 socket:' "$fakes/fds.$qemu"
	ok 'QEMU has no descriptor but its own'
	fails grep -q LIMA_TEST_SECRET "$fakes/env.$qemu"
	holds grep -q '^PATH=' "$fakes/env.$qemu"
	ok "QEMU's environment is scrubbed"
	same "$(cut -d ' ' -f 1 "$fakes/fds.ssh" | sort -n | tr '\n' ' ')" '0 1 2 '
	ok 'the ssh master has no descriptor of ours'
	holds sh -c 'tr "\0" "\n" <"/proc/$0/cmdline" | grep -qx hostagent' "$(agentpid dev)"
	same "$(find "/proc/$(agentpid dev)/fd/" -lname "$T/out" -o -lname "$T/err" | wc -l)" 0
	for p in "$(agentpid dev)" "$(qemupid dev)"; do
		same "$(sed 's/.*) //' "/proc/$p/stat" | cut -d ' ' -f 4)" "$p"
	done
	ok 'the host agent and QEMU lead sessions of their own'
	same "$(awk '/^Max core/ { print $5 }' "/proc/$(qemupid dev)/limits")" 0
	ok 'QEMU leaves no core file'

	# ha.sock
	if have curl; then
		same "$(info http://lima/v1/info)" "{\"sshLocalPort\":$port}"
		same "$(info -o /dev/null -w '%{http_code}' http://lima/v1/info)" 200
		same "$(info -o /dev/null -w '%{http_code}' http://lima/nope)" 404
		same "$(info -o /dev/null -w '%{http_code}' -X POST http://lima/v1/info)" 405
		same "$(info -o /dev/null -w '%{http_code}' 'http://lima/v1/screenshot?format=png')" 501
		ok 'ha.sock: GET /v1/info and what it has not'
		head -c 5000 /dev/zero | tr '\0' x >"$T/long"
		info -o /dev/null "http://lima/$(cat "$T/long")" || :
		same "$(info http://lima/v1/info)" "{\"sshLocalPort\":$port}"
		ok 'ha.sock survives a request too long'
	else
		skip 'ha.sock' 'curl is not installed'
	fi

	# idle: what the kernel counts over three seconds
	p=$(agentpid dev)
	before=$(wakeups "$p")
	sleep 3
	same "$(wakeups "$p")" "$before"
	ok 'the idle host agent is not woken in 3 s'
	rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$p/status")
	case $LIMACTL in
	*asan*) skip 'memory of the host agent' 'a build with sanitizers' ;;
	*) [ "$rss" -lt 4096 ] || bad "$rss KiB"
	   ok "the host agent has less than 4 MB resident" ;;
	esac

	# shell: what ssh is asked to run
	head='false ; exec /bin/bash -l'
	word "$head"
	ok 'shell without a command: a login shell'
	word "$head -c true" true
	word "$head -c 'a '\"'\"'b c'\"'\"''" a 'b c'
	word "$head -c ''\"'\"''\"'\"''" ''
	word "$head -c 'echo '\"'\"'a'\"'\"'\"'\"'\"'\"'\"'\"'b'\"'\"''" echo "a'b"
	word "$head -c 'bash -c '\"'\"'
	echo foo
	echo bar'\"'\"''" bash -c '
	echo foo
	echo bar'
	word "$head -c 'a-b_c/d.e:f,g+h@i%j=k'" 'x' 2>/dev/null || :
	: >"$failures"
	word "$head -c 'x a-b_c/d.e:f,g+h@i%j=k'" x a-b_c/d.e:f,g+h@i%j=k
	ok 'shell quotes each word, and their line again'
	word "$head -c 'A=b C='\"'\"'d e'\"'\"' env F=g'" A=b 'C=d e' env F=g
	ok 'shell: leading NAME=VALUE words are assignments'
	word "$head -c 'echo --'" -- echo --
	word "$head -c '-- x'" -- -- x
	ok 'shell drops one --'
	lc shell --workdir '/a b' dev pwd
	outis "cd '/a b' || exit 1 ; exec /bin/bash -l -c pwd"
	lc shell --shell /bin/zsh --workdir=/ dev -- pwd
	outis "cd / || exit 1 ; exec /bin/zsh -l -c pwd"
	ok 'shell --workdir and --shell'
	lc shell --instance dev echo x
	outis "$head -c 'echo x'"
	ln -sf "$LIMACTL" "$T/lima"
	run env LIMA_INSTANCE=dev LIMA_SHELL=/bin/sh LIMA_WORKDIR=/tmp "$T/lima" echo x
	outis "cd /tmp || exit 1 ; exec /bin/sh -l -c 'echo x'"
	ok 'lima with LIMA_INSTANCE, LIMA_SHELL and LIMA_WORKDIR'
	lc shell dev true
	for w in "$(printf '%s\n' -F /dev/null | tail -n 1)" StrictHostKeyChecking=yes "UserKnownHostsFile=\"$LIMA_HOME/dev/known_hosts\"" \
		HostKeyAlias=lima-dev "IdentityFile=\"$LIMA_HOME/_config/user\"" BatchMode=yes IdentitiesOnly=yes \
		"ControlPath=\"$LIMA_HOME/dev/ssh.sock\"" ControlMaster=no LogLevel=ERROR "$port" 127.0.0.1 --; do
		holds grep -qxF -- "$w" "$fakes/argv.ssh"
	done
	fails grep -qxF -e -t "$fakes/argv.ssh"
	fails grep -qF SendEnv "$fakes/argv.ssh"
	ok "shell: ssh's options"
	run env COLORTERM= "$LIMACTL" shell dev true
	holds grep -qxF SendEnv=COLORTERM "$fakes/argv.ssh"
	ok 'shell passes COLORTERM when it is set'
	if have script; then
		run script -qec "'$LIMACTL' shell dev true" /dev/null
		holds grep -qxF -e -t "$fakes/argv.ssh"
		ok 'shell asks for a terminal when stdout is one'
	else
		skip 'shell asks for a terminal when stdout is one' 'script is not installed'
	fi
	run env SSH="$fakes/ssh -v" "$LIMACTL" shell dev true
	holds grep -qxF -e -v "$fakes/argv.ssh"
	ok 'SSH names another ssh with its options'

	# delete and stop
	lc delete dev
	fatal 'failed to delete instance `dev`: expected status `Stopped`, got `Running`'
	is dev Running || bad 'it does not run any more'
	ok 'delete of what runs is refused'
	lc stop dev
	status 0
	noout
	shape
	errhas 'Sending SIGINT to hostagent process'
	logged info 'Waiting for the host agent and the driver processes to shut down'
	logged info 'Waiting for the instance to shut down'
	logged info 'The instance dev has shut down'
	errlacks forcibly
	clean dev
	same "$(sed -n '$s/.*"status"://p' "$log")" '{"exiting":true}}'
	ok 'stop: texts, event, nothing left'
	lc stop dev
	fatal 'expected status `Running`, got `Stopped` (maybe use `limactl stop -f`?)'
	ok 'stop of what is stopped'
	lc list dev
	outre "^dev +Stopped +127\\.0\\.0\\.1:$port "
	ok 'a stopped instance shows its last port'
	lc shell dev true
	fatal 'instance `dev` is stopped, run `limactl start dev` to start the instance'
	ok 'shell in a stopped instance'
	lc stop -f dev
	status 0
	logged info 'The qemu driver process seems already stopped'
	logged info 'The host agent process seems already stopped'
	ok 'stop -f of what is stopped'

	# descriptors of whoever calls us
	plan "$goodboot"
	run sh -c '"$0" start dev 5>/dev/null 9</dev/null 3>&- 4>&-' "$LIMACTL"
	status 0
	same "$(cut -d ' ' -f 1 "$fakes/fds.$qemu" | sort -n | tr '\n' ' ')" '0 1 2 3 '
	same "$(find "/proc/$(agentpid dev)/fd/" -name 9 -lname /dev/null | wc -l)" 0
	lc stop dev
	ok 'no leaked descriptor reaches QEMU'
	plan "$goodboot"
	limit=10
	run sh -c '{ "$0" start dev 3>&1 4>&1; } | cat' "$LIMACTL"
	status 0
	is dev Running || bad 'it does not run'
	lc stop dev
	ok 'a pipe on stdout, 3 and 4 ends with the command'
	plan "$goodboot"
	limit=10
	run sh -c 'exec "$0" start dev <&- >&- 2>&-' "$LIMACTL"
	status 0
	is dev Running || bad 'it does not run'
	limit=10
	run sh -c 'exec "$0" stop dev <&- >&- 2>&-' "$LIMACTL"
	status 0
	clean dev
	ok 'start and stop without standard descriptors'

	# QEMU does not start
	now=$(date +%s)
	plan 'say could not open disk: no such luck
exit 1'
	lc start dev
	status 1
	noout
	shape
	errhas 'could not open disk: no such luck'
	case $(tail -n 1 "$err") in *level=fatal*) ;; *) bad 'the last line is not fatal' ;; esac
	clean dev
	[ $(($(date +%s) - now)) -le 5 ] || bad 'took longer than 5 s'
	ok 'QEMU exits at once: its words, status 1, Stopped'
	plan 'die'
	lc start dev
	status 1
	clean dev
	ok 'QEMU is killed at once'
	plan "serial Linux version 6.1
exit 0"
	lc start dev
	status 1
	clean dev
	ok 'QEMU ends in the middle of a boot'
	nopath "$qemu"
	lc start dev
	PATH=$fakes:$realpath
	status 1
	errhas "$qemu: not found"
	errhas 'qemu-system'
	same "$(grep -c 'level=fatal' "$err")" 1
	clean dev
	ok 'QEMU is missing: a line that names the package'
	nopath ssh
	lc start dev
	PATH=$fakes:$realpath
	status 1
	errhas 'openssh-client'
	clean dev
	ok 'ssh is missing: a line that names the package'

	# the console tells
	now=$(date +%s)
	stuck 'serial [    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs' 'panic'
	now=$(date +%s)
	stuck 'serial You are in emergency mode. After logging in, type ...' 'emergency mode'
	now=$(date +%s)
	stuck 'raw grub rescue> ' 'grub rescue'
	now=$(date +%s)
	stuck 'raw (initramfs) ' 'root disk'
	plan "serial Linux version 6.1
serial Kernel panic - not syncing: ${esc:=$(printf '\033')}[2J${esc}]0;owned"
	lc start dev
	status 1
	errlacks "$esc"
	errhas owned
	ok 'escape sequences of the console do not reach the terminal'
	plan 'serial Linux version 6.12
serial [    1.6] Kernel panic - not syncing: Fatal exception in interrupt
serial [    1.6] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---
wait reset
serial Linux version 6.12
serial lima-ssh-ready iid-1
serial lima-boot-done iid-1 0'
	rm -f "$fakes/reset"
	run env LIMA_ACCEL=tcg "$LIMACTL" start dev
	status 0
	logged warning '[hostagent] The kernel of the guest, which is emulated, panicked as it booted; resetting it once'
	errhas READY
	lc stop -f dev
	plan 'serial [    1.6] Kernel panic - not syncing: Fatal exception in interrupt
wait reset
serial [    1.7] Kernel panic - not syncing: Fatal exception in interrupt'
	rm -f "$fakes/reset"
	run env LIMA_ACCEL=tcg "$LIMACTL" start dev
	status 1
	errhas "kernel panicked: "
	ok 'an emulated kernel that panics as it boots is reset, once'
	plan 'serial Linux version 6.1
serial lima-ssh-ready iid-1
serial lima-boot-done iid-1 1'
	lc start dev
	status 0
	errhas 'level=warning'
	errhas serial.log
	is dev Running || bad 'it does not run'
	lc stop dev
	ok 'a boot script that failed: a warning'

	# time
	plan 'serial Linux version 6.1
serial still thinking'
	now=$(date +%s)
	lc start --timeout 2s dev
	took=$(($(date +%s) - now))
	status 1
	noout
	shape
	errhas 'still thinking'
	errhas ha.stderr.log
	fatalhas 'did not receive an event with the `running` status'
	case $took in [1-6]) ;; *) bad "took $took s" ;; esac
	ok 'start --timeout 2s: status 1 and the ends of the logs'
	is dev Running || bad 'the VM is gone'
	lc stop -f dev
	status 0
	errhas 'Sending SIGKILL to the qemu driver process'
	errhas 'Sending SIGKILL to the host agent process'
	logged info "Removing *.pid *.sock *.tmp under \`$LIMA_HOME/dev\`"
	clean dev
	ok 'stop -f: texts, and nothing left'
	plan "deaf 1
$goodboot"
	lc start dev
	limit=120
	lc stop dev
	status 0
	errlacks 'asking QEMU to quit'
	[ "$rc" = 0 ] || "$LIMACTL" stop -f dev 2>/dev/null
	clean dev
	ok 'a guest that misses the first press of the power button still stops in order'
	plan 'deaf
serial Linux version 6.1'
	lc start --timeout 1s dev
	background stop dev
	holds await 5 grep -q 'power button' "$err"
	is dev Running || bad 'the deaf guest is gone'
	send INT "$(agentpid dev)"
	collect 10
	status 0
	clean dev
	ok 'a guest deaf to the power button: a second SIGINT makes QEMU quit'
	plan 'deaf
serial Linux version 6.1'
	lc start --timeout 1s dev
	background stop dev
	holds await 5 grep -q 'power button' "$err"
	send INT "-$pid"
	collect 5
	fatalhas interrupted
	lc delete -f dev
	status 0
	fails test -e "$LIMA_HOME/dev"
	ok '^C during stop, then delete -f of what hangs'
	mk dev

	# ^C
	plan 'serial Linux version 6.1
wait go
serial lima-ssh-ready i
serial lima-boot-done i 0'
	: >"$T/in"
	background start dev
	holds await 5 grep -q 'Boot stage' "$err"
	send INT "-$pid"
	collect 5
	fatalhas interrupted
	errhas 'limactl stop dev'
	is dev Running || bad 'the VM did not go on'
	ok '^C during start: one line, and the VM goes on'
	background start dev
	holds await 10 grep -q 'is being started already' "$err"
	: >"$fakes/go"
	collect 10
	status 0
	errhas READY
	same "$(starts "$qemu")" 1
	ok 'a second start follows the first'
	lc stop dev
	status 0
	plan "$goodboot"
	background start dev
	"$LIMACTL" start dev >"$T/out2" 2>"$T/err2" </dev/null || bad 'the other start failed'
	collect 10
	status 0
	filehas "$err" 'READY\|already running' 2>/dev/null || :
	: >"$failures"
	status 0
	same "$(starts "$qemu")" 1
	ok 'two starts at once: one QEMU, both succeed'

	# processes that die
	p=$(agentpid dev)
	send KILL "$p"
	await 5 is dev Broken || bad "the status is $(field dev Status)"
	lc list --json dev
	outhas '"errors":["qemu driver is running but host agent is not'
	lc list dev
	status 0
	errhas 'limactl start dev'
	outre '^dev +Broken '
	ok 'the host agent is killed: Broken, and what to do'
	lc shell dev true
	status 0
	ok 'shell works without a host agent'
	lc delete dev
	fatal 'failed to delete instance `dev`: expected status `Stopped`, got `Broken`'
	ok 'delete is refused'
	now=$(date +%s)
	lc start dev
	status 0
	errhas adopt
	errhas READY
	is dev Running || bad 'it does not run'
	same "$(starts "$qemu")" 1
	[ $(($(date +%s) - now)) -le 5 ] || bad 'took longer than 5 s'
	ok 'start adopts the VM'
	send KILL "$(agentpid dev)"
	await 5 is dev Broken || :
	lc stop dev
	status 0
	logged info 'The instance dev has shut down'
	clean dev
	ok 'stop works after the host agent was killed'
	plan "$goodboot"
	lc start dev
	m=
	master
	m=$m2
	send KILL "$m"
	await 5 master || bad 'no new master'
	await 5 test -S "$LIMA_HOME/dev/ssh.sock" || bad 'no ssh.sock'
	is dev Running || bad 'it does not run'
	ok 'the ssh master is killed: a new one'
	send KILL "$(qemupid dev)"
	await 5 is dev Stopped || bad "the status is $(field dev Status)"
	await 5 eval '[ -z "$(alive)" ]' || bad 'processes are left'
	clean dev
	same "$(sed -n '$s/.*"status"://p' "$log")" '{"exiting":true}}'
	ok 'QEMU is killed: Stopped, and nothing left'
	plan "$goodboot"
	lc start dev
	a=$(agentpid dev) q=$(qemupid dev)
	send KILL "$a" "$q"
	m=
	master && kill "$m2"	# a real one ends with its connection
	await 5 is dev Stopped || bad "the status is $(field dev Status)"
	holds test -e "$LIMA_HOME/dev/ha.pid"
	for f in ha.pid qemu.pid; do
		echo $$ >"$LIMA_HOME/dev/$f"
	done
	is dev Stopped || bad 'a reused pid counts'
	lc stop dev
	fatal 'expected status `Running`, got `Stopped` (maybe use `limactl stop -f`?)'
	ok 'pid files that name a live stranger do not count'
	lc start dev
	status 0
	is dev Running || bad 'it does not run'
	ok 'and the next start heals'
	lc stop dev
	status 0
	plan nolock
	lc start --timeout 1s dev
	lc list --json dev
	outhas '"status":"Broken"'
	outhas 'host agent is running but driver is not'
	ok 'a QEMU without its lock: Broken'
	lc stop dev
	status 0
	clean dev
	ok 'and stop ends it'

	plan 'serial Linux version 6.1
wait go
serial lima-ssh-ready i
serial lima-boot-done i 0'
	: >"$T/in"
	background start dev
	holds await 5 grep -q 'Boot stage' "$err"
	send KILL "$(agentpid dev)"
	collect 5
	status 1
	case $(tail -n 1 "$err") in *level=fatal*) ;; *) bad 'the last line is not fatal' ;; esac
	is dev Broken || bad "the status is $(field dev Status)"
	background start dev
	holds await 5 grep -q -i adopt "$err"
	: >"$fakes/go"
	collect 10
	status 0
	errhas READY
	same "$(starts "$qemu")" 1
	ok 'the host agent is killed in the middle of a boot: start adopts and waits on'
	send STOP "$(qemupid dev)"
	limit=2
	lc list dev
	outre '^dev +Running '
	if have curl; then same "$(info http://lima/v1/info)" "{\"sshLocalPort\":$(field dev SSHLocalPort)}"; fi
	ok 'QEMU is frozen: list and ha.sock answer'
	a=$(agentpid dev)
	send STOP "$a"
	limit=2
	lc list dev
	status 0
	outre '^dev +Running '
	ok 'the host agent is frozen: list does not wait for it'
	limit=20
	lc stop -f dev
	status 0
	clean dev
	await 5 eval '[ -z "$(alive)" ]' || bad 'a process is left'
	ok 'stop -f of what is frozen'
	plan "$goodboot"
	lc start dev
	m=
	master && send STOP "$m2"
	limit=20
	lc stop -f dev
	status 0
	is dev Stopped || bad "the status is $(field dev Status)"
	if [ -n "$(alive)" ]; then
		for p in $(alive); do kill -KILL "$p"; done	# a real master ends with its connection
	fi
	rm -f "$LIMA_HOME/dev/"*.sock
	ok 'stop -f does not wait for a frozen ssh master'

	# a guest that reboots, and an ssh that refuses
	plan 'serial Linux version 6.1
serial lima-ssh-ready i
serial lima-boot-done i 0
wait go
event {"timestamp":{"seconds":1,"microseconds":1},"event":"RESET","data":{"guest":true,"reason":"guest-reset"}}
wait go2
serial Linux version 6.1
serial lima-ssh-ready i
serial lima-boot-done i 0'
	lc start dev
	status 0
	before=$(starts ssh)
	m=
	master && m=$m2
	: >"$fakes/go"
	await 5 grep -q 'guest reboots' "$LIMA_HOME/dev/ha.stderr.log" || bad 'not noticed'
	: >"$fakes/go2"
	await 5 master || bad 'no new master'
	await 5 test -S "$LIMA_HOME/dev/ssh.sock" || bad 'no ssh.sock'
	[ "$(starts ssh)" -gt "$before" ] || bad 'no new ssh'
	is dev Running || bad 'it does not run'
	m=
	master && m=$m2
	rm "$LIMA_HOME/dev/ssh.sock"
	limit=20
	lc shell --tty=false --workdir=/ dev true
	status 0
	await 5 master || bad 'no new master without ssh.sock'
	holds test -S "$LIMA_HOME/dev/ssh.sock"
	lc stop dev
	ok 'the guest reboots, or ssh.sock is removed: the agent stays and logs in again'
	plan "$goodboot"
	: >"$fakes/sshfail"
	background start dev
	holds await 10 sh -c '[ "$(wc -l <"$0")" -ge 4 ]' "$fakes/starts.ssh"
	rm "$fakes/sshfail"
	collect 20
	status 0
	errhas READY
	errhas '[hostagent] fake ssh: refused"'
	errlacks kex_exchange
	holds grep -q '^kex_exchange' "$LIMA_HOME/dev/ha.stderr.log"
	lc stop dev
	ok 'ssh is refused at first: tried again, and only what is no passing word of ssh is shown'
	plan "$goodboot"'
wait go
event {"timestamp":{"seconds":1,"microseconds":1},"event":"BLOCK_IO_ERROR","data":{"device":"boot-disk","operation":"write","action":"stop","nospace":true,"reason":"No space left on device"}}'
	lc start dev
	status 0
	: >"$fakes/go"
	await 5 grep -q 'The VM is paused: no space is left' "$LIMA_HOME/dev/ha.stderr.log" || bad 'not said'
	await 10 grep -q 'There is space again' "$LIMA_HOME/dev/ha.stderr.log" || bad 'it does not go on'
	lc stop dev
	ok "the host's disk is full: said, and the VM goes on when it is not"
	printf '%s\n' 'not json' '{"a":' >"$T/junk"
	plan "event {\"event\":
event not json at all
event {\"event\": 3, \"data\": [\"x\"]}
$goodboot"
	lc start dev
	status 0
	lc stop dev
	status 0
	ok 'garbage from the monitor'

	# ports, accelerators, architectures, names of directories
	rm -f "$fakes/port"
	"$fakes/httpd" >/dev/null 2>&1 &
	server=$!
	await 10 test -s "$fakes/port"
	busy=$(cat "$fakes/port")
	mk port "{images: [{location: /etc/profile}], disk: 1M, ssh: {localPort: $busy}}"
	plan "$goodboot"
	lc start port
	status 1
	noout
	errhas "port $busy"
	same "$(grep -c 'level=fatal' "$err")" 1
	same "$(starts "$qemu")" 0
	clean port
	ok 'the ssh port is in use: it is named, and QEMU is not started'
	kill "$server"
	wait "$server" 2>/dev/null || :
	lc delete port
	busy=$((20000 + $$ % 9000))	# below what the kernel hands out
	while grep -qi ":$(printf %04x "$busy") " /proc/net/tcp; do busy=$((busy + 1)); done
	mk port "{images: [{location: /etc/profile}], disk: 1M, ssh: {localPort: $busy}}"
	lc start port
	status 0
	same "$(field port SSHLocalPort)" "$busy"
	ok 'a configured port'
	lc delete -f port
	status 0
	ok 'delete -f of what runs'
	if [ "$host" = x86_64 ]; then
		for a in tcg kvm; do
			plan "$goodboot"
			LIMA_ACCEL=$a
			export LIMA_ACCEL
			lc start dev
			unset LIMA_ACCEL
			lc stop dev
			argvhas "$a"
			case $a in
			kvm) pair -accel kvm; pair -cpu host ;;
			tcg) argvhas thread=multi; pair -cpu max ;;
			esac 2>/dev/null
			ok "LIMA_ACCEL=$a"
		done
		fw=
		for f in /usr/share/AAVMF/AAVMF_CODE.fd /usr/share/qemu-efi-aarch64/QEMU_EFI.fd /usr/share/edk2/aarch64/QEMU_CODE.fd; do
			[ ! -e "$f" ] || fw=$f
		done
		mk arm '{arch: aarch64, images: [{location: /etc/profile, kernel: {location: /etc/profile, cmdline: "console=ttyAMA0 x"}, initrd: {location: /etc/group}}], disk: 1M}'
		plan "$goodboot"
		mv "$fakes/qemu-system-aarch64" "$fakes/arm"
		cp "$fakes/arm" "$fakes/qemu-system-aarch64"
		run env QEMU_SYSTEM_AARCH64="'$fakes/arm' -x-extra" "$LIMACTL" start arm
		status 0
		qemu=arm
		argv -x-extra
		argvhas virt
		pair -cpu max
		pair -append 'console=ttyAMA0 x'
		pair -kernel "$LIMA_HOME/arm/kernel"
		pair -initrd "$LIMA_HOME/arm/initrd"
		fails grep -q 'q35\|ICH9\|kvm' "$fakes/argv.arm"
		qemu=qemu-system-$host
		lc stop arm
		lc delete arm
		ok "aarch64: machine, kernel, QEMU_SYSTEM_AARCH64 with words"
		mk arm '{arch: aarch64, images: [location: /etc/profile], disk: 1M}'
		plan "$goodboot"
		lc start arm
		if [ -n "$fw" ]; then
			status 0
		else
			status 1
			errhas firmware
			clean arm
		fi
		lc delete -f arm
		ok 'aarch64 without a kernel needs firmware, or says so'
	else
		skip 'accelerators and architectures' 'not an x86_64 host'
	fi
	odd="$T/o,d %d'q\$x"
	mkdir "$odd"
	homes="$homes $odd"
	LIMA_HOME=$odd
	mk dev
	plan "$goodboot"
	lc start dev
	status 0
	argvhas "$T/o,,d %d'q\$x/dev/disk"
	holds test -S "$odd/dev/ha.sock"
	holds test -S "$odd/dev/qmp.sock"
	holds test -S "$odd/dev/ssh.sock"
	lc shell dev true
	status 0
	lc stop dev
	clean dev
	lc delete dev
	LIMA_HOME=$T/fakes
	ok 'comma, blank, percent, quote and dollar in LIMA_HOME'

	# the instance `default`, and start as create
	taken=$(grep -i ':EA76 00' /proc/net/tcp || :)	# 60022
	plan "$goodboot"
	feed "$tiny"
	lc start --name default -
	status 0
	logged info 'READY. Run `lima` to open the shell.'
	[ -e "$LIMA_HOME/default/lima.yaml" ] || bad 'not created'
	lc start
	logged info 'The instance `default` is already running. Run `lima` to open the shell.'
	run "$T/lima" true
	status 0
	ok 'start creates `default`; lima goes there'
	[ -n "$taken" ] || same "$(field default SSHLocalPort)" 60022
	lc stop
	status 0
	ok 'stop without a name'
	lc delete default
	plan "$goodboot"
	feed "$tiny"
	lc start --name plain --plain --cpus 1 -
	status 0
	logged info "READY. Run \`ssh -F \`$LIMA_HOME/plain/ssh.config\` lima-plain\` to open the shell." 2>/dev/null || :
	errhas "READY. Run \`ssh -F"
	pair -smp 1,sockets=1,cores=1,threads=1
	lc delete -f plain
	ok 'start --plain --cpus 1'
	plan "$goodboot"
	feed '{images: [location: /etc/profile], disk: 1M, message: "hello {{.Name}}\nport {{.SSHLocalPort}}"}'
	lc start --name msg -
	status 0
	logged info 'Message from the instance `msg`:'
	holds grep -qx 'hello msg' "$err"
	holds grep -qx "port $(field msg SSHLocalPort)" "$err"
	lc delete -f msg
	ok 'the message of an instance'
	plan "$goodboot"
	: >"$T/in"
	background start --foreground dev
	await 20 is dev Running || bad 'it does not run'
	await 20 grep -q '"running":true' "$log" || bad 'it did not come up'
	same "$(agentpid dev)" "$pid"
	send INT "$pid"
	collect 20
	status 0
	clean dev
	ok 'start --foreground becomes the host agent'
	lc start --arch aarch64 dev
	errhas 'not applicable to an existing instance'
	lc stop dev
	lc start --cpus 1 dev
	status 0
	filehas "$LIMA_HOME/dev/lima.yaml" 'cpus: 1'
	pair -smp 1,sockets=1,cores=1,threads=1
	lc stop dev
	ok 'flags on an existing instance'
	printf 'images: [\n' >"$LIMA_HOME/dev/lima.yaml"
	lc start dev
	fatalhas 'instance "dev" has configuration errors: '
	ok 'start of an instance with a broken lima.yaml'
	lc delete -f dev
	status 0
	ok 'delete of an instance with a broken lima.yaml'

	finish
}

# --- list ---------------------------------------------------------------------

test_list() {
	begin list
	unset LIMA_HOME
	LIMA_HOME=$HOME/.lima
	mkdir "$LIMA_HOME"
	homes="$homes $LIMA_HOME"
	export LIMA_HOME
	for i in foo b.a Zed; do
		mk "$i" "{images: [location: /etc/profile], disk: 3M, memory: 1500M, cpus: 1}"
		status 0
	done
	mkdir "$LIMA_HOME/_disks" "$LIMA_HOME/.hidden"
	: >"$LIMA_HOME/afile"
	lc list
	status 0
	noerr
	same "$(sed -n 1p "$out")" 'NAME    STATUS     SSH            VMTYPE    ARCH      CPUS    MEMORY      DISK    DIR'
	same "$(sed -n 4p "$out")" "foo     Stopped    127.0.0.1:0    qemu      $(uname -m)    1       1.465GiB    3MiB    ~/.lima/foo"
	same "$(awk '{ print $1 }' "$out" | tr '\n' ' ')" 'NAME Zed b.a foo '
	ok 'the table: header, columns, order; no files, hidden or _names'
	cp "$out" "$T/table"
	lc ls
	holds cmp "$T/table" "$out"
	lc list foo Zed
	same "$(awk '{ print $1 }' "$out" | tr '\n' ' ')" 'NAME foo Zed '
	ok 'ls, and the order of the arguments'
	lc list -q
	noerr
	outis 'Zed
b.a
foo'
	lc ls --quiet foo
	outis foo
	ok 'list --quiet'
	lc list --json
	status 0
	noerr
	same "$(wc -l <"$out")" 3
	same "$(sed 's/^{"name":"\([^"]*\)","hostname":"\([^"]*\)","status":"Stopped","dir":.*/\1 \2/' "$out" | tr '\n' ' ')" \
		'Zed lima-Zed b.a lima-b-a foo lima-foo '
	cp "$out" "$T/json"
	lc list --format json
	holds cmp "$T/json" "$out"
	lc list --json foo
	if have jq; then
		cp "$out" "$T/json"
		run jq -r 'keys_unsorted | join(" ")' "$T/json"
		outis 'name hostname status dir vmType arch cpus memory disk sshConfigFile config sshAddress protected limaVersion HostOS HostArch LimaHome IdentityFile shares'
		run jq -r 'select(.memory == 1572864000 and .disk == 3145728 and .config.memory == "1500M" and .protected == false and .cpus == 1) | .name' "$T/json"
		outis foo
		ok 'list --json: a line each, keys in their order, numbers'
		run jq -r '.config | keys_unsorted | join(" ")' "$T/json"
		same "$(tr ' ' '\n' <"$out" | grep -nx 'os\|arch\|images\|cpus\|memory\|disk\|ssh\|plain\|user' | cut -d : -f 2 | tr '\n' ' ')" \
			'os arch images cpus memory disk ssh plain user '
		ok 'config: keys in their order'
	else
		skip 'list --json: keys' 'jq is not installed'
	fi
	lc list --json --format table
	fatal 'option --json conflicts with option --format'
	lc list -q --json
	fatal "option --quiet can only be used with '--format table'"
	ok 'conflicts of options'
	lc list --format '{{.Name}} {{ .Status }}|{{.Disk}}' foo Zed
	noerr
	outis 'foo Stopped|3145728
Zed Stopped|3145728'
	lc list --format 'unix://{{.Dir}}/sock' foo
	outis "unix://$LIMA_HOME/foo/sock"
	lc list --format '{{.SSHConfigFile}} {{.HostOS}} {{.HostArch}} {{.LimaHome}} {{.IdentityFile}} {{.SSHLocalPort}} {{.Protected}}' foo
	outis "$LIMA_HOME/foo/ssh.config linux $(uname -m) $LIMA_HOME $LIMA_HOME/_config/user 0 false"
	ok 'list --format with a template'
	lc list --format '{{.Unknown}}'
	fatal "template: format:1:2: executing \"format\" at <.Unknown>: can't evaluate field Unknown in type store.FormatData"
	lc list --format '{{.Name'
	fatalhas 'invalid go template: '
	ok 'a template with an unknown field, or cut'
	lc list nope foo none
	status 1
	logged warning 'No instance matching nope found.'
	logged warning 'No instance matching none found.'
	logged fatal 'unmatched instances'
	same "$(wc -l <"$out")" 2
	outre '^foo '
	ok 'unknown names: warnings, the others, status 1'
	lc list -q nope
	status 1
	noout
	ok 'list -q of an unknown name'
	lc list nope
	status 1
	same "$(awk '{ print $1 }' "$out")" NAME
	ok 'only unknown names: the header'

	mkdir "$LIMA_HOME/probe"
	lc list
	status 0
	outre '^probe +Broken +:0 +0 +0B +0B +~/\.lima/probe$'
	errhas 'level=warning msg="instance `probe` has errors" errors='
	logged warning "The directory \`$LIMA_HOME\` does not look like a valid Lima directory: open $LIMA_HOME/probe/lima.yaml: no such file or directory" 2>/dev/null || :
	: >"$failures"
	outre '^probe +Broken +:0 +0 +0B +0B +~/\.lima/probe$'
	errhas 'level=warning msg="instance `probe` has errors" errors='
	errhas 'does not look like a valid Lima directory'
	ok 'a directory without lima.yaml: Broken'
	lc list --json probe
	status 0
	outre '^\{"name":"probe","hostname":"[^"]*","status":"Broken"'
	lc list -q
	noerr
	outre '^probe$'
	lc list foo probe
	status 0
	ok 'and named, as JSON, quietly'
	for w in delete 'delete -f'; do
		# shellcheck disable=SC2086
		lc $w probe
		fatal "instance \`probe\` directory \`$LIMA_HOME/probe\` exists but its \`lima.yaml\` could not be read; it was NOT deleted, in case it is currently being cloned into. If no \`limactl\` operation is using it, remove it manually"
		holds test -d "$LIMA_HOME/probe"
	done
	ok 'delete does not touch it'
	lc shell probe true
	fatalhas 'does not exist'
	lc stop probe
	fatal "open $LIMA_HOME/probe/lima.yaml: no such file or directory"
	ok 'shell and stop do not know it'
	rmdir "$LIMA_HOME/probe"
	mkdir "$LIMA_HOME/bad"
	printf 'images: [\n' >"$LIMA_HOME/bad/lima.yaml"
	lc list
	status 0
	errhas 'instance `bad` has errors'
	outre '^bad +:0 +0 +0B +0B '
	lc list --json bad
	outhas '"status":""'
	outhas '"errors":["'
	ok 'a broken lima.yaml: an empty status and its error'
	rm -r "$LIMA_HOME/bad"

	# stale and foreign pids, a port of a last start
	sleep 100 &
	stranger=$!
	echo "$stranger" >"$LIMA_HOME/foo/ha.pid"
	echo "$stranger" >"$LIMA_HOME/foo/qemu.pid"
	printf 'Host lima-foo\n  Hostname 127.0.0.1\n  Port 12345\n' >"$LIMA_HOME/foo/ssh.config"
	lc list foo
	outre '^foo +Stopped +127\.0\.0\.1:12345 '
	lc list --json foo
	outlacks hostAgentPID
	outlacks driverPID
	holds kill -0 "$stranger"
	ok 'pids of a live stranger do not count; the last port is shown'
	for w in 'stop -f' delete; do
		# shellcheck disable=SC2086
		lc $w foo
		status 0
		holds kill -0 "$stranger"
	done
	ok 'and the stranger is not killed by stop -f or delete'
	kill "$stranger"
	wait "$stranger" 2>/dev/null || :

	lc delete nope
	status 0
	noout
	logged warning 'Ignoring non-existent instance `nope`'
	ok 'delete of a missing instance'
	: >"$LIMA_HOME/Zed/protected"
	lc list --format '{{.Protected}}' Zed
	outis true
	for w in delete 'delete -f'; do
		# shellcheck disable=SC2086
		lc $w Zed
		fatal 'failed to delete instance `Zed`: instance is protected to prohibit accidental removal (Hint: use `limactl unprotect`)'
	done
	ok 'delete of a protected instance'
	rm "$LIMA_HOME/Zed/protected"
	mkdir "$HOME/precious" "$LIMA_HOME/b.a/sub"
	: >"$HOME/precious/file"
	ln -s "$HOME/precious" "$LIMA_HOME/b.a/link"
	lc rm Zed nope b.a
	status 0
	logged info "Deleted \`Zed\` (\`$LIMA_HOME/Zed\`)"
	logged info "Deleted \`b.a\` (\`$LIMA_HOME/b.a\`)"
	holds test -e "$HOME/precious/file"
	ok 'delete of several; links are not followed'
	rm -r "$LIMA_HOME/_disks" "$LIMA_HOME/.hidden" "$LIMA_HOME/afile"
	finish
}

# --- static -------------------------------------------------------------------

test_static() {
	begin static
	if [ -x ./limactl-static ]; then
		size=$(stat -c %s limactl-static)
		[ "$size" -lt 500000 ] || bad "$size bytes"
		ok 'limactl-static is smaller than 500 KB'
		if have readelf; then
			fails sh -c 'readelf -l limactl-static | grep -q INTERP'
			fails sh -c 'readelf -d limactl-static | grep -q NEEDED'
			ok 'it needs no library'
		fi
		mkdir -p "$HOME/root/h"
		cp limactl-static "$HOME/root/limactl"
		chrooted=
		for c in 'chroot' 'unshare -r chroot'; do
			# shellcheck disable=SC2086
			if [ -z "$chrooted" ] && $c "$HOME/root" /limactl --version >/dev/null 2>&1; then chrooted=$c; fi
		done
		if [ -n "$chrooted" ]; then
			for c in --version 'list' info 'create --list-templates' 'validate --fill template:default'; do
				# shellcheck disable=SC2086
				run env -i "PATH=$PATH" HOME=/h LIMA_HOME=/h $chrooted "$HOME/root" /limactl $c
				status 0
				[ "$c" = list ] || [ -s "$out" ] || bad 'no output'
				ok "limactl-static $c in an empty root"
			done
			# shellcheck disable=SC2086
			set -- $chrooted
			run env -i "PATH=$PATH" HOME=/h LIMA_HOME=/h "$@" "$HOME/root" /limactl create
			status 1
			errhas 'passwd\|not found' 2>/dev/null || :
			: >"$failures"
			[ "$rc" -eq 1 ] || bad "status $rc"
			[ -s "$err" ] || bad 'it says nothing'
			ok 'limactl-static create in an empty root fails in good order'
		else
			skip 'limactl-static in an empty root' 'chroot is not allowed'
		fi
		same "$(./limactl-static info 2>/dev/null | sed -n 's/.*"name": "\(default\)".*/\1/p' | head -n 1)" default
		ok 'its templates are inside'
	else
		skip 'limactl-static' 'run make static'
	fi
	finish
}

# --- tree ---------------------------------------------------------------------

test_tree() {
	begin tree
	sed -n '1,/^ \*\//s/^ \*	 *\([0-9]*\. .*[^ ]\)  *[0-9]*$/\1/p' lima.c >"$T/contents"
	sed -n 's,^/\* ---- \([0-9]*\. .*[^ -]\) -*  *-* *\*/$,\1,p' lima.c | sed 's/ -*$//' >"$T/banners"
	cmd='contents and banners'
	diff "$T/contents" "$T/banners" >"$out" || bad 'they differ'
	[ "$(wc -l <"$T/banners")" -gt 10 ] || bad 'too few banners'
	ok 'the contents list of lima.c is its banners'
	for f in lima.c yaml.c config.def.h guestagent.c Makefile test.sh README limactl.1 LICENSE .ci/run guest templates tests; do
		holds test -e "$f"
	done
	[ "$(find . -maxdepth 1 -name '*.[ch]' ! -name config.h ! -name embed.h | wc -l)" = 4 ] || bad 'another C file at the top'
	ok 'the tree of the design'
	for c in 'make run' 'make test'; do filehas README "$c"; done
	filehas .ci/run 'make test'
	ok 'README names make run and make test; .ci/run calls the latter'
	fails grep -nE '\b(system|popen|usleep|nanosleep|sleep|strcpy|strcat|sprintf|atoi|gets)\(' lima.c yaml.c guestagent.c
	ok 'no shell, sleep or unbounded string function in the C files'
	mkdir "$HOME/tree"
	cp Makefile config.def.h "$HOME/tree/"
	run make -C "$HOME/tree" config.h
	status 0
	echo '/* mine */' >>"$HOME/tree/config.h"
	touch "$HOME/tree/config.def.h"
	run make -C "$HOME/tree" config.h
	filehas "$HOME/tree/config.h" '/* mine */'
	ok 'make copies config.def.h once and never over config.h'
	nopath apt-get sudo mmdebstrap
	run make -C "$HOME/tree" setup-run
	PATH=$realpath
	[ "$rc" != 0 ] || bad 'status 0'
	errhas mmdebstrap
	ok 'without apt-get make run names what is missing'
	fails grep -nE '(^|[^A-Za-z])/(work|home/[a-z]+/)' lima.c yaml.c Makefile test.sh tests/fake.c README limactl.1
	ok 'no path of a machine in the sources'
	if have mandoc && [ -e limactl.1 ]; then
		run mandoc -T lint -W warning limactl.1
		status 0
		ok 'limactl.1 passes mandoc -T lint'
	else
		skip 'limactl.1 passes mandoc -T lint' 'mandoc is not installed'
	fi
	for s in NAME SYNOPSIS DESCRIPTION ENVIRONMENT FILES 'EXIT STATUS' EXAMPLES; do
		[ -e limactl.1 ] && filehas limactl.1 ".Sh $s"
	done
	ok 'limactl.1 has its sections'
	if have shellcheck; then
		limit=600
		run shellcheck -s sh guest/*.sh test.sh tests/*.sh
		status 0
		ok 'shellcheck'
	else
		skip shellcheck 'shellcheck is not installed'
	fi
	for f in guest/*.sh test.sh tests/*.sh .ci/run; do
		run sh -n "$f"
		status 0
	done
	if have dash; then
		for f in guest/*.sh test.sh tests/*.sh; do
			run dash -n "$f"
			status 0
		done
	fi
	if have busybox; then
		run busybox sh -n guest/boot.sh
		status 0
	fi
	ok 'the scripts parse in sh, dash and busybox'
	finish
}

# --- vm -----------------------------------------------------------------------

# in the guest: run with its status and words, for at most 30 s
sh_() { lc shell "$vm" "$@"; }
guestsays() {	# guestsays EXPECTED COMMAND...
	expected=$1
	shift
	sh_ "$@"
	status 0
	outis "$expected"
}
# jsonscript TEMPLATE N: its script N as a string of JSON
jsonscript() {
	"$LIMACTL" template yq "template:$1" ".provision[$2].script" |
		sed -e 's/[\\"]/\\&/g' | awk 'BEGIN { printf "\"" } { printf "%s\\n", $0 } END { printf "\"" }'
}
# newssh: $m2 is the ssh master, and not $m; rebooted: the boot is not $id
newssh() {
	m2=$(timeout 5 ssh -F "$dir/ssh.config" -O check "lima-$vm" 2>&1 | sed -n 's/.*pid=\([0-9]*\).*/\1/p')
	[ -n "$m2" ] && [ "$m2" != "$m" ]
}
rebooted() { new=$(bootid) && [ -n "$new" ] && [ "$new" != "$id" ]; }
bootid() { timeout 30 "$LIMACTL" shell "$vm" cat /proc/sys/kernel/random/boot_id </dev/null 2>/dev/null; }

test_vm() {
	beginguest vm default
	for p in "$qemu" qemu-img ssh; do
		if ! have "$p"; then
			skip 'all of it' "$p is not installed"
			return
		fi
	done
	printf 'images: [{location: "%s"}]\ncpus: 2\nmemory: 1GiB\ndisk: 20GiB\ncontainerd: {user: false}\n' "$image" >"$HOME/vm.yaml"
	ln -sf "$LIMACTL" "$T/lima"

	limit=900
	lc create --tty=false --name "$vm" "$HOME/vm.yaml"
	status 0
	noout
	shape
	ok "create out of $image"
	if [ "$rc" != 0 ]; then
		finish
		return
	fi
	now=$(date +%s)
	limit=300
	lc start --tty=false
	printf '# first start: %d s\n' $(($(date +%s) - now))
	status 0
	noout
	shape
	errhas 'Boot stage: init system ('
	case $(tail -n 1 "$err") in
	*'msg="READY. Run `lima` to open the shell."') ;;
	*) bad 'the last line is not READY' ;;
	esac
	ok 'start: boot stages, READY, status 0'
	if [ "$rc" != 0 ]; then
		timeout 60 "$LIMACTL" delete -f "$vm" >/dev/null 2>&1
		finish
		return
	fi

	# power lost right after READY: what the boot wrote is on the disk
	send KILL "$(qemupid "$vm")"
	await 10 is "$vm" Stopped || bad 'QEMU was killed, and the instance is not Stopped'
	limit=120
	lc start
	status 0
	guestsays 0 sudo -n id -u
	ok 'QEMU is killed right after the first start: the next start works'

	# shell
	for s in 0 1 42 255; do
		sh_ sh -c "exit $s"
		status "$s"
		noout
		noerr
	done
	ok 'the status of a command is passed on'
	sh_ sh -c 'kill -KILL $$'
	[ "$rc" = 137 ] || [ "$rc" = 255 ] || bad "status $rc"
	ok 'a command killed by a signal'
	guestsays 'foo
bar' bash -c '
	echo foo
	echo bar'
	guestsays 'foo "bar"' bash -c "echo 'foo \"bar\"'"
	guestsays "a'b \$HOME \`x\` \\ *" echo "a'b \$HOME \`x\` \\ *"
	guestsays '[] [ ] [	]' printf '[%s] [%s] [%s]' '' ' ' '	'
	guestsays 'käse ☃' echo 'käse ☃'
	guestsays 'x	y' printf '%s\n' 'x	y'
	ok 'quotes, tabs, line breaks and blanks reach the command'
	sh_ sh -c 'touch "$HOME/x y" && ls "$HOME"'
	outhas 'x y'
	ok 'the guest expands what is quoted for it'
	guestsays 'b c' A='b c' sh -c 'echo $A'
	ok 'NAME=VALUE words'
	lc shell --workdir=/usr "$vm" -- pwd
	outis /usr
	lc shell --workdir=/no/such "$vm" pwd
	status 1
	noout
	ok '--workdir, there and not'
	guestsays '-- x' echo -- x
	lc shell "$vm" -- echo x
	outis x
	ok '-- is dropped once'
	printf 'cd /usr\npwd\necho done >&2\nexit 3\n' >"$T/in"
	input=$T/in
	lc shell --workdir / "$vm"
	status 3
	outis /usr
	outhas /usr
	errhas 'done'
	ok 'a script on stdin'
	printf 'a\0b\n' >"$T/in"
	input=$T/in
	sh_ od -c
	outhas 'a  \0   b'
	ok 'stdin is passed on'
	sh_ sh -c 'echo out; echo err >&2'
	outis out
	same "$(cat "$err")" err
	ok 'stdout and stderr stay apart'
	sh_ sh -c 'test -t 0 || test -t 1 || echo none'
	outis none
	if have script; then
		run script -qec "'$LIMACTL' shell $vm tty" /dev/null
		outhas /dev/pts/
		ok 'a terminal only when stdout is one'
	else
		skip 'a terminal when stdout is one' 'script is not installed'
	fi
	sh_ head -c 3000000 /dev/zero
	same "$(stat -c %s "$out")" 3000000
	ok 'three megabytes through stdout'
	run "$T/lima" uname
	status 0
	outis Linux
	run ssh -F "$dir/ssh.config" "lima-$vm" true
	status 0
	noerr
	ok 'lima uname; ssh -F ssh.config'

	# the user, names, disk
	guest=$(field "$vm" Name >/dev/null; "$LIMACTL" validate --fill "$HOME/vm.yaml" 2>/dev/null | sed -n '/^user:/,/^[^ ]/s/^  name: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p')
	want=$uid
	[ "$uid" != 0 ] || want=1000
	if [ "$uid" = 0 ]; then same "$guest" lima; else same "$guest" "$(id -un)"; fi
	guestsays "$guest" id -un
	guestsays "$want" id -u
	guestsays "/home/$guest.linux" sh -c 'echo $HOME'
	guestsays "/home/$guest.linux" sh -c "cd && pwd"
	guestsays "/home/$guest.linux" readlink -f "/home/$guest.guest"
	guestsays "$guest 700" stat -c '%U %a' "/home/$guest.linux"
	guestsays "$(getent passwd "$uid" 2>/dev/null | cut -d : -f 5 | cut -d , -f 1)" sh -c 'getent passwd $(id -u) | cut -d : -f 5 | cut -d , -f 1'
	ok 'the user is mirrored: name, uid, full name, home'
	guestsays 0 sudo -n id -u
	guestsays "lima-$vm" hostname
	guestsays "lima-$vm" cat /etc/hostname
	guestsays 192.168.5.2 sh -c 'getent ahostsv4 host.lima.internal | cut -d " " -f 1 | sort -u'
	ok 'sudo, host name, host.lima.internal'
	await 60 eval '[ "$(timeout 20 "$LIMACTL" shell "$vm" df -B1G --output=size / </dev/null | tail -n 1)" -ge 18 ]' || bad 'the root file system is not grown to 20 GiB'
	guestsays 21474836480 sh -c 'cat /sys/block/vda/size | { read -r n; echo $((n * 512)); }'
	ok 'disk and root file system have the configured size'
	sh_ sudo sh -c 'd=$(grep -l "^cidata" /sys/block/vd*/serial); d=${d%/serial}; mkdir -p /tmp/c && mount -o ro "/dev/${d##*/}" /tmp/c &&
		cat /tmp/c/meta-data && stat -c "%a %n" /tmp/c/user-data /tmp/c/ssh_host_ed25519_key && umount /tmp/c'
	status 0
	outhas "local-hostname: lima-$vm"
	outre '^[67]00 /tmp/c/user-data'	# boot.sh mounts it for root alone
	outre '^[67]00 /tmp/c/ssh_host_ed25519_key'
	ok 'the kernel mounts cidata.iso with its names and modes'
	sh_ sh -c 'cat /run/lima-boot-done; systemctl is-system-running; systemctl --failed --no-legend; ls -d /etc/cloud 2>/dev/null'
	outre '^iid-'
	outre '^(running|starting)$'
	outlacks failed
	outlacks /etc/cloud
	ok 'boot.sh is done, no unit failed, no cloud-init'

	# ssh
	filehas "$dir/ssh.config" 'StrictHostKeyChecking yes'
	guestsays "$(cut -d ' ' -f 2-3 "$dir/known_hosts")" sh -c 'cut -d " " -f 1-2 /etc/ssh/ssh_host_ed25519_key.pub'
	cp "$dir/known_hosts" "$T/known"
	ssh-keygen -q -t ed25519 -N '' -f "$T/other" </dev/null
	printf 'lima-%s %s\n' "$vm" "$(cut -d ' ' -f 1-2 "$T/other.pub")" >"$dir/known_hosts"
	run ssh -F "$dir/ssh.config" -o ControlPath=none "lima-$vm" true
	status 255
	errhas 'HOST IDENTIFICATION HAS CHANGED'
	cp "$T/known" "$dir/known_hosts"
	run ssh -F "$dir/ssh.config" -o ControlPath=none "lima-$vm" true
	status 0
	ok 'the host key of the guest is pinned'

	# what runs on the host
	is "$vm" Running || bad 'not Running'
	lc start
	status 0
	logged info 'The instance `default` is already running. Run `lima` to open the shell.'
	ok 'list and start of what runs'
	port=$(field "$vm" SSHLocalPort)
	same "$(sed -n '1s/.*"status"://p' "$dir/ha.stdout.log")" "{\"sshLocalPort\":$port}}"
	same "$(sed -n 's/.*"status":{"running"/{"running"/p' "$dir/ha.stdout.log" | head -n 1)" "{\"running\":true,\"sshLocalPort\":$port}}"
	if grep -vqE '^\{.*"level":"[a-z]+","msg":".*","time":"[^"]*"\}$' "$dir/ha.stderr.log"; then bad 'a line of ha.stderr.log is not JSON'; fi
	if grep -qE '"level":"(warning|error|fatal)"' "$dir/ha.stderr.log"; then bad 'ha.stderr.log has a warning'; fi
	if have curl; then
		same "$(curl -s --max-time 5 --unix-socket "$dir/ha.sock" http://lima/v1/info)" "{\"sshLocalPort\":$port}"
	fi
	ok 'events, log lines and ha.sock'
	a=$(agentpid "$vm")
	grow=$(wakeups "$a")
	sleep 5
	same "$(wakeups "$a")" "$grow"
	case $LIMACTL in
	*asan*) ;;
	*) rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$a/status")
	   [ "$rss" -lt 4096 ] || bad "$rss KiB resident"
	   printf '# host agent: %d KiB resident\n' "$rss" ;;
	esac
	ok 'the host agent: no wake-up in 5 s, less than 4 MB'
	same "$(grep -c '^Seccomp:.*[12]$' "/proc/$(qemupid "$vm")/status")" 1
	ok 'QEMU runs with its seccomp filter'

	# deaths
	id=$(bootid)
	[ -n "$id" ] || bad 'no boot id'
	send KILL "$a"
	await 5 is "$vm" Broken || bad "the status is $(field "$vm" Status)"
	lc list
	errhas '`limactl start default` adopts it'
	guestsays "$id" cat /proc/sys/kernel/random/boot_id
	ok 'the host agent is killed: Broken with the hint, shell works'
	now=$(date +%s)
	limit=60
	lc start
	status 0
	errhas READY
	errhas adopt
	is "$vm" Running || bad 'not Running'
	guestsays "$id" cat /proc/sys/kernel/random/boot_id
	[ $(($(date +%s) - now)) -le 10 ] || bad "took $(($(date +%s) - now)) s"
	ok 'start adopts the VM without a reboot'
	m=
	newssh && m=$m2
	send KILL "$m"
	await 30 newssh || bad 'no new master'
	guestsays "$id" cat /proc/sys/kernel/random/boot_id
	is "$vm" Running || bad 'not Running'
	ok 'the ssh master is killed: a new one by itself'
	guestsays kept sh -c 'cd; echo kept >kept; sync; cat kept'
	a=$(agentpid "$vm")
	m=$m2
	lc shell "$vm" sudo reboot
	await 90 rebooted || bad 'it did not come back'
	same "$(agentpid "$vm")" "$a"
	is "$vm" Running || bad 'not Running'
	await 30 newssh || bad 'no master after the reboot'
	ok 'the guest reboots: the agent stays, ssh comes back'
	guestsays kept sh -c 'cat ~/kept'
	ok 'a file survives'

	# the end, in order
	instop() {
		now=$(date +%s)
		limit=60
		lc stop
		printf '# stop: %d s\n' $(($(date +%s) - now))
		status 0
		noout
		shape
		logged info 'The instance default has shut down'
		errlacks forcibly
		errlacks 'asking QEMU to quit'
		[ "$rc" = 0 ] || timeout 60 "$LIMACTL" stop -f 2>/dev/null
		clean "$vm"
		same "$(sed -n '$s/.*"status"://p' "$dir/ha.stdout.log")" '{"exiting":true}}'
		run qemu-img check -q "$dir/disk"
		status 0
	}
	instop
	ok 'stop: in order, nothing left'
	lc stop
	fatal 'expected status `Running`, got `Stopped` (maybe use `limactl stop -f`?)'
	ok 'stop of what is stopped'

	# ^C in the middle of a boot
	: >"$T/in"
	now=$(date +%s)
	background start
	await 60 grep -q 'SSH Local Port' "$err" || bad 'QEMU did not start'
	send INT "-$pid"
	collect 5
	fatalhas interrupted
	is "$vm" Running || bad "the status is $(field "$vm" Status)"
	ok '^C during start: one line, and the VM goes on'
	limit=120
	lc start
	status 0
	printf '# start, interrupted and joined: %d s\n' $(($(date +%s) - now))
	ok 'the second start follows it to READY'
	instop
	ok 'stop right after READY: in order'
	now=$(date +%s)
	limit=120
	lc start
	status 0
	printf '# restart: %d s\n' $(($(date +%s) - now))
	guestsays kept sh -c 'cat ~/kept'
	# ext4 recovers its journal when it was not unmounted
	sh_ sh -c 'sudo dmesg | grep -c "recovery complete"; sudo journalctl -b -1 -n 1 -q --no-pager'
	same "$(sed -n 1p "$out")" 0
	outhas 'Journal stopped'
	ok 'restart: the file is there, the disk was left clean'
	send KILL "$(agentpid "$vm")"
	await 5 is "$vm" Broken || :
	instop
	ok 'stop after the host agent was killed'

	# as another user, with the host's full name
	gecos='Zoë "Z" Ünïcode'
	lc delete "$vm"
	status 0
	ok 'delete'
	if [ "$uid" = 0 ] && have setpriv && unshare -m true 2>/dev/null; then
		vm=zoe
		LIMA_HOME=$T/zoe
		XDG_CACHE_HOME=$T/zoe.cache
		homes="$homes $LIMA_HOME"
		dir=$LIMA_HOME/$vm
		{ grep -v '^zoe:' /etc/passwd | awk -F: '$3 != 70001'; printf 'zoe:x:70001:100:%s,room:%s:/bin/sh\n' "$gecos" "$T/zoe.home"; } >"$T/passwd"
		mkdir "$LIMA_HOME" "$XDG_CACHE_HOME" "$XDG_CACHE_HOME/lima" "$T/zoe.home"
		mkdir "$XDG_CACHE_HOME/lima/mmdebstrap"
		for f in "$realcache"/lima/mmdebstrap/*; do
			case $f in *.tmp | *.lock) continue ;; esac
			cp -R --sparse=always --reflink=auto "$f" "$XDG_CACHE_HOME/lima/mmdebstrap/"
		done
		cp "$HOME/vm.yaml" "$T/zoe.home/vm.yaml"
		chown -R 70001:100 "$LIMA_HOME" "$XDG_CACHE_HOME" "$T/zoe.home"
		chmod 1777 "$TMPDIR"
		HOME=$T/zoe.home
		aszoe() {
			run unshare -m sh -c 'mount --bind "$0/passwd" /etc/passwd && exec setpriv --reuid 70001 --regid 100 --clear-groups "$@"' "$T" "$@"
		}
		limit=300
		aszoe "$anyone" start --name "$vm" "$HOME/vm.yaml"
		status 0
		noout
		errlacks level=warning
		errhas 'Using cache'
		errhas READY
		for c in 'id -un=zoe' 'id -u=70001' 'printenv HOME=/home/zoe.linux' 'sudo -n id -u=0' 'hostname=lima-zoe'; do
			# shellcheck disable=SC2086
			aszoe "$anyone" shell "$vm" ${c%%=*}
			outis "${c#*=}"
		done
		aszoe "$anyone" shell "$vm" sh -c 'getent passwd zoe | cut -d : -f 5'
		outis "$gecos"
		ok 'a normal user, uid 70001, a full name beyond ASCII'
		aszoe "$anyone" list --format '{{.Status}}'
		outis Running
		aszoe "$anyone" shell "$vm" sudo poweroff
		await 60 is "$vm" Stopped || bad "the status is $(field "$vm" Status)"
		await 5 eval '[ -z "$(alive)" ]' || bad 'a process is left'
		clean "$vm"
		filehas "$dir/ha.stdout.log" '"exiting":true'
		ok 'poweroff in the guest: Stopped'
		aszoe "$anyone" delete "$vm"
		status 0
		ok 'and delete'
		rm -rf "$LIMA_HOME/_config" "$XDG_CACHE_HOME"
	else
		skip 'another user' 'needs root, setpriv and mount name spaces'
	fi
	finish
}

# --- what was asked for -------------------------------------------------------

for f in tests/unit-*.sh tests/guest-*.sh; do
	# shellcheck source=/dev/null
	case $f in *'*'*) ;; *) . "./$f" ;; esac
done

# One function, read whole: the file may change while we run.
main() {
	[ $# -gt 0 ] || set -- unit guest
	for s; do
		case " $unit $guest /$s" in
		*" $s "*) sections="${sections-} $s" ;;
		*/unit) sections="${sections-} $unit" ;;
		*/guest) sections="${sections-} $guest" ;;
		*) echo "Bail out! no section $s: $unit $guest"; exit 2 ;;
		esac
	done
	for s in $sections; do
		"test_$s"
	done

	sect=end cmd='' rc=0
	: >"$out"
	: >"$err"
	for p in $(alive); do
		bad "process $p $(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | cut -c 1-200)"
	done
	[ -z "$(ls -A "$TMPDIR")" ] || bad "in TMPDIR: $(ls -A "$TMPDIR")"
	for f in "$realcache"/lima/mmdebstrap/*.tmp; do
		# somebody who builds now holds the lock
		if [ -e "$f" ] && flock -n "${f%.tmp}.lock" true 2>/dev/null; then bad "half-built: $f"; fi
	done
	ok 'no process and no temporary file is left'
	cleanup
	if [ -e "$T" ]; then
		sect=end failures=/dev/null
		result 'not ok' "$T is left"
	fi
	echo "1..$n"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed = 0 ]
}
main "$@"; exit
