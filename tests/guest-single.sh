# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# The static binary on a system that has QEMU, OpenSSH, busybox and nothing
# else: no coreutils, no curl, no package manager, no file of ours beside it.

# put FILE...: into $root under the same name, with the libraries it is linked to
put() {
	for f; do
		[ -e "$f" ] || continue
		for l in "$f" $(libraries "$f"); do
			[ -e "$root$l" ] || { mkdir -p "$root${l%/*}" && cp -L "$l" "$root$l"; }
		done
	done
}

test_single() {
	beginguest single donor
	what='the static binary alone on a system of QEMU, OpenSSH and busybox'
	if [ "$uid" != 0 ] || ! unshare --mount --pid --fork true 2>/dev/null; then
		skip "$what" 'chroot and mounts need root'
		finish
		return
	fi
	feed "images: [{location: \"$image\"}]"
	limit=600
	lc create --tty=false --name donor -
	status 0
	root=$T/root
	mkdir -p "$root/bin" "$root/tmp" "$root/proc" "$root/dev" "$root/etc" "$root/img" "$root/usr/share" "$root/home/dev"
	chmod 1777 "$root/tmp"
	chown 1234:1234 "$root/home/dev"
	printf 'root:x:0:0::/:/bin/sh\ndev:x:1234:1234:Dev:/home/dev:/bin/sh\n' >"$root/etc/passwd"
	for f in basedisk kernel initrd; do
		cp --sparse=always "$LIMA_HOME/donor/$f" "$root/img/$f"
	done
	printf 'images:\n- location: /img/basedisk\n  kernel: {location: /img/kernel, cmdline: "%s"}\n  initrd: {location: /img/initrd}\nmemory: 512MiB\ncpus: 1\ncontainerd: {user: false}\n' \
		"$(cat "$LIMA_HOME/donor/kernel.cmdline")" >"$root/img/alone.yaml"
	lc delete donor
	put "$(command -v "$qemu")" "$(command -v qemu-img)" "$(command -v ssh)" "$(command -v ssh-keygen)" "$(command -v scp)" \
		"$(command -v busybox)" /usr/lib/*/qemu/accel-*.so /lib/*/libnss_files.so.2
	cp -RL /usr/share/qemu /usr/share/seabios "$root/usr/share/" 2>/dev/null || :
	chroot "$root" "$(command -v busybox)" --install -s /bin
	cp limactl-static "$root/bin/limactl"
	ln -s limactl "$root/bin/lima"
	cat >"$root/try.sh" <<'S'
set -e
limactl start --tty=false --name alone /img/alone.yaml
LIMA_INSTANCE=alone lima sh -c 'echo "in: $(id -un) $(uname -s)"'
limactl list --format '{{.Name}} is {{.Status}}'
echo carried >/tmp/here
limactl copy /tmp/here alone:there
limactl shell --workdir / alone cat /home/dev.linux/there
limactl stop alone
limactl list --format '{{.Name}} is {{.Status}}'
limactl delete alone
limactl list --quiet
echo "left: $(ls -A ~/.lima | grep -v ^_ | wc -l)"
S
	limit=300
	run unshare --mount --pid --fork --kill-child sh -c '
		mount --make-rprivate / && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" &&
		exec chroot --userspec=1234:1234 "$1" /bin/env -i PATH=/bin:/usr/bin HOME=/home/dev USER=dev LIMA_ACCEL="$2" /bin/sh /try.sh
	' sh "$root" "${LIMA_ACCEL-}"
	status 0
	outis 'in: dev Linux
alone is Running
carried
alone is Stopped
left: 0'
	errhas READY
	ok "$what"
	finish
}
