# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# mountconf: the keys, QEMU's ports for them, the servers' commands, where shell goes

# script TEXT: the script that ssh gets
script() { [ "$(cat "$out")" = "$1" ] || bad "the script is not: $1"; }

# config YAML: validate it as a file
config() {
	printf 'images: [{location: /etc/profile}]\n%s\n' "$1" >"$HOME/m.yaml"
	lc validate --fill "$HOME/m.yaml"
}

# bounded FILE: not far above what config.def.h allows a log
bounded() { [ "$(stat -c %s "$1")" -lt $((65 << 20)) ]; }

test_mountconf() {
	begin mountconf
	buildfakes
	PATH=$fakes:$PATH

	config ''
	status 0
	outhas "location: $HOME"
	outhas 'location: /tmp/lima'
	config 'mounts: []'
	outlacks location:\ /tmp/lima
	config 'mounts: null'
	outlacks location:\ /tmp/lima
	config 'mounts: [{location: "~"}]'
	outlacks location:\ /tmp/lima
	ok 'no word of mounts: the home and /tmp/lima; [] and null: none'
	config 'mounts: [{location: x}]'
	fatalhas 'field `mounts[0].location` must be an absolute path, got `x`'
	config 'mounts: [{location: /etc/passwd, mountPoint: /mnt}]'
	fatalhas 'field `mounts[0].location` refers to a non-directory path: `/etc/passwd`'
	config 'mounts: [{location: /srv}, {location: /srv, mountPoint: /usr}]'
	fatalhas 'field `mounts[1].mountPoint` must not be a system path such as /etc or /usr'
	config 'mounts: [{location: /srv, mountPoint: "{{.Home}}"}]'
	fatalhas 'is the reserved internal home directory'
	config 'mounts: [{location: /srv, mountPoint: "~/x"}]'
	fatalhas 'field `mounts[0].mountPoint` must not start with `~`'
	config 'mounts: [{location: /srv, mountPoint: x}]'
	fatalhas 'field mounts[0] must be absolute, got `x`'
	config 'mounts: [{location: /srv, sshfs: {sftpDriver: other}}]'
	fatalhas 'field `mounts[0].sshfs.sftpDriver` must be `builtin` or `openssh-sftp-server`, got `other`'
	config 'mounts: [{location: "/srv/a\nb"}]'
	fatalhas 'field `mounts[0]` must not contain line breaks or other control characters'
	ok 'what cannot be mounted is refused, with its entry'

	base='images: [{location: /etc/profile}]
disk: 1MiB
'
	mkdir -p "$HOME/a b" "$HOME/sub/deep"
	mk two "${base}mounts:
- {location: \"~\", mountPoint: /mnt/home}
- {location: \"~/a b\", writable: true, sshfs: {followSymlinks: true}}
- {location: \"~/new, one\", mountPoint: \"/x/{{.User}}\"}
"
	status 0
	plan "$goodboot"
	lc start --tty=false two
	status 0
	dir=$LIMA_HOME/two
	pair -device 'virtio-serial-pci,id=ports0,max_ports=5'
	argvhas "socket,id=char-ga,path=$dir/ga.sock,server=on,wait=off"
	argv 'virtserialport,bus=ports0.0,id=agent,chardev=char-ga,name=lima.agent'
	for i in 0 1 2; do
		pair -chardev "socket,id=char-mnt.$i,path=$dir/mnt.$i.sock,server=on,wait=off"
		pair -device "virtserialport,bus=ports0.0,id=mnt.$i,chardev=char-mnt.$i,name=lima.mnt.$i"
	done
	fails grep -q 'name=lima.mnt.3' "$fakes/argv.$qemu"
	ok 'a virtio-serial port for each mount'
	holds test -d "$HOME/new, one"
	mode "$HOME/new, one" 755
	filehas "$dir/ha.stderr.log" 'Created'
	ok 'a missing directory is made'
	tr -d '\000' <"$dir/cidata.iso" >"$T/mountiso"
	for w in MOUNTS=3 MOUNTTYPE=reverse-sshfs MOUNTS_0_MOUNTPOINT=/mnt/home "MOUNTS_1_MOUNTPOINT=$HOME/a b" \
		HOSTHOME_MOUNTPOINT=/mnt/home "MOUNTS_0_OPTIONS=slave,allow_other,ro,fsname=:$HOME" \
		"MOUNTS_1_OPTIONS=slave,allow_other,follow_symlinks,fsname=:$HOME/a b" \
		"MOUNTS_2_OPTIONS=slave,allow_other,ro,fsname=:$HOME/new\\, one"; do
		holds grep -aqxF "LIMA_CIDATA_$w" "$T/mountiso"
	done
	ok 'what the guest is told of them'

	cd "$HOME/sub/deep" || return
	run env PWD="$HOME/sub/deep" "$LIMACTL" shell two
	script 'cd /mnt/home/sub/deep || cd /mnt/home ; exec /bin/bash -l'
	ok 'shell goes where the host is, by the mount point'
	cd "$HOME/a b" || return
	run env PWD="$HOME/a b" "$LIMACTL" shell two
	script "cd '$HOME/a b' || cd /mnt/home ; exec /bin/bash -l"
	ok 'the innermost mount counts'
	cd /
	lc shell two
	script 'cd /mnt/home ; exec /bin/bash -l'
	ok 'from elsewhere shell goes home'
	ln -s "$HOME/sub" "$T/link"
	cd "$T/link/deep" || return
	run env PWD="$T/link/deep" "$LIMACTL" shell two
	script 'cd /mnt/home/sub/deep || cd /mnt/home ; exec /bin/bash -l'
	ok 'links are resolved on both sides'
	cd "${LIMACTL%/*}" || return
	lc stop two
	status 0
	lc delete two
	status 0

	cat >"$fakes/virtiofsd" <<-END
		#!/bin/sh
		[ "\$1" != --help ] || exit 0
		printf '%s\n' "\$@" >>"$fakes/argv.virtiofsd"
		kill -STOP \$\$
	END
	chmod 755 "$fakes/virtiofsd"
	for i in virtiofs 9p; do
		mk "t$i" "$base
mountType: $i
mountTypesUnsupported: [reverse-sshfs]
mounts:
- {location: \"~/a b\", writable: true, 9p: {msize: 64KiB, securityModel: mapped-xattr}, virtiofs: {queueSize: 256}}
- {location: \"~/new, one\", mountPoint: /x}
"
		status 0
		rm -f "$fakes/argv.virtiofsd"
		plan "$goodboot"
		lc start --tty=false "t$i"
		status 0
		dir=$LIMA_HOME/t$i
		tag=lima-$(printf %s "$HOME/a b:$HOME/a b" | sha256sum | cut -c 1-16)
		tr -d '\000' <"$dir/cidata.iso" >"$T/mountiso"
		holds grep -aqxF "LIMA_CIDATA_MOUNTTYPE=$i" "$T/mountiso"
		holds grep -aqxF "LIMA_CIDATA_MOUNTS_0_TAG=$tag" "$T/mountiso"
		pair -device 'virtio-serial-pci,id=ports0,max_ports=2'
		if [ $i = 9p ]; then
			holds grep -aqxF "LIMA_CIDATA_MOUNTS_0_OPTIONS=rw,trans=virtio,version=9p2000.L,msize=65536,cache=mmap" "$T/mountiso"
			holds grep -aqxF "LIMA_CIDATA_MOUNTS_1_OPTIONS=ro,trans=virtio,version=9p2000.L,msize=131072,cache=fscache" "$T/mountiso"
			pair -fsdev "local,id=mnt0,path=$HOME/a b,security_model=mapped-xattr,multidevs=remap"
			pair -device "virtio-9p-pci,fsdev=mnt0,mount_tag=$tag"
			pair -fsdev "local,id=mnt1,path=$HOME/new,, one,security_model=none,multidevs=remap,readonly=on"
		else
			holds grep -aqxF "LIMA_CIDATA_MOUNTS_0_OPTIONS=rw" "$T/mountiso"
			holds grep -aqxF "LIMA_CIDATA_MOUNTS_1_OPTIONS=ro" "$T/mountiso"
			pair -object "memory-backend-memfd,id=virtiofs-shm,size=$(($(sed -n '/^-m$/{n;p}' "$fakes/argv.$qemu")))M,share=on"
			pair -machine 'memory-backend=virtiofs-shm'
			pair -chardev "socket,id=char-virtiofs-0,path=$dir/virtiofsd-0.sock"
			pair -device "vhost-user-fs-pci,queue-size=256,chardev=char-virtiofs-0,tag=$tag"
		fi
		ok "mountType: $i: QEMU's devices, and what the guest is told of them"
		if [ $i = virtiofs ] && unshare --user --mount true 2>/dev/null; then
			holds await 10 test -s "$fakes/argv.virtiofsd"
			holds await 10 grep -qxF "source=$HOME/new\\, one" "$fakes/argv.virtiofsd"
			holds grep -qxF "source=$HOME/a b" "$fakes/argv.virtiofsd"
			p=$(head -n 1 "$dir/mnt.0.pid")
			same "$(awk '{ print $1, $2, $3 }' "/proc/$p/uid_map")" "$(sed -n 's/^LIMA_CIDATA_UID=//p' "$T/mountiso") $uid 1"
			send KILL "$p"
			holds await 10 grep -q "virtiofsd of the mount $HOME/a b has ended, " "$dir/ha.stderr.log"
			holds await 10 grep -q '"degraded":true' "$dir/ha.stdout.log"
			ok 'virtiofsd: where it works, as whom, and its end degrades the instance'
			truncate -s 200M "$dir/ha.stderr.log"
			holds await 10 bounded "$dir/ha.stderr.log"
			ok 'a log that others fill is cut'
		fi
		lc stop "t$i"
		status 0
		lc delete "t$i"
		status 0
	done
	mk wsl "$base
mountType: wsl2
"
	fatalhas 'field `mountType` must be one of [reverse-sshfs 9p virtiofs] for QEMU driver on Linux, got `wsl2`'
	gone wsl
	ok 'a mountType of another driver'

	i=0 list=
	while [ $i -lt 31 ]; do
		list="$list{location: /srv, mountPoint: /mnt/$i},"
		i=$((i + 1))
	done
	mk many "${base}mounts: [$list]"
	status 0
	plan "$goodboot"
	lc start --tty=false many
	status 0
	pair -device 'virtio-serial-pci,id=ports0,max_ports=31'
	pair -device 'virtio-serial-pci,id=ports1,max_ports=3'
	argvhas 'virtserialport,bus=ports1.0,id=mnt.29,'
	lc delete -f many
	status 0
	ok 'more mounts than ports of one controller'
	finish
}
