# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# Two real VMs on the network user-v2: names, ssh, and nothing for other users.

test_network() {
	beginguest network na
	printf 'images: [{location: "%s"}]\ncpus: 1\nmemory: 512MiB\ndisk: 10GiB\nmounts: []\ncontainerd: {user: false}\nnetworks: [{lima: user-v2}]\n' "$image" >"$HOME/net.yaml"
	for vm in na nb; do
		dir=$LIMA_HOME/$vm
		limit=600
		lc start --tty=false --name "$vm" "$HOME/net.yaml"
		status 0
		errhas READY
	done
	ok 'two VMs on user-v2 start'
	net=$LIMA_HOME/_networks/user-v2
	same "$(stat -c '%a %u' "$net")" "700 $uid"
	same "$(find "$net" -type s ! -perm 600 | wc -l)" 0
	same "$(find "$net" -type s | wc -l)" 4
	ok 'its sockets are for one user alone'
	vm=nb
	sh_ sh -c 'ip -4 -o addr show lima0; getent hosts lima-na.internal lima-nb.internal'
	outhas 192.168.104.4/24
	outre '^192\.168\.104\.3 +lima-na\.internal'
	outre '^192\.168\.104\.4 +lima-nb\.internal'
	ok 'the second VM has an address and both names'
	# the first one was up already when the second came
	vm=na
	await 20 eval '"$LIMACTL" shell na getent hosts lima-nb.internal </dev/null' || bad 'the first VM does not know the second'
	ok 'the first VM learns the name of the second'
	sh_ sh -c 'timeout 20 perl -MIO::Socket::INET -e "\$s = IO::Socket::INET->new(PeerAddr => q(lima-nb.internal), PeerPort => 22, Timeout => 10) or die; print scalar <\$s>"'
	outhas SSH-2.0
	ok 'sshd of the second VM answers the first'
	send KILL "$(agentpid nb)"
	await 5 is nb Broken || bad 'nb is not Broken'
	limit=60
	lc start nb
	status 0
	sh_ sh -c 'timeout 20 perl -MIO::Socket::INET -e "\$s = IO::Socket::INET->new(PeerAddr => q(lima-nb.internal), PeerPort => 22, Timeout => 10) or die; print scalar <\$s>"'
	outhas SSH-2.0
	ok 'the network is back when a killed host agent was replaced'
	limit=60
	lc stop nb
	status 0
	same "$(find "$net" -type s | wc -l)" 2
	lc delete -f na nb
	status 0
	same "$(find "$net" -type s | wc -l)" 0
	ok 'a stopped VM leaves no socket'
	finish
}
