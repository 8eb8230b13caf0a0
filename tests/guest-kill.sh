# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# SIGKILL at awkward moments: the next command heals or says what to do, and
# nothing that is not running is called so.

# begun TEXT: the console has it
begun() { grep -q "$1" "$dir/serial.log"; }
# truth: what list says of $vm is so; in $said
truth() {
	said=$(field "$vm" Status)
	case $said in
	Running) [ "$(timeout 20 "$LIMACTL" shell "$vm" echo there 2>&1 </dev/null)" = there ] || bad 'Running, but nobody answers' ;;
	Stopped) same "$(pgrep -f "$dir/qmp.sock" | wc -l)" 0 ;;
	esac
}
# agentgone: the host agent is killed, at whatever stage it is
agentgone() {
	read -r p <"$dir/ha.pid"
	send KILL "$p"
}

test_kill() {
	beginguest kill kv
	printf 'images: [{location: "%s"}]\ncpus: 2\nmemory: 1GiB\ndisk: 10GiB\ncontainerd: {user: false}\n' "$image" >"$HOME/k.yaml"
	limit=600
	lc create --tty=false --name "$vm" "$HOME/k.yaml"
	status 0
	for at in lima-initrd "Detected virtualization"; do
		rm -f "$dir/serial.log"
		background start --tty=false "$vm"
		await 60 begun "$at" || bad 'it does not boot'
		kill -KILL "-$pid" 2>/dev/null || bad 'start is over'
		wait "$pid" 2>/dev/null || :
		limit=300
		lc start --tty=false "$vm"
		status 0
		errhas READY
		truth
		same "$said" Running
		ok "start is killed at $at: the next start follows it"
		[ "$at" != lima-initrd ] || { limit=60; lc stop -f "$vm"; }
	done
	sh_ sudo pkill -KILL -f lima-guestagent
	sh_ sh -c 'nohup perl -MIO::Socket::INET -e '\''$s = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1", LocalPort => 38081) or die; while ($c = $s->accept) { print $c "hello\n"; close $c }'\'' >/dev/null 2>&1 &'
	await 20 grep -q '"type":"forwarding".*127.0.0.1:38081' "$dir/ha.stdout.log" || bad 'a new listener is not forwarded'
	ok 'the guest agent is killed: the next one goes on'
	q=$(qemupid "$vm")
	send KILL "$q"
	await 10 is "$vm" Stopped || bad 'not Stopped'
	await 10 eval '[ -z "$(pgrep -f "$dir/")" ]' || bad 'processes stay'
	sh_ true
	fatalhas "$vm"
	ok 'QEMU is killed: Stopped, no process stays, and shell says so'
	rm -f "$dir/serial.log"
	background start --tty=false "$vm"
	await 60 begun "Detected virtualization" || bad 'it does not boot'
	agentgone
	collect 30
	status 1
	truth
	same "$said" Broken
	limit=300
	lc start --tty=false "$vm"
	status 0
	errhas READY
	truth
	same "$said" Running
	ok 'the host agent is killed in the midst of a boot: the next start adopts it'
	background stop "$vm"
	await 20 grep -q 'power button' "$dir/ha.stderr.log" || bad 'no power button'
	kill -KILL "-$pid" 2>/dev/null || bad 'stop is over'
	wait "$pid" 2>/dev/null || :
	limit=120
	lc stop "$vm"
	await 60 is "$vm" Stopped || bad 'not Stopped'
	truth
	ok 'stop is killed: the guest goes down all the same'
	lc start --tty=false "$vm"
	status 0
	background stop "$vm"
	await 20 grep -q 'power button' "$dir/ha.stderr.log" || bad 'no power button'
	agentgone
	collect 60
	truth
	limit=120
	[ "$said" = Stopped ] || lc stop "$vm"
	await 60 is "$vm" Stopped || bad 'not Stopped'
	truth
	same "$said" Stopped
	await 10 eval '[ -z "$(pgrep -f "$dir/")" ]' || bad 'processes stay'
	ok 'the host agent is killed in the midst of a stop'
	limit=60
	lc delete "$vm"
	status 0
	finish
}
