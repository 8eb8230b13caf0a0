# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# snapshot, network, autostart, watch, and commands that make no sense here.

# hmpsays JSON: the answer of the fake QEMU to lines for people
hmpsays() {
	printf '%s\n' "$1" >"$fakes/hmp"
	rm -f "$fakes/hmp.log"
}
shown() { grep -qF -- "$1" "$out"; }
said() { grep -qF -- "$1" "$err"; }

test_state() {
	begin state
	buildfakes
	PATH=$fakes:$realpath
	mk dev
	status 0

	# groups
	for g in snapshot network autostart; do
		lc "$g"
		status 0
		noerr
		outre "^  limactl $g COMMAND"
		cp "$out" "$T/help"
		lc "$g" nonsense
		status 0
		holds cmp "$T/help" "$out"
		lc help "$g"
		holds cmp "$T/help" "$out"
		ok "$g alone, or with what it has not, shows its help"
	done
	lc snapshot create
	fatal 'accepts 1 arg(s), received 0'
	lc network create
	fatalhas '`limactl network create` accepts 1 arg(s), received 0.
See `limactl network create --help`.

Usage:  limactl network create NETWORK [flags]'
	ok 'the wrong number of arguments below a group'

	# snapshots, offline: by the real qemu-img
	lc snapshot create nope --tag x
	fatalhas "open $LIMA_HOME/nope/lima.yaml: no such file or directory"
	logged warning '`limactl snapshot` is experimental'
	lc snapshot create dev
	fatalhas 'expected tag'
	lc snapshot create dev --tag 'a b'
	fatalhas 'has characters other than'
	ok 'snapshot: what is refused'
	if have qemu-img; then
		lc snapshot list dev
		status 0
		noout
		lc snapshot create dev --tag one
		status 0
		noout
		lc snapshot save dev --tag=two
		status 0
		lc snapshot ls dev -q
		status 0
		outis 'one
two'
		lc snapshot list dev
		same "$(head -n 1 "$out" | awk '{ print $1, $2 }')" 'ID TAG'
		same "$(wc -l <"$out")" 3
		lc snapshot apply dev --tag one
		status 0
		lc snapshot del dev --tag one
		status 0
		lc snapshot list --quiet dev
		outis two
		lc snapshot load dev --tag nope
		status 1
		noout
		errlacks level=fatal
		ok "snapshots of a stopped instance; qemu-img's status"
	else
		skip 'snapshots of a stopped instance' 'qemu-img is not installed'
	fi

	# snapshots, online: by QEMU's monitor
	plan "$goodboot"
	lc start dev
	status 0
	hmpsays ''
	lc snapshot create dev --tag one
	status 0
	noout
	logged info 'Sending HMP savevm command'
	errlacks output:
	lc snapshot apply dev --tag one
	logged info 'Sending HMP loadvm command'
	lc snapshot delete dev --tag one
	logged info 'Sending HMP delvm command'
	same "$(tr '\n' ' ' <"$fakes/hmp.log")" '"savevm one" "loadvm one" "delvm one" '
	ok 'snapshots of a running instance: the lines QEMU gets'
	hmpsays '"Error: no such snapshot\r\n"'
	lc snapshot apply dev --tag x
	status 0
	logged warning 'output: Error: no such snapshot'
	ok 'what QEMU says is a warning'
	rm "$fakes/hmp.log"
	hmpsays '"Error: Snapshot x does not exist; paused (restore-vm)\r\n"'
	lc snapshot apply dev --tag x
	status 0
	same "$(tr '\n' ' ' <"$fakes/hmp.log")" '"loadvm x" "info status" "cont" '
	ok 'a guest that QEMU paused for a snapshot that is not there runs on'
	hmpsays '"List of snapshots present on all disks:\r\nID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\r\n--        one              1.2 MiB 2026-11-24 19:00:00 00:00:01.000          0\r\n"'
	lc snapshot list dev
	status 0
	same "$(wc -l <"$out")" 2
	same "$(head -n 1 "$out" | awk '{ print $1, $2, $3, $4 }')" 'ID TAG VM SIZE'
	lc snapshot list dev --quiet
	outis one
	hmpsays '"There is no snapshot available.\r\n"'
	lc snapshot list dev
	status 0
	noout
	hmpsays '"NO HEADER\r\n"'
	lc snapshot list dev --quiet
	fatalhas 'unknown header: NO HEADER'
	rm -f "$fakes/hmp"
	ok 'snapshot list of a running instance'

	# watch
	: >"$T/in"
	rm -f "$T/in"
	background watch
	await 5 said 'Watching for events...' || bad 'says nothing'
	lc2=$out
	out=$T/wout err=$T/werr
	mk other
	plan "$goodboot"
	lc stop dev
	status 0
	lc start dev
	status 0
	port=$(field dev SSHLocalPort)
	out=$lc2 err=$T/err
	await 5 said 'New instance detected: other' || bad 'does not see the new one'
	await 5 shown "dev | ssh available on port $port" || bad 'no port'
	await 5 shown 'dev | running' || bad 'not running'
	send INT "-$pid"
	collect 5
	status 0
	holds grep -qE '^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} dev \| exiting$' "$out"
	holds grep -qE '^[0-9-]{10} [0-9:]{8} Watching for events\.\.\.$' "$err"
	same "$(awk '{ print $NF }' "$out" | head -n 1)" exiting
	ok 'watch: what happens to all instances, nothing of before'
	background watch --json --history dev
	await 5 shown '"running":true' || bad 'no history'
	send TERM "-$pid"
	collect 5
	holds grep -qE '^\{"instance":"dev","event":\{"time":"[^"]*","status":\{"sshLocalPort":[0-9]+\}\}\}$' "$out"
	ok 'watch --json --history'
	lc watch nope
	fatal "open $LIMA_HOME/nope/lima.yaml: no such file or directory"
	lc delete other
	ok 'watch of a missing instance'
	printf '%s\n' '{"time":"2026-01-02T03:04:05.000000006Z","status":{"running":true,"portForward":{"type":"forwarding","protocol":"tcp","guestAddr":"127.0.0.1:80","hostAddr":"127.0.0.1:8080"}}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"running":true,"portForward":{"type":"not-forwarding","protocol":"udp","guestAddr":"127.0.0.1:81"}}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"running":true,"portForward":{"type":"stopping","protocol":"tcp","guestAddr":"127.0.0.1:80"}}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"portForward":{"type":"failed","protocol":"tcp","guestAddr":"127.0.0.1:80","error":"in use"}}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"running":true,"degraded":true}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"cloudInitProgress":{"logLine":"a line"}}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"cloudInitProgress":{"logLine":"x","completed":true}}}' \
		'{"time":"2026-01-02T03:04:05.000000006Z","status":{"errors":["bad"],"sshLocalPort":1}}' >"$LIMA_HOME/dev/ha.stdout.log"
	background watch --history dev
	await 5 shown bad || bad 'no events'
	send INT "-$pid"
	collect 5
	same "$(cat "$out")" '2026-01-02 03:04:05 dev | forwarding tcp 127.0.0.1:80 to 127.0.0.1:8080
2026-01-02 03:04:05 dev | not forwarding udp 127.0.0.1:81
2026-01-02 03:04:05 dev | stopping forwarding tcp 127.0.0.1:80
2026-01-02 03:04:05 dev | failed to forward tcp 127.0.0.1:80: in use
2026-01-02 03:04:05 dev | running (degraded)
2026-01-02 03:04:05 dev | cloud-init: a line
2026-01-02 03:04:05 dev | cloud-init completed
2026-01-02 03:04:05 dev | error: bad'
	ok 'watch: each kind of event'

	# networks
	lc network list
	status 0
	noerr
	outis 'NAME       MODE       GATEWAY             INTERFACE
bridged    bridged    -                   en0
host       host       192.168.106.1/24    -
shared     shared     192.168.105.1/24    -
user-v2    user-v2    192.168.104.1/24    -'
	mode "$LIMA_HOME/_config/networks.yaml" 644
	lc network ls --json user-v2 nope
	status 0
	outis '{"name":"user-v2","mode":"user-v2","gateway":"192.168.104.1","netmask":"255.255.255.0"}'
	logged warning 'No network matching nope found.'
	ok 'network list'
	cp "$LIMA_HOME/_config/networks.yaml" "$T/networks"
	echo '# mine' >>"$LIMA_HOME/_config/networks.yaml"
	lc network create foo --gateway 192.168.42.1/16
	status 0
	noout
	noerr
	holds grep -qx '# mine' "$LIMA_HOME/_config/networks.yaml"
	lc network ls foo --json
	outis '{"name":"foo","mode":"user-v2","gateway":"192.168.42.1","netmask":"255.255.0.0"}'
	lc network create br --mode bridged --interface eth7
	status 0
	lc network ls br
	outre '^br +bridged +- +eth7$'
	ok 'network create'
	lc network create foo --gateway 192.168.43.1
	fatal 'network `foo` already exists'
	lc network create x
	fatal 'network mode `user-v2` requires specifying gateway'
	lc network create x --mode host --interface eth0
	fatalhas 'network mode `host` does not support specifying interface'
	lc network create x --mode bridged
	fatalhas 'network mode `bridged` requires specifying interface'
	lc network create x --mode bridged --gateway 1.2.3.4 --interface e
	fatalhas 'network mode `bridged` does not support specifying gateway'
	lc network create x --gateway 1.2.3
	fatal 'failed to parse CIDR `1.2.3/24`: invalid CIDR address: 1.2.3/24'
	lc network create x --gateway 1.2.3.4/40
	fatalhas 'failed to parse CIDR `1.2.3.4/40`'
	lc network create x --gateway 127.0.0.1
	fatal 'invalid IP address: 127.0.0.1'
	lc network create x --mode nope --gateway 10.0.0.1
	fatalhas 'network mode `nope` is unknown'
	ok 'network create: what is refused'
	lc network delete foo
	fatal '`limactl network delete` currently always requires `--force`'
	lc network rm -f foo br nope
	status 0
	noout
	{ cat "$T/networks"; echo '# mine'; } | cmp -s - "$LIMA_HOME/_config/networks.yaml" || bad 'networks.yaml is not what it was'
	ok 'network delete: comments stay'

	# autostart
	lc autostart enable nope
	fatal 'instance "nope" not found'
	lc autostart enable dev --condition=boot
	fatal '--condition=boot is only supported on macOS'
	lc autostart disable dev
	status 0
	logged info 'Instance `dev` is not registered for automatic startup'
	lc start-at-login nope
	status 0
	errhas 'Command "start-at-login" is deprecated, use "limactl autostart" instead'
	ok 'autostart: what is refused'
	unit=$HOME/.config/systemd/user/lima-vm@dev.service
	printf '#!/bin/sh\necho "$*" >>"%s/systemctl.log"\n' "$fakes" >"$fakes/systemctl"
	chmod +x "$fakes/systemctl"
	if unshare -rm true 2>/dev/null; then
		# a host that systemd booted, in a mount namespace of its own
		booted() {
			run unshare -rm sh -c 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$@"' sh "$LIMACTL" "$@"
		}
		booted autostart enable dev
		status 0
		logged info 'Instance `dev` registered to start at login'
		filehas "$unit" "ExecStart=\"$LIMACTL\" start %i --foreground"
		filehas "$unit" "Environment=\"LIMA_HOME=$LIMA_HOME\""
		filehas "$unit" 'WantedBy=default.target'
		booted start-at-login dev
		logged info 'The autostart entry for instance `dev` has been updated'
		booted autostart disable dev
		logged info 'Instance `dev` unregistered from start at login'
		fails test -e "$unit"
		booted start-at-login --enabled dev
		logged info 'The autostart entry for instance `dev` has been created'
		same "$(sort -u "$fakes/systemctl.log" | tr '\n' '|')" '--user disable lima-vm@dev.service|--user enable lima-vm@dev.service|'
		ok 'autostart: the unit comes and goes'
		lc stop -f dev
		lc rename --tty=false dev ved
		status 0
		fails test -e "$unit"
		holds test -e "${unit%dev.service}ved.service"
		lc rename --tty=false ved dev
		holds test -e "$unit"
		ok "rename takes the unit along"
		lc delete -f dev
		status 0
		logged info 'The autostart entry for instance `dev` has been unregistered'
		fails test -e "$unit"
		ok 'delete removes the unit'
	else
		skip 'autostart: the unit' 'no namespaces for a /run of our own'
	fi
	rm -f "$fakes/systemctl"
	if [ ! -d /run/systemd/system ]; then
		mk other
		lc autostart enable other
		status 1
		errhas 'autostart is not supported on linux'
		ok 'autostart without systemd'
	fi

	# no sense
	for c in sudoers guest-install usernet 'debug dns' 'generate-doc x' generate-jsonschema; do
		# shellcheck disable=SC2086  # words
		lc $c
		status 1
		noout
		shape
		same "$(wc -l <"$err")" 1
	done
	ok 'commands that make no sense say so in a line'
	mk shot
	lc screenshot shot
	fatal 'instance "shot" is not running (status: Stopped)'
	plan "$goodboot"
	lc start shot
	lc screenshot shot -o x.txt
	fatalhas 'must end in .png or .bmp'
	lc screenshot shot
	fatal 'screenshot failed: driver "qemu": driver does not support screenshots'
	ok screenshot

	lc delete -f dev other shot
	status 0
	finish
}
