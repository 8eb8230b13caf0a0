# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# guest/boot.sh on the systems that are not booted here: a file system that has
# busybox and what tells one distribution from another, package managers that
# only write down what they are told, and the cidata disk of a real start.

# rootfs DISTRIBUTION: a system of busybox in $root
rootfs() {
	root=$T/$1.root
	mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/proc" "$root/dev" "$root/run" "$root/tmp" "$root/home" "$root/root" \
		"$root/etc/skel" "$root/etc/ssh" "$root/etc/sudoers.d" "$root/etc/init.d" "$root/var/log" "$root/var/lib" "$root/mnt/lima-cidata"
	cp "$T/busybox" "$root/bin/busybox"
	cp -R "$T/libs/." "$root/"
	chroot "$root" /bin/busybox --install -s /bin
	: >"$root/dev/null"
	printf 'root:x:0:0::/root:/bin/sh\nalpine:x:1000:1000::/home/alpine:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:x:0:\nstaff:x:50:\nalpine:x:1000:\n' >"$root/etc/group"
	printf 'root:*::0:::::\nalpine:!::0:::::\n' >"$root/etc/shadow"
	printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
	printf 'nameserver 192.168.5.3\n' >"$root/etc/resolv.conf"
	printf 'Port 22\n' >"$root/etc/ssh/sshd_config"
	: >"$root/etc/skel/.profile"
	cp -R "$T/cidata/." "$root/mnt/lima-cidata/"
	mock update-ca-certificates
	case $1 in
	alpine)
		echo 3.22 >"$root/etc/alpine-release"
		mkdir -p "$root/usr/local/share/ca-certificates"
		mock openrc-run rc-update rc-service apk ;;
	fedora)
		mkdir -p "$root/etc/ssh/sshd_config.d" "$root/etc/pki/ca-trust/source/anchors"
		rm "$root/etc/shadow"; : >"$root/etc/shadow"; : >"$root/etc/gshadow"
		mock dnf update-ca-trust
		rm "$root/sbin/update-ca-certificates" ;;
	suse)
		mkdir -p "$root/etc/pki/trust/anchors"
		mock apt-get
		mv "$root/sbin/apt-get" "$root/usr/bin/apt-get"
		mock zypper
		mv "$root/sbin/zypper" "$root/usr/bin/zypper" ;;
	arch)
		mkdir -p "$root/etc/ca-certificates/trust-source/anchors"
		rm "$root/sbin/update-ca-certificates"
		mock pacman trust ;;
	esac
}
# mock PROGRAM...: write down the words of a call
mock() {
	for f; do
		printf '#!/bin/sh\necho "${0##*/} $*" >>/tmp/calls\n' >"$root/sbin/$f"
		chmod 755 "$root/sbin/$f"
	done
}
# boots: one boot of $root, with the shell $1
boots() {
	rm -f "$root/run/lima-boot-done" "$root/tmp/calls"
	run unshare --mount --uts --pid --fork --kill-child sh -c '
		mount --make-rprivate / && mount -t proc proc "$1/proc" && mount --bind /dev/null "$1/dev/null" &&
		exec chroot "$1" /bin/env -i PATH=/bin:/sbin $2 /mnt/lima-cidata/boot.sh
	' sh "$root" "$1"
}
# rootstate: every file but logs, with what it holds, its owner and its mode
rootstate() {
	(cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./tmp -o -path ./run -o -path ./var/log -o -path ./bin \) -prune -o \
		\( -type f -o -type l \) -exec sh -c 'for f; do stat -c "%N %a %u:%g %Y" "$f"; [ -L "$f" ] || sha256sum <"$f"; done' sh {} +)
}

test_boot() {
	begin boot
	what='boot.sh on other distributions'
	if [ "$uid" != 0 ] || ! unshare --mount --uts --pid --fork true 2>/dev/null; then
		skip "$what" 'chroot and mounts need root'
		finish
		return
	fi
	buildfakes
	PATH=$fakes:$realpath
	plan "$goodboot"
	mk dev '{images: [{location: /etc/profile}], disk: 1M, upgradePackages: true, containerd: {user: false, system: false}, mounts: [],
		user: {name: foo, uid: 1000, comment: "Foo Bär"}, dns: [10.0.0.1], hostResolver: {enabled: false},
		caCerts: {certs: ["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]}, env: {COLOR: "a b$c", OPTIND: abc, UID: "7", mnt: /nowhere},
		provision: [{mode: system, script: "#!/bin/sh\necho system $COLOR $(id -u) >>/root/ran\n"},
		{mode: data, path: /etc/conf/x, content: "one\ntwo\n", permissions: "640"},
		{mode: dependency, script: "#!/bin/sh\necho dep >>/root/ran\n"}]}'
	status 0
	lc start dev
	status 0
	mkdir "$T/cidata" "$T/libs"
	isoinfo -R -f -i "$LIMA_HOME/dev/cidata.iso" | while read -r f; do
		mkdir -p "$T/cidata${f%/*}"
		case ${f##*/} in
		provision.* | ca-certs) ;;
		*) isoinfo -R -x "$f" -i "$LIMA_HOME/dev/cidata.iso" >"$T/cidata$f" ;;
		esac
	done
	find "$T/cidata" -path '*/provision.*/*' -exec chmod 755 {} +
	lc stop -f dev
	lc delete -f dev
	filehas "$T/cidata/lima.env" LIMA_CIDATA_USER=foo
	b=$(command -v busybox)
	cp "$b" "$T/busybox"
	for l in $(libraries "$b"); do
		mkdir -p "$T/libs${l%/*}" && cp -L "$l" "$T/libs$l"
	done
	for d in alpine fedora suse arch; do
		rootfs "$d"
		boots /bin/sh
		status 0
		filehas "$root/etc/passwd" 'foo:x:1000:1001:Foo Bär:/home/foo.linux:/bin/sh'
		filehas "$root/etc/passwd" 'alpine:x:60100:'        # it had our uid
		filehas "$root/etc/shadow" 'foo:*:'
		filehas "$root/etc/subuid" 'foo:524288:1073741824'
		same "$(stat -c '%a %u:%g' "$root/home/foo.linux")" '700 1000:1001'
		same "$(stat -c '%a %u:%g' "$root/home/foo.linux/.ssh/authorized_keys")" '600 1000:1001'
		filehas "$root/home/foo.linux/.ssh/authorized_keys" "$(cat "$LIMA_HOME/_config/user.pub")"
		same "$(readlink "$root/home/foo.guest")" /home/foo.linux
		filehas "$root/etc/sudoers.d/90-lima" '#1000 ALL=(ALL:ALL) NOPASSWD:ALL'
		same "$(cat "$root/etc/hostname")" lima-dev
		filehas "$root/etc/hosts" '192.168.5.2 host.lima.internal'
		filehas "$root/etc/environment" 'COLOR'
		same "$(cat "$root/etc/resolv.conf")" 'nameserver 10.0.0.1'
		same "$(stat -c '%a' "$root/etc/conf/x") $(tr '\n' ' ' <"$root/etc/conf/x")" '640 one two '
		same "$(tr '\n' ' ' <"$root/root/ran")" 'dep system a b$c 0 '
		holds test -e "$root/run/lima-boot-done"
		same "$(find "$root" -name '*.lima~' -o -name '*.lock' | wc -l)" 0
		ok "$d: user, keys, names, files and scripts"
		case $d in
		alpine)
			filehas "$root/tmp/calls" 'apk upgrade -q'
			filehas "$root/etc/ssh/sshd_config" 'AllowTcpForwarding yes'
			filehas "$root/tmp/calls" 'rc-service sshd restart'
			filehas "$root/tmp/calls" 'rc-update -q add lima-guestagent default'
			filehas "$root/etc/init.d/lima-guestagent" 'command=/usr/local/bin/lima-guestagent'
			filehas "$root/tmp/calls" 'update-ca-certificates' ;;
		fedora)
			filehas "$root/tmp/calls" 'dnf upgrade -y -q'
			filehas "$root/etc/ssh/sshd_config.d/10-acceptenv-colorterm.conf" 'AcceptEnv COLORTERM'
			same "$(cat "$root/etc/ssh/sshd_config")" 'Port 22'
			filehas "$root/etc/gshadow" 'foo:!::'
			filehas "$root/tmp/calls" 'update-ca-trust' ;;
		suse)
			filehas "$root/tmp/calls" 'zypper -n -q update -y'
			filelacks "$root/tmp/calls" apt-get
			filehas "$root/tmp/calls" 'update-ca-certificates' ;;
		arch)
			filehas "$root/tmp/calls" 'pacman -Syu --noconfirm'
			filehas "$root/tmp/calls" 'trust extract-compat' ;;
		esac
		ok "$d: packages, certificates, sshd and service in its own way"
		sed -i /UPGRADE_PACKAGES/d "$root/mnt/lima-cidata/lima.env"
		rootstate | grep -v lima-boot >"$T/before"
		sleep 1
		boots /bin/sh
		status 0
		# the data entry is written at each boot, and the scripts say so
		rootstate | grep -v lima-boot >"$T/after"
		diff "$T/before" "$T/after" | sed -n 's/^[<>] .\.\(\/[^ ]*\). .*/\1/p' | sort -u >"$T/changed"
		same "$(tr '\n' ' ' <"$T/changed")" '/etc/conf/x /root/ran '
		holds test -e "$root/run/lima-boot-done"
		ok "$d: the second boot changes nothing"
	done
	# a root file system smaller than its device, by what the kernel would say
	rootfs suse
	mkdir -p "$root/proc/self" "$root/sys/block/vda" "$root/sys/class/block/vda3" "$root/sys/dev/block/254:3" \
		"$root/sys/block/nvme0n1" "$root/sys/class/block/nvme0n1p2"
	echo 2000 >"$root/sys/block/vda/size"
	echo 2000 >"$root/sys/block/nvme0n1/size"
	echo 3 >"$root/sys/class/block/vda3/partition"
	echo 2 >"$root/sys/class/block/nvme0n1p2/partition"
	printf 'MAJOR=254\nDEVNAME=vda3\n' >"$root/sys/dev/block/254:3/uevent"
	echo '21 1 254:3 / / rw - ext4 /dev/root rw' >"$root/proc/self/mountinfo"
	mock growpart sfdisk partx resize2fs xfs_growfs btrfs
	printf '#!/bin/sh\nshift 2\nexec "$@"\n' >"$root/sbin/nice"
	chmod 755 "$root/sbin/nice"
	while read -r dev fs with want; do
		printf 'proc /proc proc rw 0 0\n%s / %s rw 0 0\n' "$dev" "$fs" >"$root/proc/self/mounts"
		rm -rf "$root/sbin/growpart" "$root/var/lib/lima-boot/size" "$root/tmp/calls" "$root/run/lima-boot-done"
		[ "$with" = sfdisk ] || mock growpart
		run unshare --mount chroot "$root" /bin/env -i PATH=/bin:/sbin /bin/sh /mnt/lima-cidata/boot.sh
		grep -E '^(growpart|sfdisk|partx|resize2fs|xfs_growfs|btrfs)' "$root/tmp/calls" | tr '\n' ';' >"$T/grown"
		same "$(cat "$T/grown")" "$want"
		: >"$root/tmp/calls"
		run unshare --mount chroot "$root" /bin/env -i PATH=/bin:/sbin /bin/sh /mnt/lima-cidata/boot.sh
		fails grep -qE '^(growpart|sfdisk|partx|resize2fs|xfs_growfs|btrfs)' "$root/tmp/calls"
	done <<-'END'
		/dev/vda3 ext4 growpart growpart /dev/vda 3;resize2fs /dev/vda3;
		/dev/root ext4 growpart growpart /dev/vda 3;resize2fs /dev/vda3;
		/dev/nvme0n1p2 xfs growpart growpart /dev/nvme0n1 2;xfs_growfs /;
		/dev/vda3 btrfs sfdisk sfdisk -q -N 3 --no-reread --force /dev/vda;partx -u /dev/vda;btrfs filesystem resize max /;
		/dev/vda ext3 growpart resize2fs /dev/vda;
	END
	ok 'the root partition and its file system are grown, once for each size'
	mkdir -p "$root/run/cloud-init"
	: >"$root/run/cloud-init/enabled"
	printf '/dev/vda3 / ext4 rw 0 0\n' >"$root/proc/self/mounts"
	rm -rf "$root/var/lib/lima-boot/size" "$root/tmp/calls"
	run unshare --mount chroot "$root" /bin/env -i PATH=/bin:/sbin /bin/sh /mnt/lima-cidata/boot.sh
	fails grep -qE '^(growpart|resize2fs)' "$root/tmp/calls"
	ok 'and left to cloud-init where it is'
	if have dash; then
		rootfs dash
		mkdir -p "$root/usr/local/share/ca-certificates"
		cp "$(command -v dash)" "$root/bin/dash"
		for l in $(libraries "$root/bin/dash"); do
			mkdir -p "$root${l%/*}" && cp -L "$l" "$root$l"
		done
		boots /bin/dash
		status 0
		filehas "$root/etc/passwd" 'foo:x:1000:1001:Foo Bär:/home/foo.linux:/bin/sh'
		holds test -e "$root/run/lima-boot-done"
		ok 'boot.sh under dash'
	fi
	finish
}
