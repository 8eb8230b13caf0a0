# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# The templates podman and docker: a container whose port and files are the host's.

# busyboxroot DIR: a root of busybox, perl and their libraries
busyboxroot() {
	mkdir "$1"
	b=$(command -v busybox)
	pl=$(command -v perl)
	# shellcheck disable=SC2046  # a word each
	cp -L --parents "$b" "$pl" $({ libraries "$b"; libraries "$pl"; } | sort -u) "$1"
}
# a server that sends back what it gets, for busybox's nc knows no UDP. As the first
# process of a container it is deaf to TERM: a stop must not wait for it for long.
udpecho='socket(S, 2, 2, 0) and bind(S, pack("SnNx8", 2, 81, 0)) or die; send(S, $m, 0, $p) while defined($p = recv(S, $m, 9, 0))'
podanswers() { [ "$(curl -s -m 5 "http://127.0.0.1:$1/$2")" = "$3" ]; }
# podudp PORT: what is sent there comes back
podudp() {
	timeout 40 perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "127.0.0.1:$ARGV[0]") or exit 1;
		vec($v, fileno $s, 1) = 1;
		for (1 .. 30) {
			$s->send("ping");
			exit 0 if select($r = $v, undef, undef, 1) > 0 and defined $s->recv($m, 9) and $m eq "ping";
			select undef, undef, undef, 0.2;
		}
		exit 1' "$1"
}
podpings() { [ "$(curl -s -m 10 --unix-socket "$1" http://d/_ping)" = OK ]; }

# podstarts TEMPLATE [EXPRESSION]: an instance $vm of it, created and started
podstarts() {
	limit=600 t=$(date +%s)
	lc create --tty=false --cpus 2 --memory 1 --set "${2:-.}" --name "$vm" "template:$1"
	status 0
	printf '# create: %d s\n' $(($(date +%s) - t))
	limit=200 t=$(date +%s)
	lc start --tty=false "$vm"
	status 0
	printf '# start: %d s\n' $(($(date +%s) - t))
	errhas 'The optional requirement 1 of 1 is satisfied'
}

# poddocker: the same by the template docker and, where the host has a client of
# docker, by that
poddocker() {
	vm=dock
	dir=$LIMA_HOME/$vm
	sock=$dir/sock/docker.sock
	podstarts docker
	errhas "unix://$sock"
	if [ "$rc" = 0 ]; then
		holds await 20 podpings "$sock"
		mode "$sock" 600
		ok 'template:docker starts, and the socket answers on the host'
		if have docker; then
			docked() { run env "DOCKER_HOST=unix://$sock" "DOCKER_CONFIG=$T/dockerconf" docker "$@"; }
		else
			docked() { lc shell $vm docker "$@"; }
		fi
		input=$T/bb.tar limit=60
		docked import - bb
		status 0
		limit=60
		docked run -d --name web --restart always -p 18080:80 -v "$HOME:/www:ro" bb "$b" httpd -f -p 80 -h /www
		status 0
		holds await 30 podanswers 18080 page 'from home'
		limit=60
		docked run -d --name echo -p 18081:81/udp bb "$pl" -e "$udpecho"
		status 0
		holds podudp 18081
		ok 'import, run, and published ports'
		limit=90
		lc stop $vm
		status 0
		limit=200
		lc start --tty=false $vm
		status 0
		holds await 30 podanswers 18080 page 'from home'
	fi
	ok 'the next start: the container is back'
	limit=60
	lc delete -f $vm
	status 0
}

# podrootful: Docker as root, of its own image
podrootful() {
	vm=root
	dir=$LIMA_HOME/$vm
	podstarts docker-rootful
	holds await 20 podpings "$dir/sock/docker.sock"
	mode "$dir/sock/docker.sock" 600
	input=$T/bb.tar limit=60
	lc shell $vm docker import - bb
	status 0
	limit=60
	lc shell $vm docker run -d --name web --restart always -p 18080:80 -v "$HOME:/www:ro" bb "$b" httpd -f -p 80 -h /www
	status 0
	holds await 30 podanswers 18080 page 'from home'
	ok 'template:docker-rootful: socket, import, run, a published port'
	limit=60
	lc delete -f $vm
	status 0
}

test_podman() {
	begin podman
	XDG_CACHE_HOME=$realcache
	export XDG_CACHE_HOME
	for p in busybox perl curl qemu-img mmdebstrap; do
		have "$p" || { skip podman "$p is not installed"; finish; return; }
	done
	vm=pod
	dir=$LIMA_HOME/$vm
	busyboxroot "$T/bb"
	echo 'from home' >"$HOME/page"
	# what template:podman-rootful does, beside what podman does without root
	podstarts podman ".provision += [{\"script\": $(jsonscript podman-rootful 1)}] |
		.portForwards += [{\"guestSocket\": \"/run/podman/podman.sock\", \"hostSocket\": \"root.sock\"}]"
	errhas "unix://$dir/sock/podman.sock"
	if [ "$rc" != 0 ]; then
		ok 'template:podman starts'
		lc delete -f $vm
		finish
		return
	fi
	holds await 10 podpings "$dir/sock/podman.sock"
	mode "$dir/sock/podman.sock" 600
	ok 'template:podman starts, and the socket answers on the host'
	tar -C "$T/bb" -cf "$T/bb.tar" .
	input=$T/bb.tar limit=60
	lc shell $vm podman import -q - bb
	status 0
	limit=60
	lc shell $vm podman run -d --name web --restart always -p 18080:80 -v "$HOME:/www:ro" bb "$b" httpd -f -p 80 -h /www
	status 0
	holds await 20 podanswers 18080 page 'from home'
	printf '# start to the page of a container: %d s\n' $(($(date +%s) - t))
	ok 'a published port on the host, serving a file of the mounted home'
	limit=60
	lc shell $vm podman run -d --name echo -p 18081:81/udp bb "$pl" -e "$udpecho"
	status 0
	holds podudp 18081
	ok 'a published UDP port'
	holds await 10 podpings "$dir/sock/root.sock"
	input=$T/bb.tar limit=60
	lc shell $vm sudo podman import -q - bb
	status 0
	limit=60
	lc shell $vm sudo podman run -d --name web --restart always -p 18082:80 -v "$HOME:/www:ro" bb "$b" httpd -f -p 80 -h /www
	status 0
	holds await 20 podanswers 18082 page 'from home'
	ok 'as root: its socket answers the user, and a published port on the host'
	limit=90 t=$(date +%s)
	lc stop $vm
	status 0
	t=$(($(date +%s) - t))
	printf '# stop: %d s\n' "$t"
	[ "$t" -lt 80 ] || bad 'a container that is deaf to TERM kept the stop waiting'
	fails podanswers 18080 page 'from home'
	limit=120
	lc start --tty=false $vm
	status 0
	holds await 30 podanswers 18080 page 'from home'
	holds await 10 podpings "$dir/sock/podman.sock"
	holds await 30 podanswers 18082 page 'from home'
	holds await 10 podpings "$dir/sock/root.sock"
	ok 'the next start: the containers and the sockets are back'
	limit=60
	lc delete -f $vm
	status 0
	poddocker
	podrootful
	rm -rf "$T/bb" "$T/bb.tar"
	finish
}
