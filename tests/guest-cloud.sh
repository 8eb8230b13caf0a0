# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# cloud: a stock cloud image, with cloud-init, booted by firmware

# cloudimage: its path, built when the cache has none of this script; "" when not
cloudimage() {
	c=$realcache/lima-test/cloud-$(grep -v '^#' tests/mkcloud.sh | sha256sum | cut -c 1-12).qcow2
	[ -e "$c" ] || {
		mkdir -p "${c%/*}"
		rm -f "${c%/*}"/cloud-*.qcow2
		XDG_CACHE_HOME=$realcache timeout 600 sh tests/mkcloud.sh "$c" >&2 || return 1
	}
	echo "$c"
}

# says TEXT COMMAND: what a shell in the guest prints
says() { same "$(timeout 60 "$LIMACTL" shell "$vm" sh -c "$2" </dev/null 2>"$err")" "$1"; }

test_cloud() {
	begin cloud
	for p in qemu-system-x86_64 qemu-img mmdebstrap; do
		have $p || { skip 'a stock cloud image' "$p is not installed"; finish; return; }
	done
	if [ "$host" != x86_64 ]; then
		skip 'a stock cloud image' 'it is built for x86_64 only'
		finish
		return
	fi
	if ! cloud=$(cloudimage); then
		bad "tests/mkcloud.sh failed"
		ok 'a stock cloud image is built'
		finish
		return
	fi
	conf="images: [{location: \"$cloud\"}]
cpus: 2
memory: 1GiB
disk: 4GiB
mounts: []
portForwards: []
containerd: {user: false, system: false}
firmware: {legacyBIOS: true}
"
	vm=cloud
	feed "$conf"
	lc create --name=$vm -
	status 0
	t=$(date +%s) limit=300
	lc start --tty=false $vm
	printf '# first start, by SeaBIOS: %d s\n' $(($(date +%s) - t))
	status 0
	errhas READY
	errhas 'Boot stage: cloud-init'
	ok 'a first start by SeaBIOS, GRUB and cloud-init'
	if [ "$rc" != 0 ]; then
		tail -n 30 "$LIMA_HOME/$vm/serial.log" | tr -d '\r' | comment
		timeout 60 "$LIMACTL" delete -f $vm >/dev/null 2>&1
		finish
		return
	fi
	me=$(id -un) id=$uid
	[ "$uid" != 0 ] || me=lima id=1000
	says "$me" 'id -un'
	says "$id" 'id -u'
	says "/home/$me.linux" 'echo $HOME; '
	says 0 'sudo -n id -u'
	says lima-$vm hostname
	holds await 30 sh -c "'$LIMACTL' shell $vm test -e /run/cloud-init/result.json </dev/null"
	# locale is the one module that this small image has no programs for
	says 0 "grep WARNING /var/log/cloud-init.log | grep -vc 'module locale' || :"
	ok 'user, sudo, home and host name'
	says 192.168.5.15/24 "ip -4 -br addr show eth0 | awk '{ print \$3 }' | cut -d/ -f1,2"
	says 'via 192.168.5.2 metric 200' "ip route show default dev eth0 | sed -n 's/default \(via [^ ]*\) .*\(metric [0-9]*\).*/\1 \2/p'"
	says 1 'grep -c "macaddress: 52:55:55" /run/netplan/*.yaml /etc/netplan/*.yaml 2>/dev/null | grep -c ":1$"' 2>/dev/null
	ok 'network-config: the address by DHCP, the name of the NIC and its metric'
	says yes "[ \$(df -k --output=size / | tail -n 1) -gt 3500000 ] && echo yes"
	ok 'the root partition and its file system are grown'
	says 'lima-boot.service enabled' 'echo lima-boot.service $(systemctl is-enabled lima-boot.service)'
	says yes '[ -e /etc/cloud/cloud-init.disabled ] && echo yes'
	lc stop $vm
	status 0
	sed -i 's/^disk: .*/disk: 5GiB/' "$LIMA_HOME/$vm/lima.yaml"
	t=$(date +%s) limit=200
	lc start --tty=false $vm
	printf '# second start: %d s\n' $(($(date +%s) - t))
	status 0
	errlacks 'Boot stage: cloud-init'
	says '' 'ls /run/cloud-init/enabled 2>/dev/null'
	says active 'systemctl is-active lima-boot.service'
	says 192.168.5.15/24 "ip -4 -br addr show eth0 | awk '{ print \$3 }' | cut -d/ -f1,2"
	says lima-$vm hostname
	ok 'the second start: cloud-init is off, a unit runs boot.sh'
	holds await 30 sh -c "'$LIMACTL' shell $vm df -k --output=size / </dev/null | awk 'END { exit \$1 < 4500000 }'"
	ok 'a disk that was made larger is grown without cloud-init'

	# what cloud-init acts on changes: it is called once more
	lc stop $vm
	printf 'user: {comment: New Name}\n' >>"$LIMA_HOME/$vm/lima.yaml"
	# and it has no sshfs, which a mount needs
	mkdir "$HOME/cl"
	echo shared >"$HOME/cl/f"
	sed -i "s|^mounts: .*|mounts: [{location: \"$HOME/cl\", mountPoint: /mnt/cl}]|" "$LIMA_HOME/$vm/lima.yaml"
	limit=900
	lc start --tty=false $vm
	status 0
	errhas 'The guest is installing sshfs'
	says shared 'cat /mnt/cl/f'
	ok 'sshfs is missing in a stock guest: it is installed, and the start says so'
	says 'New Name' "getent passwd $me | cut -d: -f5"
	holds await 120 sh -c "'$LIMACTL' shell $vm test -e /etc/cloud/cloud-init.disabled -a -e /run/cloud-init/result.json </dev/null"
	ok 'a changed configuration: cloud-init acts once more, and is off again'
	lc delete -f $vm
	status 0

	# plain, by EFI
	fw=
	for f in /usr/share/OVMF/OVMF_CODE.fd /usr/share/OVMF/OVMF_CODE_4M.fd; do
		[ ! -e $f ] || fw=$f
	done
	if [ -n "$fw" ]; then
		vm=efi
		feed "$(printf '%s' "$conf" | sed '/firmware/d')
plain: true
video: {display: vnc}"
		lc create --name=$vm -
		status 0
		t=$(date +%s) limit=300
		lc start --tty=false $vm
		printf '# first start, by EFI, plain: %d s\n' $(($(date +%s) - t))
		status 0
		errhas READY
		cp "$err" "$T/said"     # the next command has its own stderr
		says yes '[ -d /sys/firmware/efi ] && echo yes'
		says 0 'sudo -n id -u'
		says 'no no' 'for f in /etc/cloud/cloud-init.disabled /etc/systemd/system/lima-boot.service; do [ -e $f ] && echo yes || echo no; done | paste -sd " "'
		ok 'plain, by EFI: cloud-init stays what it is'
		filelacks "$T/said" 'VNC password:'
		filehas "$T/said" 'VNC server running at'
		holds grep -qE '^127\.0\.0\.1:[0-9]$' "$LIMA_HOME/$vm/vncdisplay"
		holds test -s "$LIMA_HOME/$vm/vncpassword"
		ok 'video.display: vnc, with a password and its address in files'
		lc delete -f $vm
		status 0
	else
		skip 'plain, by EFI' 'package ovmf is not installed'
	fi
	finish
}
