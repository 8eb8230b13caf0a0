# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# The two modes: what the gate of plain mode leaves, and what is shared.

# shares NAME QUERY: out of the object of an instance
shares() { "$LIMACTL" list --json "$1" 2>/dev/null | jq -c ".shares$2"; }

test_modes() {
	begin modes
	mk int '{images: [{location: /etc/profile}], disk: 1M, portForwards: [{guestPort: 80, hostPort: 8080}, {guestPortRange: [90, 99], static: true}],
		copyToHost: [{guest: /etc/os-release, host: /tmp/x}], ssh: {forwardAgent: true}}'
	same "$(shares int .mounts)" "[{\"location\":\"$HOME\",\"mountPoint\":\"$HOME\",\"writable\":false},{\"location\":\"/tmp/lima\",\"mountPoint\":\"/tmp/lima\",\"writable\":true}]"
	same "$(shares int .portForwards)" '[{"guest":"127.0.0.1:80","host":"127.0.0.1:8080","reverse":false},{"guest":"127.0.0.1:90-99","host":"127.0.0.1:90-99","reverse":false}]'
	same "$(shares int '|[.automaticPortForwards,.guestAgent,.sshAgent,.x11,.copyToHost]')" '[true,true,true,false,["/tmp/x"]]'
	run sh -c '"$0" info | jq -c .shares.int' "$LIMACTL"
	same "$(cat "$out")" "$(shares int '')"
	ok 'what an integrated instance shares is one object of list and info'
	mk plain '{images: [{location: /etc/profile}], disk: 1M, plain: true, portForwards: [{guestPort: 80, hostPort: 8080}, {guestPortRange: [90, 99], static: true}],
		mounts: [{location: /usr}, {location: /opt, mountPoint: /mnt/opt, static: true}], env: {A: b}, hostResolver: {hosts: {a: 1.2.3.4}}, ssh: {forwardAgent: true},
		provision: [{mode: yq, path: /x, expression: .a}, {mode: system, script: "#!/bin/sh"}]}'
	status 0
	logged warning 'Running in plain mode without the mount /usr, the forward of port 80, provision[0] (yq), env, hostResolver.hosts (`static: true` keeps a mount or a forward)'
	logged warning 'Running in plain mode. Ignoring ssh.forwardAgent'
	same "$(shares plain '')" '{"mounts":[{"location":"/opt","mountPoint":"/mnt/opt","writable":false}],"portForwards":[{"guest":"127.0.0.1:90-99","host":"127.0.0.1:90-99","reverse":false}],"automaticPortForwards":false,"guestAgent":false,"sshAgent":false,"x11":false,"copyToHost":[]}'
	ok 'plain mode keeps what is static, and one warning names the rest'
	mk bare '{images: [{location: /etc/profile}], disk: 1M, plain: true}'
	errlacks 'plain mode'
	same "$(shares bare '|[.mounts,.portForwards,.automaticPortForwards]')" '[[],[],false]'
	ok 'what was automatic goes without a word'
	mk none '{images: [{location: /etc/profile}], disk: 1M, mounts: []}'
	same "$(shares none '|[.mounts,.automaticPortForwards,.guestAgent]')" '[[],true,true]'
	mk null '{images: [{location: /etc/profile}], disk: 1M, mounts: null, portForwards: null}'
	same "$(shares null '|[.mounts,.automaticPortForwards]')" '[[],true]'
	mk silent '{images: [{location: /etc/profile}], disk: 1M, portForwards: []}'
	same "$(shares silent '|[(.mounts|length),.automaticPortForwards,.guestAgent]')" '[2,false,true]'
	ok 'mounts: [] or null is none, portForwards: [] ends the automatic ones and null does not'
	same "$(grep -cE '(c|conf|in->conf)(->|\.)plain\b' lima.c)" 4
	same "$(sed -n '/^plaingate(/,/^}/p' lima.c | grep -c 'c->plain')" 1
	ok 'one gate: beside it only the check of sudo and two messages ask for plain mode'
	q='.containerd | [.user, .system]'
	same "$("$LIMACTL" list --yq ".config$q" none plain | tr -d ' \n')" '[true,false][false,false]'
	printf 'arch: riscv64\nimages: [{location: /etc/profile}]\n' >"$HOME/rv.yaml"
	lc validate --fill "$HOME/rv.yaml"
	outhas 'user: false'
	lc validate --fill template:alpine
	outhas 'user: false'
	ok 'containerd is on for the user, but in plain mode, without systemd and where it has no archive'
	feed "{images: [{location: /etc/profile}], disk: 1M, containerd: {archives: [{location: https://127.0.0.1:1/x/a.tgz}]}}"
	lc create --name noarchive -
	status 0
	same "$(grep -c 'containerd\|a\.tgz' "$err")" 1
	logged info "containerd will be that of the guest's packages, without nerdctl: no archive can be had (https://127.0.0.1:1/x/a.tgz: cannot connect)"
	ok 'an archive that cannot be had is one line'
	lc delete int plain bare none null silent noarchive
	finish
}
