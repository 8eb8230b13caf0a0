# shellcheck shell=sh disable=SC2154,SC2034,SC2016
# validate: each rule of a lima.yaml, with its message

# rules: from stdin, three lines a case: YAML in flow style, what the complaint
# has to be (or - for none), and nothing
rules() {
	k=0
	while read -r yaml && IFS= read -r want && read -r _; do
		printf '{images: [{location: /etc/profile}], %s}\n' "$yaml" >"$HOME/t.yaml"
		lc validate "$HOME/t.yaml"
		k=$((k + 1))
		if [ "$want" = - ]; then
			[ "$rc" = 0 ] || bad "$yaml: $(cat "$err")"
		else
			[ "$rc" = 1 ] || bad "$yaml: status $rc"
			# the log line escapes double quotes and backslashes
			sed 's/\\"/"/g; s/\\\\/\\/g' "$err" | grep -qF -- "$want" || bad "$yaml: $(cat "$err")"
		fi
	done
	[ "$k" -gt 1 ] || bad 'no cases'
}

test_validate() {
	begin validate
	mkdir -p "$HOME/d"

	rules <<-'END'
		minimumLimaVersion: v2.0.0-beta
		-

		minimumLimaVersion: 2.x
		field `minimumLimaVersion` must be a semvar value, got `2.x`: 2.x is not in dotted-tri format

		cpus: -1
		field `cpus` must be >= 0

		memory: 4 QiB
		field `memory` has an invalid value: invalid suffix: 'qib'

		disk: foo
		field `disk` has an invalid value: invalid size: 'foo'

		additionalDisks: [a/b]
		field `additionalDisks[0].name is invalid`: identifier `a/b` must match

		additionalDisks: [ok, ""]
		field `additionalDisks[1].name is invalid`: identifier must not be empty

		mountType: nfs
		field `mountType` must be `reverse-sshfs` or `9p` or `virtiofs`, or `wsl2`, got `nfs`

		mountType: 9p, mountTypesUnsupported: [9p, x]
		field `mountType` must not be one of [9p x] (`mountTypesUnsupported`), got `9p`

		dns: [1.1.1.1]
		field `dns` must be empty when field `HostResolver.Enabled` is true

		dns: [1.1.1.1, "fd00::1"], hostResolver: {enabled: false}
		-

		dns: [1.1.1.1, foo], hostResolver: {enabled: false}
		field `dns[1]`: invalid IP address: foo

		cpus: 1e1, ssh: {localPort: "8022"}
		-

		cpus: -1e1
		expected an integer, got a string `-1e1`

		vmType: vz
		-

		vmType: krunkit
		vmType `krunkit` is not a registered driver

		user: {passwordlessSudo: false}
		`user.passwordlessSudo: false` requires `plain: true`

		user: {passwordlessSudo: false}, plain: true
		-

		tpm: true, arch: s390x
		field `tpm` is not supported on architecture `s390x`

		audio: {interface: x}, cpus: -1
		t.yaml`: invalid audio.interface "x", must be "hda" or "virtio"

		ssh: {localPort: -1}
		field `ssh.localPort` must be > 0

	END
	ok 'values'

	for p in images firmware.images containerd.archives; do
		case $p in
		images) a='images: [{location: x}' z= ;;
		firmware.images) a='firmware: {images: [{location: x}' z='}' ;;
		*) a='containerd: {user: true, archives: [{location: x}' z='}' ;;
		esac
		while read -r yaml && IFS= read -r want; do
			case $p in images) printf '%s, {%s}]}\n' "{$a" "$yaml" ;; *) printf '{images: [{location: x}], %s, {%s}]%s}\n' "$a" "$yaml" "$z" ;; esac >"$HOME/t.yaml"
			lc validate "$HOME/t.yaml"
			fatalhas "$(printf '%s' "$want" | sed "s/P/${p}[1]/")"
		done <<-'END'
			location: ""
			field `P.location` refers to an invalid local file path: ``: empty path
			location: ~foo/x
			field `P.location` refers to an invalid local file path: `~foo/x`: unexpandable path `~foo/x`
			location: x, arch: mips
			field `arch` must be one of [x86_64 aarch64 armv7l ppc64le riscv64 s390x]; got `mips`
			location: x, digest: "abc"
			field `P.digest` is invalid: abc: invalid checksum digest format
			location: x, digest: "sha256:abc"
			field `P.digest` is invalid: sha256:abc: invalid checksum digest length
			location: x, digest: "md5:abc"
			field `P.digest` is invalid: md5:abc: unsupported digest algorithm
		END
		ok "$p"
	done
	echo '{images: [{location: x, arch: x86_64, kernel: {location: k, arch: aarch64}, initrd: {location: i, digest: "md5:0"}}]}' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	fatalhas 'images[0].kernel has unexpected architecture `aarch64`, must be `x86_64`'
	fatalhas 'field `images[0].initrd.digest` is invalid: md5:0: unsupported digest algorithm'
	ok 'kernel and initrd'
	rules <<-'END'
		containerd: {user: false, archives: [{location: x, digest: "md5:0"}]}
		-

		containerd: {user: true, archives: [{location: x, digest: "md5:0"}]}
		field `containerd.archives[0].digest` is invalid

	END
	ok 'archives are asked for only when wanted'

	rules <<-'END'
		mounts: [{location: rel}]
		field `mounts[0].location` must be an absolute path, got `rel`

		mounts: [{location: ~foo}]
		field `mounts[0].location` refers to an unexpandable path: `~foo`

		mounts: [{location: /etc/passwd}]
		field `mounts[0].location` refers to a non-directory path: `/etc/passwd`

		mounts: [{location: /etc/passwd/x}]
		field `mounts[0].location` refers to an inaccessible path: `/etc/passwd/x`

		mounts: [{location: /d, mountPoint: /etc}]
		field `mounts[0].mountPoint` must not be a system path such as /etc or /usr

		mounts: [{location: /d, mountPoint: ~/x}]
		field `mounts[0].mountPoint` must not start with `~`

		mounts: [{location: /d, mountPoint: x}]
		field mounts[0] must be absolute, got `x`

		mounts: [{location: /d, mountPoint: /home/u}], user: {home: /home/u}
		field `mounts[0].mountPoint` is the reserved internal home directory `/home/u`

		mounts: [{location: /d, 9p: {msize: 1Z}}]
		field `msize` has an invalid value: invalid suffix: 'z'

	END
	ok mounts

	rules <<-'END'
		provision: [{mode: no, script: x}]
		field `provision[0].mode` must one of `system`, `user`, `boot`, `data`, `dependency`, `ansible`, or `yq`

		provision: [{mode: user}]
		field `provision[0].script` must not be empty

		provision: [{script: x, skipDefaultDependencyResolution: true}]
		field `provision[0].mode` cannot set skipDefaultDependencyResolution, only valid on scripts of type `dependency`

		provision: [{mode: data, content: x}]
		field `provision[0].path` must not be empty when mode is `data`

		provision: [{mode: yq, path: x}]
		field `provision[0].path` must be an absolute path

		provision: [{mode: yq, path: /x}]
		field `provision[0].expression` must not be empty when mode is `yq`

		provision: [{mode: data, path: /x, content: x, permissions: "9"}]
		field `provision[0].permissions` must be an octal number: strconv.ParseInt: parsing "9": invalid syntax

		provision: [{script: x, content: y}]
		field `provision[0].content` can only be set when mode is `data`

		provision: [{script: x, permissions: 644}]
		field `provision[0].permissions` can only be set when mode is `data`, or `yq`

		provision: [{script: x, format: json}]
		field `provision[0].format` can only be set when mode is `yq`

		provision: [{script: x, playbook: /etc/passwd}]
		field `provision[0].playbook can only be set when mode is `ansible`

		provision: [{mode: ansible, script: x, playbook: /none}]
		field `provision[0].script must be empty if playbook is set

		provision: [{mode: ansible, playbook: /none}]
		field `provision[0].playbook` refers to an inaccessible path: `/none`: stat /none: no such file or directory

		provision: [{script: x, file: {url: /x, digest: y}}]
		field `provision[0].file.digest` support is not yet implemented

		probes: [{script: "x"}]
		field `probe[0].script` must start with a '#!' line

		probes: [{script: "#!/bin/sh", mode: live}]
		field `probe[0].mode` can only be `readiness`

		copyToHost: [{guest: x, host: /y}]
		field `CopyToHost[0].guest` must be an absolute path, but is `x`

		copyToHost: [{guest: /x, host: y}]
		field `CopyToHost[0].host` must be an absolute path, but is `y`

	END
	ok 'provision, probes, copyToHost'

	rules <<-'END'
		portForwards: [{guestPort: 22}]
		field `portForwards[0].guestPortRange[1]` must not be 22

		portForwards: [{guestPort: 70000}]
		field `portForwards[0].guestPort` must be < 65536

		portForwards: [{guestPort: 80, hostPort: -1}]
		field `portForwards[0].hostPort` must be > 0

		portForwards: [{guestPort: 80, guestPortRange: [81, 82]}]
		field `portForwards[0].guestPort` must match field `portForwards[0].guestPortRange[0]`

		portForwards: [{guestPortRange: [9, 8]}]
		field `portForwards[0].guestPortRange[1]` must be greater than or equal to field `portForwards[0].guestPortRange[0]`

		portForwards: [{guestPortRange: [80, 90], hostPortRange: [80, 89]}]
		field `portForwards[0].hostPortRange` must specify the same number of ports as field `portForwards[0].guestPortRange`

		portForwards: [{guestSocket: x, hostSocket: y}]
		field `portForwards[0].guestSocket` must be an absolute path, but is `x`

		portForwards: [{guestSocket: /x}]
		field `portForwards[0].guestSocket` can only be mapped to a single port or socket. not a range

		portForwards: [{hostSocket: /x}]
		field `portForwards[0].hostSocket` can only be mapped from a single port or socket. not a range

		portForwards: [{guestSocket: /x, hostSocket: /y, guestPort: 80}]
		field `portForwards[0].guestPort` must be 0 when field `portForwards[0].guestSocket` is set

		portForwards: [{guestPort: 80, hostSocket: /0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678}]
		field `portForwards[0].hostSocket` must be less than UNIX_PATH_MAX=108 characters, but is 110

		portForwards: [{guestPort: 80, proto: sctp}]
		field `portForwards[0].proto` must be `tcp`, `udp`, or `any`

		portForwards: [{guestPort: 80, reverse: true}]
		field `portForwards[0].reverse` must be false

		portForwards: [{guestIP: 10.0.0.1, guestPort: 80, guestIPMustBeZero: true}]
		field `portForwards[0].guestIPMustBeZero` can only be true when field `portForwards[0].guestIP` is 0.0.0.0

		portForwards: [{guestSocket: /x, hostSocket: y.sock}, {guestPort: 80, hostPort: 8080, static: true}, {ignore: true}]
		-

	END
	ok portForwards

	rules <<-'END'
		networks: [{lima: user-v2, socket: /x}]
		field `networks[0].lima` and field `networks[0].socket` are mutually exclusive

		networks: [{lima: nope, macAddress: x}]
		t.yaml`: network `nope` is not defined

		networks: [{lima: bridged}]
		field `networks[0].lima` is only supported on macOS right now

		networks: [{vzNAT: true}]
		field `networks[0].vzNAT` is only supported on macOS

		networks: [{socket: /etc/passwd}]
		field `networks[0].socket` `/etc/passwd` points to a non-socket file

		networks: [{}]
		field `networks[0].lima` or  field `networks[0].socket must be set

		networks: [{lima: user-v2, macAddress: "52:55:55"}]
		field `vmnet.mac` invalid: address 52:55:55: invalid MAC address

		networks: [{lima: user-v2, macAddress: "52:55:55:00:00:00:00:01"}]
		field `networks[0].macAddress` must be a 48 bit (6 bytes) MAC address; actual length of `52:55:55:00:00:00:00:01` is 8 bytes

		networks: [{lima: user-v2, interface: a234567890123456}]
		field `networks[0].interface` must be less than 16 bytes, but is 16 bytes: `a234567890123456`

		networks: [{lima: user-v2, interface: a/b}]
		field `networks[0].interface` must not contain whitespace or slashes

		networks: [{lima: user-v2, interface: eth0}]
		field `networks[0].interface` must not be set to `eth0` because it is reserved for slirp

		networks: [{lima: user-v2, interface: lima1}, {lima: user-v2}]
		field `networks[1].interface` value `lima1` has already been used by field `networks[0].interface`

	END
	lc network create --gateway=192.168.7.1/24 mine
	status 0
	rules <<-'END'
		networks: [{lima: mine}, {lima: user-v2}]
		-

		networks: [{lima: yours}]
		network `yours` is not defined

	END
	lc network delete --force mine
	status 0
	ok networks

	rules <<-'END'
		param: {a: b}
		field `param` key `a` is not used in any provision, probe, copyToHost, or portForward

		param: {a: b}, message: "{{.Param.a}}"
		field `param` key `a` is not used

		param: {a: b}, provision: [{script: "echo XPARAM_a PARAM_ab"}]
		field `param` key `a` is not used

		param: {a: b}, provision: [{script: "echo $PARAM_a"}]
		-

		param: {a: b}, mounts: [{location: "/{{ .Param.a }}"}]
		-

		param: {internal_netplanOptional: true}
		-

		param: {"1a": b}, provision: [{script: $PARAM_1a}]
		param `1a` name does not match regex `^[a-zA-Z][a-zA-Z0-9_]*$`

		param: {a: "x\ny"}, provision: [{script: $PARAM_a}]
		param `a` value contains unprintable character '\n'

	END
	ok param

	# all at once, in the order of the table
	echo '{images: [], memory: 1Z, user: {shell: sh}, tpm: true, arch: s390x, dns: [1.1.1.1], networks: [{}]}' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	fatalhas 'sh`
field `images` must be set
field `memory` has'
	fatalhas 'is true
field `networks[0]'
	fatalhas 'must be set
field `tpm`'
	ok 'several complaints, in order'

	# warnings, the text behind - is what none of them says
	while read -r yaml && IFS= read -r want; do
		printf '{images: [{location: /etc/profile}], %s}\n' "$yaml" >"$HOME/t.yaml"
		lc validate "$HOME/t.yaml"
		status 0
		if [ "${want#-}" != "$want" ]; then errlacks "${want#-}"; else logged warning "$want"; fi
	done <<-'END'
		mounts: [{location: /none}]
		field `mounts[0].location` refers to a non-existent directory: `/none`: start makes it
		mounts: [{location: /etc}, {location: /none, static: false}], plain: true
		-non-existent
		provision: [{mode: ansible, playbook: /etc/passwd}]
		provision mode `ansible` is deprecated, use `ansible-playbook /etc/passwd` instead
		provision: [{script: "echo $LIMA_CIDATA_NAME"}]
		provisioning scripts should not reference the LIMA_CIDATA variables
		plain: true, portForwards: [{guestPortRange: [80, 90], hostPortRange: [8080, 8090], static: true}]
		[plain mode] portForwards[0] covers a range of more than 10 ports (guest: 80-90, host: 8080-8090). All ports will be forwarded unconditionally, which may be inefficient.
		plain: true, portForwards: [{guestPortRange: [80, 89], static: true}]
		-range
		portForwards: [{guestPortRange: [80, 90], static: true}]
		-range
		portForwards: [{static: true}]
		portForwards[0]: `static: true` needs a `guestPort` or a range of no more than 4096
		memory: 4
		field `memory` is `4`: no guest boots in that (a bare number is bytes)
		arch: riscv64, video: {display: vnc}
		-experimental
	END
	for f in default override; do
		echo 'portForwards: []' >"$LIMA_HOME/_config/$f.yaml"
		lc validate "$HOME/t.yaml"
		status 0
		logged warning "$f file \`$LIMA_HOME/_config/$f.yaml\`: \`portForwards: []\` has no meaning there; in a lima.yaml it switches automatic forwarding off"
		rm "$LIMA_HOME/_config/$f.yaml"
	done
	ok 'what does not do what it seems to is warned of'

	echo '{images: [{location: /etc/profile}], disk: 1M, arch: riscv64, video: {display: vnc}, audio: {device: none, interface: hda}, plain: true, user: {passwordlessSudo: false}, param: {a: b}, provision: [{script: $PARAM_a}]}' >"$HOME/t.yaml"
	lc create --name=exp --tty=false "$HOME/t.yaml"
	status 0
	for f in '`arch: riscv64 `' '`video.display: vnc`' '`audio.device`' '`audio.interface`' '`user.passwordlessSudo: false`'; do
		logged warning "$f is experimental"
	done
	logged warning '`param` still relies on sudo internally, it may not work as expected when `user.passwordlessSudo: false` is set'
	sed -i '/networks/d; s/^{/{networks: [{lima: gone}], /' "$LIMA_HOME/exp/lima.yaml"
	lc list -q
	outis exp
	noerr
	lc delete exp
	status 0
	while read -r yaml && IFS= read -r want; do
		echo "{images: [{location: /etc/profile}], disk: 1M, $yaml}" >"$HOME/t.yaml"
		lc create --name=exp --tty=false "$HOME/t.yaml"
		fatal "$want"
		fails test -e "$LIMA_HOME/exp"
	done <<-'END'
		vmType: vz
		failed to create driver instance: unknown or unsupported VM type: vz
		mountType: wsl2
		field `mountType` must be one of [reverse-sshfs 9p virtiofs] for QEMU driver on Linux, got `wsl2`
		networks: [{lima: gone}]
		network `gone` is not defined
	END
	ok 'what is experimental, and what only another driver takes'

	printf 'images: [{location: /etc/profile}]\ncpu: 2\nssh: {localport: 1}\n' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	status 0
	errhas '[2:1] unknown field \"cpu\"; did you mean \"cpus\"?'
	[ "$(grep -c Non-strict "$err")" = 1 ] || bad 'not one warning'
	ok 'an unknown key: once, with the nearest name'
	printf 'images: [{location: /etc/profile}]\nssh: {localport: 1}\n' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	errhas 'unknown field \"ssh.localport\"; did you mean \"ssh.localPort\"?'
	ok 'an unknown key of other case, in a map'
	echo 'images: [{location: /etc/profile}]
mounts: [{location: "~", writable: true}, {location: "~/d", writable: true}]
portForwards: [{guestPort: 80, hostIP: 0.0.0.0}, {guestPort: 81}, {guestPort: 82, hostIP: "::1"}, {ignore: true, hostIP: 0.0.0.0}]' >"$HOME/t.yaml"
	lc validate "$HOME/t.yaml"
	status 0
	errhas 'mounts[0]: the guest may change everything in your home directory'
	errhas "mounts[1]: it lies in mounts[0], which is writable"
	errlacks "mounts[1]: the guest may change"
	errhas 'portForwards[0]: `hostIP: 0.0.0.0` is reachable from other machines'
	errlacks 'portForwards[1]'
	errlacks 'portForwards[2]'
	errlacks 'portForwards[3]'
	ok 'a writable home and an open port are warned of'

	printf '{images: [{location: x}]}\n' >"$HOME/a.yaml"
	printf '{}\n' >"$HOME/b.yaml"
	lc validate "$HOME/a.yaml" "$HOME/b.yaml" "$HOME/none.yaml"
	errhas "a.yaml\`: OK"
	fatalhas "failed to validate YAML file \`$HOME/b.yaml\`: field \`images\` must be set"
	errlacks none.yaml
	ok 'several files: the first bad one ends it'
	lc validate --fill "$HOME/a.yaml" "$HOME/a.yaml"
	status 0
	[ "$(grep -c '^---$' "$out")$(grep -c '^\.\.\.$' "$out")" = 22 ] || bad "$(cat "$out")"
	ok 'several files filled are a stream'

	# what is made to exhaust: a message within a second of work and 64 MB
	awk 'BEGIN {
		printf "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
		for (i = 1; i < 12; i++) { printf "a%d: &a%d [", i, i; for (k = 0; k < 10; k++) printf "*a%d,", i - 1; print "]" } }' >"$HOME/bomb.yaml"
	awk 'BEGIN {
		print "m0: &m0 {k0: x}"
		for (i = 1; i < 40; i++) printf "m%d: &m%d\n  l: *m%d\n  r: *m%d\n  <<: {k%d: *m%d}\n", i, i, i - 1, i - 1, i, i - 1 }' >"$HOME/merge.yaml"
	awk 'BEGIN { printf "a: "; for (i = 0; i < 10000; i++) printf "["; for (i = 0; i < 10000; i++) printf "]"; print "" }' >"$HOME/deep.yaml"
	awk 'BEGIN { for (i = 0; i < 2500; i++) printf "%" i "sa:\n", "" }' >"$HOME/steps.yaml"
	awk 'BEGIN { print "a:"; for (i = 0; i < 10000; i++) printf "- "; print "x" }' >"$HOME/dashes.yaml"
	awk 'BEGIN { print "env:"; for (i = 0; i < 300000; i++) printf "  k%d: v\n", i }' >"$HOME/keys.yaml"
	awk 'BEGIN { printf "message: \""; for (i = 0; i < 1048576; i++) printf "0123456789abcdef"; print "\"" }' >"$HOME/big.yaml"
	printf 'images: [{location: "/x\000y"}]\n' >"$HOME/nul.yaml"
	printf 'images: [{location: "/x\377y"}]\n' >"$HOME/latin.yaml"
	printf 'message: |\n  \300\200\n' >"$HOME/long.yaml"
	awk 'BEGIN { print "images: [{location: /x}]\nmounts:"; for (i = 0; i < 60000; i++) printf "- location: /a%d\n", i }' >"$HOME/mounts.yaml"
	awk 'BEGIN { printf "images: [{location: /x}]\nparam: {"; for (i = 0; i < 60000; i++) printf "a%d: b,", i; print "}" }' >"$HOME/param.yaml"
	awk 'BEGIN { printf "images: [{location: /x}]\ncaCerts: {files: ["; for (i = 0; i < 60000; i++) printf "/a%d,", i; print "]}" }' >"$HOME/certs.yaml"
	awk 'BEGIN { printf "base: ["; for (i = 0; i < 100000; i++) printf "x.yaml,"; print "]" }' >"$HOME/bases.yaml"
	kb=65536 cpu=1
	case $LIMACTL in *asan*) kb=unlimited cpu=20 ;; esac
	while read -r f msg; do
		run sh -c 'ulimit -v "$1"; ulimit -t "$2"; exec "$3" validate "$4"' - "$kb" "$cpu" "$LIMACTL" "$HOME/$f.yaml"
		fatalhas "$msg"
		[ "$(wc -c <"$err")" -lt 1000 ] || bad 'a message without end'
	done <<-'END'
		bomb too many nodes
		merge too many nodes
		deep [1:1002] nested too deeply
		steps [1000:1002] nested too deeply
		dashes nested too deeply
		keys too many nodes
		big big.yaml: file too large
		nul has a NUL byte
		latin [1:24] invalid UTF-8
		long [2:3] invalid UTF-8
		mounts [3:1] field `mounts` has 60000 entries, more than 1000
		param [2:8] field `param` has 60000 entries, more than 1000
		certs [2:18] field `caCerts.files` has 60000 entries, more than 1000
		bases [1:7] field `base` has 100000 entries, more than 1000
	END
	rm -f "$HOME"/*.yaml
	ok 'files made to exhaust end in one short message'
}
