# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# qemu: command lines: what keys of lima.yaml become, and whether QEMU takes them

# machine NAME YAML: start it with a fake QEMU, look at argv, stop it
machine() {
	mk "$1" "$2"
	status 0
	plan "$goodboot"
	lc start --tty=false "$1"
	status 0
}
unmachine() {
	lc stop "$1"
	status 0
	lc delete "$1"
	status 0
}

test_qemu() {
	begin qemu
	buildfakes
	PATH=$fakes:$PATH
	base='images: [{location: /etc/profile}]
disk: 1MiB
mounts: []
'
	machine plain "$base"
	pair -display none
	fails grep -qE 'audiodev|tpmdev|virtio-vga|virtio-keyboard' "$fakes/argv.$qemu"
	unmachine plain
	ok 'no screen, sound or TPM unless asked for'

	machine vnc "${base}video: {display: vnc}"
	pair -display 'vnc=127.0.0.1:0,to=9,password=on'
	argv virtio-keyboard-pci
	argv virtio-tablet-pci
	[ "$host" != x86_64 ] || argv virtio-vga
	mode "$LIMA_HOME/vnc/vncpassword" 600
	same "$(wc -c <"$LIMA_HOME/vnc/vncpassword" | tr -d ' ')" 8
	fails grep -qE '[^A-Za-z0-9]' "$LIMA_HOME/vnc/vncpassword"
	filelacks "$fakes/argv.$qemu" "$(cat "$LIMA_HOME/vnc/vncpassword")"
	unmachine vnc
	machine vnc2 "${base}video: {display: vnc, vnc: {display: \"127.0.0.1:7\"}}"
	pair -display 'vnc=127.0.0.1:7,password=on'
	lc stop vnc2
	fails test -e "$LIMA_HOME/vnc2/vncpassword"
	lc delete vnc2
	machine gtk "${base}video: {display: gtk}"
	pair -display gtk
	argv virtio-mouse-pci
	unmachine gtk
	ok 'video: VNC with a password of its own, and other displays'

	machine hda "${base}audio: {device: default}"
	pair -audiodev 'pa,id=snd0'
	argv ich9-intel-hda
	argv 'hda-output,audiodev=snd0'
	unmachine hda
	machine snd "${base}audio: {device: alsa, interface: virtio}"
	pair -audiodev 'alsa,id=snd0'
	argv 'virtio-sound-pci,audiodev=snd0'
	unmachine snd
	machine none "${base}audio: {device: none}"
	fails grep -q audiodev "$fakes/argv.$qemu"
	unmachine none
	ok 'audio: device and interface'

	mk cpu "${base}vmOpts: {qemu: {cpuType: {$host: \"qemu64,+aes\"}}}"
	plan "$goodboot"
	lc start --tty=false cpu
	status 0
	pair -cpu qemu64,+aes
	unmachine cpu
	mk cpu "${base}cpuType: {$host: old}
vmOpts: {qemu: {cpuType: {$host: new}}}"
	plan "$goodboot"
	lc start --tty=false cpu
	status 0
	errhas 'The top-level `cpuType` field is deprecated'
	errhas "Conflicting cpuType for arch \`$host\`: top-level=\`old\`, vmOpts.qemu=\`new\`; using vmOpts.qemu value"
	pair -cpu new
	unmachine cpu
	for f in NoSuchCPU qemu6 new-v; do
		mk cpu "${base}vmOpts: {qemu: {cpuType: {$host: \"$f,x=y\"}}}"
		lc start --tty=false cpu
		fatal "cpu \`$f\` is not supported by $qemu"
		lc delete cpu
	done
	ok 'vmOpts.qemu.cpuType, the deprecated one, and one that QEMU lacks'
	mk old "${base}vmOpts: {qemu: {minimumVersion: 99.0.0}}"
	lc start --tty=false old
	fatal 'QEMU 9.2.0 is too old, template requires `99.0.0` or later'
	lc delete old
	mk old "${base}vmOpts: {qemu: {minimumVersion: \"9\"}}"
	lc start --tty=false old
	fatal 'field `vmOpts.qemu.minimumVersion` must be a semvar value, got `9`: 9 is not in dotted-tri format'
	lc delete old
	machine new "${base}vmOpts: {qemu: {minimumVersion: 9.2.0}}"
	unmachine new
	ok 'vmOpts.qemu.minimumVersion'

	head -c 1000 /dev/urandom >"$HOME/fw.fd"
	gzip -c "$HOME/fw.fd" >"$HOME/fw.fd.gz"
	machine fw "${base}firmware:
  images:
  - {location: /nonexistent}
  - {location: $HOME/fw.fd, arch: s390x}
  - {location: $HOME/fw.fd, vmType: vz}
  - {location: $HOME/fw.fd.gz, digest: \"sha256:$(sha256sum "$HOME/fw.fd.gz" | cut -d ' ' -f 1)\"}"
	holds cmp "$HOME/fw.fd" "$LIMA_HOME/fw/qemu-efi-code.fd"
	pair -drive "if=pflash,format=raw,readonly=on,file=$LIMA_HOME/fw/qemu-efi-code.fd"
	unmachine fw
	mkdir -p "$HOME/.local/share/qemu"
	cp "$HOME/fw.fd" "$HOME/.local/share/qemu/edk2-$host-code.fd"
	machine fw "$base"
	pair -drive "if=pflash,format=raw,readonly=on,file=$HOME/.local/share/qemu/edk2-$host-code.fd"
	unmachine fw
	machine fw "${base}firmware: {legacyBIOS: true}"
	[ "$host" != x86_64 ] || fails grep -q pflash "$fakes/argv.$qemu"
	unmachine fw
	rm -r "$HOME/.local"
	ok 'firmware: of the template, of the user, and none with legacyBIOS'

	PATH=$realpath
	if have swtpm; then
		PATH=$fakes:$realpath
		machine tpm "${base}tpm: true"
		argv "socket,id=chrtpm,path=$LIMA_HOME/tpm/swtpm.sock"
		argv 'emulator,id=tpm0,chardev=chrtpm'
		[ "$host" != x86_64 ] || argv 'tpm-crb,tpmdev=tpm0'
		mode "$LIMA_HOME/tpm/swtpm" 700
		holds pgrep -f 'swtpm socket --tpmstate dir=swtpm'
		unmachine tpm
		ok 'tpm: swtpm runs as long as QEMU does'
	else
		skip 'tpm' 'swtpm is not installed'
	fi
	nopath swtpm
	PATH=$fakes:$PATH
	mk tpm "${base}tpm: true"
	lc start --tty=false tpm
	fatal 'swtpm: not found in PATH; install swtpm, or leave `tpm` out'
	lc delete tpm
	PATH=$realpath
	ok 'tpm: swtpm is missing'

	# the command line of each architecture, as its real QEMU takes it
	for a in x86_64:x86_64 aarch64:aarch64 armv7l:arm riscv64:riscv64 ppc64le:ppc64 s390x:s390x; do
		prog=qemu-system-${a#*:} a=${a%:*}
		if ! have "$prog"; then
			skip "the command line of $a" "$prog is not installed"
			continue
		fi
		cp "$fakes/fake" "$fakes/qemu-system-${prog##*-}"
		PATH=$fakes:$realpath
		kernel=", kernel: {location: /etc/group, arch: $a}"
		case $a in x86_64 | ppc64le) kernel= ;; esac    # they look into it
		mk "$a" "images: [{location: /etc/profile, arch: $a$kernel}]
arch: $a
disk: 1MiB
memory: 256MiB
mounts: []"
		status 0
		plan "$goodboot"
		PATH=$realpath "$prog" --version | sed -n 's/.*version \([0-9.]*\).*/\1/p' | head -n 1 >"$fakes/version"
		lc start --tty=false "$a"
		status 0
		# what came as descriptor 3 is a file here; nothing runs, nothing is read
		sed -e 1d -e "s,fd=3,path=$LIMA_HOME/$a/ha.real," -e "s,serial\.sock,serial.real,; s,qmp\.sock,qmp.real,; s,/qemu\.pid,/real.pid," \
			"$fakes/argv.$prog" >"$T/argv"
		set --
		while IFS= read -r w; do set -- "$@" "$w"; done <"$T/argv"
		PATH=$realpath
		lc stop "$a"
		timeout 20 "$prog" "$@" -S >"$T/words" 2>&1 &
		real=$!
		if ! await 15 test -s "$LIMA_HOME/$a/real.pid"; then
			bad "$prog does not start: $(head -c 500 "$T/words")"
		fi
		kill "$real" 2>/dev/null || :
		wait "$real" 2>/dev/null || :
		same "$(grep -v -e 'terminating on signal' -e warning: "$T/words" || :)" ''
		lc delete -f "$a"
		ok "the command line of $a is one that $prog takes"
	done
	rm -f "$fakes/version" "$fakes/qemu-system-arm" "$fakes/qemu-system-riscv64" "$fakes/qemu-system-ppc64" "$fakes/qemu-system-s390x"
	finish
}
