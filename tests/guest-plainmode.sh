# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# Plain mode is a user and ssh, looked at from inside and outside, and the way
# from one mode to the other and back.

# children PID: the programs it runs, a word each
children() { for c in $(pgrep -P "$1"); do tr '\0' ' ' <"/proc/$c/cmdline" | sed 's/ .*//; s,.*/,,; s/:.*//'; echo; done | sed '/^$/d' | sort -u | tr '\n' ' '; }
# hostlisteners: local addresses of TCP listeners of the agent and its children
hostlisteners() {
	for p in "$(agentpid "$vm")" $(pgrep -P "$(agentpid "$vm")") "$(qemupid "$vm")"; do
		for s in /proc/"$p"/fd/*; do readlink "$s"; done
	done 2>/dev/null | sed -n 's/^socket:\[\(.*\)\]$/\1/p' >"$T/sockets"
	for f in /proc/net/tcp /proc/net/tcp6; do
		awk 'NR == FNR { have[$1] = 1; next } $4 == "0A" && ($10 in have) { print $2 }' "$T/sockets" $f
	done | sed 's/.*://' | sort -u
}

test_plainmode() {
	beginguest plainmode pl
	echo home >"$HOME/file"
	cat >"$HOME/p.yaml" <<-END
		images: [{location: "$image"}]
		cpus: 2
		memory: 1GiB
		disk: 10GiB
		containerd: {user: false, system: false}
		env: {COLOR: blue}
		portForwards: [{guestPort: 38080, hostPort: 38090}, {guestPort: 38081, hostPort: 38091, static: true}]
		provision: [{mode: system, script: "#!/bin/sh\necho sys >>/root/ran\n"}, {mode: user, script: "#!/bin/sh\necho usr >>~/ran\n"}, {mode: dependency, script: "#!/bin/sh\ntrue\n"}]
	END
	limit=600
	lc start --tty=false --plain --name "$vm" "$HOME/p.yaml"
	status 0
	errhas "READY. Run \`ssh -F \`$dir/ssh.config\` lima-pl\` to open the shell."
	same "$(grep -c 'level=warning' "$err")" 1
	logged warning 'Running in plain mode without the forward of port 38080, provision[2] (dependency), env (`static: true` keeps a mount or a forward)'
	ok 'start --plain: one warning names what is off'
	if [ "$rc" != 0 ]; then
		lc delete -f "$vm"
		finish
		return
	fi
	sh_ id -un
	guest=$(cat "$out")
	[ "$uid" = 0 ] || same "$guest" "$(id -un)"
	guestsays lima-pl hostname
	guestsays 0 sudo id -u
	guestsays sys sudo cat /root/ran
	guestsays usr sh -c 'cat ~/ran'
	ok 'host name, user, key, sudo and provision scripts are there'
	guestsays '' sh -c '{ ls -d /dev/virtio-ports/* /sys/class/virtio-ports/* 2>/dev/null; } || :'
	guestsays '' sh -c '{ grep -E " (fuse[.a-z]*|9p|virtiofs) " /proc/mounts | grep -v fusectl; } || :'
	guestsays '' sh -c '{ pgrep -lx "sshfs|lima-guestagent"; } || :'
	guestsays 'lima-boot.service' sh -c 'cd /etc/systemd/system && ls -d lima*'
	guestsays '' sh -c '{ ls /usr/local/bin /usr/local/sbin /etc/profile.d/*lima* 2>/dev/null | grep lima; } || :'
	guestsays '' sh -c '{ sudo find /mnt/lima-cidata -name "*guestagent*"; } || :'
	guestsays '[]' sh -c 'echo "[$SSH_AUTH_SOCK$COLOR]"'
	guestsays '' sh -c '{ sudo journalctl -b -o cat | grep -i "clock adjusted"; } || :'
	ok 'inside: no port, mount, process, unit, program, agent or variable of ours'
	same "$(hostlisteners)" "$(printf '%04X\n' "$(field "$vm" SSHLocalPort)" 38091 | sort)"
	case $(children "$(agentpid "$vm")") in
	"$qemu ssh " | "$qemu ") ;;
	*) bad "the host agent runs: $(children "$(agentpid "$vm")")" ;;
	esac
	fails grep -q virtserialport "/proc/$(qemupid "$vm")/cmdline"
	ok 'outside: QEMU, ssh, and no listener but theirs and the static rule'
	for p in 38080 38081; do
		sh_ sh -c "nohup perl -MIO::Socket::INET -e '\$s = IO::Socket::INET->new(Listen => 9, LocalAddr => q(127.0.0.1), LocalPort => $p) or die; while (\$c = \$s->accept) { print \$c qq(hello\n); close \$c }' >/dev/null 2>&1 &"
	done
	await 10 eval '[ "$(socat -t2 - tcp:127.0.0.1:38091 </dev/null 2>/dev/null)" = hello ]' || bad 'the static rule does not reach the guest'
	fails socat -t2 - tcp:127.0.0.1:38090
	fails socat -t2 - tcp:127.0.0.1:38080
	ok 'a service is reached by its static rule alone'
	echo there >"$HOME/here"
	lc copy "$HOME/here" "$vm:there"
	status 0
	lc copy "$vm:there" "$HOME/back"
	status 0
	same "$(cat "$HOME/back")" there
	ok 'files go by copy'
	# the guest's own packages are where an engine comes from
	limit=900 t=$(date +%s)
	sh_ sudo sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io busybox-static >/dev/null 2>&1'
	printf '# docker.io by apt: %d s\n' $(($(date +%s) - t))
	limit=120
	guestsays active systemctl is-active docker
	guestsays ran sh -c 'tar c -C /bin busybox | sudo docker import - b >/dev/null && sudo docker run --rm --network=none --security-opt=apparmor=unconfined b /busybox echo ran'
	sh_ sudo systemctl disable --now docker.socket docker.service containerd.service
	ok 'a container engine is one apt-get install away, and runs'
	sh_ sh -c 'echo kept >~/data; sync'
	limit=60
	lc stop "$vm"
	lc edit --plain=false "$vm"
	status 0
	limit=300
	lc start --tty=false "$vm"
	status 0
	errhas READY
	guestsays home cat "$HOME/file"
	guestsays kept sh -c 'cat ~/data'
	guestsays blue sh -c 'echo $COLOR'
	sh_ sh -c "nohup perl -MIO::Socket::INET -e '\$s = IO::Socket::INET->new(Listen => 9, LocalAddr => q(127.0.0.1), LocalPort => 38080) or die; while (\$c = \$s->accept) { print \$c qq(hello\n); close \$c }' >/dev/null 2>&1 &"
	await 10 eval '[ "$(socat -t2 - tcp:127.0.0.1:38090 </dev/null 2>/dev/null)" = hello ]' || bad 'no forward'
	ok 'edit --plain=false: mounts, environment and forwards are there, data is as it was'
	limit=60
	lc stop "$vm"
	lc edit --plain "$vm"
	status 0
	limit=300
	lc start --tty=false "$vm"
	status 0
	guestsays kept sh -c 'cat ~/data'
	guestsays '' sh -c '{ pgrep -lx "sshfs|lima-guestagent"; grep fuse.sshfs /proc/mounts; } || :'
	guestsays '[]' sh -c 'echo "[$COLOR]"'
	ok 'edit --plain: nothing of it is there any more'
	limit=60
	lc delete -f "$vm"
	finish
}
