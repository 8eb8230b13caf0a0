# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# mountconf: the keys, QEMU's ports for them, the servers' commands, where shell goes

# script TEXT: the script that ssh gets
script() { [ "$(cat "$out")" = "$1" ] || bad "the script is not: $1"; }

# config YAML: validate it as a file
config() {
	printf 'images: [{location: /etc/profile}]\n%s\n' "$1" >"$HOME/m.yaml"
	lc validate --fill "$HOME/m.yaml"
}

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
