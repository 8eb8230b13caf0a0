# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# arch: a guest of another architecture, all of it emulated

# foreign DEB ARCH: this kernel runs programs of that architecture. Where
# nobody read what qemu-user-static brought (systemd-binfmt does, containers
# have none), we do, for as long as the section lasts.
foreign() {
	f=/usr/lib/binfmt.d/qemu-$2.conf b=/proc/sys/fs/binfmt_misc
	if ! arch-test "$1" >/dev/null 2>&1 && [ -e "$f" ] && ! [ -e $b/register ]; then
		if asroot mount -t binfmt_misc none $b 2>/dev/null; then
			mounted=$b
			asroot sh -c "cat $f >$b/register" || :
		fi
	fi
	arch-test "$1" >/dev/null 2>&1
}

test_arch() {
	begin arch
	XDG_CACHE_HOME=$realcache
	export XDG_CACHE_HOME
	a=aarch64 deb=arm64
	[ "$host" != aarch64 ] || { a=x86_64 deb=amd64; }
	for p in "qemu-system-$a" qemu-img mmdebstrap arch-test; do
		have "$p" || { skip "a guest of $a" "$p is not installed"; finish; return; }
	done
	# the image's packages are set up by programs of that architecture; the
	# image is kept in the cache
	foreign $deb $a || {
		skip "a guest of $a" "this host does not run $deb programs (qemu-user-static, binfmt_misc)"
		finish
		return
	}
	vm=foreign
	feed "arch: $a
images: [{location: \"mmdebstrap:bookworm\", arch: $a}]
cpus: 2
memory: 1GiB
disk: 10GiB
mounts: []
containerd: {user: false, system: false}
"
	limit=1500
	lc create --tty=false --name=$vm -
	status 0
	ok "an image for $a is built out of packages"
	if [ "$rc" != 0 ]; then
		finish
		return
	fi
	t=$(date +%s) limit=300
	lc start --tty=false $vm
	printf '# start: %d s\n' $(($(date +%s) - t))
	status 0
	errhas READY
	lc shell $vm uname -m
	outis $a
	lc shell $vm sudo -n id -u
	outis 0
	ok "a guest of $a boots to a shell"
	lc list --format '{{.Arch}} {{.Status}}' $vm
	outis "$a Running"
	# without UEFI the power button is a GPIO key on aarch64, for which
	# Debian's cloud kernel has no driver
	t=$(date +%s) limit=120
	lc stop $vm
	printf '# stop: %d s\n' $(($(date +%s) - t))
	status 0
	holds is $vm Stopped
	filelacks "$LIMA_HOME/$vm/ha.stderr.log" 'did not power off'
	ok 'and powers off when asked to'
	lc delete -f $vm
	if [ -n "${mounted-}" ]; then asroot umount "$mounted" && mounted=; fi
	finish
}
