# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# What a configuration puts into the guest: scripts of every mode, files,
# environment, names, certificates.

test_provision() {
	beginguest provision prov
	# Debian 13: its units differ from those of 12, which the other sections have.
	# One CPU: with two emulated ones its kernel may panic while it patches itself
	image=mmdebstrap:trixie
	echo here >"$HOME/file"
	have openssl && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=lima-test \
		-keyout "$T/ca.key" -out "$T/ca.pem" 2>/dev/null
	cat >"$HOME/prov.yaml" <<-END
		images: [{location: "$image"}]
		cpus: 1
		memory: 1GiB
		disk: 10GiB
		mounts: [{location: "~", mountPoint: /tmp/home}]
		containerd: {user: false}
		env: {FOO: "b a'r \$x \"q\"", ZED: z}
		param: {name: "va lue"}
		hostResolver:
		  hosts: {one.test: 10.1.2.3, two.test: one.test, gate.test: host.lima.internal}
		provision:
		- mode: boot
		  script: |
		    echo boot >>/root/order
		- mode: system
		  script: |
		    #!/bin/bash
		    echo "system \$FOO \$PARAM_name {{.Param.name}}" >>/root/order
		- mode: user
		  script: |
		    #!/bin/sh
		    echo "\$(id -un) \$HOME \$XDG_RUNTIME_DIR \$PARAM_name" >"\$HOME/user.out"
		    systemctl --user is-system-running >>"\$HOME/user.out" || :
		- mode: data
		  path: "{{.Home}}/sub/app.conf"
		  content: |
		    name={{.Param.name}}
		  owner: "{{.User}}"
		  permissions: 600
		- mode: data
		  path: /etc/lima-keep
		  content: new
		  overwrite: false
		- mode: dependency
		  script: |
		    #!/bin/sh
		    echo dependency >>/root/order
		- mode: system
		  script: |
		    #!/bin/sh
		    echo line one
		    echo no such thing here >&2
		    exit 7
		- mode: system
		  script: |
		    #!/bin/sh
		    echo last >>/root/order
	END
	[ ! -e "$T/ca.pem" ] || printf 'caCerts: {files: ["%s"]}\n' "$T/ca.pem" >>"$HOME/prov.yaml"
	limit=600
	lc create --tty=false --name "$vm" "$HOME/prov.yaml"
	status 0
	http_proxy=http://u:p@localhost:3128/x HTTPS_PROXY=http://10.9.8.7:1
	export http_proxy HTTPS_PROXY
	limit=600
	lc start --tty=false "$vm"
	unset http_proxy HTTPS_PROXY
	status 0
	errhas READY
	errlacks 'no effect in this version'
	errhas 'A provision script failed (mode, number, status): system 00000006 7'
	errhas 'no such thing here'
	ok 'a failing script is named with its last lines, and the start goes on'
	if [ "$rc" != 0 ]; then
		finish
		return
	fi
	sh_ id -un
	guest=$(cat "$out")
	sh_ id -u
	id=$(cat "$out")
	guestsays "boot
dependency
system b a'r \$x \"q\" va lue va lue
last" sudo cat /root/order
	ok 'order: boot, dependency, system; environment and parameters'
	guestsays '13 active here' sh -c '. /etc/os-release; echo "$VERSION_ID $(systemctl is-active systemd-logind) $(cat /tmp/home/file)"'
	sh_ systemd-analyze verify default.target
	outlacks cycle
	errlacks cycle
	ok "Debian 13: no unit is left out, and a mount in /tmp is seen"
	sh_ sh -c 'cat ~/user.out'
	outhas "$guest /home/$guest.linux /run/user/$id va lue"
	ok 'user scripts run as the user, in a session with a user manager'
	guestsays 'name=va lue' sh -c 'cat ~/sub/app.conf'
	guestsays "$guest 600" sh -c 'stat -c "%U %a" ~/sub/app.conf'
	guestsays "$guest" sh -c 'stat -c %U ~/sub'
	guestsays new sudo cat /etc/lima-keep
	ok 'data files: content, owner, mode, directories'
	guestsays "b a'r \$x \"q\" z" sh -c 'echo "$FOO $ZED"'
	guestsays 'http://u:p@192.168.5.2:3128/x http://u:p@192.168.5.2:3128/x http://10.9.8.7:1' sh -c 'echo $http_proxy $HTTP_PROXY $https_proxy'
	ok 'env and proxies in a session; a loopback proxy is the gateway'
	guestsays '10.1.2.3 10.1.2.3 192.168.5.2' sh -c 'for n in one two gate; do getent ahostsv4 $n.test | { read -r a _; printf "%s " $a; }; done | sed "s/ $//"'
	ok 'hostResolver.hosts: addresses and aliases'
	if [ -e "$T/ca.pem" ]; then
		sh_ sh -c 'grep -c "" /usr/local/share/ca-certificates/lima-0000.crt; ls /etc/ssl/certs/ | grep lima-0000'
		outhas lima-0000
		ok 'caCerts are in the trust store'
	else
		skip 'caCerts' 'openssl is not installed'
	fi
	sh_ sh -c 'sudo sh -c "echo old >/etc/lima-keep"; sync'
	limit=60
	lc stop "$vm"
	status 0
	limit=120
	lc start "$vm"
	status 0
	guestsays old sudo cat /etc/lima-keep
	sh_ sh -c 'sudo grep -c boot /root/order'
	outis 2
	ok 'the next boot: scripts run again, what must not be overwritten is not'
	limit=60
	lc delete -f "$vm"
	status 0
	finish
}
