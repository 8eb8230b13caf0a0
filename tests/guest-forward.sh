# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# forward: what listens in a real guest is on the host's localhost

answers() { "$serve" get "$@" >"$T/answer" 2>/dev/null; }
silent() { ! answers "$@"; }
says() {
	w=$1
	shift
	answers "$@" && [ "$(cat "$T/answer")" = "$w" ]
}
# gets WHAT TYPE ADDRESS [PORT]: what a server answers; refused: nobody is there
gets() { await 10 says "$@" || bad "no '$1' but '$(cat "$T/answer")'"; }
refused() { await 10 silent "$@" || bad "$* is not refused"; }
# inguest ARG...: a server in the guest
inguest() {
	run "$LIMACTL" shell "$vm" sh -c '/var/tmp/serve "$@" </dev/null >/tmp/ready.$$ 2>&1 & n=0
		until grep -q . /tmp/ready.$$; do sleep 0.05; done; grep -qx ready /tmp/ready.$$' sh "$@"
	status 0
}
endguest() {
	lc shell "$vm" pkill -f "^/var/tmp/serve $*\$"
	status 0
}
said() { grep -qF -- "$1" "$dir/ha.stderr.log"; }
event() { await 10 grep -qF -- "\"portForward\":{$1}" "$dir/ha.stdout.log" || bad "no event $1"; }
saidonce() { same "$(grep -cF -- "$1" "$dir/ha.stderr.log")" 1; }
masterof() { pgrep -f "^ssh -F $dir/ssh.config .*ControlMaster=yes"; }

test_forward() {
	begin forward
	XDG_CACHE_HOME=$realcache
	export XDG_CACHE_HOME
	serve=$T/serve vm=fw dir=$LIMA_HOME/fw
	run musl-gcc -w -O1 -static -o "$serve" tests/serve.c
	status 0
	b=$((20000 + $$ % 4000 * 10))
	image=$(sed -n 's/.*location: *"\{0,1\}\(mmdebstrap:[^" ]*\).*/\1/p' templates/default.yaml | head -n 1)
	feed "images: [{location: \"$image\"}]
cpus: 2
memory: 768MiB
disk: 10GiB
mounts: []
containerd: {user: false, system: false}
ssh: {forwardAgent: true}
portForwards:
- {guestPort: 81, ignore: true, guestIP: 0.0.0.0, guestIPMustBeZero: false}
- {guestPortRange: [3000, 3002], hostPortRange: [$b, $((b + 2))]}
- {guestPort: 3003, hostPort: $((b + 3)), proto: tcp}
- {guestPort: 3004, hostSocket: web.sock}
- {guestSocket: /tmp/in.sock, hostSocket: \"$HOME/new/in.sock\"}
- {guestSocket: /tmp/in.sock, hostPort: $((b + 4))}
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
	lc start --tty=false --name=$vm -
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
	run sh -c '"$1" shell '$vm' sh -c "cat >/var/tmp/serve && chmod 755 /var/tmp/serve" <"$2"' sh "$LIMACTL" "$serve"
	status 0

	p=$((b + 8))
	for a in 127.0.0.1 0.0.0.0 ::1 ::; do
		inguest tcp $a $p
		gets "hello $p" tcp 127.0.0.1 $p
		endguest tcp $a $p
		refused tcp 127.0.0.1 $p
		case $a in *:*) a="[$a]" ;; esac
		event "\"type\":\"forwarding\",\"protocol\":\"tcp\",\"guestAddr\":\"$a:$p\",\"hostAddr\":\"127.0.0.1:$p\""
		event "\"type\":\"stopping\",\"protocol\":\"tcp\",\"guestAddr\":\"$a:$p\",\"hostAddr\":\"127.0.0.1:$p\""
		holds said "Forwarding TCP from $a:$p to 127.0.0.1:$p"
		ok "a listener on $a is on the host, and its end"
	done
	inguest tcp 192.168.5.15 $p
	event "\"type\":\"not-forwarding\",\"protocol\":\"tcp\",\"guestAddr\":\"192.168.5.15:$p\""
	fails answers tcp 127.0.0.1 $p
	endguest tcp 192.168.5.15 $p
	inguest tcp 127.0.0.1 $p
	inguest tcp ::1 $p
	gets "hello $p" tcp 127.0.0.1 $p
	endguest tcp 127.0.0.1 $p
	event "\"type\":\"stopping\",\"protocol\":\"tcp\",\"guestAddr\":\"127.0.0.1:$p\",\"hostAddr\":\"127.0.0.1:$p\""
	gets "hello $p" tcp 127.0.0.1 $p
	endguest tcp ::1 $p
	refused tcp 127.0.0.1 $p
	ok 'an address outside the rules is not forwarded; of two that lead to one port the second stays'

	inguest tcp 127.0.0.1 3000 3001 3002 3003 3004 3005
	gets 'hello 3000' tcp 127.0.0.1 $b
	gets 'hello 3002' tcp 127.0.0.1 $((b + 2))
	gets 'hello 3003' tcp 127.0.0.1 $((b + 3))
	ok 'a range and a port'
	gets 'hello 3004' unix "$dir/sock/web.sock"
	mode "$dir/sock" 750
	mode "$dir/sock/web.sock" 600
	ok 'a port of the guest on a socket of the host'
	gets 'hello 3005' tcp 127.0.0.1 $((b + 5))
	fails said 'Forwarding TCP from 127.0.0.1:3005'
	ok 'a static rule'
	lc shell $vm sudo sh -c '/var/tmp/serve tcp 127.0.0.1 81 </dev/null >/dev/null 2>&1 &'
	event '"type":"not-forwarding","protocol":"tcp","guestAddr":"127.0.0.1:81"'
	ok 'a rule that ignores'
	inguest tcp 0.0.0.0 3007
	await 10 sh -c "ss -Hltn | grep -q '0.0.0.0:$((b + 7)) '" || bad 'nobody listens on 0.0.0.0'
	gets 'hello 3007' tcp 127.0.0.1 $((b + 7))
	ok 'hostIP 0.0.0.0'
	inguest unix /tmp/in.sock
	gets 'hello /tmp/in.sock' unix "$HOME/new/in.sock"
	gets 'hello /tmp/in.sock' tcp 127.0.0.1 $((b + 4))
	mode "$HOME/new" 750
	ok 'a socket of the guest on a socket and on a port of the host'
	lc shell $vm /var/tmp/serve get unix /tmp/back.sock
	outis "hello $HOME/back.sock"
	ok 'reverse: a socket of the host in the guest'

	inguest udp 0.0.0.0 3006 $p
	gets 'hello 3006' udp 127.0.0.1 $((b + 6))
	gets "hello $p" udp 127.0.0.1 $p
	event "\"type\":\"forwarding\",\"protocol\":\"udp\",\"guestAddr\":\"0.0.0.0:$p\",\"hostAddr\":\"127.0.0.1:$p\""
	endguest udp 0.0.0.0 3006 $p
	event "\"type\":\"stopping\",\"protocol\":\"udp\",\"guestAddr\":\"0.0.0.0:$p\",\"hostAddr\":\"127.0.0.1:$p\""
	refused udp 127.0.0.1 $p
	inguest udp 127.0.0.1 $p
	event "\"type\":\"not-forwarding\",\"protocol\":\"udp\",\"guestAddr\":\"127.0.0.1:$p\""
	endguest udp 127.0.0.1 $p
	ok 'UDP; what QEMU cannot reach is not announced'

	"$serve" tcp 127.0.0.1 $p >"$T/ready" &
	taken=$!
	await 5 grep -q ready "$T/ready"
	inguest tcp 0.0.0.0 $p
	await 10 said "127.0.0.1:$p of the host, by automatic forwarding: Address already in use" || bad 'no warning'
	sleep 6
	saidonce "127.0.0.1:$p of the host, by automatic forwarding: Address already in use"
	send TERM $taken
	wait $taken || :
	await 10 said "Host port 127.0.0.1:$p is free now" || bad 'it is not taken over'
	gets "hello $p" tcp 127.0.0.1 $p
	ok 'a host port in use: one warning, taken over when it is free'

	fds() { find "/proc/$(masterof)/fd" | wc -l; }
	before=$(fds)
	run "$serve" many 32 127.0.0.1 $p
	status 0
	printf '# 32 connects at once: %s ms\n' "$(cat "$out")"
	[ "$(cat "$out")" -lt 5000 ] || bad 'some waited for others'
	limit=120
	run "$serve" row 200 127.0.0.1 $p
	outis 200
	await 5 eval '[ "$(fds)" = "$before" ]' || bad "descriptors of the master: $before, then $(fds)"
	ok 'many connections, at once and in a row, leave nothing'

	master=$(masterof)
	send KILL "$master"
	await 30 eval 'new=$(masterof) && [ "$new" != "$master" ]' || bad 'no new ssh master'
	gets "hello $p" tcp 127.0.0.1 $p
	gets 'hello 3004' unix "$dir/sock/web.sock"
	gets 'hello /tmp/in.sock' unix "$HOME/new/in.sock"
	await 10 eval '"$LIMACTL" shell $vm /var/tmp/serve get unix /tmp/back.sock </dev/null' || bad 'the reverse one is not back'
	ok 'the ssh master is killed: all are back'

	send KILL "$(agentpid $vm)"
	await 5 is $vm Broken
	gets "hello $p" tcp 127.0.0.1 $p
	endguest tcp 0.0.0.0 $p
	inguest tcp 127.0.0.1 $((b + 9))
	limit=60
	lc start $vm
	status 0
	gets "hello $((b + 9))" tcp 127.0.0.1 $((b + 9))
	await 10 sh -c "! ss -Hltn | grep -q '127.0.0.1:$p '" || bad 'what ended meanwhile is still forwarded'
	gets 'hello 3000' tcp 127.0.0.1 $b
	gets 'hello 3004' unix "$dir/sock/web.sock"
	gets 'hello /tmp/in.sock' unix "$HOME/new/in.sock"
	endguest tcp 127.0.0.1 $((b + 9))
	refused tcp 127.0.0.1 $((b + 9))
	ok 'the host agent is killed: forwards work on, and its successor has them all'

	lc shell $vm sudo pkill -9 -x lima-guestagent
	inguest tcp 127.0.0.1 $p
	gets "hello $p" tcp 127.0.0.1 $p
	gets 'hello 3000' tcp 127.0.0.1 $b
	lc shell $vm ps -o comm= -p "$(lc shell $vm pgrep -x lima-guestagent; cat "$out")"
	ok 'the guest agent is killed: it is back'

	lc shell $vm sh -c 'SSH_AUTH_SOCK=/run/host-services/ssh-auth.sock; export SSH_AUTH_SOCK; [ -S "$SSH_AUTH_SOCK" ] && ssh-add -l'
	outhas 'no identities'
	ok "the host's ssh agent at /run/host-services/ssh-auth.sock"
	lc shell $vm sudo date -s '2020-01-01 00:00:00'
	qmp() { printf '{"execute":"qmp_capabilities"}{"execute":"%s"}\n' "$1" | timeout 5 socat -t 2 - "UNIX-CONNECT:$dir/qmp.sock" | grep -q '"return"'; }
	if have socat; then
		holds qmp stop
		holds qmp cont
		await 3 said 'Time sync: guest clock adjusted' || bad 'the clock was not set'
		lc shell $vm date +%Y
		outis "$(date +%Y)"
		ok 'the clock is right after a pause'
	else
		skip 'the clock after a pause' 'socat is not installed'
	fi

	limit=120
	lc stop $vm
	status 0
	fails answers tcp 127.0.0.1 $b
	holds [ ! -e "$dir/sock/web.sock" ]
	holds [ ! -e "$HOME/new/in.sock" ]
	send TERM $back "$SSH_AGENT_PID"
	unset SSH_AUTH_SOCK SSH_AGENT_PID
	sed -i 's/^ssh: .*/plain: true/' "$dir/lima.yaml"
	limit=200
	lc start --tty=false $vm
	status 0
	inguest tcp 127.0.0.1 3000 3005 $p
	gets 'hello 3005' tcp 127.0.0.1 $((b + 5))
	fails answers tcp 127.0.0.1 $b
	fails answers tcp 127.0.0.1 $p
	lc shell $vm pgrep -x lima-guestagent
	status 1
	ok 'plain: static rules and nothing else'
	lc delete -f $vm
	status 0
	rm -f "$HOME/back.sock" "$HOME/agent.sock"
	finish
}
