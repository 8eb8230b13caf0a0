# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# forward: what listens in a real guest is on the host's localhost

fwanswers() { "$serve" get "$@" >"$T/answer" 2>/dev/null; }
fwsilent() { ! fwanswers "$@"; }
fwsays() {
	w=$1
	shift
	fwanswers "$@" && [ "$(cat "$T/answer")" = "$w" ]
}
# fwgets WHAT TYPE ADDRESS [PORT]: what a server answers; refused: nobody is there
fwgets() { await 10 fwsays "$@" || bad "no '$1' but '$(cat "$T/answer")'"; }
fwrefused() { await 10 fwsilent "$@" || bad "$* is not refused"; }
# fwserve ARG...: a server in the guest
fwserve() {
	run "$LIMACTL" shell "$vm" sh -c '/var/tmp/serve "$@" </dev/null >/tmp/ready.$$ 2>&1 & n=0
		until grep -q . /tmp/ready.$$; do sleep 0.05; done; grep -qx ready /tmp/ready.$$' sh "$@"
	status 0
}
fwend() {
	lc shell "$vm" pkill -f "^/var/tmp/serve $*\$"
	status 0
}
fwsaid() { grep -qF -- "$1" "$dir/ha.stderr.log"; }
fwevent() { await 10 grep -qF -- "\"portForward\":{$1}" "$dir/ha.stdout.log" || bad "no event $1"; }
fwonce() { same "$(grep -cF -- "$1" "$dir/ha.stderr.log")" 1; }
fwmaster() { pgrep -f "^ssh -F $dir/ssh.config .*ControlMaster=yes"; }

test_forward() {
	beginguest forward fw
	serve=$T/serve
	run musl-gcc -w -O1 -static -o "$serve" tests/serve.c
	status 0
	b=$((20000 + $$ % 4000 * 10))
	feed "images: [{location: \"$image\"}]
cpus: 2
memory: 768MiB
disk: 10GiB
mounts: []
containerd: {user: false, system: false}
ssh: {forwardAgent: true, forwardX11: true, forwardX11Trusted: true}
portForwards:
- {guestPort: 81, ignore: true, guestIP: 0.0.0.0, guestIPMustBeZero: false}
- {guestPortRange: [3000, 3002], hostPortRange: [$b, $((b + 2))]}
- {guestPort: 3003, hostPort: $((b + 3)), proto: tcp}
- {guestPort: 3004, hostSocket: web.sock}
- {guestSocket: /tmp/in.sock, hostSocket: \"$HOME/new/in.sock\"}
- {guestSocket: /tmp/in.sock, guestPortRange: [1, 1], hostPort: $((b + 4))}
- {guestSocket: /tmp/back.sock, hostSocket: \"$HOME/back.sock\", reverse: true}
- {guestPort: 3005, hostPort: $((b + 5)), static: true}
- {guestPort: 3006, hostPort: $((b + 6)), proto: udp}
- {guestPort: 3007, hostPort: $((b + 7)), guestIP: 0.0.0.0, hostIP: 0.0.0.0}
"
	# an ssh agent to be forwarded, and a server for the reverse socket
	eval "$(ssh-agent -a "$HOME/agent.sock")" >/dev/null
	"$serve" unix "$HOME/back.sock" >/dev/null &
	back=$!
	limit=400
	lc start --tty=false --name="$vm" -
	status 0
	errhas READY
	errlacks DEGRADED
	errhas "Forwarding \`/tmp/in.sock\` (guest) to \`$HOME/new/in.sock\` (host)"
	errhas "Forwarding \`$HOME/back.sock\` (host) to \`/tmp/back.sock\` (guest)"
	errhas "Setting up static TCP forwarding from 127.0.0.1:3005 to 127.0.0.1:$((b + 5))"
	errhas 'Not forwarding TCP 0.0.0.0:22'
	ok 'start'
	if [ "$rc" != 0 ]; then
		kill "$back" "$SSH_AGENT_PID"
		finish
		return
	fi
	run sh -c '"$1" shell '"$vm"' sh -c "cat >/var/tmp/serve && chmod 755 /var/tmp/serve" <"$2"' sh "$LIMACTL" "$serve"
	status 0

	p=$((b + 8))
	for a in 127.0.0.1 0.0.0.0 ::1 ::; do
		fwserve tcp $a $p
		fwgets "hello $p" tcp 127.0.0.1 $p
		fwend tcp $a $p
		fwrefused tcp 127.0.0.1 $p
		case $a in *:*) a="[$a]" ;; esac
		fwevent "\"type\":\"forwarding\",\"protocol\":\"tcp\",\"guestAddr\":\"$a:$p\",\"hostAddr\":\"127.0.0.1:$p\""
		fwevent "\"type\":\"stopping\",\"protocol\":\"tcp\",\"guestAddr\":\"$a:$p\",\"hostAddr\":\"127.0.0.1:$p\""
		holds fwsaid "Forwarding TCP from $a:$p to 127.0.0.1:$p"
		ok "a listener on $a is on the host, and its end"
	done
	fwserve tcp 192.168.5.15 $p
	fwevent "\"type\":\"not-forwarding\",\"protocol\":\"tcp\",\"guestAddr\":\"192.168.5.15:$p\""
	fails fwanswers tcp 127.0.0.1 $p
	fwend tcp 192.168.5.15 $p
	fwserve tcp 127.0.0.1 $p
	fwserve tcp ::1 $p
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwend tcp 127.0.0.1 $p
	fwevent "\"type\":\"stopping\",\"protocol\":\"tcp\",\"guestAddr\":\"127.0.0.1:$p\",\"hostAddr\":\"127.0.0.1:$p\""
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwend tcp ::1 $p
	fwrefused tcp 127.0.0.1 $p
	ok 'an address outside the rules is not forwarded; of two that lead to one port the second stays'

	fwserve tcp 127.0.0.1 3000 3001 3002 3003 3004 3005
	fwgets 'hello 3000' tcp 127.0.0.1 $b
	fwgets 'hello 3002' tcp 127.0.0.1 $((b + 2))
	fwgets 'hello 3003' tcp 127.0.0.1 $((b + 3))
	ok 'a range and a port'
	fwgets 'hello 3004' unix "$dir/sock/web.sock"
	mode "$dir/sock" 750
	mode "$dir/sock/web.sock" 600
	ok 'a port of the guest on a socket of the host'
	fwgets 'hello 3005' tcp 127.0.0.1 $((b + 5))
	fails fwsaid 'Forwarding TCP from 127.0.0.1:3005'
	ok 'a static rule'
	lc shell "$vm" sudo sh -c '/var/tmp/serve tcp 127.0.0.1 81 </dev/null >/dev/null 2>&1 &'
	fwevent '"type":"not-forwarding","protocol":"tcp","guestAddr":"127.0.0.1:81"'
	ok 'a rule that ignores'
	fwserve tcp 0.0.0.0 3007
	await 10 sh -c "ss -Hltn | grep -q '0.0.0.0:$((b + 7)) '" || bad 'nobody listens on 0.0.0.0'
	fwgets 'hello 3007' tcp 127.0.0.1 $((b + 7))
	ok 'hostIP 0.0.0.0'
	fwserve unix /tmp/in.sock
	fwgets 'hello /tmp/in.sock' unix "$HOME/new/in.sock"
	fwgets 'hello /tmp/in.sock' tcp 127.0.0.1 $((b + 4))
	mode "$HOME/new" 750
	ok 'a socket of the guest on a socket and on a port of the host'
	lc shell "$vm" /var/tmp/serve get unix /tmp/back.sock
	outis "hello $HOME/back.sock"
	ok 'reverse: a socket of the host in the guest'

	fwserve udp 0.0.0.0 3006 $p
	fwgets 'hello 3006' udp 127.0.0.1 $((b + 6))
	fwgets "hello $p" udp 127.0.0.1 $p
	fwevent "\"type\":\"forwarding\",\"protocol\":\"udp\",\"guestAddr\":\"0.0.0.0:$p\",\"hostAddr\":\"127.0.0.1:$p\""
	fwend udp 0.0.0.0 3006 $p
	fwevent "\"type\":\"stopping\",\"protocol\":\"udp\",\"guestAddr\":\"0.0.0.0:$p\",\"hostAddr\":\"127.0.0.1:$p\""
	fwrefused udp 127.0.0.1 $p
	fwserve udp 127.0.0.1 $p
	fwevent "\"type\":\"not-forwarding\",\"protocol\":\"udp\",\"guestAddr\":\"127.0.0.1:$p\""
	fwend udp 127.0.0.1 $p
	ok 'UDP; what QEMU cannot reach is not announced'

	"$serve" tcp 127.0.0.1 $p >"$T/ready" &
	taken=$!
	await 5 grep -q ready "$T/ready"
	fwserve tcp 0.0.0.0 $p
	await 10 fwsaid "127.0.0.1:$p on the host (automatic forwarding): address already in use" || bad 'no warning'
	sleep 6
	fwonce "127.0.0.1:$p on the host (automatic forwarding): address already in use"
	send TERM $taken
	wait $taken || :
	await 10 fwsaid "Host port 127.0.0.1:$p is free now" || bad 'it is not taken over'
	fwgets "hello $p" tcp 127.0.0.1 $p
	ok 'a host port in use: one warning, taken over when it is free'

	fwfds() { find "/proc/$(fwmaster)/fd" | wc -l; }
	before=$(fwfds)
	run "$serve" many 32 127.0.0.1 $p
	status 0
	printf '# 32 connects at once: %s ms\n' "$(cat "$out")"
	[ "$(cat "$out")" -lt 5000 ] || bad 'some waited for others'
	limit=120
	run "$serve" row 200 127.0.0.1 $p
	outis 200
	await 5 eval '[ "$(fwfds)" -le "$before" ]' || bad "descriptors of the master: $before, then $(fwfds)"
	ok 'many connections, at once and in a row, leave nothing'

	master=$(fwmaster)
	send KILL "$master"
	await 30 eval 'new=$(fwmaster) && [ "$new" != "$master" ]' || bad 'no new ssh master'
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwgets 'hello 3004' unix "$dir/sock/web.sock"
	fwgets 'hello /tmp/in.sock' unix "$HOME/new/in.sock"
	await 10 eval '"$LIMACTL" shell $vm /var/tmp/serve get unix /tmp/back.sock </dev/null' || bad 'the reverse one is not back'
	ok 'the ssh master is killed: all are back'

	send KILL "$(agentpid "$vm")"
	await 5 is "$vm" Broken
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwend tcp 0.0.0.0 $p
	fwserve tcp 127.0.0.1 $((b + 9))
	limit=60
	lc start "$vm"
	status 0
	fwgets "hello $((b + 9))" tcp 127.0.0.1 $((b + 9))
	await 10 sh -c "! ss -Hltn | grep -q '127.0.0.1:$p '" || bad 'what ended meanwhile is still forwarded'
	fwgets 'hello 3000' tcp 127.0.0.1 $b
	fwgets 'hello 3004' unix "$dir/sock/web.sock"
	fwgets 'hello /tmp/in.sock' unix "$HOME/new/in.sock"
	fwend tcp 127.0.0.1 $((b + 9))
	fwrefused tcp 127.0.0.1 $((b + 9))
	ok 'the host agent is killed: forwards work on, and its successor has them all'

	lc shell "$vm" sudo pkill -9 -x lima-guestagent
	fwserve tcp 127.0.0.1 $p
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwgets 'hello 3000' tcp 127.0.0.1 $b
	lc shell "$vm" ps -o comm= -p "$(lc shell "$vm" pgrep -x lima-guestagent; cat "$out")"
	ok 'the guest agent is killed: it is back'

	lc shell "$vm" sudo systemctl stop lima-guestagent
	limit=120
	run "$serve" row 1000 127.0.0.1 $((b + 5))
	outis 1000
	await 70 grep -q '"running":true,"degraded":true,"errors":\["guest agent does not seem to be running' "$dir/ha.stdout.log" || bad 'it is not degraded'
	lc list --json "$vm"
	outhas '"status":"Running"'
	outhas 'guest agent does not seem to be running; port forwards will not work'
	run curl -s --unix-socket "$dir/ha.sock" http://lima/v1/info
	outhas '"degraded":true'
	fwgets 'hello 3000' tcp 127.0.0.1 $b
	lc shell "$vm" sudo systemctl start lima-guestagent
	await 10 fwsaid 'Guest agent is running' || bad 'it stays degraded'
	lc list "$vm"
	noerr
	ok 'without a guest agent it is degraded, and forwards stay'

	lc shell "$vm" sh -c 'SSH_AUTH_SOCK=/run/host-services/ssh-auth.sock; export SSH_AUTH_SOCK; [ -S "$SSH_AUTH_SOCK" ] && ssh-add -l'
	outhas 'no identities'
	ok "the host's ssh agent at /run/host-services/ssh-auth.sock"
	# without xauth(1) and X: sshd gets one that keeps the cookie, bash says what a
	# client says first, and who listens as the host's X server hears it
	if have socat; then
		d=$((b % 1000 + 1000))
		sh_ sudo sh -c 'printf "#!/bin/sh\ncat >/tmp/xauth\n" >/usr/bin/xauth && chmod 755 /usr/bin/xauth'
		status 0
		socat -u "TCP-LISTEN:$((6000 + d)),bind=127.0.0.1,reuseaddr" "CREATE:$T/x11" &
		pid=$!
		run env DISPLAY="127.0.0.1:$d" "$LIMACTL" shell "$vm" bash -c 'echo "$DISPLAY"; n=${DISPLAY#*:}
			exec 3<>/dev/tcp/127.0.0.1/$((6000 + ${n%.*}))
			printf "l\0\v\0\0\0\022\0\020\0\0\0MIT-MAGIC-COOKIE-1\0\0" >&3
			printf %b "$(sed -n "s/^add .* //p" /tmp/xauth | sed "s/../\\\\x&/g")" >&3; sleep 2'
		status 0
		outis 'localhost:10.0'
		holds await 10 grep -aq MIT-MAGIC-COOKIE-1 "$T/x11"
		kill $pid 2>/dev/null || :
		ok "X11 comes to the host's display"
	else
		skip X11 'socat is not installed'
	fi
	lc shell "$vm" sudo date -s '2020-01-01 00:00:00'
	fwqmp() { printf '{"execute":"qmp_capabilities"}{"execute":"%s"}\n' "$1" | timeout 5 socat -t 2 - "UNIX-CONNECT:$dir/qmp.sock" | grep -q '"return"'; }
	if have socat; then
		holds fwqmp stop
		holds fwqmp cont
		await 3 fwsaid 'Time sync: guest clock adjusted' || bad 'the clock was not set'
		lc shell "$vm" date +%Y
		outis "$(date +%Y)"
		ok 'the clock is right after a pause'
	else
		skip 'the clock after a pause' 'socat is not installed'
	fi

	# whatever a guest says instead of its agent
	lc shell "$vm" sudo sh -c 'systemctl stop lima-guestagent; exec 3<>/dev/virtio-ports/lima.agent; sleep 1
		{ printf "\nlima-guestagent 1\nbegin\n"; head -c 1000000 /dev/urandom; head -c 100000 /dev/zero; echo
		seq -f "+ tcp 10.0.0.1 %.0f" 1 20000; seq -f "+ tcp 10.0.0.2 %.0f" 1 20000; echo end; } >&3; sleep 3'
	status 0
	fwevent '"type":"not-forwarding","protocol":"tcp","guestAddr":"10.0.0.1:4000"'
	fails fwsaid 10.0.0.2:20000
	rss=$(awk '/VmRSS/ { print $2 }' "/proc/$(agentpid "$vm")/status")
	case $LIMACTL in *asan*) rss=0 ;; esac
	[ "$rss" -lt 6000 ] || bad "the host agent has $rss KiB"
	lc shell "$vm" sudo systemctl start lima-guestagent
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwserve tcp 127.0.0.1 $((b + 9))
	fwgets "hello $((b + 9))" tcp 127.0.0.1 $((b + 9))
	ok 'a hostile guest agent: bounded, and forgotten'
	run "$LIMACTL" shell "$vm" sh -c 'ulimit -n 4096; /var/tmp/serve tcp 127.0.0.1 $(seq 11001 12000) </dev/null >/dev/null 2>&1 &'
	fwcount() { test "$(ss -Hltn 'sport >= 11001 and sport <= 12000' | wc -l)" "$@"; }
	await 20 fwcount -ge 990 || bad 'they are not forwarded'
	before=$(find "/proc/$(agentpid "$vm")/fd" | wc -l)
	lc shell "$vm" pkill -f '^/var/tmp/serve .* 11001'
	await 20 fwcount -lt 10 || bad 'some are left'
	same "$(find "/proc/$(agentpid "$vm")/fd" | wc -l)" "$before"
	ok '1000 listeners come and go'
	for pid in $(fwmaster) $(qemupid "$vm"); do
		send STOP "$pid"
		run curl -s --max-time 1 --unix-socket "$dir/ha.sock" http://lima/v1/info
		status 0
		send CONT "$pid"
	done
	fwgets "hello $p" tcp 127.0.0.1 $p
	ok 'the host agent waits neither for a stopped ssh master nor for QEMU'

	lc shell "$vm" sudo systemctl reboot
	await 60 fwsaid 'The guest reboots' || bad 'no reboot seen'
	await 60 eval '"$LIMACTL" shell $vm true </dev/null' || bad 'no ssh after the reboot'
	fwserve tcp 127.0.0.1 $p 3004 3005
	fwgets "hello $p" tcp 127.0.0.1 $p
	fwgets 'hello 3004' unix "$dir/sock/web.sock"
	fwgets 'hello 3005' tcp 127.0.0.1 $((b + 5))
	fails fwanswers tcp 127.0.0.1 $b
	await 10 eval '"$LIMACTL" shell $vm /var/tmp/serve get unix /tmp/back.sock </dev/null' || bad 'the reverse one is not back'
	ok 'the guest boots again: what listens now is forwarded'

	limit=120
	lc stop "$vm"
	status 0
	fails fwanswers tcp 127.0.0.1 $b
	holds [ ! -e "$dir/sock/web.sock" ]
	holds [ ! -e "$HOME/new/in.sock" ]
	send TERM $back "$SSH_AGENT_PID"
	unset SSH_AUTH_SOCK SSH_AGENT_PID
	sed -i 's/^ssh: .*/plain: true/' "$dir/lima.yaml"
	limit=200
	lc start --tty=false "$vm"
	status 0
	fwserve tcp 127.0.0.1 3000 3005 $p
	fwgets 'hello 3005' tcp 127.0.0.1 $((b + 5))
	fails fwanswers tcp 127.0.0.1 $b
	fails fwanswers tcp 127.0.0.1 $p
	lc shell "$vm" pgrep -x lima-guestagent
	status 1
	ok 'plain: static rules and nothing else'
	lc delete -f "$vm"
	status 0
	rm -f "$HOME/back.sock" "$HOME/agent.sock"
	finish
}
