#!/bin/sh
# shellcheck disable=SC2016  # words for the shell of the guest
# bench.sh - medians side by side with a bare QEMU of the same image and devices
#
# Machines differ, so ratios count. BENCH_N (3) runs of each boot are taken in
# turn: ours, bare, ours, bare. The bare boot is the command line of our own QEMU
# on a copy of the instance, without a host agent; both are timed to the line
# with which the guest says that sshd listens.
set -eu
cd "$(dirname "$0")/.."
limactl=${LIMACTL:-$PWD/limactl}
n=${BENCH_N:-3}
XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}
export XDG_CACHE_HOME
LIMA_HOME=$(mktemp -d /tmp/lima-bench.XXXXXX)
export LIMA_HOME
tmp=$LIMA_HOME/_bench
mkdir "$tmp"
inst=$LIMA_HOME/bench
qpid=
finish() {
	[ -z "$qpid" ] || kill "$qpid" 2>/dev/null || :
	"$limactl" --log-level=fatal delete -f bench engine >/dev/null 2>&1 || :
	rm -rf "$LIMA_HOME"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

ms() { echo $(($(date +%s%N) / 1000000)); }
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
row() { # what ours reference
	awk -v w="$1" -v a="$2" -v b="$3" -v u="$4" 'BEGIN {
		r = b == "" ? "" : sprintf("%.2f", a / b)
		printf "%-44s %9s %9s %6s  %s\n", w, a, b, r, u }'
}
# Wait until the console of directory $1 says that sshd listens.
word() { timeout 300 tail -s 0.02 -n +1 -F "$1/serial.log" 2>/dev/null | grep -qm1 lima-ssh-ready; }

# One start of ours: ms to the word and to Running, appended to $tmp/$1.*
ours() { # mode [instance]
	set -- "$1" "${2:-bench}"
	: >"$LIMA_HOME/$2/serial.log"
	a=$(ms)
	{ word "$LIMA_HOME/$2"; ms >"$tmp/t"; } &
	w=$!
	"$limactl" --log-level=error start "$2"
	b=$(ms)
	wait "$w"
	echo $(($(cat "$tmp/t") - a)) >>"$tmp/$1.word"
	echo $((b - a)) >>"$tmp/$1.running"
}
# One bare boot of the copy $tmp/bare: ms to the word and to a finished handshake.
bare() {
	d=$tmp/bare
	: >"$d/serial.log"
	set --
	while IFS= read -r x; do set -- "$@" "$x"; done <"$tmp/argv"
	a=$(ms)
	"$@" >/dev/null 2>&1 </dev/null &
	qpid=$!
	word "$d"
	b=$(ms)
	ssh -F "$d/ssh.config" -o ControlMaster=yes -o ControlPath="$d/m.sock" -o ControlPersist=no \
		-f -N lima-bench </dev/null >/dev/null 2>&1
	c=$(ms)
	ssh -F "$d/ssh.config" -o ControlPath="$d/m.sock" lima-bench sudo poweroff >/dev/null 2>&1 </dev/null || :
	wait "$qpid" || :
	qpid=
	echo $((b - a)) >>"$tmp/$mode.bareword"
	echo $((c - a)) >>"$tmp/$mode.barehand"
}
# The copy for the bare boots, and the command line to boot it.
clone() {
	rm -rf "$tmp/bare"
	cp -a --reflink=auto --sparse=always "$inst" "$tmp/bare"
	rm -f "$tmp/bare"/*.sock "$tmp/bare"/*.pid "$tmp/bare/ha.qmp"
	sed -i "s/Port .*/Port $bport/" "$tmp/bare/ssh.config"
}

"$limactl" --log-level=error --tty=false create --name=bench --cpus=2 --memory=2 --containerd=none template:default
bport=$(($(id -u) % 1000 + 51234))
cp "$inst/disk" "$tmp/disk.new"
# the first run warms the page cache and gives QEMU's command line
mode=warm
ours warm
port=$(sed -n 's/^ *Port //p' "$inst/ssh.config")
tr '\0' '\n' <"/proc/$(cat "$inst/qemu.pid")/cmdline" |
	awk -v i="$inst" -v t="$tmp/bare" -v p="$port" -v q="$bport" '
	{ while (k = index($0, i "/")) $0 = substr($0, 1, k - 1) t "/" substr($0, k + length(i) + 1) }
	{ sub("127.0.0.1:" p "-", "127.0.0.1:" q "-") }
	/id=char-ha|chardev=char-ha/ { drop = 1 }
	NR > 1 && !drop { if (held != "") print held; held = $0; next }
	drop { held = ""; drop = 0; next }
	{ held = $0 }
	END { if (held != "") print held }' >"$tmp/argv"
# held is the option before a dropped value, so both go

i=0
while [ "$i" -lt "$n" ]; do
	i=$((i + 1))
	"$limactl" --log-level=fatal stop bench
	cp "$tmp/disk.new" "$inst/disk"
	clone
	mode=first
	bare
	mode=again
	bare
	ours first
	"$limactl" --log-level=fatal stop bench
	ours again
done

# the same with containerd, of the packages that are in the image
"$limactl" --log-level=fatal stop bench
i=0
while [ "$i" -lt "$n" ]; do
	i=$((i + 1))
	https_proxy=http://127.0.0.1:1 "$limactl" --log-level=error --tty=false create --name=engine --cpus=2 --memory=2 --containerd=user template:default
	ours firstengine engine
	"$limactl" --log-level=fatal stop engine
	ours againengine engine
	"$limactl" --log-level=fatal delete -f engine
done
"$limactl" --log-level=fatal start bench

# stop, from the guest's power-off to our return
: >"$tmp/stop"
i=0
while [ "$i" -lt "$n" ]; do
	i=$((i + 1))
	# keep listening after the end of our one line
	printf '{"execute":"qmp_capabilities"}\n' | socat -t 200 - "UNIX-CONNECT:$inst/qmp.sock,shut-none" >"$tmp/qmp" 2>/dev/null &
	w=$!
	a=$(ms)
	"$limactl" --log-level=fatal stop bench
	b=$(ms)
	wait "$w" 2>/dev/null || :
	s=$(sed -n 's/.*"seconds": \([0-9]*\), "microseconds": \([0-9]*\).*"SHUTDOWN".*/\1 \2/p' "$tmp/qmp" | awk '{ printf "%.0f", $1 * 1000 + $2 / 1000 }')
	echo $((b - s)) >>"$tmp/stop"
	echo $((b - a)) >>"$tmp/stopall"
	"$limactl" --log-level=fatal start bench
done

# shell: the same login shell through the same master
"$limactl" shell bench true
once() { # file command...: ms of a run
	f=$1
	shift
	a=$(ms)
	"$@" >/dev/null 2>&1 </dev/null
	echo $(($(ms) - a)) >>"$f"
}
k=0
while [ "$k" -lt 30 ]; do
	k=$((k + 1))
	once "$tmp/shell" "$limactl" shell bench true
	once "$tmp/ssh" ssh -F "$inst/ssh.config" lima-bench 'exec /bin/bash -l -c true'
done
rss=$(awk '/VmRSS/ { print $2 }' "/proc/$(cat "$inst/ha.pid")/status")
ctx() { awk '/^voluntary/ { print $2 }' "/proc/$(cat "$inst/ha.pid")/status"; }
a=$(ctx)
sleep 10
idle=$(($(ctx) - a))

# Port forwards. serve is a server in the guest; door opens and closes a port
# when it is told to, and knock measures from the order, its way included.
${MUSLCC:-musl-gcc} -w -O1 -static -o "$tmp/serve" tests/serve.c
"$limactl" shell bench sh -c 'cat >/var/tmp/serve && chmod 755 /var/tmp/serve' <"$tmp/serve"
p=$((30000 + $$ % 2000 * 10))
for s in "door 127.0.0.1 $p $((p + 1))" "sink 0.0.0.0 $((p + 2))"; do
	# shellcheck disable=SC2086  # words
	"$limactl" shell bench sh -c '/var/tmp/serve "$@" </dev/null >/dev/null 2>&1 &' sh $s
done
sleep 2
"$tmp/serve" knock 50 "$p" $((p + 1)) >"$tmp/knock"
for i in 1 2; do
	awk -v i=$i '{ print $i }' "$tmp/knock" | sort -n >"$tmp/knock.$i"
done
most() { tail -n 1 "$1"; }
ssh -F "$inst/ssh.config" -o ControlMaster=no -o ControlPath=none -N -L "127.0.0.1:$((p + 3)):127.0.0.1:$((p + 2))" lima-bench &
bare=$!
hmp() { printf '{"execute":"qmp_capabilities"}{"execute":"human-monitor-command","arguments":{"command-line":"%s"}}\n' "$1" |
	timeout 5 socat -t 1 - "UNIX-CONNECT:$inst/qmp.sock" >/dev/null; }
hmp "hostfwd_add net0 tcp:127.0.0.1:$((p + 4))-192.168.5.15:$((p + 2))"
sleep 2
for k in 1 2 3; do
	for i in 2 3 4; do
		"$tmp/serve" pour 127.0.0.1 $((p + i)) 16 >>"$tmp/pour.$i"
	done
done
kill "$bare"
mbits() { echo $((16 * 8388608 / 1000 / $(median "$1"))); }
hmp "hostfwd_remove net0 tcp:127.0.0.1:$((p + 4))"
gcpu() { "$limactl" shell bench sh -c 'awk "{ print \$14 + \$15 }" /proc/$(pgrep -x lima-guestagent)/stat'; }
hcpu() { awk '{ print $14 + $15 }' "/proc/$(cat "$inst/ha.pid")/stat"; }
g=$(gcpu)
h=$(hcpu)
sleep 60
h=$(($(hcpu) - h))
g=$(($(gcpu) - g))
"$limactl" shell bench pkill -x serve
"$limactl" shell bench sh -c 'ulimit -n 4096; /var/tmp/serve tcp 127.0.0.1 $(seq 40001 41000) </dev/null >/dev/null 2>&1 &'
t=$(ms)
until [ "$(ss -Hltn 'sport >= 40001 and sport <= 41000' | wc -l)" = 1000 ] || [ $(($(ms) - t)) -gt 30000 ]; do sleep 0.1; done
t1000=$(($(ms) - t))
rss1000=$(awk '/VmRSS/ { print $2 }' "/proc/$(cat "$inst/ha.pid")/status")
"$limactl" shell bench pkill -x serve

# What only reads files: us a run, of many runs at once, for one is too short to
# time; an aim (us) for 1, 20, 100 and 1,000 instances each, - for none
quick() { # command...
	a=$(date +%s%N)
	k=0
	while [ "$k" -lt 20 ]; do
		k=$((k + 1))
		"$limactl" "$@" >/dev/null 2>&1
	done
	echo $((($(date +%s%N) - a) / 20000))
}
i=0
for many in 1 20 100 1000; do
	while [ "$i" -lt $((many - 1)) ]; do
		i=$((i + 1))
		mkdir "$LIMA_HOME/i$i"
		cp "$inst/lima.yaml" "$inst/lima-version" "$LIMA_HOME/i$i/"
	done
	while IFS='|' read -r words aims; do
		case $many in 1) aim=${aims%% *} ;; 20) aim=${aims#* } ;; 100) aim=${aims#* * } ;; *) aim=${aims#* * * } ;; esac
		aim=${aim%% *}
		[ "$aim" != - ] || continue
		# shellcheck disable=SC2086  # words
		printf '%s|%s|%s\n' "$words, $many instances" "$(quick $words)" "$aim"
	done <<-END
		list|3000 5000 30000 30000
		list --json|- 5000 - 30000
		info|- 5000 - 30000
		validate template:default|- 5000 - 30000
		__complete shell i|- 10000 - 10000
		__complete create template:|- 10000 - 10000
	END
done >"$tmp/quick"

printf '%-44s %9s %9s %6s\n' "$n boots each" ours reference ratio
row 'first start to ssh banner / bare QEMU' "$(median "$tmp/first.word")" "$(median "$tmp/first.bareword")" ms
row 'first start to Running / bare + handshake' "$(median "$tmp/first.running")" "$(median "$tmp/first.barehand")" ms
row 'restart to ssh banner / bare QEMU' "$(median "$tmp/again.word")" "$(median "$tmp/again.bareword")" ms
row 'restart to Running / bare + handshake' "$(median "$tmp/again.running")" "$(median "$tmp/again.barehand")" ms
row 'first start to ssh, --containerd=user / none' "$(median "$tmp/firstengine.word")" "$(median "$tmp/first.word")" ms
row 'first start to Running, the same' "$(median "$tmp/firstengine.running")" "$(median "$tmp/first.running")" ms
row 'restart to ssh, the same' "$(median "$tmp/againengine.word")" "$(median "$tmp/again.word")" ms
row 'restart to Running, the same' "$(median "$tmp/againengine.running")" "$(median "$tmp/again.running")" ms
row 'stop, whole' "$(median "$tmp/stopall")" '' ms
row 'stop, after the SHUTDOWN event' "$(median "$tmp/stop")" '' ms
row 'shell true / ssh -F ssh.config' "$(median "$tmp/shell")" "$(median "$tmp/ssh")" ms
while IFS='|' read -r words us aim; do
	row "$words / aim" "$us" "$aim" us
done <"$tmp/quick"
row 'host agent, resident' "$rss" '' KiB
row 'host agent, wake-ups in 10 idle seconds' "$idle" '' ''
row 'host agent with 1000 forwards' "$rss1000" "$rss" KiB
row '1000 listeners at once: all forwarded after' "$t1000" '' ms
row 'listen() to the first answer, median of 50' "$(median "$tmp/knock.1")" '' ms
row '  the slowest' "$(most "$tmp/knock.1")" '' ms
row 'close to refused, median of 50' "$(median "$tmp/knock.2")" '' ms
row '  the slowest' "$(most "$tmp/knock.2")" '' ms
row 'a forward / bare ssh -L' "$(mbits "$tmp/pour.2")" "$(mbits "$tmp/pour.3")" Mbit/s
row 'a forward / hostfwd' "$(mbits "$tmp/pour.2")" "$(mbits "$tmp/pour.4")" Mbit/s
row 'host agent, CPU in 60 idle seconds' "$((h * 10))" '' ms
row 'guest agent, CPU in 60 idle seconds' "$((g * 10))" '' ms
[ ! -e limactl-static ] || row 'static binary' "$(($(wc -c <limactl-static) / 1024))" '' KiB
./tests/bench-mounts.sh
