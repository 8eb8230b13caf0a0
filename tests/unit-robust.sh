# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# robust: names, files, guests and parents that mean no good.

test_robust() {
	begin robust
	buildfakes
	PATH=$fakes:$PATH

	printf '%s\n' "$tiny" >"$LIMA_HOME/../lima.yaml"
	: >"$LIMA_HOME/../some.pid"
	for n in .. . _config ''; do
		for c in 'stop -f' protect restart; do
			# shellcheck disable=SC2086
			lc $c "$n"
			status 1
			errhas 'instance name'
		done
	done
	holds test -e "$LIMA_HOME/../some.pid"
	fails test -e "$LIMA_HOME/../protected"
	rm -f "$LIMA_HOME/../lima.yaml" "$LIMA_HOME/../some.pid"
	ok 'what lies beside LIMA_HOME is no instance'

	mk half
	printf '%s\n' 'images: [location: /x]' 'networks: [{lima: user-v2}, 1]' 'additionalDisks: [{}]' 'mounts: 7' \
	    >"$LIMA_HOME/half/lima.yaml"
	lc stop -f half
	status 0
	lc delete -f half
	status 0
	fails test -e "$LIMA_HOME/half"
	ok 'an instance whose configuration is no good can be deleted'

	mk cpu "${tiny%\}}, cpuType: {$host: ',x=y'}}"
	run timeout -s KILL 5 "$LIMACTL" start --tty=false cpu
	fatal "cpu \`\` is not supported by $qemu"
	ok 'a CPU without a name'

	mkfifo "$T/fifo"
	(
		trap '' HUP
		exec "$LIMACTL" validate "$T/fifo"
	) >"$T/hup.out" 2>"$T/hup.err" &
	pid=$!
	sleep 0.3
	kill -HUP "$pid"
	printf '%s\n' "$tiny" >"$T/fifo"
	wait "$pid"
	same $? 0
	ok 'under nohup a SIGHUP ends nothing'

	esc=$(printf '\033')
	run script -qec "'$LIMACTL' validate '/no${esc}]0;owned'" /dev/null
	outlacks "$esc]0"
	outhas '/no.]0;owned: no such file or directory'
	ok 'a text gives the terminal no orders'

	mk colon
	plan 'serial Linux version 6.1
serial Call Trace:
serial Kernel panic - not syncing:
exit 0'
	lc start --tty=false colon
	status 1
	grep -F '"console: Call Trace:' "$LIMA_HOME/colon/ha.stderr.log" >"$T/trace"
	filehas "$T/trace" 'Call Trace:"'
	ok "a guest's line that ends in a colon gets no reason of ours"

	mkdir -p "$LIMA_HOME/_config"
	echo 'networks: []' >"$LIMA_HOME/_config/networks.yaml"
	lc network create foo --gateway 192.168.9.1/24
	fatal "$LIMA_HOME/_config/networks.yaml: \`networks\` is no mapping"
	rm "$LIMA_HOME/_config/networks.yaml"
	ok 'a network is not added to what is no mapping'

	mk seen
	for i in 1 2; do
		echo '{"time":"2026-01-01T00:00:00Z","status":{"running":true}}'
	done >"$LIMA_HOME/seen/ha.stdout.log"
	{ timeout 10 "$LIMACTL" watch --history seen 2>"$T/watch.err" || echo $? >"$T/watch.rc"; } | (read -r _; exec <&-; sleep 0.1; echo '{"time":"2026-01-01T00:00:01Z","status":{"exiting":true}}' >>"$LIMA_HOME/seen/ha.stdout.log")
	same "$(cat "$T/watch.rc")" 141
	ok 'watch ends when nobody reads it'
	# the reader is gone before the first byte
	mkfifo "$T/gone"
	for w in '' "trap '' PIPE;"; do
		sh -c "exec 3<'$T/gone'; exec 3<&-" &
		sh -c "$w exec >'$T/gone'; wait; sleep 0.2; '$LIMACTL' info; echo \$? >'$T/pipe.rc'" 2>"$T/pipe.err"
		wait
		if [ -z "$w" ]; then
			same "$(cat "$T/pipe.rc")" 141
			fails test -s "$T/pipe.err"
		else
			same "$(cat "$T/pipe.rc")" 1
			filehas "$T/pipe.err" 'level=fatal msg="write standard output: broken pipe"'
		fi
	done
	ok 'a pipe that nobody reads ends us by its signal, or where that is ignored with a word'
	lc list "$(printf 'a\377\303\251')"
	errhas '\xff'"$(printf '\303\251')"
	ok 'bytes that are no text are escaped'
	for w in 1 2 3 4 5 6; do
		printf '%s\n' "$tiny" | "$LIMACTL" create --name par - >"$T/par.$w" 2>&1 &
	done
	wait
	same "$(cat "$T"/par.? | grep -c 'Run `limactl start par`')" 1
	same "$(cat "$T"/par.? | grep level=fatal | sed 's/^time="[^"]*" //; s/ (`.*`)//' | sort -u)" 'level=fatal msg="instance `par` already exists"'
	same "$(find "$LIMA_HOME" -name '.par*')" ''
	lc delete par
	ok 'six creates of one name: one makes it, the others say that it is there'

	ln -s "$LIMACTL" "$T/yq"
	rc=0
	echo 'a: 1' | "$T/yq" .a >/dev/full 2>"$T/yq.err" || rc=$?
	status 1
	filehas "$T/yq.err" 'write standard output: '
	ok 'yq fails when its output cannot be written'

	: >"$T/nodir"
	run env LIMA_HOME="$T/nodir" "$LIMACTL" list
	fatalhas "read $T/nodir: "
	feed "$tiny"
	run env LIMA_HOME="$T/nodir" "$LIMACTL" create --name x -
	fatalhas "$T/nodir is no directory (set LIMA_HOME to one you may write)"
	ok 'a LIMA_HOME that cannot be read is not an empty one'
	lc edit ''
	fatalhas 'identifier must not be empty'
	ok 'edit of nothing'
}
