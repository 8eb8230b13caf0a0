# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# Instance directories that limactl made: they list, start and keep their rules.

# legacy NAME VERSION: as limactl leaves a stopped one
legacy() {
	d=$LIMA_HOME/$1
	mkdir -m 700 "$d"
	printf 'disk: 8MiB\nimages:\n- location: /nonexistent/image.qcow2\nuser: {name: foo}\ncontainerd: {user: false, system: false}\n' >"$d/lima.yaml"
	[ -z "$2" ] || { printf %s "$2" >"$d/lima-version"; chmod 444 "$d/lima-version"; }
	echo '{"time":"2024-01-01T00:00:00Z","status":{"exiting":true}}' >"$d/ha.stdout.log"
	: >"$d/ha.stderr.log"
	: >"$d/cidata.iso"
	: >"$d/cloud-config.yaml"
	echo 'Host lima-old' >"$d/ssh.config"
	mkdir -m 750 "$d/sock"
}
# lived NAME: what its guest gets as its home
lived() {
	isoinfo -R -x /lima.env -i "$LIMA_HOME/$1/cidata.iso" | sed -n 's/^LIMA_CIDATA_HOME=//p'
}

test_legacy() {
	begin legacy
	buildfakes
	PATH=$fakes:$realpath
	legacy new v2.2.0
	qemu-img create -q -f raw "$LIMA_HOME/new/disk" 8M
	legacy mid 2.0.1
	qemu-img create -q -f qcow2 "$LIMA_HOME/mid/basedisk" 8M
	qemu-img create -q -f qcow2 -F qcow2 -b basedisk "$LIMA_HOME/mid/diffdisk" 2>/dev/null ||
		(cd "$LIMA_HOME/mid" && qemu-img create -q -f qcow2 -F qcow2 -b basedisk diffdisk)
	ln -s diffdisk "$LIMA_HOME/mid/disk"
	legacy old ''
	qemu-img create -q -f qcow2 "$LIMA_HOME/old/diffdisk" 8M
	lc list --format '{{.Name}} {{.Status}}'
	status 0
	outis 'mid Stopped
new Stopped
old Stopped'
	ok 'three generations of limactl instances are listed'
	for i in 'new /home/foo.guest disk' 'mid /home/foo.linux diffdisk' 'old /home/foo.linux diffdisk'; do
		# shellcheck disable=SC2086  # three words
		set -- $i
		sum=$(sha256sum <"$LIMA_HOME/$1/$3")
		[ ! -e "$LIMA_HOME/$1/lima-version" ] || version=$(cat "$LIMA_HOME/$1/lima-version")
		plan "$goodboot"
		lc start "$1"
		status 0
		errhas READY
		errlacks Resize
		same "$(lived "$1")" "$2"
		same "$(sha256sum <"$LIMA_HOME/$1/$3")" "$sum"
		fails grep -q virtfs "$fakes"/argv.*
		holds grep -q "/$1/disk," "$fakes/argv.$qemu"
		fails test -e "$LIMA_HOME/$1/image"
		[ ! -e "$LIMA_HOME/$1/lima-version" ] || same "$(cat "$LIMA_HOME/$1/lima-version")" "$version"
		lc list --format '{{.Dir}}' "$1"
		outis "$LIMA_HOME/$1"
		[ "$1" != old ] || same "$(readlink "$LIMA_HOME/old/disk")" diffdisk
		ok "one of $1 generation starts from its disk and keeps its home"
		lc stop "$1"
		status 0
		lc delete "$1"
		status 0
	done
	# what a guest wrote at the start of its raw disk must not become a header that QEMU obeys
	legacy evil v2.2.0
	echo secret >"$T/secret"
	qemu-img create -q -f qcow2 -F raw -b "$T/secret" "$LIMA_HOME/evil/disk" 8M
	rm -f "$fakes"/argv.*
	lc start evil
	fatalhas "its guest may have written it"
	fails test -e "$fakes/argv.$qemu"
	ok "a raw disk that became a qcow2 with a backing file is refused"
	lc delete evil
	mk own '{images: [{location: /etc/profile}], disk: 1M}'
	lc start own
	lc stop own
	lc start own
	status 0
	errlacks Resize
	ok 'a start finds the size that the disk has already'
	lc delete -f own
	finish
}
