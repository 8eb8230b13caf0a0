#!/bin/sh
# shellcheck disable=SC2016  # expanded by apt and by hooks
# mkcloud.sh OUT.qcow2 - make a stock cloud image for the tests out of packages
#
# Debian 12 with what a vendor's image has: a GPT with a BIOS boot partition, an
# EFI system partition and the root last, GRUB for both firmwares, cloud-init,
# growpart and netplan. As in mkimage.sh, mmdebstrap may work in a user
# namespace, whose hooks find OUT's directory in descriptor 4; no loop device
# is needed, for all parts are written where they belong in the file.
set -eu
umask 022

main() {
	out=$1
	# as guest/mkimage.sh does: in a chroot the kernel gives users no namespaces
	if [ "$(id -u)" != 0 ] && [ "${LIMA_SUDO-}" = 1 ] && ! unshare -U true 2>/dev/null; then
		sudo -n sh "$0" "$out" && sudo -n chown "$(id -u):$(id -g)" "$out"
		return
	fi
	uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
		sed -n 's/^\(http[^ ]*\) bookworm$/\1/p' | head -n 1)
	work=$(mktemp -d "${out%/*}/.mkcloud.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM
	: >"$work/disk"
	cat "$0" >"$work/script"
	chmod 711 "$work"
	chmod 666 "$work/disk"
	set -- --mode=unshare
	[ "$(id -u)" != 0 ] || unshare --mount --propagation unchanged true 2>/dev/null || set -- --mode=root
	while read -r line; do
		[ -z "$line" ] || set -- "$@" --aptopt="$line"
	done <<-END
		$(apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::|Retries|ForceIPv|Proxy)' | grep -v '""')
	END
	HOME=/ mmdebstrap "$@" --variant=minbase --format=null \
		--include=linux-image-cloud-amd64,initramfs-tools,systemd-sysv,libpam-systemd,dbus,udev,netplan.io,systemd-resolved \
		--include=cloud-init,cloud-guest-utils,fdisk,openssh-server,sudo,e2fsprogs,ca-certificates,iproute2,procps,less \
		--include=grub-common,grub-pc-bin,grub-efi-amd64-bin,dosfstools,mtools \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='force-unsafe-io' \
		--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list >"$1/etc/initramfs-tools/conf.d/few" &&
			printf "virtio_pci\nvirtio_blk\nvirtio_scsi\next4\nahci\nsd_mod\n" >>"$1/etc/initramfs-tools/modules"' \
		--customize-hook='exec sh /proc/self/fd/4/script --inside "$1"' \
		bookworm /dev/null "deb ${uri:-http://deb.debian.org/debian} bookworm main" 4<"$work" </dev/null >"$work/log" 2>&1 ||
		{ tail -n 20 "$work/log" >&2; exit 1; }
	[ "$(dd if="$work/disk" bs=1 skip=512 count=8 2>/dev/null)" = 'EFI PART' ] || { tail -n 20 "$work/log" >&2; exit 1; }
	qemu-img convert -f raw -O qcow2 "$work/disk" "$work/qcow2"
	mv "$work/qcow2" "$out"
}

# le OFFSET BYTES NUMBER FILE: a little-endian number at a place of a file
le() {
	n=$3 i=0 s=
	while [ $i -lt "$2" ]; do
		s=$s$(printf '\\%03o' $((n & 255)))
		n=$((n >> 8)) i=$((i + 1))
	done
	printf %b "$s" | dd of="$4" bs=1 seek="$1" conv=notrunc 2>/dev/null
}

inside() {
	root=$1
	echo localhost >"$root/etc/hostname"
	printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
	printf 'LABEL=cloudimg-rootfs / ext4 errors=remount-ro 0 1\nLABEL=UEFI /boot/efi vfat umask=0077 0 1\n' >"$root/etc/fstab"
	mkdir -p "$root/boot/efi" "$root/boot/grub" "$root/etc/cloud/cloud.cfg.d"
	ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
	echo 'datasource_list: [ NoCloud, None ]' >"$root/etc/cloud/cloud.cfg.d/90_dpkg.cfg"
	for u in systemd-networkd systemd-resolved; do chroot "$root" systemctl enable -q $u; done
	rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
	echo uninitialized >"$root/etc/machine-id"
	rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
	kernel=$(cd "$root/boot" && ls vmlinuz-*)
	cat >"$root/boot/grub/grub.cfg" <<-END
		serial
		terminal_input serial console
		terminal_output serial console
		set timeout=0
		linux /boot/$kernel root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200
		initrd /boot/initrd.img-${kernel#vmlinuz-}
		boot
	END
	b=$root/var/tmp/b
	mkdir "$b"
	cat >"$b/early.cfg" <<-END
		search --no-floppy --set=root --label cloudimg-rootfs
		set prefix=(\$root)/boot/grub
		configfile \$prefix/grub.cfg
	END
	mods='part_gpt ext2 fat search search_label search_fs_uuid normal linux configfile serial terminal echo test boot'
	# shellcheck disable=SC2086
	chroot "$root" grub-mkimage -O i386-pc -c /var/tmp/b/early.cfg -p /boot/grub -o /var/tmp/b/core.img biosdisk $mods
	# shellcheck disable=SC2086
	chroot "$root" grub-mkimage -O x86_64-efi -c /var/tmp/b/early.cfg -p /boot/grub -o /var/tmp/b/boot.efi $mods
	cp "$root/usr/lib/grub/i386-pc/boot.img" "$b/"

	# sectors: 2048 BIOS boot, 8192 ESP of 32 MiB, 73728 root to the end
	mib=1500
	disk=$b/disk
	truncate -s ${mib}M "$disk"
	printf '%s\n' 'label: gpt' 'first-lba: 2048' \
		'14: start=2048, size=6144, type=21686148-6449-6E6F-744E-656564454649' \
		'15: start=8192, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B' \
		'1: start=73728, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4' |
		chroot "$root" sfdisk -q /var/tmp/b/disk
	# what grub-bios-setup does: boot.img knows where core.img begins, and its
	# first sector where the rest is
	le 92 8 2048 "$b/boot.img"
	le 500 8 2049 "$b/core.img"
	dd if="$b/boot.img" of="$disk" bs=440 count=1 conv=notrunc 2>/dev/null
	dd if="$b/core.img" of="$disk" bs=512 seek=2048 conv=notrunc 2>/dev/null
	truncate -s 32M "$b/esp"
	chroot "$root" mkfs.vfat -F 16 -n UEFI /var/tmp/b/esp >/dev/null
	chroot "$root" mmd -i /var/tmp/b/esp ::EFI ::EFI/BOOT
	chroot "$root" mcopy -i /var/tmp/b/esp /var/tmp/b/boot.efi ::EFI/BOOT/BOOTX64.EFI
	dd if="$b/esp" of="$disk" bs=512 seek=8192 conv=notrunc,sparse 2>/dev/null
	cp --sparse=always "$disk" /proc/self/fd/4/disk
	rm -r "$b"
	src=$root
	if mount --bind "$root" "$root/mnt" 2>/dev/null; then src=$root/mnt; fi
	mke2fs -q -t ext4 -F -L cloudimg-rootfs -m 1 -d "$src" \
		-E "offset=$((73728 * 512)),root_owner=0:0,lazy_itable_init=1" /proc/self/fd/4/disk $((mib * 1024 - 73728 / 2 - 1024))k
	[ "$src" = "$root" ] || umount "$src"
}

case ${1-} in
--inside) inside "$2" ;;
'') echo 'usage: mkcloud.sh OUT.qcow2' >&2; exit 2 ;;
*) main "$@" ;;
esac
