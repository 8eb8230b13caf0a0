#!/bin/sh
# mkimage.sh SUITE ARCH OUTDIR [PACKAGE...] - build a bootable guest.
#
# Makes OUTDIR/disk (a raw ext4 file system), kernel, initrd and cmdline with
# mmdebstrap out of the host's own Debian or Ubuntu mirror. Needs no root: then
# mmdebstrap works in a user namespace, and its hooks run with a uid that can
# neither look into OUTDIR nor read this file. So their descriptor 0 is a
# directory in OUTDIR, opened here as the user, which they enter through /proc;
# descriptor 3 takes stage lines. (No more than that: apt hands one to dash, and
# dash knows only 0 to 9.)
#
# Standard output: one line a stage. Standard error: everything else; upon
# failure its last line says what to do.

set -eu
umask 022

die() {
	printf '%s\n' "mkimage: $*" >&2
	exit 1
}

stage() {
	printf '%s\n' "$*" >&3
}

# --- on the host --------------------------------------------------------------

# The families' suites; the first match decides whose mirror is meant.
family() {
	# shellcheck disable=SC1091  # the host's
	case $1 in
	bullseye | bookworm | trixie | forky | duke | sid | \
	oldoldstable | oldstable | stable | testing | unstable) echo debian ;;
	focal | jammy | noble | oracular | plucky | questing | resolute | devel) echo ubuntu ;;
	*) (. /etc/os-release && case "${ID-} ${ID_LIKE-}" in
		*ubuntu*) echo ubuntu ;;
		*) echo debian ;;
		esac) ;;
	esac
}

# The host's package sources as "URI SUITE" lines. apt parses both of its file
# formats for us and needs neither root nor downloaded lists for that.
host_sources() {
	# shellcheck disable=SC2016  # apt's variables, not ours
	apt-get indextargets --format '$(REPO_URI) $(RELEASE)' \
		'Created-By: Packages' 2>/dev/null | sort -u
}

# mirrors: set main, updates and security to the URIs to use ('' for none).
mirrors() {
	main='' security=''
	if [ -n "${LIMA_MIRROR-}" ]; then
		main=$LIMA_MIRROR
	else
		while read -r uri rel; do
			case $uri in
			http://* | https://*) ;;
			*) continue ;;
			esac
			[ "$(family "${rel%%-*}")" = "$fam" ] || continue
			case $rel in
			*-security | */updates) : "${security:=$uri}" ;;
			"$suite") main=$uri ;;
			*-*) ;;
			*) : "${main:=$uri}" ;;
			esac
		done <<-END
			$(host_sources)
		END
		# A third party's repository may carry the suite's name too; the
		# archive itself has its family's name in its path, as a rule.
		case $main in
		'' | *debian* | *ubuntu* | *mirror*) ;;
		*) main= ;;
		esac
	fi
	case $fam in
	debian)
		: "${main:=http://deb.debian.org/debian}"
		: "${security:=http://deb.debian.org/debian-security}"
		keyring=/usr/share/keyrings/debian-archive-keyring.gpg
		comps=main ;;
	ubuntu)
		case $deb_arch in
		amd64 | i386)
			: "${main:=http://archive.ubuntu.com/ubuntu}"
			: "${security:=http://security.ubuntu.com/ubuntu}" ;;
		*)	: "${main:=http://ports.ubuntu.com/ubuntu-ports}"
			: "${security:=http://ports.ubuntu.com/ubuntu-ports}" ;;
		esac
		keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg
		comps='main universe' ;;
	esac
	# LIMA_MIRROR names the one place that can be reached.
	[ -z "${LIMA_MIRROR-}" ] || security=
}

source_lines() {
	printf 'deb [signed-by=%s] %s %s %s\n' "$keyring" "$main" "$suite" "$comps"
	case $suite in
	sid | unstable) return ;;
	esac
	[ -n "${LIMA_MIRROR-}" ] ||
		printf 'deb [signed-by=%s] %s %s-updates %s\n' "$keyring" "$main" "$suite" "$comps"
	[ -z "$security" ] ||
		printf 'deb [signed-by=%s] %s %s-security %s\n' "$keyring" "$security" "$suite" "$comps"
}

# Of the host's apt configuration what one needs to reach its mirror.
apt_options() {
	apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::|Retries|ForceIPv|Check-(Date|Valid-Until)|Proxy)' |
		grep -v '""' || :
}

check_host() {
	command -v mmdebstrap >/dev/null ||
		die "no mmdebstrap on this host; as root: apt-get install mmdebstrap uidmap"
	[ -r "$keyring" ] || die "no $keyring to check packages with; as root: apt-get install $fam-archive-keyring"
	[ -d "$out" ] || die "$out: no such directory"
	[ -w "$out" ] || die "$out: cannot be written to"
	if [ "$(id -u)" = 0 ]; then
		return
	fi
	me=$(id -un 2>/dev/null) || die "uid $(id -u) has no name in /etc/passwd; add a user for it"
	command -v newuidmap >/dev/null || die "no newuidmap on this host; as root: apt-get install uidmap"
	for f in subuid subgid; do
		grep -q -e "^$me:" -e "^$(id -u):" "/etc/$f" 2>/dev/null ||
			die "user $me has no range in /etc/$f; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $me"
	done
	unshare -U true 2>/dev/null ||
		die "this host forbids user namespaces; as root: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 (or kernel.apparmor_restrict_unprivileged_userns=0); or let the build use sudo with LIMA_SUDO=1 (in a chroot nothing else works)"
}

# with_sudo ARGUMENT...: the same build as root, when that was allowed and there
# is no other way: in a chroot, and in most containers, the kernel gives no user
# namespaces to users.
with_sudo() {
	[ "$(id -u)" != 0 ] && [ "${LIMA_SUDO-}" = 1 ] && ! unshare -U true 2>/dev/null &&
		command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 0
	echo "no user namespaces here: building with sudo"
	# sudo closes the descriptor our text may come from
	cat "$0" >"$3/.script" || die "cannot write to $3"
	rc=0
	sudo -n env LIMA_MIRROR="${LIMA_MIRROR-}" LIMA_IP="${LIMA_IP-}" LIMA_GATEWAY="${LIMA_GATEWAY-}" LIMA_DNS="${LIMA_DNS-}" TMPDIR="${TMPDIR:-/tmp}" PATH="$PATH:/usr/sbin:/sbin" \
		sh "$3/.script" "$@" || rc=$?
	rm -f "$3/.script"
	for f in disk kernel initrd cmdline; do
		[ ! -e "$3/$f" ] || sudo -n chown "$(id -u):$(id -g)" "$3/$f"
	done
	exit "$rc"
}

clean() {
	[ -z "${work-}" ] || rm -rf "$work"
	[ -d "${tmp-}" ] || return 0
	# What mmdebstrap left when it was killed belongs to the namespace.
	rm -rf "$tmp" 2>/dev/null ||
		{ mmdebstrap --unshare-helper rm -rf "$tmp" || :; rm -rf "$tmp"; } 2>/dev/null || :
}

# on_signal: mmdebstrap runs in the background so that a signal reaches us at
# once; it removes its own directory when it gets SIGTERM.
on_signal() {
	trap '' HUP INT TERM
	if [ -n "${pid-}" ]; then
		kill -TERM "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	fi
	clean
	trap - EXIT
	exit 1
}

# The last message that tells why, as our own last line.
why() {
	w=$(grep -aE '^(E|dpkg: error|chroot|mke2fs|.*: cannot).*: ' "$work/log" |
		grep -avE 'mmdebstrap failed to run|E: setup failed: E: (command failed|env )' | cut -c 1-300 | tail -n 1)
	case $(cat "$work/log") in
	*'Unable to locate package'*)
		w=$(grep -a 'Unable to locate package' "$work/log" | tail -n 1)
		die "${w#E: } in $suite ($main)" ;;
	*'does not have a Release file'* | *'404  Not Found'*)
		die "no suite '$suite' at $main; name another suite, or another mirror in LIMA_MIRROR" ;;
	*'Could not resolve'* | *'Could not connect'* | *'Failed to fetch'* | *'Temporary failure'*)
		die "cannot reach the mirror $main; check the network and the proxy of apt, or name another mirror in LIMA_MIRROR" ;;
	*'No space left'*)
		die "no space left in ${TMPDIR:-/tmp} or $out; the build needs 1.5 GB, TMPDIR names another place" ;;
	*'cannot be executed'* | *'Exec format error'*)
		die "this host cannot run $deb_arch programs; as root: apt-get install qemu-user-static binfmt-support" ;;
	esac
	die "cannot build $suite: ${w:-mmdebstrap failed}"
}

main() {
	if [ $# -lt 3 ]; then
		echo "usage: mkimage.sh SUITE ARCH OUTDIR [PACKAGE...]" >&2
		exit 2
	fi
	with_sudo "$@"
	suite=$1 arch=$2 out=$3
	shift 3
	case $suite in
	'' | -* | *[!a-z0-9.-]*) die "'$suite' is no suite's name" ;;
	esac
	fam=$(family "$suite")
	case $arch in
	x86_64)  deb_arch=amd64 kernel=cloud-amd64 tty=ttyS0 ;;
	aarch64) deb_arch=arm64 kernel=cloud-arm64 tty=ttyAMA0 ;;
	armv7l)  deb_arch=armhf kernel=armmp tty=ttyAMA0 ;;
	ppc64le) deb_arch=ppc64el kernel=powerpc64le tty=hvc0 ;;
	riscv64) deb_arch=riscv64 kernel=riscv64 tty=ttyS0 ;;
	s390x)   deb_arch=s390x kernel=s390x tty=ttysclp0 ;;
	*) die "no image is built for the architecture '$arch'" ;;
	esac
	kernel=linux-image-$kernel
	[ "$fam" = debian ] || kernel=linux-image-virtual
	mirrors
	check_host

	# What systemd in Debian needs to be a pleasant VM; nothing pulls in
	# initramfs-tools (the kernel's modules are unpacked by hand).
	packages=apt,usr-is-merged,systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,openssh-server,sudo,sshfs
	packages=$packages,ca-certificates,iproute2,e2fsprogs,netbase,bash,less,procps
	packages=$packages,kmod,apt-utils,tzdata,passwd,rsync
	# containerd for the user and what rootless engines need: installing it
	# at the first start would take a minute of an emulated CPU.
	packages=$packages,containerd,runc,rootlesskit,slirp4netns,uidmap,fuse-overlayfs,iptables
	LIMA_EXTRA=
	for p; do
		case $p in
		# another kernel than the small one for clouds
		linux-image-*[!A-Za-z0-9.+~-]*) die "'$p' is no package's name" ;;
		linux-image-*) kernel=$p; continue ;;
		'' | -* | *[!A-Za-z0-9.+:=~/_-]*) die "'$p' is no package's name" ;;
		esac
		LIMA_EXTRA="$LIMA_EXTRA $p"
	done

	trap clean EXIT
	trap on_signal HUP INT TERM
	work=$(mktemp -d "$out/.mkimage.XXXXXX") || die "cannot write to $out"
	# A directory of our own, so that nothing stays behind; the namespace's
	# root has to get through it.
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/lima-image.XXXXXX") || die "cannot write to ${TMPDIR:-/tmp}"
	chmod 755 "$tmp"
	# The namespace's root is nobody's friend out here: what it writes must
	# be open to all, in a directory whose name nobody can guess.
	for f in disk kernel initrd; do : >"$work/$f"; done
	cat "$0" >"$work/script"
	chmod 711 "$work"
	chmod 666 "$work/disk" "$work/kernel" "$work/initrd"
	chmod 644 "$work/script"
	exec 3>&1

	# With mounts in a namespace of their own nothing is left on the host
	# if we are killed. A container's root may be unable to mount at all;
	# mmdebstrap then does without.
	set -- --mode=unshare
	if [ "$(id -u)" = 0 ] && ! unshare --mount --propagation unchanged true 2>/dev/null; then
		set -- --mode=root
	fi
	while read -r line; do
		[ -z "$line" ] || set -- "$@" --aptopt="$line"
	done <<-END
		$(apt_options)
	END

	LIMA_ARCH=$deb_arch LIMA_SOURCES=$(source_lines) LIMA_KERNEL=$kernel LIMA_OPTIONS=$(apt_options)
	export LIMA_ARCH LIMA_SOURCES LIMA_KERNEL LIMA_OPTIONS LIMA_EXTRA
	# QEMU's user network; limactl says when its config.h has another one.
	LIMA_IP=${LIMA_IP:-192.168.5.15/24} LIMA_GATEWAY=${LIMA_GATEWAY:-192.168.5.2} LIMA_DNS=${LIMA_DNS:-192.168.5.3}
	export LIMA_IP LIMA_GATEWAY LIMA_DNS
	# shellcheck disable=SC2016  # $1 is the hook's
	HOME=/ TMPDIR=$tmp mmdebstrap "$@" --variant=custom --format=null --architectures="$deb_arch" \
		--include='?essential' --include="$packages" \
		--aptopt='APT::Install-Recommends "false"' \
		--aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/lintian/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-include=/usr/share/locale/locale.alias' \
		--dpkgopt='force-unsafe-io' \
		--setup-hook='exec sh /proc/self/fd/0/script --merge-usr "$1"' \
		--extract-hook='echo "installing packages" >&3' \
		--customize-hook='exec sh /proc/self/fd/0/script --inside "$1"' \
		--skip=cleanup/apt,cleanup/reproducible \
		"$suite" /dev/null "$LIMA_SOURCES" <"$work" >"$work/log" 2>&1 &
	pid=$!
	rc=0
	wait $pid || rc=$?
	pid=
	cat "$work/log" >&2
	[ $rc = 0 ] || why
	for f in disk kernel initrd; do
		[ -s "$work/$f" ] || die "cannot build $suite: no $f came out"
	done

	# quiet keeps the console to errors; systemd shows units only once one
	# has failed or is late. A panic ends QEMU's run instead of hanging.
	printf '%s\n' "root=/dev/vda rw console=$tty net.ifnames=0 quiet panic=5 systemd.show_status=auto systemd.log_target=journal" >"$work/cmdline"
	chmod 644 "$work"/*
	for f in disk kernel initrd cmdline; do
		mv -f "$work/$f" "$out/$f"
	done
	stage "done"
}

# --- in the new system's namespace, as its root -------------------------------

# in_file PATH [MODE]: standard input to a file of the guest.
in_file() {
	mkdir -p "$root${1%/*}"
	cat >"$root$1"
	chmod "${2:-644}" "$root$1"
}

# in_guest COMMAND...: with the programs that were only unpacked, too.
in_guest() {
	PATH=$PATH:/var/tmp/k/usr/bin chroot "$root" "$@"
}

mask() {
	for u; do ln -sf /dev/null "$root/etc/systemd/system/$u"; done
}

# switch_on UNIT TARGET: what systemctl enable does, without running it.
switch_on() {
	mkdir -p "$root/etc/systemd/system/$2.wants"
	ln -sf "/etc/systemd/system/$1" "$root/etc/systemd/system/$2.wants/$1"
}

# The kernel package's files without the package: its dependency on an initrd
# builder costs more time than all the rest, and the kernel that boots comes
# from the host anyway.
get_kernel() {
	stage "unpacking the kernel"
	mkdir "$root/var/tmp/k"
	(
		cd "$root/var/tmp/k"
		APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
		export APT_CONFIG
		k=$(apt-cache depends --no-recommends --no-suggests "$LIMA_KERNEL" |
			sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
		set -- "${k:-$LIMA_KERNEL}" busybox-static xz-utils zstd
		case $k in
		# Ubuntu keeps most modules apart.
		linux-image-[0-9]*) ! apt-cache show "linux-modules-${k#linux-image-}" >/dev/null 2>&1 ||
			set -- "$@" "linux-modules-${k#linux-image-}" ;;
		esac
		apt-get -q -o APT::Sandbox::User=root download "$@"
		for d in *.deb; do dpkg-deb -x "$d" .; done
	)
	mkdir -p "$root/usr/lib/modules"
	if [ -d "$root/var/tmp/k/usr/lib/modules" ]; then
		mv "$root"/var/tmp/k/usr/lib/modules/* "$root/usr/lib/modules/"
	else
		mv "$root"/var/tmp/k/lib/modules/* "$root/usr/lib/modules/"
	fi
	version=$(ls "$root/usr/lib/modules")
	cp "$root"/var/tmp/k/boot/config-* "$root/boot/"
	chroot "$root" depmod "$version"
}

make_initrd() {
	stage "making the initrd"
	i=$root/var/tmp/i
	mkdir -p "$i/bin" "$i/dev" "$i/proc" "$i/sys" "$i/root" "$i/m"
	cp "$root"/var/tmp/k/bin/busybox "$i/bin/" 2>/dev/null || cp "$root"/var/tmp/k/usr/bin/busybox "$i/bin/"
	# In the order to load them, each once, unpacked: the built in ones
	# print nothing to do.
	mods=
	for m in virtio_pci virtio_mmio virtio_blk ext4 - virtio_net isofs autofs4 fuse virtio_console virtio_rng; do
		[ $m != - ] || { first=$mods; continue; }
		for f in $(chroot "$root" modprobe -S "$version" --show-depends $m 2>/dev/null |
			sed -n 's/^insmod \([^ ]*\).*/\1/p'); do
			n=${f##*/} n=${n%%.ko*}
			case " $mods " in *" $n "*) continue ;; esac
			mods="$mods $n"
			case $f in
			*.ko) cat "$root$f" ;;
			*.xz) in_guest xz -dc <"$root$f" ;;
			*.zst) in_guest zstd -dcq <"$root$f" ;;
			*.gz) gzip -dc <"$root$f" ;;
			esac >"$i/m/$n"
		done
	done
	{
		cat <<'END'
#!/bin/busybox sh
# Load what the disk needs, mount it, hand over. Nothing here waits: a virtio
# disk is there when its driver's insmod returns.
die() {
	echo "lima: initrd: $*"
	echo "lima: initrd: $*" >/dev/kmsg
	exit 1		# the kernel panics, which the host sees
}
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
exec </dev/console >/dev/console 2>&1
echo lima-initrd	# a stage that the host shows
END
		echo "first='$first' second='${mods#"$first"}' ip=$LIMA_IP gateway=$LIMA_GATEWAY"
		cat <<'END'
load() {
	for m; do
		$b insmod /m/$m || echo "lima: initrd: cannot load $m"
	done
}
load $first
# QEMU's user network has these addresses: with them set here the net is
# up before the first daemon runs. networkd has them too and keeps them.
{
	load $second
	$b ip link set lo up
	# No router of QEMU's leads to an IPv6 net on most hosts.
	echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra
	$b ip addr add $ip broadcast + dev eth0 &&
		$b ip link set eth0 up && $b ip route add default via $gateway metric 200 proto static
} &
read -r cmdline </proc/cmdline
dev=/dev/vda flags=noatime,noinit_itable init=/sbin/init
for a in $cmdline; do
	case $a in
	root=/dev/*) dev=${a#root=} ;;
	rootflags=*) flags=${a#rootflags=} ;;
	init=*) init=${a#init=} ;;
	esac
done
[ -b $dev ] || die "no disk $dev"
$b mount -t ext4 -o $flags $dev /root || die "cannot mount $dev"
# Each instance its own machine-id, without systemd's first boot machinery.
if [ -f /root/etc/machine-id ] && [ ! -s /root/etc/machine-id ]; then
	read -r a </proc/sys/kernel/random/uuid
	id=
	while [ -n "$a" ]; do
		id=$id${a%%-*}
		case $a in *-*) a=${a#*-} ;; *) a= ;; esac
	done
	echo $id >/root/etc/machine-id
fi
wait
$b mount -o move /dev /root/dev
$b umount /proc
exec $b switch_root /root $init
die "cannot start $init"
END
	} >"$i/init"
	chmod 755 "$i/init" "$i/bin/busybox"
	(cd "$i" && find . | LC_ALL=C sort | "$i/bin/busybox" cpio -o -H newc 2>/dev/null) >/proc/self/fd/0/initrd
}

write_disk() {
	stage "writing the disk"
	rm -rf "$root/var/tmp/i" "$root/var/tmp/k"
	# /proc, /sys and /dev are mounted over the root now. A bind mount of it
	# alone shows what is below, which is what belongs on the disk.
	src=$root
	if mount --bind "$root" "$root/mnt" 2>/dev/null; then
		src=$root/mnt
	fi
	used=$(du -sm -x "$src" 2>/dev/null | cut -f 1)
	size=$((used + used / 8 + 300))
	# The guest's own mke2fs knows best what the guest's kernel takes.
	set -- -q -t ext4 -F -L lima-root -m 1 -i 32768 -J size=32 \
		-E lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0
	rc=0
	if [ "$src" != "$root" ]; then
		chroot "$root" mke2fs "$@" -d /mnt /proc/self/fd/0/disk "${size}M" || rc=$?
		umount "$src"
	else
		mke2fs "$@" -d "$src" /proc/self/fd/0/disk "${size}M" || rc=$?
	fi
	return $rc
}

inside() {
	root=$1
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	export PATH
	# The base is configured in one go, in which a package finds its
	# dependencies unpacked but not set up; what the user adds may mind.
	if [ -n "$LIMA_EXTRA" ]; then
		stage "installing $LIMA_EXTRA"
		# shellcheck disable=SC2086  # words
		in_guest env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o APT::Sandbox::User=root \
			install --no-install-recommends $LIMA_EXTRA </dev/null
	fi
	get_kernel
	stage "setting up the system"
	set_up
	# As it comes: an unpacked one, started by PVH, boots no faster than
	# today's LZ4 packing and loses the random base address.
	cat "$root"/var/tmp/k/boot/vmlinu[xz]-* >/proc/self/fd/0/kernel
	make_initrd
	write_disk
}

set_up() {
	# The guest sees the host's loopback at another address.
	printf '%s\n' "$LIMA_SOURCES" |
		sed 's,//\(127\.0\.0\.1\|localhost\|\[::1\]\)\([:/]\),//'"$LIMA_GATEWAY"'\2,' |
		in_file /etc/apt/sources.list
	rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
	# These keep daemons from starting while packages are installed, also in
	# the guest if they got there; mmdebstrap would remove them after us.
	rm -f "$root/usr/sbin/policy-rc.d"
	! [ -e "$root/sbin/start-stop-daemon.REAL" ] ||
		mv "$root/sbin/start-stop-daemon.REAL" "$root/sbin/start-stop-daemon"
	[ -z "$LIMA_OPTIONS" ] || printf '%s\n' "$LIMA_OPTIONS" |
		sed 's,//\(127\.0\.0\.1\|localhost\|\[::1\]\)\([:/]\),//'"$LIMA_GATEWAY"'\2,' |
		in_file /etc/apt/apt.conf.d/90host
	in_file /etc/apt/apt.conf.d/91lima <<-END
		Acquire::Languages "none";
	END
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*.log \
		"$root"/var/log/apt "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_* \
		"$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root/etc/hostname"
	mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial" \
		"$root/var/log/apt" "$root/var/log/journal"
	chgrp systemd-journal "$root/var/log/journal" 2>/dev/null || :
	chmod 2755 "$root/var/log/journal"
	: >"$root/etc/machine-id"

	in_file /etc/fstab <<-END
		# The root file system is mounted by the initrd.
	END
	in_file /etc/hosts <<-END
		127.0.0.1 localhost
		::1 localhost ip6-localhost ip6-loopback
	END
	in_file /etc/default/locale <<-END
		LANG=C.UTF-8
	END
	rm -f "$root/etc/resolv.conf"
	in_file /etc/resolv.conf <<-END
		# QEMU's own name server, which asks the host's.
		nameserver $LIMA_DNS
	END

	set_up_net
	set_up_boot
	engines_off
	trim
}

set_up_net() {
	in_file /etc/systemd/network/10-eth0.network <<-END
		# The same that the initrd has set.
		[Match]
		Name=eth0
		[Link]
		RequiredForOnline=no
		[Network]
		Address=$LIMA_IP
		DNS=$LIMA_DNS
		IPv6AcceptRA=no
		LinkLocalAddressing=no
		LLDP=no
		KeepConfiguration=yes
		[Route]
		Gateway=$LIMA_GATEWAY
		Metric=200
	END
	in_file /etc/systemd/network/80-dhcp.network <<-END
		[Match]
		Name=eth* en* lima*
		[Link]
		RequiredForOnline=no
		[Network]
		DHCP=ipv4
		LLDP=no
		[DHCPv4]
		ClientIdentifier=mac
		RouteMetric=300
	END
	mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
	ln -sf /lib/systemd/system/systemd-networkd.service \
		"$root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
}

# What ties the boot to the cidata disk. All of it is here, in one place.
set_up_boot() {
	in_file /usr/local/lib/lima/lima-boot 755 <<'END'
#!/bin/sh
# lima-boot: find the cidata disk and run its boot.sh. "lima-boot ready" tells
# the host that sshd listens. Started before udev: no names below /dev/disk yet.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mnt=/mnt/lima-cidata
if [ "${1-}" = ready ]; then
	read -r iid </run/lima-iid || exit 0
	printf '%s\n' "$iid" >/run/lima-ssh-ready
	for tty in /dev/ttyS0 /dev/ttyAMA0 /dev/hvc0; do
		[ -c $tty ] || continue
		{ printf 'lima-ssh-ready %s\n' "$iid" >$tty; } 2>/dev/null &
	done
	exit 0
fi
dev=
for f in /sys/block/vd*/serial; do
	s=
	[ -r "$f" ] && read -r s <"$f"
	if [ "$s" = cidata ]; then
		dev=${f#/sys/block/}
		dev=/dev/${dev%%/*}
		break
	fi
done
[ -n "$dev" ] || for f in /dev/disk/by-label/cidata /dev/disk/by-label/CIDATA; do
	[ -b $f ] && dev=$f
done
[ -n "$dev" ] || dev=$(blkid -L cidata 2>/dev/null)
[ -n "$dev" ] || dev=/dev/sr0
[ -d $mnt ] || mkdir -p -m 700 $mnt
if [ ! -f $mnt/boot.sh ] && ! mount -t iso9660 \
	-o ro,mode=0700,dmode=0700,overriderockperm,exec,uid=0 "$dev" $mnt; then
	echo "<3>LIMA cannot mount the cidata disk $dev" >/dev/kmsg
	exit 1
fi
LIMA_CIDATA_MNT=$mnt
LIMA_BOOT_FORK=1
export LIMA_CIDATA_MNT LIMA_BOOT_FORK
# In this shell: one exec less.
. $mnt/boot.sh
END
	# forking: sshd may start when the first process ends (the user is
	# there), while its child goes on. With that child in the service, it is
	# active until the boot script is done, and failed if that fails.
	in_file /etc/systemd/system/lima-boot.service <<-END
		[Unit]
		Description=Boot script of the cidata disk
		DefaultDependencies=no
		After=systemd-remount-fs.service
		Before=ssh.service shutdown.target
		Conflicts=shutdown.target
		[Service]
		Type=forking
		RemainAfterExit=yes
		ExecStart=/usr/local/lib/lima/lima-boot
		TimeoutStartSec=300
		KillMode=process
		StandardInput=null
		[Install]
		WantedBy=multi-user.target
	END
	switch_on lima-boot.service multi-user.target
	# sshd needs the network that the initrd has set up, the user, and the
	# bus for the sessions' logind, which starts while the host shakes hands.
	in_file /etc/systemd/system/ssh.service <<-END
		[Unit]
		Description=OpenBSD Secure Shell server
		Documentation=man:sshd(8) man:sshd_config(5)
		DefaultDependencies=no
		After=lima-boot.service dbus.socket systemd-logind.socket
		Wants=dbus.socket systemd-logind.service
		Conflicts=shutdown.target
		Before=shutdown.target multi-user.target
		ConditionPathExists=!/etc/ssh/sshd_not_to_be_run
		[Service]
		EnvironmentFile=-/etc/default/ssh
		ExecStart=/usr/sbin/sshd -D \$SSHD_OPTS
		ExecStartPost=-/usr/local/lib/lima/lima-boot ready
		ExecReload=/usr/sbin/sshd -t
		ExecReload=/bin/kill -HUP \$MAINPID
		KillMode=process
		Restart=on-failure
		RestartPreventExitStatus=255
		Type=notify
		RuntimeDirectory=sshd
		RuntimeDirectoryMode=0755
		[Install]
		WantedBy=multi-user.target
		Alias=sshd.service
	END
	switch_on ssh.service multi-user.target
	ln -sf /etc/systemd/system/ssh.service "$root/etc/systemd/system/sshd.service"
	in_file /etc/systemd/system/dbus.socket.d/lima.conf <<-END
		[Unit]
		DefaultDependencies=no
		Before=sockets.target shutdown.target
		Conflicts=shutdown.target
	END
	# One kind of host key is all the host knows; the others cost time to
	# make and to load.
	in_file /etc/ssh/sshd_config.d/20-lima.conf <<-END
		HostKey /etc/ssh/ssh_host_ed25519_key
	END
	in_file /etc/ssh/sshd_config.d/10-acceptenv-colorterm.conf <<-END
		AcceptEnv COLORTERM
	END
	# /run/nologin would turn users away until the boot is over.
	ln -sf /dev/null "$root/etc/tmpfiles.d/systemd-nologin.conf"
	# sshd is up before systemd would empty /tmp: what came by ssh, forwarded
	# sockets too, would go with it.
	in_file /etc/tmpfiles.d/tmp.conf <<-END
		d /tmp 1777 root root -
	END
	# Two emulated CPUs are soon shared out, so the order is: sshd, then what
	# the first session needs (bus, logind, user manager), then all the
	# rest, and that at a low priority. Orders only: if one fails, the
	# others start all the same.
	for u in dbus.service systemd-logind.service user-runtime-dir@.service user@.service; do
		in_file "/etc/systemd/system/$u.d/lima.conf" <<-END
			[Unit]
			DefaultDependencies=no
			After=ssh.service
			Conflicts=shutdown.target
			Before=shutdown.target
		END
	done
	# /tmp of its own would tie logind to the clean-up of /tmp.
	in_file /etc/systemd/system/systemd-logind.service.d/lima-tmp.conf <<-END
		[Service]
		PrivateTmp=no
	END
	rest=
	for u in systemd-udevd systemd-udev-trigger kmod-static-nodes systemd-modules-load \
		systemd-tmpfiles-setup-dev-early systemd-tmpfiles-setup-dev \
		systemd-tmpfiles-setup systemd-sysctl systemd-networkd; do
		in_file "/etc/systemd/system/$u.service.d/lima.conf" <<-END
			[Unit]
			After=systemd-logind.service
			[Service]
			Nice=10
		END
		rest="$rest $u.service"
	done
	# boot.sh makes the user linger, so logind starts the user's manager when
	# it starts itself: while the host still shakes hands with sshd.
	in_file /etc/systemd/system/user@.service.d/lima-first.conf <<-END
		[Unit]
		Before=$rest
	END
	# Its sockets listen from the start; nobody waits for it to read them.
	in_file /etc/systemd/system/systemd-journald.service.d/lima.conf <<-END
		[Unit]
		After=ssh.service
	END
	for u in dev-mqueue sys-kernel-tracing run-lock; do
		in_file "/etc/systemd/system/$u.mount.d/lima.conf" <<-END
			[Unit]
			After=systemd-logind.service
		END
	done
	# /tmp/lima is mounted in it. (Debian 12 has none.)
	in_file /etc/systemd/system/tmp.mount.d/lima.conf <<-END
		[Unit]
		Before=lima-boot.service
	END
	# Of 500 devices most are terminals, CPUs and the like, for which udev
	# has nothing to do but takes 10 ms each.
	in_file /etc/systemd/system/systemd-udev-trigger.service.d/lima-some.conf <<-END
		[Service]
		ExecStart=
		ExecStart=-udevadm trigger --action=add \\
			--subsystem-nomatch=tty --subsystem-nomatch=vc --subsystem-nomatch=vtconsole \\
			--subsystem-nomatch=memory --subsystem-nomatch=mem --subsystem-nomatch=bdi \\
			--subsystem-nomatch=workqueue --subsystem-nomatch=clockevents \\
			--subsystem-nomatch=clocksource --subsystem-nomatch=machinecheck \\
			--subsystem-nomatch=event_source --subsystem-nomatch=cpu \\
			--subsystem-nomatch=container --subsystem-nomatch=graphics
	END
	# The journal is kept as usual, but goes to disk when nobody waits.
	in_file /etc/systemd/system/systemd-journal-flush.service <<-END
		[Unit]
		Description=Flush Journal to Persistent Storage
		DefaultDependencies=no
		Requires=systemd-journald.service
		After=systemd-journald.service ssh.service multi-user.target
		RequiresMountsFor=/var/log/journal
		Conflicts=shutdown.target
		Before=shutdown.target
		[Service]
		ExecStart=journalctl --flush
		ExecStop=journalctl --smart-relinquish-var
		Type=oneshot
		RemainAfterExit=yes
	END
	switch_on systemd-journal-flush.service multi-user.target
	in_file /etc/systemd/journald.conf.d/lima.conf <<-END
		[Journal]
		SystemMaxUse=64M
		Audit=no
	END
}

# Engines that run for the whole system start when lima.yaml asks for one: as
# packaged each is 5 to 10 s of an emulated CPU at every boot, for nobody.
engines_off() {
	for u in containerd docker docker.socket podman podman.socket podman-restart \
		podman-auto-update podman-auto-update.timer podman-clean-transient buildkit crio; do
		case $u in *.*) ;; *) u=$u.service ;; esac
		rm -f "$root"/etc/systemd/system/*.wants/$u "$root"/etc/systemd/user/*.wants/$u
	done
}

# A VM's disk is checked and mounted before systemd runs, it has no screen and
# no firmware to measure into, and it is asked by its user what to do.
trim() {
	ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
	mask systemd-remount-fs.service systemd-fsck-root.service systemd-pcrphase.service \
		systemd-pcrphase-initrd.service systemd-pcrphase-sysinit.service \
		systemd-pcrmachine.service systemd-pcrfs-root.service systemd-tpm2-setup.service \
		systemd-tpm2-setup-early.service systemd-update-utmp.service \
		systemd-update-utmp-runlevel.service systemd-random-seed.service \
		systemd-network-generator.service systemd-networkd-wait-online.service \
		systemd-machine-id-commit.service systemd-firstboot.service systemd-sysusers.service \
		systemd-hibernate-resume.service systemd-hwdb-update.service \
		systemd-ask-password-console.path systemd-ask-password-wall.path \
		modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service \
		modprobe@dm_mod.service modprobe@loop.service modprobe@fuse.service \
		sys-kernel-debug.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
		dev-hugepages.mount proc-sys-fs-binfmt_misc.automount \
		e2scrub_reap.service getty.target getty@tty1.service \
		systemd-user-sessions.service systemd-boot-random-seed.service \
		sshd-keygen.service
	rm -rf "$root"/etc/systemd/system/timers.target.wants \
		"$root"/etc/systemd/system/getty.target.wants \
		"$root"/etc/systemd/system/network-online.target.wants \
		"$root"/etc/systemd/system/multi-user.target.wants/e2scrub_reap.service
	# Each generator is a process at every boot and every reload.
	mkdir -p "$root/etc/systemd/system-generators"
	for g in cryptsetup gpt-auto hibernate-resume integritysetup veritysetup getty \
		bless-boot run debug system-update ssh tpm2 factory-reset import; do
		ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-$g-generator"
	done
}

# With /usr merged from the start nothing has to be moved there by a package
# that brings all of perl along.
merge_usr() {
	stage "downloading packages"
	for d in bin sbin lib lib64; do
		[ $d != lib64 ] || case $LIMA_ARCH in amd64 | ppc64el | s390x) ;; *) continue ;; esac
		mkdir -p "$1/usr/$d"
		ln -s usr/$d "$1/$d"
	done
}

case ${1-} in
--inside) inside "$2" ;;
--merge-usr) merge_usr "$2" ;;
*) main "$@" ;;
esac
