# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# match: which rule takes a listener of the guest, and where it goes; what the
# guest may say and what not. Rules as in spec/runtime.md 9.3.

test_match() {
	begin match
	limit=200
	run "${CC:-cc}" -w -g -fsanitize=address,undefined -DVERSION='"test"' -o "$HOME/forward" tests/forward.c
	status 0
	ok 'tests/forward.c compiles'
	# rules|listener|rule and host
	while IFS='|' read -r rules listener want; do
		[ -n "$rules" ] || continue
		printf 'images: [{location: /a}]\n%s\n' "$rules" >"$HOME/t.yaml"
		printf '+ %s\n' "$listener" >"$T/in"
		input=$T/in
		run env ASAN_OPTIONS=detect_leaks=0 "$HOME/forward" "$HOME/t.yaml"
		status 0
		outis "$want"
		noerr
		ok "$rules: $listener"
	done <<TABLE
cpus: 1|tcp 127.0.0.1 8080|0 127.0.0.1:8080
cpus: 1|tcp 0.0.0.0 8080|0 127.0.0.1:8080
cpus: 1|tcp :: 8080|0 127.0.0.1:8080
cpus: 1|tcp ::1 8080|0 127.0.0.1:8080
cpus: 1|tcp ::ffff:127.0.0.1 8080|0 127.0.0.1:8080
cpus: 1|tcp 127.0.0.2 8080|-
cpus: 1|tcp 192.168.5.15 8080|-
cpus: 1|tcp fe80::1 8080|-
cpus: 1|udp 0.0.0.0 5000|0 127.0.0.1:5000
cpus: 1|tcp 0.0.0.0 22|-
cpus: 1|tcp 127.0.0.1 22|-
cpus: 1|tcp 127.0.0.1 60022|-
cpus: 1|udp 0.0.0.0 60022|-
cpus: 1|udp 0.0.0.0 68|-
cpus: 1|udp 0.0.0.0 5353|-
cpus: 1|tcp 0.0.0.0 5353|0 127.0.0.1:5353
portForwards: [{guestPort: 5353, proto: udp}]|udp 0.0.0.0 5353|0 127.0.0.1:5353
portForwards: []|tcp 127.0.0.1 8080|-
portForwards: null|tcp 127.0.0.1 8080|0 127.0.0.1:8080
plain: true|tcp 127.0.0.1 8080|-
portForwards: [{guestPort: 80, hostPort: 8080}]|tcp 127.0.0.1 80|0 127.0.0.1:8080
portForwards: [{guestPort: 80, hostPort: 8080}]|tcp 0.0.0.0 80|0 127.0.0.1:8080
portForwards: [{guestPort: 80, hostPort: 8080}]|tcp 127.0.0.1 81|1 127.0.0.1:81
portForwards: [{guestPort: 80, hostPort: 8080}]|tcp 192.168.5.15 80|-
portForwards: [{guestPort: 80, hostPort: 8080}]|udp 0.0.0.0 80|0 127.0.0.1:8080
portForwards: [{guestPort: 80, hostPort: 8080, proto: tcp}]|udp 0.0.0.0 80|1 127.0.0.1:80
portForwards: [{guestPort: 80, hostIP: 0.0.0.0}]|tcp 127.0.0.1 80|0 0.0.0.0:80
portForwards: [{guestPort: 80, hostIP: "::1"}]|tcp 127.0.0.1 80|0 [::1]:80
portForwards: [{guestPortRange: [3000, 3010], hostPortRange: [4000, 4010]}]|tcp 127.0.0.1 3000|0 127.0.0.1:4000
portForwards: [{guestPortRange: [3000, 3010], hostPortRange: [4000, 4010]}]|tcp 127.0.0.1 3010|0 127.0.0.1:4010
portForwards: [{guestPortRange: [3000, 3010], hostPortRange: [4000, 4010]}]|tcp 127.0.0.1 3011|1 127.0.0.1:3011
portForwards: [{guestPortRange: [3000, 3010], hostPortRange: [4000, 4010]}]|tcp 127.0.0.1 2999|1 127.0.0.1:2999
portForwards: [{guestIP: 0.0.0.0, hostIP: 0.0.0.0}]|tcp 0.0.0.0 80|0 0.0.0.0:80
portForwards: [{guestIP: 0.0.0.0, hostIP: 0.0.0.0}]|tcp :: 80|0 0.0.0.0:80
portForwards: [{guestIP: 0.0.0.0, hostIP: 0.0.0.0}]|tcp 127.0.0.1 80|1 127.0.0.1:80
portForwards: [{guestIP: 0.0.0.0, hostIP: 0.0.0.0}]|tcp 192.168.5.15 80|-
portForwards: [{guestIPMustBeZero: true, hostIP: 0.0.0.0}]|tcp 0.0.0.0 80|0 0.0.0.0:80
portForwards: [{guestIPMustBeZero: true, hostIP: 0.0.0.0}]|tcp 127.0.0.1 80|1 127.0.0.1:80
portForwards: [{guestIP: 0.0.0.0, guestIPMustBeZero: false, hostIP: 0.0.0.0}]|tcp 192.168.5.15 80|0 0.0.0.0:80
portForwards: [{guestIP: 0.0.0.0, guestIPMustBeZero: false}]|tcp 127.0.0.2 80|0 127.0.0.1:80
portForwards: [{guestIP: "::"}]|tcp 192.168.5.15 80|0 127.0.0.1:80
portForwards: [{guestIP: 192.168.5.15, guestPort: 80, hostPort: 81}]|tcp 192.168.5.15 80|0 127.0.0.1:81
portForwards: [{guestIP: 192.168.5.15, guestPort: 80, hostPort: 81}]|tcp 0.0.0.0 80|0 127.0.0.1:81
portForwards: [{guestIP: 192.168.5.15, guestPort: 80, hostPort: 81}]|tcp 127.0.0.1 80|1 127.0.0.1:80
portForwards: [{guestIP: "::ffff:192.168.5.15", guestPort: 80, hostPort: 81}]|tcp 192.168.5.15 80|0 127.0.0.1:81
portForwards: [{guestPort: 80, ignore: true}]|tcp 127.0.0.1 80|-
portForwards: [{guestPort: 80, ignore: true}]|tcp ::1 80|-
portForwards: [{guestPort: 80, ignore: true}]|tcp 0.0.0.0 80|1 127.0.0.1:80
portForwards: [{guestPort: 80, ignore: true}]|tcp 127.0.0.1 81|1 127.0.0.1:81
portForwards: [{guestPort: 80, ignore: true, guestIP: 0.0.0.0}]|tcp 0.0.0.0 80|-
portForwards: [{guestPort: 80, ignore: true, guestIP: 0.0.0.0}]|tcp 127.0.0.1 80|1 127.0.0.1:80
portForwards: [{guestIP: 0.0.0.0, guestIPMustBeZero: false, ignore: true}]|tcp 127.0.0.1 80|-
portForwards: [{guestIP: 0.0.0.0, guestIPMustBeZero: false, ignore: true, proto: udp}]|udp 0.0.0.0 80|-
portForwards: [{guestIP: 0.0.0.0, guestIPMustBeZero: false, ignore: true, proto: udp}]|tcp 0.0.0.0 80|1 127.0.0.1:80
portForwards: [{guestPort: 80, hostPort: 81}, {guestPort: 80, ignore: true}]|tcp 127.0.0.1 80|0 127.0.0.1:81
portForwards: [{guestPort: 80, ignore: true}, {guestPort: 80, hostPort: 81}]|tcp 127.0.0.1 80|-
portForwards: [{guestPort: 80, hostSocket: web.sock}]|tcp 127.0.0.1 80|0 $LIMA_HOME/t/sock/web.sock
portForwards: [{guestPort: 80, hostSocket: "/run/{{.Name}}.sock"}]|tcp 127.0.0.1 80|0 /run/t.sock
portForwards: [{guestSocket: /run/a.sock, hostSocket: a.sock}]|tcp 127.0.0.1 80|1 127.0.0.1:80
TABLE

	# what a guest may say: anything; what is taken: lines of one shape
	printf '%s\n' '+ tcp 127.0.0.1 0' '+ tcp 127.0.0.1 65536' '+ tcp 127.0.0.1 -1' '+ tcp 127.0.0.1 80x' '+ tcp 127.0.0.1 0x50' \
		'+ tcp 127.0.0.1' '+ tcp 80' '+ sctp 127.0.0.1 80' '+  tcp 127.0.0.1 80' '+tcp 127.0.0.1 80' '* tcp 127.0.0.1 80' \
		'+ tcp 127.1 80' '+ tcp localhost 80' '+ tcp 127.0.0.1:80 80' '+ tcp 0x7f.0.0.1 80' '+ tcp ::1%lo 80' '+ tcp  80' \
		'+ tcp 1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:1:2:3:4:5:6:7:8:9 80' 'time' 'time x set' 'time 99999999999999999999 set' '' \
		"+ tcp 127.0.0.1 80;echo" '+ udp $(id) 80' >"$T/in"
	input=$T/in
	echo 'images: [{location: /a}]' >"$HOME/t.yaml"
	run env ASAN_OPTIONS=detect_leaks=0 "$HOME/forward" "$HOME/t.yaml"
	status 0
	same "$(grep -cxF '?' "$out")" "$(wc -l <"$T/in")"
	ok 'lines that are no listeners'

	# what ssh itself forwards stands in ssh.config
	buildfakes
	PATH=$fakes:$realpath
	plan "$goodboot"
	mkdir -p "$HOME/.ssh"
	ssh-keygen -q -t ed25519 -N '' -C mine -f "$HOME/.ssh/mine"
	echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE4AAAA not the algorithm' >"$HOME/.ssh/other.pub"
	printf 'ssh-ed25519\nAAAA\n' >"$HOME/.ssh/two.pub"
	mk keys '{images: [location: /etc/profile], disk: 1M, ssh: {loadDotSSHPubKeys: true, forwardAgent: true, forwardX11: true, forwardX11Trusted: true}}'
	dir=$LIMA_HOME/keys
	lc start keys
	status 0
	for l in 'ForwardAgent yes' 'ForwardX11 yes' 'ForwardX11Trusted yes' "IdentityFile \"$HOME/.ssh/mine\""; do
		holds grep -qxF "  $l" "$dir/ssh.config"
	done
	grep -aqF "$(cut -d ' ' -f 2 "$HOME/.ssh/mine.pub")" "$dir/cidata.iso" || bad 'the key is not in cidata.iso'
	errhas "$HOME/.ssh/other.pub is left out"
	errhas "$HOME/.ssh/two.pub is left out"
	if grep -aqE 'AlZDI1NTE4AAAA|not the algorithm' "$dir/cidata.iso"; then bad 'a bad key is in cidata.iso'; fi
	ok 'loadDotSSHPubKeys, forwardAgent, forwardX11'
	run env DISPLAY=:9 "$LIMACTL" shell keys true
	fails grep -q ControlPath= "$fakes/argv.ssh"
	lc shell keys true
	holds grep -q ControlPath= "$fakes/argv.ssh"
	ok 'X11: where there is a DISPLAY, shell has a connection of its own'
	lc list --json keys
	outlacks '"errors"'
	printf '{"time":"t","status":{"running":true,"degraded":true,"errors":["no agent","and \\u0041"],"sshLocalPort":1}}\nhalf a li' >>"$dir/ha.stdout.log"
	lc list --json keys
	outhas '"status":"Running"'
	outhas '"errors":["no agent","and A"]'
	errhas 'instance `keys` has errors'
	ok 'list shows what the host agent last said is wrong'
	lc stop keys
	sed -i 's/disk: 1M/&, plain: true/' "$dir/lima.yaml"
	lc validate "$dir/lima.yaml"
	status 0
	errhas 'Running in plain mode. Ignoring ssh.forwardAgent'
	plan "$goodboot"
	lc start keys
	status 0
	errhas 'Guest agent will not be running.'
	errlacks 'Static port forwarding is allowed'
	fails grep -q ForwardAgent "$dir/ssh.config"
	ok 'plain: no agent forwarding'
	lc delete -f keys
	status 0

	cp "$fakes/fake" "$fakes/qemu-system-arm"
	mk arm '{arch: armv7l, images: [{location: /etc/profile, arch: armv7l, kernel: {location: /etc/passwd}}], disk: 1M}'
	plan "$goodboot"
	lc start arm
	status 0
	errhas 'There is no guest agent for armv7l in this limactl'
	ok 'an architecture without a guest agent: start says so'
	lc delete -f arm
	status 0
	finish
}
