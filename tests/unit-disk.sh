# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# disk: disks of their own, and who has them

test_disk() {
	begin disk
	buildfakes
	PATH=$fakes:$realpath
	have qemu-img || { skip disk 'qemu-img is not installed'; finish; return; }
	d=$LIMA_HOME/_disks

	lc disk ls
	status 0
	outre '^NAME +SIZE +FORMAT +DIR +IN-USE-BY$'
	logged warning 'No disk found. Run `limactl disk create DISK --size SIZE` to create a disk.'
	lc disk ls data --json
	status 0
	noout
	lc disk create data
	fatal 'required flag(s) "size" not set'
	lc disk create data --size 10X
	fatalhas 'invalid suffix'
	lc disk create data --size 1G --format vmdk
	fatal 'disk format `vmdk` not supported, use `qcow2` or `raw` instead'
	lc disk create ../x --size 1G
	fatalhas 'disk name `../x` is invalid'
	same "$(ls -A "$d" 2>/dev/null)" ''
	ok 'nothing there, and what cannot be made'

	lc disk create data --size 10G
	status 0
	logged info 'Creating qcow2 disk `data` with size 10GiB'
	mode "$d/data" 700
	lc disk create data --size 10G
	fatal "disk \`data\` already exists (\`$d/data\`)"
	mkdir "$d/.plain.tmp.1"	# a create that was killed left it
	lc disk create plain --size 1MiB --format raw
	status 0
	fails test -e "$d/.plain.tmp.1"
	holds filesize "$d/plain/datadisk" 1048576
	lc disk ls
	outre "^data +10GiB +qcow2 +$d/data *$"
	outre "^plain +1MiB +raw +$d/plain *$"
	lc disk ls --json data nope
	outis "{\"name\":\"data\",\"size\":10737418240,\"format\":\"qcow2\",\"dir\":\"$d/data\",\"instance\":\"\",\"instanceDir\":\"\",\"mountPoint\":\"/mnt/lima-data\"}"
	logged warning 'No disk matching nope found.'
	lc disk resize data --size 9G
	fatal 'specified size `9GiB` is less than the current disk size `10GiB`. Disk shrinking is currently unavailable'
	lc disk resize data --size 11G
	logged info "Resized disk \`data\` (\`$d/data\`)"
	lc disk resize nope --size 11G
	fatal 'disk `nope` does not exists'
	lc disk ls data
	outre '^data +11GiB'
	ok 'create, list, resize'

	lc disk import more "$d/plain/datadisk"
	status 0
	logged info 'Imported more with size 1MiB'
	printf 'KDMV0000' >"$T/vmdk"
	lc disk import other "$T/vmdk"
	fatalhas 'is a vmdk image'
	fails test -e "$d/other"
	ok 'import'

	mk dev '{images: [location: /etc/profile], disk: 1M, mounts: [], additionalDisks: [data, {name: plain, format: false, fsType: xfs, fsArgs: ["-m", "bigtime=1"]}]}'
	status 0
	errlacks 'no effect'
	plan "$goodboot"
	lc start --tty=false dev
	status 0
	pair -drive "file=$d/data/datadisk,if=none,format=qcow2,discard=unmap,detect-zeroes=unmap,id=data0"
	pair -drive "file=$d/plain/datadisk,if=none,format=raw,discard=unmap,detect-zeroes=unmap,id=data1"
	[ "$host" != x86_64 ] || argv virtio-blk-pci,drive=data0,serial=lima-disk-0
	same "$(readlink "$d/data/in_use_by")" "$LIMA_HOME/dev"
	for l in DISKS=2 DISK_0_NAME=data DISK_0_DEVICE=vdb DISK_0_FORMAT=true DISK_1_FORMAT=false DISK_1_FSTYPE=xfs 'DISK_1_FSARGS=-m bigtime=1'; do
		holds grep -aqx "LIMA_CIDATA_$l" "$LIMA_HOME/dev/cidata.iso"
	done
	lc disk ls --json data
	outhas "\"instance\":\"dev\",\"instanceDir\":\"$LIMA_HOME/dev\""
	ok 'attached, and locked'

	lc disk resize data --size 12G
	fatal 'cannot resize disk `data` used by running instance `dev`. Please stop the VM instance'
	lc disk delete data
	fatal 'cannot delete disk `data` in use by instance `dev`'
	lc disk unlock data
	errhas 'Cannot unlock disk `data`'
	mk two '{images: [location: /etc/profile], disk: 1M, mounts: [], additionalDisks: [more, data]}'
	lc start --tty=false two
	fatal 'could not attach disk `data`: in use by instance `dev`'
	fails test -L "$d/more/in_use_by"
	ok 'what another instance uses is refused'
	lc stop dev
	status 0
	fails test -L "$d/data/in_use_by"
	lc disk delete data
	status 0
	logged warning 'Skipping deleting disk `data`, disk is referenced by one or more non-running instances: [`dev`, `two`]'
	logged warning 'To delete anyway, run `limactl disk delete --force data`'
	ok 'stop gives the disks back'

	ln -s "$LIMA_HOME/two" "$d/data/in_use_by"
	plan "$goodboot"
	lc start --tty=false dev
	status 0
	same "$(readlink "$d/data/in_use_by")" "$LIMA_HOME/dev"
	lc stop -f dev
	status 0
	fails test -L "$d/data/in_use_by"
	ln -s "$LIMA_HOME/two" "$d/data/in_use_by"
	lc disk delete data
	status 0
	logged warning "Skipping deleting disk \`data\`, disk is referenced by one or more non-running instances: [\`dev\`, \`two\`]"
	lc disk unlock data plain nope
	logged info "Unlocked disk \`data\` (\`$d/data\`)"
	logged warning 'Ignoring unlocked disk `plain`'
	logged warning 'Ignoring non-existent disk `nope`'
	ok 'a lock that a crash left keeps nobody out; unlock'
	ln -s two "$d/data/in_use_by"
	lc disk list data
	status 0
	outre ' two *$'
	lc disk unlock data
	status 0
	fails test -L "$d/data/in_use_by"
	ok 'a lock made by hand'

	lc disk delete -f data more plain nope
	status 0
	logged info "Deleted \`data\` (\`$d/data\`)"
	logged warning 'Ignoring non-existent disk `nope`'
	same "$(ls -A "$d")" ''
	lc start --tty=false two
	fatalhas 'could not attach disk `more`: it does not exist (`limactl disk create more --size SIZE` makes it)'
	ok 'delete; an instance without its disk does not start'
	lc delete -f dev two
	finish
}
