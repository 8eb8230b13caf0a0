# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# The template podman: a container whose port and files are the host's.

# busyboxroot DIR: a root of busybox and its libraries
busyboxroot() {
	mkdir "$1"
	b=$(command -v busybox)
	# shellcheck disable=SC2046  # a word each
	cp -L --parents "$b" $(ldd "$b" 2>/dev/null | grep -o '/[^ ]*') "$1"
}
podanswers() { [ "$(curl -s -m 5 "http://127.0.0.1:$1/$2")" = "$3" ]; }
podpings() { [ "$(curl -s -m 10 --unix-socket "$1" http://d/_ping)" = OK ]; }

test_podman() {
	begin podman
	XDG_CACHE_HOME=$realcache
	export XDG_CACHE_HOME
	for p in busybox curl qemu-img mmdebstrap; do
		have "$p" || { skip podman "$p is not installed"; finish; return; }
	done
	vm=pod
	dir=$LIMA_HOME/$vm
	busyboxroot "$T/bb"
	echo 'from home' >"$HOME/page"
	limit=600 t=$(date +%s)
	lc create --tty=false --cpus 2 --memory 1 --name $vm template:podman
	status 0
	printf '# create: %d s\n' $(($(date +%s) - t))
	limit=120 t=$(date +%s)
	lc start --tty=false $vm
	printf '# start: %d s\n' $(($(date +%s) - t))
	status 0
	errhas "unix://$dir/sock/podman.sock"
	errhas 'The optional requirement 1 of 1 is satisfied'
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
	lc shell $vm podman run -d --name echo -p 18081:81/udp bb "$b" nc -u -l -p 81 -e "$b" cat
	status 0
	if have nc; then
		podudp() { [ "$(echo ping | timeout 2 nc -u -w 1 127.0.0.1 18081)" = ping ]; }
		holds await 20 podudp
		ok 'a published UDP port'
	else
		skip 'a published UDP port' 'nc is not installed'
	fi
	limit=90
	lc stop $vm
	status 0
	fails podanswers 18080 page 'from home'
	limit=120
	lc start --tty=false $vm
	status 0
	holds await 30 podanswers 18080 page 'from home'
	holds await 10 podpings "$dir/sock/podman.sock"
	ok 'the next start: the container and the socket are back'
	limit=60
	lc delete -f $vm
	status 0
	rm -rf "$T/bb" "$T/bb.tar"
	finish
}
